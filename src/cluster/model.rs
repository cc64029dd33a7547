//! Plain data of the cluster model: nodes, jobs, workers, actors and tasks.
//!
//! The head persists these types, agents report them and the CLI prints them. This module owns the types and
//! their states. It does no input or output and makes no decision: the rules are in `control_plane`.

mod cluster_event;
mod node_report;
mod state_names;
mod statistics;
mod timeline;

#[cfg(any(feature = "cli", feature = "sim", test))]
pub(in crate::cluster) use node_report::EndedWorker;
pub(in crate::cluster) use node_report::{LeaseRenewal, NodeReport, WorkerReport};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::JOB_TEXT_BYTES_MAX;

pub use cluster_event::{EventId, EventInfo, EventKind, Severity};
pub use statistics::{MessageCount, MessageInfo, Usage, WorkerUsage};
#[cfg(feature = "cli")]
pub(in crate::cluster) use timeline::mix;
pub use timeline::{JobSpans, Span, SpanLane, SpanName};
// For a fuzz target, which reads reports of workers.
#[doc(hidden)]
pub use statistics::{ActorCount, WorkerStatistics};
#[doc(hidden)]
pub use timeline::WorkerSpans;

pub use crate::id::{ActorId, ActorIncarnation, HostId, HostUid, Incarnation, Target};
pub use crate::spec::{
    ActorKey, ActorLocation, ActorSpec, JobId, Labels, Lifetime, NodeId, Quantity, Resources, Strategy,
    WorkerId,
};

/// Addresses of a worker's two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerAddress {
    /// Identity of the host that runs the worker's actors.
    pub actors: HostUid,
    /// Socket address of the actor host.
    pub actors_at: SocketAddr,
    /// Identity of the host that runs the worker's tasks.
    pub tasks: HostUid,
    /// Socket address of the task host.
    pub tasks_at: SocketAddr,
}

/// Description of a node that its agent sends when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescriptor {
    /// Identity of the agent's host; the host id is also the node id.
    pub agent: HostUid,
    /// Socket address that all hosts of the node share.
    pub address: SocketAddr,
    /// Hostname of the machine.
    pub hostname: String,
    /// Process id of the agent.
    pub pid: u32,
    /// True for the node that the head runs on.
    pub is_head: bool,
    /// Resources that the node offers to actors.
    pub resources: Resources,
    /// Labels of the node, by name.
    pub labels: Labels,
    /// Worker processes that the node runs for each job; 0 on a node that runs no jobs.
    pub workers: u32,
    /// Platform that executables must be built for, such as `x86_64-linux-gnu`.
    pub platform: String,
    /// Directory of the node's session files.
    pub session_dir: String,
}

impl NodeDescriptor {
    /// Id of the node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.agent.host.0)
    }
}

/// Description of a job that its driver sends when it connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDescriptor {
    /// Program and arguments of the driver.
    pub entrypoint: String,
    /// Hostname of the machine that the driver runs on.
    pub hostname: String,
    /// Process id of the driver; 0 before it runs.
    pub pid: u32,
    /// Host of the driver that talks to the head; `None` before the driver runs.
    pub driver: Option<HostUid>,
    /// Host of the driver that sends the user's messages.
    pub user_host: Option<HostUid>,
    /// Namespace in which the job's actors are named.
    pub namespace: String,
    /// Node whose agent runs the driver of a submitted job; `None` for a driver that the user started.
    pub runs_on: Option<NodeId>,
}

impl JobDescriptor {
    /// Truncates the texts that are only displayed to the length that the head stores.
    pub(in crate::cluster) fn bound(&mut self) {
        cut(&mut self.entrypoint, JOB_TEXT_BYTES_MAX);
        cut(&mut self.hostname, JOB_TEXT_BYTES_MAX);
    }
}

/// Truncates a text at the last character boundary that fits, and releases the memory of the rest.
pub(in crate::cluster) fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text.shrink_to_fit();
}

/// State of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NodeState {
    /// Joined, and accepts new work.
    Alive,
    /// Joined, and accepts no new work; its jobs run on.
    Draining,
    /// Silent for some seconds: it gets no new actors and tasks, and what runs there is left alone.
    Unreachable,
    /// Alive when the previous incarnation of the head stopped, and has not rejoined since.
    Rejoining,
    /// Left the cluster, or its lease expired.
    Dead,
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// Submitted; the driver has not started.
    Pending,
    /// The driver runs.
    Running,
    /// Stopped by request.
    Stopped,
    /// The driver exited successfully.
    Succeeded,
    /// The driver failed, or was lost.
    Failed,
}

impl JobState {
    /// True until the job has ended.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }
}

/// State of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActorState {
    /// Requested: waits for a node, or is being created on one.
    PendingCreation,
    /// Created, and handles messages.
    Alive,
    /// Being created again after a failure.
    Restarting,
    /// Ended, or failed to start.
    Dead,
}

/// State of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerState {
    /// Requested from the agent; not ready.
    Starting,
    /// Ready for actors and tasks.
    Alive,
    /// Its process is stopped by a signal (SIGSTOP) until SIGCONT.
    Suspended,
    /// Ended, or failed to start.
    Dead,
}

/// Number of tasks of one function, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCount {
    /// Name of the function.
    pub name: String,
    /// Tasks accepted and not started.
    pub queued: u64,
    /// Tasks that run.
    pub running: u64,
    /// Tasks that returned a result.
    pub finished: u64,
    /// Tasks that panicked or could not start.
    pub failed: u64,
    /// Median of the run time, in microseconds; `None` if not known, as for the sum of several workers.
    #[serde(default)]
    pub p50_us: Option<u64>,
    /// 99th percentile of the run time, in microseconds; `None` if not known.
    #[serde(default)]
    pub p99_us: Option<u64>,
}

/// Number of actors of one class, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// Type name of the actors.
    pub class: String,
    /// Actors that are requested and not created.
    pub pending_creation: u64,
    /// Actors that are alive.
    pub alive: u64,
    /// Actors that are being created again.
    pub restarting: u64,
    /// Dead actors that the head still lists.
    pub dead: u64,
}

/// Number of restarts of actors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartCounts {
    /// Restarts since the head was started.
    pub total: u64,
    /// Restarts in the last hour, or since the head was started if that is less.
    pub last_hour: u64,
}

/// Row of the node list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Id of the node.
    pub node_id: NodeId,
    /// State of the node.
    pub state: NodeState,
    /// Socket address of the node.
    pub address: SocketAddr,
    /// Hostname of the machine.
    pub hostname: String,
    /// Process id of the agent.
    pub pid: u32,
    /// True for the node that the head runs on.
    pub is_head: bool,
    /// Resources that the node offers.
    pub resources: Resources,
    /// Part of `resources` that no actor holds.
    pub available: Resources,
    /// Labels of the node, by name.
    pub labels: Labels,
    /// Number of worker processes on the node.
    pub workers: usize,
    /// Number of alive actors on the node.
    pub actors: usize,
    /// Directory of the node's session files.
    pub session_dir: String,
    /// Time of the join, in milliseconds since 1970.
    pub started_ms: u64,
    /// Reason for the death of a dead node.
    pub cause: Option<String>,
    /// Latest usage that the agent reported; `None` before the first report.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// Row of the job list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobInfo {
    /// Id of the job.
    pub job_id: JobId,
    /// State of the job.
    pub state: JobState,
    /// Program and arguments of the driver.
    pub entrypoint: String,
    /// Hostname of the machine that the driver runs on.
    pub hostname: String,
    /// Process id of the driver; 0 before it runs.
    pub pid: u32,
    /// Node whose agent runs the driver of a submitted job.
    pub runs_on: Option<NodeId>,
    /// Start of the job, in milliseconds since 1970.
    pub started_ms: u64,
    /// End of the job, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// Exit code of the driver, or 128 plus the number of the signal that killed it; `None` if not known.
    pub exit_code: Option<i32>,
    /// Explanation of how the job ended.
    pub message: Option<String>,
}

/// Row of the actor list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorInfo {
    /// Id of the actor.
    pub actor_id: ActorKey,
    /// Type name of the actor.
    pub class: String,
    /// State of the actor.
    pub state: ActorState,
    /// Job that requested the actor.
    pub job_id: JobId,
    /// Name of the actor, if it has one.
    pub name: Option<String>,
    /// Namespace of the name.
    pub namespace: String,
    /// Lifetime of the actor: that of its job, or detached.
    pub lifetime: Lifetime,
    /// Resources that the actor holds on its node.
    pub resources: Resources,
    /// Node of the actor, once it is assigned to one.
    pub node_id: Option<NodeId>,
    /// Worker of the actor, once it is assigned to one.
    pub worker_id: Option<WorkerId>,
    /// Process id of that worker.
    pub pid: Option<u32>,
    /// Time at which the head learned that the actor was created, in milliseconds since 1970.
    ///
    /// After a restart of the head it is the time at which the node rejoined.
    pub started_ms: Option<u64>,
    /// End of the actor, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// Number of restarts so far.
    #[serde(default)]
    pub restarts: u32,
    /// Cause of the last restart, unless the actor has ended. A restarted head does not know it.
    #[serde(default)]
    pub restart_cause: Option<String>,
    /// Number of messages that the actor has handled; `None` if not known.
    pub handled: Option<u64>,
    /// Number of messages from other workers and drivers that wait or are being handled; `None` if not known.
    pub mailbox: Option<u32>,
    /// Reason why the actor is pending, or how it ended.
    pub cause: Option<String>,
}

/// Row of the worker list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerSummary {
    /// Id of the worker.
    pub worker_id: WorkerId,
    /// State of the worker.
    pub state: WorkerState,
    /// Job of the worker.
    pub job_id: JobId,
    /// Node of the worker.
    pub node_id: NodeId,
    /// Process id of the worker; 0 before it runs.
    pub pid: u32,
    /// Number of alive actors in the worker.
    pub actors: usize,
    /// Detached actor that the worker is dedicated to, if any.
    pub detached: Option<ActorKey>,
    /// Time at which the worker became ready, in milliseconds since 1970; `None` before.
    ///
    /// After a restart of the head it is the time at which the node rejoined.
    pub started_ms: Option<u64>,
    /// End of the worker, in milliseconds since 1970.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Explanation of how the worker ended.
    pub cause: Option<String>,
    /// Latest usage that the worker reported; `None` before the first report.
    #[serde(default)]
    pub usage: Option<WorkerUsage>,
}

/// Row of the task list: the tasks of one function on one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Job of the tasks.
    pub job_id: JobId,
    /// Worker that runs the tasks.
    pub worker_id: WorkerId,
    /// Node of the worker.
    pub node_id: NodeId,
    /// Number of tasks, by state.
    #[serde(flatten)]
    pub count: TaskCount,
}

/// Condition that needs an operator's attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Kind of the condition.
    pub kind: AlertKind,
    /// Explanation, with the step that resolves the condition.
    pub text: String,
}

/// Kind of an [`Alert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum AlertKind {
    /// The head cannot persist its state and refuses requests that need it to.
    HeadState,
    /// A node is silent, and gets no new actors and tasks.
    UnreachableNode,
    /// Workers of a job crash, or cannot be started, on some node.
    WorkerStarts,
    /// A signal has stopped the process of a worker.
    SuspendedWorker,
}

/// Actor that waits for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingActor {
    /// Id of the actor.
    pub actor_id: ActorKey,
    /// Type name of the actor.
    pub class: String,
    /// Job that requested the actor.
    pub job_id: JobId,
    /// Reason why no node has been assigned.
    pub reason: String,
}
