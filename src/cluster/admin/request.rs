//! What an operator's tool asks of a head or an agent, and what it is told.
//!
//! Each request has one reply, on one connection that was proved before (see the desk). The head answers
//! what the cluster knows; what lies in a node's files is asked of that node's agent.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::launch::contract::WORKER_VARIABLE;
use crate::cluster::launch::descendants::MARK_VARIABLE;
use crate::cluster::listing::{Counts, Kind, Page, Query};
use crate::cluster::model::{
    ActorInfo, ActorKey, Alert, ClassCount, JobId, JobInfo, NodeId, NodeInfo, PendingActor, TaskCount,
    TaskInfo, WorkerId, WorkerSummary,
};
use crate::cluster::protocol::is_secret;
use crate::cluster::security::enrol::ENROLMENT_VARIABLE;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AdminRequest {
    /// A part of a table. [`AdminReply::Nodes`], or the one of another table.
    List {
        /// The table.
        of: Kind,
        /// Which part.
        query: Query,
    },
    /// How many actors of each class are in which state. [`AdminReply::Classes`].
    Classes,
    /// How many tasks of each function are in which state. [`AdminReply::Functions`].
    Functions {
        /// Part of the function's name; all functions without it.
        part: Option<String>,
    },
    /// What has waited longest for a place, and why. [`AdminReply::PendingActors`].
    PendingActors,
    /// The alerts. [`AdminReply::Alerts`].
    Alerts,
    /// An actor is to end. [`AdminReply::Done`].
    Kill {
        /// Which.
        actor: ActorKey,
    },
    /// An actor is to end with its worker, whether or not it handles messages. [`AdminReply::Done`].
    KillWorkerOf {
        /// Which actor.
        actor: ActorKey,
    },
    /// A node is to get no new work, and to end when its jobs have. [`AdminReply::Done`].
    Drain {
        /// Which.
        node: NodeId,
    },
    /// A job is to end. [`AdminReply::Done`].
    StopJob {
        /// Which.
        job: JobId,
    },
    /// A job is to be run by the agent of the head's node, which has its executable by now.
    /// [`AdminReply::Submitted`]; that agent is then to begin it, or it fails after
    /// [`SUBMITTED_LEASE`](crate::config::SUBMITTED_LEASE).
    Submit(Submission),
    /// To an agent: how much of an executable it has. [`AdminReply::ExecutableStatus`].
    ExecutableStatus {
        /// Its BLAKE3 digest.
        digest: [u8; 32],
        /// Its length in bytes.
        size: u64,
    },
    /// To an agent: the next bytes of an executable, of at most a mebibyte. [`AdminReply::ExecutableStatus`].
    UploadExecutable {
        /// Its BLAKE3 digest.
        digest: [u8; 32],
        /// Its length in bytes.
        size: u64,
        /// Where these bytes belong.
        offset: u64,
        /// The bytes.
        #[serde(with = "serde_bytes_vec")]
        bytes: Vec<u8>,
    },
    /// To an agent: the job's driver is to be started. [`AdminReply::Done`].
    StartDriver {
        /// Which.
        job: JobId,
        /// What is to be run.
        submission: Submission,
    },
    /// To an agent: the names of its logs, in their order. [`AdminReply::LogFiles`].
    LogFiles {
        /// Those behind this name; the first ones without it.
        after: Option<String>,
    },
    /// To an agent: a part of a log. [`AdminReply::Log`].
    Log {
        /// Its name, as [`AdminRequest::LogFiles`] gives it.
        file: String,
        /// From where on.
        from: LogFrom,
    },
}

/// From where on a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrom {
    /// The last so many lines.
    Tail(u64),
    /// What is behind the bytes that were had.
    Offset(u64),
}

/// A program to be run as a job's driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// What the program is called.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What its environment has beside what the agent gives it.
    pub env: Vec<(OsString, OsString)>,
    /// The executable's BLAKE3 digest.
    pub digest: [u8; 32],
    /// Its length in bytes.
    pub size: u64,
    /// What it is built for, such as `x86_64-linux-gnu`.
    pub platform: String,
}

impl Submission {
    /// Whether a driver has this variable from its node, whatever [`Submission::env`] says.
    #[must_use]
    pub fn owns_variable(name: &OsStr) -> bool {
        let owned = [MARK_VARIABLE, WORKER_VARIABLE, ENROLMENT_VARIABLE, "ROADSHOW_ADDRESS", "ROADSHOW_JOB"];
        name.to_str().is_some_and(|name| is_secret(name) || owned.contains(&name))
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AdminReply {
    /// Nodes.
    Nodes(Page<NodeInfo>),
    /// Jobs.
    Jobs(Page<JobInfo>),
    /// Actors; dead ones only as far as they are remembered.
    Actors(Page<ActorInfo>),
    /// Workers.
    Workers(Page<WorkerSummary>),
    /// Tasks, by function and worker.
    Tasks(Page<TaskInfo>),
    /// Actors by class.
    Classes(Counts<ClassCount>),
    /// Tasks by function.
    Functions(Counts<TaskCount>),
    /// What waits, and why.
    PendingActors {
        /// At most [`WAITING_TOLD_MAX`](crate::config::WAITING_TOLD_MAX) that have waited longest.
        first: Vec<PendingActor>,
        /// How many wait, with these.
        count: usize,
    },
    /// What an operator should see to.
    Alerts(Vec<Alert>),
    /// It is done, or begun.
    Done,
    /// The job, and the agent that will run its driver.
    Submitted {
        /// The job.
        job: JobId,
        /// The node.
        node: NodeId,
        /// Where its agent is reached.
        address: SocketAddr,
    },
    /// How much of the executable is there, from its start.
    ExecutableStatus {
        /// In bytes.
        have: u64,
    },
    /// Names of the node's logs, and of what each is.
    LogFiles {
        /// At most [`LOGS_LISTED_MAX`](crate::config::LOGS_LISTED_MAX).
        files: Vec<LogFile>,
        /// Whether others are behind these.
        more: bool,
    },
    /// A part of a log.
    Log {
        /// The part: whole lines but for the last.
        text: String,
        /// Where it ends.
        offset: u64,
    },
    /// It cannot be done.
    Failed {
        /// Why, and what to do next.
        text: String,
        /// Whether there is no such thing.
        unknown: bool,
    },
}

/// A log of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Its name.
    pub file: String,
    /// The worker that writes it, if one does.
    pub worker: Option<WorkerId>,
    /// The job that it belongs to, if it does.
    pub job: Option<JobId>,
    /// In bytes.
    pub size: u64,
}

/// Bytes as MessagePack's binary type, and not as a list of numbers.
mod serde_bytes_vec {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}
