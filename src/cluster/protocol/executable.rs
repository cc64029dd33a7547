//! Transfer of executables from drivers to agents, and among agents.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::executable::Digest;
use crate::cluster::protocol::JobSpec;
use crate::id::{HostUid, TypeHash};
use crate::wire::Payload;

/// Service of agents that receives executables from drivers.
pub(in crate::cluster) const EXECUTABLE: TypeHash = TypeHash::of("roadshow::Executable");

/// Service of agents that serves pieces of executables to other agents.
pub(in crate::cluster) const FETCH: TypeHash = TypeHash::of("roadshow::Fetch");

/// Request of a driver to an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum ExecutableRequest {
    /// Asks for the number of bytes present.
    Stat { digest: Digest, size: u64, platform: String },
    /// Appends bytes at an offset.
    Write { digest: Digest, size: u64, offset: u64, bytes: Payload },
    /// Makes the agent fetch the next pieces from another agent, for a limited time. `Stat` reports the
    /// progress.
    Fetch(FetchCommand),
    /// Completes the transfer, with the specification from which the agent starts workers.
    Launch(JobSpec),
}

/// Executable that an agent shall fetch, and the agent that has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct FetchCommand {
    pub(in crate::cluster) digest: Digest,
    pub(in crate::cluster) size: u64,
    pub(in crate::cluster) from: HostUid,
    pub(in crate::cluster) at: SocketAddr,
}

/// Request for the next piece of an executable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct FetchRequest {
    pub(in crate::cluster) digest: Digest,
    pub(in crate::cluster) offset: u64,
}

/// Reply to a [`FetchRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum FetchReply {
    /// Bytes from the offset on, at most one piece.
    Piece {
        bytes: Payload,
    },
    /// All transfer slots are in use by other nodes.
    Busy,
    Failed {
        text: String,
    },
}

/// Reply to an [`ExecutableRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum ExecutableReply {
    /// Number of bytes present.
    Stat(u64),
    Done,
    /// The complete executable has another digest, and was deleted.
    Wrong {
        text: String,
    },
    /// The source agent, or this one, has no free transfer slot. The bytes present stay.
    Busy,
    /// The source agent could not be read from. The bytes present stay.
    NotFetched {
        text: String,
    },
    Failed {
        text: String,
    },
}
