//! Control protocol between a worker and its parent, a driver or an agent, over a socket pair.
//!
//! ```text
//!   parent                                worker
//!     | --- WorkerInit ------------------> |     first byte may carry the fd of the worker's output
//!     | <-- WorkerMessage::Diverted ------------- |
//!     | <-- WorkerMessage::Ready or Failed ------ |
//!     | --- HANDOFF + host id, with an fd  |     any number, in any order:
//!     | --- RENEW + Credentials ---------> |
//!     | --- LEASE + LeaseGrant ----------> |     while the worker may have exclusive actors
//!     | <-- WorkerMessage::ActorEvents, Tasks, .. |
//!     | --- STOP, or end of the stream --> |     the end of the stream is the end of the parent
//! ```
//!
//! Messages are MessagePack with a length prefix of four bytes, big endian. No other process holds an end of
//! the pair, so its closing proves the end of the other side.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::model::{ActorKey, ActorLocation, JobId, TaskCount, WorkerSpans, WorkerStatistics};
use crate::config::Limits;
use crate::id::{ActorIncarnation, HostUid};
use crate::spec::End;
use crate::transport::Credentials;
use crate::wire::{self, Encoded};

/// Byte that requests a graceful stop.
pub(crate) const STOP: u8 = b's';

/// Byte that passes a connection as a file descriptor; the host id follows in eight bytes.
pub(crate) const HANDOFF: u8 = b'c';

/// Maximum length of a message, in bytes: enough for the text of an error with paths.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Byte before new credentials, which follow as a message.
pub(crate) const RENEW: u8 = b'k';

/// Byte before a grant or a renewal of the node's lease, which follows as a message.
pub(crate) const LEASE: u8 = b'l';

/// Initial configuration of a worker.
#[derive(Serialize, Deserialize)]
pub(crate) struct WorkerInit {
    pub(crate) secret: [u8; 32],
    pub(crate) limits: Limits,
    /// Stack size of each thread that runs handlers or tasks, in bytes.
    pub(crate) stack_bytes: usize,
    /// Identity of the host that runs actors.
    pub(crate) actors: HostUid,
    /// Identity of the host that runs tasks.
    pub(crate) tasks: HostUid,
    /// Context in a cluster of nodes; `None` in a local cluster, whose workers listen themselves.
    pub(crate) node: Option<NodeContext>,
}

/// Additional configuration of a worker on a node.
#[derive(Serialize, Deserialize)]
pub(crate) struct NodeContext {
    pub(crate) credentials: Credentials,
    /// Address of the node; connections to it are handed to the worker that they name.
    pub(crate) address: SocketAddr,
    pub(crate) head: HeadInfo,
}

/// Identity and address of the head.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct HeadInfo {
    pub(crate) head: HostUid,
    /// Address to dial; `None` where the head dials, as the driver of a local cluster does.
    pub(crate) at: Option<SocketAddr>,
    /// Job of the recipient.
    pub(crate) job: JobId,
    /// Set if the head tracks every actor, and not only those with constraints.
    pub(crate) tracks_all_actors: bool,
}

/// Maximum number of actor events, or task counts, in one message. With names of some hundred bytes they fit.
pub(crate) const EVENTS_PER_REPORT_MAX: usize = 64;

/// Message of a worker to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WorkerMessage {
    /// The process runs as a worker, and no longer in the program's `main`.
    Diverted,
    /// Both hosts listen.
    Ready { actors_at: SocketAddr, tasks_at: SocketAddr },
    /// The worker cannot start, or ends because of an error.
    Failed { why: String },
    /// Tracked actors were created or ended, in this order.
    ActorEvents(Vec<ActorEvent>),
    /// Task counts so far, by function.
    Tasks(Vec<TaskCount>),
    /// Statistics that have changed since the last report, or a part of them.
    Statistics(WorkerStatistics),
    /// Type name of untracked actors in the worker.
    Class(String),
    /// Spans since the last report, or a part of them.
    Spans(WorkerSpans),
}

/// Lifecycle event of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ActorEvent {
    Started {
        actor: ActorKey,
        class: String,
        at: ActorLocation,
    },
    Stopped {
        actor: ActorKey,
        incarnation: ActorIncarnation,
        end: End,
        /// Number of messages that the actor has handled.
        handled: u64,
    },
}

/// Maximum length of the text that explains an actor's end, in bytes.
pub(crate) const CAUSE_BYTES_MAX: usize = 200;

/// Encodes a message with its length prefix.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    wire::encode(message, MESSAGE_BYTES_MAX, |body| {
        // Cannot truncate: the body is limited to `MESSAGE_BYTES_MAX`.
        let mut bytes = (body.message.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(body.message);
        bytes
    })
    .map_err(io::Error::other)
}

/// Writes a message.
pub(crate) fn write(mut stream: impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads a message.
pub(crate) fn read<T: DeserializeOwned>(mut stream: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    // Validated before the buffer is allocated: a wrong length must not cost memory.
    let mut body = vec![0; validate_length(length)?];
    stream.read_exact(&mut body)?;
    decode(&body)
}

/// Validates a length prefix.
pub(crate) fn validate_length(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    Ok(length)
}

/// Decodes the body of a message.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    wire::decode(Encoded::of(body)).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
