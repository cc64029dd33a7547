//! Statistics of nodes, workers, actors and messages, as processes report them.
//!
//! All counters grow from the start of what they count. A client derives a rate from two samples, and from the
//! difference of their `sampled_ms`.

use serde::{Deserialize, Serialize};

use super::{ActorKey, JobId, NodeId, WorkerId};

/// Resource usage of a machine, as its agent measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Load average over one minute: processes that run or wait for a CPU.
    pub load: f64,
    /// Memory of the machine in use, in bytes.
    pub memory_bytes: u64,
    /// Resident memory of the node's workers, in bytes; part of `memory_bytes`.
    pub workers_memory_bytes: u64,
    /// Number of CPUs of the machine.
    pub cpus: u32,
    /// Busy time of all CPUs since the start of the machine, in seconds.
    pub cpu_seconds: f64,
    /// Memory of the machine, in bytes.
    pub memory_total_bytes: u64,
    /// Used part of the file system with the session directory, in bytes.
    pub disk_used_bytes: u64,
    /// Size of the file system with the session directory, in bytes.
    pub disk_total_bytes: u64,
    /// Bytes that the machine has sent on all interfaces but loopback.
    pub sent_bytes: u64,
    /// Bytes that the machine has received on all interfaces but loopback.
    pub received_bytes: u64,
    /// Time of the measurement by the clock of the machine, in milliseconds since 1970.
    pub sampled_ms: u64,
}

/// Resource usage of a worker, as it measures it itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerUsage {
    /// CPU time of the process, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory of the process, in bytes.
    pub memory_bytes: u64,
    /// Bytes written to the links of the worker's hosts.
    pub sent_bytes: u64,
    /// Bytes read from the links of the worker's hosts.
    pub received_bytes: u64,
    /// Calls and one-way messages sent over links.
    pub messages_sent: u64,
    /// Calls and one-way messages received over links. Tasks and spawns are calls, too.
    pub messages_received: u64,
    /// Messages that the worker's actors have handled.
    pub handled: u64,
    /// Messages that wait in the mailboxes of the worker's actors now, or are being handled.
    pub mailbox: u64,
    /// Time of the measurement by the clock of the machine, in milliseconds since 1970.
    pub sampled_ms: u64,
}

/// Messages of one type that the actors of one class have handled in a worker.
///
/// Beyond [`HANDLER_STATS_MAX`](crate::config::HANDLER_STATS_MAX) pairs of class and message, both names are
/// `other`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MessageCount {
    /// Type name of the actors.
    pub class: String,
    /// Type name of the messages.
    pub message: String,
    /// Number of messages handled.
    pub handled: u64,
    /// Median of the handler's time, in microseconds; `None` before the first sample.
    ///
    /// A part of the messages is timed, the later ones with more weight. The value is at most 25 % above that of
    /// the timed messages. It does not cover a future that the handler returns.
    pub p50_us: Option<u64>,
    /// 99th percentile of the handler's time, in microseconds; `None` before the first sample.
    pub p99_us: Option<u64>,
}

/// Row of the message list: the messages of one type at one class, in one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MessageInfo {
    /// Job of the worker.
    pub job_id: JobId,
    /// Worker of the actors.
    pub worker_id: WorkerId,
    /// Node of the worker.
    pub node_id: NodeId,
    /// Counts and times.
    #[serde(flatten)]
    pub count: MessageCount,
}

/// Counts of an actor's messages. Encoded without the names of the fields, which would double its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(ActorKey, u64, u32)", into = "(ActorKey, u64, u32)")]
pub struct ActorCount {
    pub(in crate::cluster) actor: ActorKey,
    pub(in crate::cluster) handled: u64,
    pub(in crate::cluster) mailbox: u32,
}

impl From<(ActorKey, u64, u32)> for ActorCount {
    fn from((actor, handled, mailbox): (ActorKey, u64, u32)) -> Self {
        Self { actor, handled, mailbox }
    }
}

impl From<ActorCount> for (ActorKey, u64, u32) {
    fn from(count: ActorCount) -> Self {
        (count.actor, count.handled, count.mailbox)
    }
}

/// Part of a worker's statistics that has changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatistics {
    pub(in crate::cluster) usage: Option<WorkerUsage>,
    pub(in crate::cluster) messages: Vec<MessageCount>,
    pub(in crate::cluster) actors: Vec<ActorCount>,
}
