//! Admin requests to a head or an agent, and their replies.
//!
//! Each request has one reply, on a connection that the token RPC has authenticated. The head answers from the
//! cluster state; the agent of a node answers from the files of that node.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::launch::contract::WORKER_VARIABLE;
use crate::cluster::launch::descendants::MARK_VARIABLE;
use crate::cluster::listing::{GroupCounts, Kind, Page, Query};
use crate::cluster::model::{
    ActorInfo, ActorKey, Alert, ClassCount, EventInfo, JobId, JobInfo, JobSpans, MessageInfo, NodeId,
    NodeInfo, PendingActor, RestartCounts, TaskCount, TaskInfo, WorkerId, WorkerSummary,
};
use crate::cluster::protocol::is_secret;
use crate::cluster::security::enrol::ENROLMENT_VARIABLE;

/// Request of an operator's tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AdminRequest {
    /// Lists one page of a table. [`AdminReply::Nodes`], or the variant of another table.
    List {
        /// Table to list.
        of: Kind,
        /// Filters, and the position of the page.
        query: Query,
    },
    /// Counts the actors of each class by state. [`AdminReply::Classes`].
    Classes,
    /// Counts the tasks of each function by state. [`AdminReply::Functions`].
    Functions {
        /// Substring of the function's name; `None` selects all functions.
        part: Option<String>,
    },
    /// Lists the longest-waiting actors and tasks with the reason. [`AdminReply::PendingActors`].
    PendingActors,
    /// Counts the restarts of actors. [`AdminReply::Restarts`].
    Restarts,
    /// Asks for the version of the head's state. [`AdminReply::Snapshot`].
    Snapshot,
    /// Lists the alerts that an operator should handle. [`AdminReply::Alerts`].
    Alerts,
    /// Asks for the spans of a job's timeline. [`AdminReply::Spans`].
    Spans {
        /// Job of the spans.
        job: JobId,
    },
    /// Stops an actor after the message that it handles now. [`AdminReply::Done`].
    Kill {
        /// Actor to stop.
        actor: ActorKey,
    },
    /// Stops an actor together with its worker, even if the actor is blocked. [`AdminReply::Done`].
    KillWorkerOf {
        /// Actor whose worker is stopped.
        actor: ActorKey,
    },
    /// Drains a node: it accepts no new work, and stops when its jobs have ended. [`AdminReply::Done`].
    Drain {
        /// Node to drain.
        node: NodeId,
    },
    /// Stops a job. [`AdminReply::Done`].
    StopJob {
        /// Job to stop.
        job: JobId,
    },
    /// Makes a link that logs one browser in to the head's dashboard. [`AdminReply::DashboardLink`].
    DashboardLink,
    /// Submits a job to the head, for the agent of the head's node, which must have the executable already.
    /// [`AdminReply::Submitted`]. The job fails unless [`AdminRequest::StartDriver`] reaches that agent within
    /// [`SUBMITTED_LEASE`](crate::config::SUBMITTED_LEASE).
    Submit(Submission),
    /// To an agent: asks for the bytes of an executable that it has. [`AdminReply::ExecutableStatus`].
    ExecutableStatus {
        /// BLAKE3 digest of the executable.
        digest: [u8; 32],
        /// Length of the executable in bytes.
        size: u64,
    },
    /// To an agent: appends at most 1 MiB to an executable. [`AdminReply::ExecutableStatus`].
    UploadExecutable {
        /// BLAKE3 digest of the executable.
        digest: [u8; 32],
        /// Length of the executable in bytes.
        size: u64,
        /// Position of these bytes in the executable.
        offset: u64,
        /// Next bytes of the executable.
        #[serde(with = "serde_bytes_vec")]
        bytes: Vec<u8>,
    },
    /// To an agent: starts the driver of a job. [`AdminReply::Done`].
    StartDriver {
        /// Job of the driver.
        job: JobId,
        /// Program to run.
        submission: Submission,
    },
    /// To an agent: lists the names of its logs in sorted order. [`AdminReply::LogFiles`].
    LogFiles {
        /// Last name of the previous page; `None` requests the first page.
        after: Option<String>,
    },
    /// To an agent: reads a part of a log. [`AdminReply::Log`].
    Log {
        /// Name of the log, as [`AdminRequest::LogFiles`] lists it.
        file: String,
        /// Start of the part.
        from: LogFrom,
    },
}

/// Start of a part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrom {
    /// The last N lines.
    Tail(u64),
    /// A byte offset: the end of the part that was read before.
    Offset(u64),
}

/// Program to run as a job's driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Name of the program.
    pub program: OsString,
    /// Arguments of the program.
    pub args: Vec<OsString>,
    /// Variables of its environment, in addition to those that the agent sets.
    pub env: Vec<(OsString, OsString)>,
    /// BLAKE3 digest of the executable.
    pub digest: [u8; 32],
    /// Length of the executable in bytes.
    pub size: u64,
    /// Platform that it is built for, such as `x86_64-linux-gnu`.
    pub platform: String,
}

impl Submission {
    /// Returns true for a variable that the node sets itself, whatever [`Submission::env`] says.
    #[must_use]
    pub fn owns_variable(name: &OsStr) -> bool {
        // The variables identify the driver to the cluster, so the user's environment must not replace them.
        let owned = [MARK_VARIABLE, WORKER_VARIABLE, ENROLMENT_VARIABLE, "ROADSHOW_ADDRESS", "ROADSHOW_JOB"];
        name.to_str().is_some_and(|name| is_secret(name) || owned.contains(&name))
    }
}

/// Reply to an [`AdminRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AdminReply {
    /// Page of nodes.
    Nodes(Page<NodeInfo>),
    /// Page of jobs.
    Jobs(Page<JobInfo>),
    /// Page of actors. Dead actors appear as long as the head retains them.
    Actors(Page<ActorInfo>),
    /// Page of workers.
    Workers(Page<WorkerSummary>),
    /// Page of tasks, by function and worker.
    Tasks(Page<TaskInfo>),
    /// Page of messages, by class, message type and worker.
    Messages(Page<MessageInfo>),
    /// Page of events.
    Events(Page<EventInfo>),
    /// Version of the head's state.
    Snapshot {
        /// Number that grows whenever rows may have changed, but for statistics: usage, counts of messages and
        /// tasks, and times.
        version: u64,
        /// Time by the head's clock, in milliseconds since 1970.
        time_ms: u64,
    },
    /// Counts of actors by class.
    Classes(GroupCounts<ClassCount>),
    /// Counts of tasks by function.
    Functions(GroupCounts<TaskCount>),
    /// Pending actors and tasks, with the reason.
    PendingActors {
        /// Longest-waiting entries, at most [`WAITING_REPORTED_MAX`](crate::config::WAITING_REPORTED_MAX).
        first: Vec<PendingActor>,
        /// Total number of entries, including `first`.
        count: usize,
    },
    /// Number of restarts of actors.
    Restarts(RestartCounts),
    /// Alerts that an operator should handle.
    Alerts(Vec<Alert>),
    /// Spans of a job, at most [`TIMELINE_SPANS_MAX`](crate::config::TIMELINE_SPANS_MAX).
    Spans(JobSpans),
    /// The request is done, or its execution has begun.
    Done,
    /// The accepted job, and the agent that runs its driver.
    Submitted {
        /// Id of the job.
        job: JobId,
        /// Node that runs the driver.
        node: NodeId,
        /// Address of that node's agent.
        address: SocketAddr,
    },
    /// Link that logs one browser in to the dashboard.
    DashboardLink {
        /// URL of the dashboard with a ticket, which is valid once.
        link: String,
    },
    /// Part of the executable that the agent has, from its start.
    ExecutableStatus {
        /// Length of that part in bytes.
        have: u64,
    },
    /// Logs of the node.
    LogFiles {
        /// Page of at most [`LOGS_LISTED_MAX`](crate::config::LOGS_LISTED_MAX) logs.
        files: Vec<LogFile>,
        /// True if another page follows.
        more: bool,
    },
    /// Part of a log.
    Log {
        /// Text of the part: whole lines, except that the last may be incomplete.
        text: String,
        /// Byte offset in the log of the end of the part.
        offset: u64,
    },
    /// The request failed.
    Failed {
        /// Reason, and the next step.
        text: String,
        /// True if the named object does not exist.
        unknown: bool,
    },
}

/// Log file of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Name of the file.
    pub file: String,
    /// Worker that writes it, unless a daemon or a driver does.
    pub worker: Option<WorkerId>,
    /// Job that it belongs to, if any.
    pub job: Option<JobId>,
    /// Size in bytes.
    pub size: u64,
}

/// Encodes bytes as MessagePack's binary type instead of a list of numbers.
// Serde derives an array of integers for `Vec<u8>`, which costs two bytes for every value above 127.
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
