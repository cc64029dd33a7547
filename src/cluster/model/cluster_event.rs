//! Events of a cluster, as the head records them.

use serde::{Deserialize, Serialize};

use super::{ActorKey, JobId, NodeId, WorkerId};
pub use crate::spec::EventId;

/// Importance of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    /// Ordinary course of a cluster.
    Info,
    /// Something ended that may be missed.
    Warning,
    /// Something failed.
    Error,
}

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum EventKind {
    /// The head started.
    HeadStarted,
    /// A node joined, or rejoined the restarted head.
    NodeJoined,
    /// A node accepts no new work.
    NodeDraining,
    /// A node is silent, and gets no new actors and tasks.
    NodeUnreachable,
    /// The heartbeats of an unreachable node arrive again.
    NodeReachable,
    /// A node left, or its lease expired.
    NodeDead,
    /// A worker ended unasked, or could not be started.
    WorkerDied,
    /// A job was submitted; its driver is about to start.
    JobSubmitted,
    /// The driver of a job runs.
    JobStarted,
    /// A job ended.
    JobEnded,
    /// An actor panicked, or ended with its worker.
    ActorDied,
    /// An actor failed, or was lost, and is restarted.
    ActorRestarted,
}

/// Row of the event list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventInfo {
    /// Id of the event. Later events have higher ids, also after a restart of the head.
    pub event_id: EventId,
    /// Time of the event by the head's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// Importance of the event.
    pub severity: Severity,
    /// Kind of the event.
    pub kind: EventKind,
    /// Node that the event is about.
    pub node_id: Option<NodeId>,
    /// Worker that the event is about.
    pub worker_id: Option<WorkerId>,
    /// Job that the event is about.
    pub job_id: Option<JobId>,
    /// Actor that the event is about.
    pub actor_id: Option<ActorKey>,
    /// Description with the cause.
    pub text: String,
}
