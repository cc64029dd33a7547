//! What a worker and its parent (a driver or an agent) tell each other over the socket pair between them.
//!
//! Parent to worker: one [`WorkerInit`], later connections ([`HANDOFF`]), new credentials ([`RENEW`]) and [`STOP`],
//! or the end of the stream, which is the parent's end. Worker to parent: [`Report`]s, first that it was diverted,
//! then whether it is ready. The first byte may bring a file descriptor, the worker's standard output from then on.
//! Bootstrap and reports are their length in four bytes, big endian, and MessagePack. Nobody
//! else holds an end of the pair.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::model::{ActorKey, ActorLocation, JobId, TaskCount};
use crate::config::Limits;
use crate::id::HostUid;
use crate::transport::Credentials;
use crate::wire::{self, Encoded};

/// The byte that asks a worker to end in order.
pub(crate) const STOP: u8 = b's';

/// The byte that comes with a connection: the id of the host that it is for follows, in eight bytes.
pub(crate) const HANDOFF: u8 = b'c';

/// The longest message, in bytes: an error's text and its path fit well.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The byte before new credentials, which come as a message.
pub(crate) const RENEW: u8 = b'k';

/// What a worker is to be.
#[derive(Serialize, Deserialize)]
pub(crate) struct WorkerInit {
    pub(crate) secret: [u8; 32],
    pub(crate) limits: Limits,
    /// The stack of each thread that runs handlers or tasks.
    pub(crate) stack_bytes: usize,
    /// The host of its actors.
    pub(crate) actors: HostUid,
    /// The host of its tasks.
    pub(crate) tasks: HostUid,
    /// Where it stands in a cluster of nodes; none in a local one, where it listens for itself.
    pub(crate) node: Option<NodeContext>,
}

/// What a worker of a node has beside what any worker has.
#[derive(Serialize, Deserialize)]
pub(crate) struct NodeContext {
    pub(crate) credentials: Credentials,
    /// Where the node is reached; what arrives there for the worker is passed to it.
    pub(crate) address: SocketAddr,
    pub(crate) head: HeadInfo,
}

/// Where a cluster's head is, and what it does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct HeadInfo {
    pub(crate) head: HostUid,
    /// Where to dial it; none where it dials, as the driver of a local cluster does.
    pub(crate) at: Option<SocketAddr>,
    /// The job that this is for.
    pub(crate) job: JobId,
    /// Whether it keeps account of every actor, and not only of those with wishes.
    pub(crate) tracks_all_actors: bool,
}

/// The most reports of lives, or counts of tasks, in one message: with names of hundreds of bytes they fit.
pub(crate) const EVENTS_PER_REPORT_MAX: usize = 64;

/// What a worker has to say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process is a worker: none of the program's `main` runs any more.
    Diverted,
    /// Both hosts listen.
    Ready { actors_at: SocketAddr, tasks_at: SocketAddr },
    /// It cannot start, or ends for a reason of its own.
    Failed { why: String },
    /// Actors that the cluster keeps account of have come to life or ended, in that order.
    ActorEvents(Vec<ActorEvent>),
    /// How many tasks it has had by now, by function.
    Tasks(Vec<TaskCount>),
    /// Actors of a type live in it that the cluster keeps no account of.
    Class(String),
}

/// What has become of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ActorEvent {
    Started { actor: ActorKey, class: String, at: ActorLocation },
    Stopped { actor: ActorKey, cause: String },
}

/// The longest text of how an actor ended that is told, in bytes.
pub(crate) const CAUSE_BYTES_MAX: usize = 200;

/// Encodes a message with its length.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    wire::encode(message, MESSAGE_BYTES_MAX, |body| {
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
    let mut body = vec![0; validate_length(length)?];
    stream.read_exact(&mut body)?;
    decode(&body)
}

/// The length that a message announces, if it may have it.
pub(crate) fn validate_length(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    Ok(length)
}

/// Decodes a message's body.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    wire::decode(Encoded { message: body, attachments: &[] })
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
