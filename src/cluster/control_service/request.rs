//! Requests of cluster members to the control plane, and their replies.

use serde::{Deserialize, Serialize};

use crate::cluster::control_plane::state::{ControlError, ControlReply};
use crate::cluster::listing::Query;
use crate::cluster::model::{ActorKey, ActorSpec, JobId, NodeId};
use crate::id::{ActorIncarnation, HostUid, TypeHash};
use crate::spec::{Copies, HolderRequest, Recipe};

/// Service of the control plane on its host.
pub(in crate::cluster) const CONTROL: TypeHash = TypeHash::of("roadshow::Control");

/// Request of a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum ControlRequest {
    /// Requests a worker for an actor. `number` is unique within the requesting host.
    Place { job: JobId, spec: ActorSpec, recipe: Option<Recipe>, number: u64 },
    /// Cancels the placement request of that number.
    Cancel { number: u64 },
    /// Looks up an alive actor by name.
    Find { job: JobId, namespace: Option<String>, name: String },
    /// Locates a managed actor, in an incarnation after `gone`.
    Locate { actor: ActorKey, gone: Option<ActorIncarnation> },
    /// Checks whether there are nodes for the copies of a state.
    CheckHolders { copies: Copies },
    /// Requests the next configuration of the state of a durable actor.
    ProposeHolders(HolderRequest),
    /// Makes a proposed configuration the active one.
    ActivateHolders { actor: ActorKey, incarnation: ActorIncarnation, number: u64 },
    /// Ends an actor.
    Kill { actor: ActorKey },
    /// Requests a page of the node list.
    Nodes(Query),
    /// Requests a page of the actor list.
    Actors(Query),
    /// Returns the assignment of an actor that was not created.
    SpawnFailed { actor: ActorKey, why: String },
    /// Reports that nothing waits any more for an actor that its worker may have created.
    SpawnGivenUp { actor: ActorKey },
    /// Requests the exit cause of the worker that owned a host.
    HostStatus { host: HostUid },
    /// Requests the end of a node, once it has ended.
    WatchNode { node: NodeId },
    /// Requests the end of a job, once it has ended.
    WatchJob { job: JobId },
    /// Waits for the final end of a managed actor.
    WatchActor { actor: ActorKey },
}

/// Reply to a request.
pub(in crate::cluster) type ControlResult = Result<ControlReply, ControlError>;
