//! Updates of a job's workers and head, sent to its processes.

use serde::{Deserialize, Serialize};

use crate::cluster::model::WorkerAddress;
use crate::cluster::protocol::worker::HeadInfo;
use crate::id::{HostUid, TypeHash};
use crate::spec::{ActorLocation, End};

/// Service of workers that receives updates from the driver.
pub(in crate::cluster) const MEMBERSHIP: TypeHash = TypeHash::of("roadshow::Membership");

/// Change of the membership.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum MembershipUpdate {
    /// Complete set of workers, and the head.
    Snapshot { members: Vec<WorkerAddress>, head: HeadInfo },
    /// A worker joined.
    Joined(WorkerAddress),
    /// A worker ended.
    Left { member: WorkerAddress, end: End },
    /// The nodes of these workers became unreachable, or are reachable again. Each is named by its host for tasks.
    Reachability { workers: Vec<HostUid>, is_reachable: bool },
    /// A managed actor is alive at another location, in this worker.
    Moved { at: ActorLocation, member: WorkerAddress },
    /// The head changed.
    Head(HeadInfo),
    /// Several updates in order.
    Several(Vec<Self>),
}
