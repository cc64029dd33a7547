//! Copies of the states of durable actors: which holders have them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ActorKey, HolderId, JobId};
use crate::id::{ActorIncarnation, HostUid};

/// State of an actor. Its job is a part of the name, so that a worker reaches the states of its own job alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateKey {
    /// Job of the actor.
    pub job: JobId,
    /// The actor, over its incarnations.
    pub actor: ActorKey,
}

/// Holder, and the host that reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HolderAddress {
    /// Its id.
    pub holder: HolderId,
    /// Host that serves its requests.
    pub host: HostUid,
    /// Address of that host.
    pub at: SocketAddr,
}

/// Request of an incarnation for the next configuration of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderRequest {
    /// The actor.
    pub actor: ActorKey,
    /// The incarnation that asks.
    pub incarnation: ActorIncarnation,
    /// Copies that it wants.
    pub copies: Copies,
    /// Holders that do not answer the incarnation.
    pub suspects: Vec<HolderId>,
    /// Keep the present configuration, unless the next one has more copies.
    pub only_if_better: bool,
}

/// Configuration that the control plane proposes for an actor's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderPlan {
    /// Name of the state at its holders.
    pub key: StateKey,
    /// Number of the configuration, which each request to its holders has.
    pub number: u64,
    /// Reachable holders of the last active configuration, any of which has all that was acknowledged.
    pub sources: Vec<HolderAddress>,
    /// True if the actor has never had an active configuration.
    pub is_first: bool,
    /// Holders of the new configuration.
    pub holders: Vec<HolderAddress>,
    /// True if there are as many holders as the actor wants.
    pub is_complete: bool,
}

/// Number of copies of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Copies that the actor wants, each on a node of its own.
    pub wanted: u8,
    /// True if the actor serves nothing with fewer.
    pub is_required: bool,
}
