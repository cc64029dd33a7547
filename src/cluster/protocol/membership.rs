//! Changes of a job's workers and of its head, told to its processes.

use serde::{Deserialize, Serialize};

use crate::cluster::model::WorkerAddress;
use crate::cluster::protocol::worker::HeadInfo;
use crate::id::TypeHash;

/// The service by which a driver tells its workers about each other.
pub(in crate::cluster) const MEMBERSHIP: TypeHash = TypeHash::of("roadshow::Membership");

/// What has changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum MembershipUpdate {
    /// These are the workers, and this is where the cluster's head is.
    Snapshot { members: Vec<WorkerAddress>, head: HeadInfo },
    /// This one has come.
    Joined(WorkerAddress),
    /// This one has ended.
    Left { member: WorkerAddress, cause: String },
    /// The head is another one.
    Head(HeadInfo),
    /// These, one after the other.
    Several(Vec<Self>),
}
