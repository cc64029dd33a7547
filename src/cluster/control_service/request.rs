//! Requests to the control plane, and its replies.

use serde::{Deserialize, Serialize};

use crate::cluster::control_plane::state::{Answer, ControlError};
use crate::cluster::listing::Query;
use crate::cluster::model::{ActorKey, ActorSpec, JobId};
use crate::id::{HostUid, TypeHash};

/// The service by which members of a cluster ask its control plane.
pub(in crate::cluster) const CONTROL: TypeHash = TypeHash::of("roadshow::Control");

/// What they may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum ControlRequest {
    /// A place for an actor. The number is the asking host's own.
    Place { job: JobId, spec: ActorSpec, number: u64 },
    /// Nobody waits for the place that was asked for under this number.
    Cancel { number: u64 },
    /// A living actor by its name.
    Find { job: JobId, namespace: Option<String>, name: String },
    /// An actor is to end.
    Kill { actor: ActorKey },
    /// A part of the list of nodes.
    Nodes(Query),
    /// A part of the list of actors.
    Actors(Query),
    /// An actor that had a place has not come to life.
    SpawnFailed { actor: ActorKey, why: String },
    /// How the worker has ended that had a host, if it has.
    HostStatus { host: HostUid },
}

/// What a member is answered.
pub(in crate::cluster) type Reply = Result<Answer, ControlError>;
