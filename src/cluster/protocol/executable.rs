//! Executables: sent by drivers to agents, and fetched by agents from each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::executable::Digest;
use crate::cluster::protocol::JobSpec;
use crate::id::{HostUid, TypeHash};
use crate::wire::Payload;

/// What drivers send to agents: their executables.
pub(in crate::cluster) const EXECUTABLE: TypeHash = TypeHash::of("roadshow::Executable");

/// Requests of agents to agents: pieces of executables.
pub(in crate::cluster) const FETCH: TypeHash = TypeHash::of("roadshow::Fetch");

/// From a driver to an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum ExecutableRequest {
    /// How much of an executable is there?
    Stat { digest: Digest, size: u64, platform: String },
    /// These bytes of it come next.
    Write { digest: Digest, size: u64, offset: u64, bytes: Payload },
    /// The next pieces of it are to be fetched from another agent, for a while. `Stat` says how far that has got.
    Fetch(FetchCommand),
    /// It is all there, and this is how workers are started from it.
    Launch(JobSpec),
}

/// An executable that an agent is to fetch, and the agent that has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct FetchCommand {
    pub(in crate::cluster) digest: Digest,
    pub(in crate::cluster) size: u64,
    pub(in crate::cluster) from: HostUid,
    pub(in crate::cluster) at: SocketAddr,
}

/// From an agent to another, for the next piece of an executable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct FetchRequest {
    pub(in crate::cluster) digest: Digest,
    pub(in crate::cluster) offset: u64,
}

/// Reply to a [`FetchRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum FetchReply {
    /// The bytes from the offset on, a piece at most.
    Piece {
        bytes: Payload,
    },
    /// Other nodes have all places.
    Busy,
    Failed {
        text: String,
    },
}

/// What an agent says to that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum ExecutableReply {
    /// So many bytes of it are there.
    Stat(u64),
    Done,
    /// All of it came and has another digest. Nothing of it is kept.
    Wrong {
        text: String,
    },
    /// The agent that it was to be fetched from serves others, or this one fetches as much as it can. What has
    /// come before stays.
    Busy,
    /// It did not come from there. What has come before stays.
    NotFetched {
        text: String,
    },
    Failed {
        text: String,
    },
}
