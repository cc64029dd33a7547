//! What a cluster consists of, as plain data: what the head keeps, agents report and people see.
//!
//! Owns the words (node, job, worker, actor) and their states. Knows no process, no socket and no rule:
//! those are in `state`, `schedule` and the processes' own modules.

mod node_report;
mod state_names;

pub(in crate::cluster) use node_report::{NodeReport, WorkerReport};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::JOB_TEXT_BYTES_MAX;
use crate::id::HostUid;

pub use crate::spec::{
    ActorKey, ActorLocation, ActorSpec, JobId, Labels, Lifetime, NodeId, Quantity, Resources, Strategy,
    WorkerId,
};

/// A worker, as others reach it: its two hosts, and where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerAddress {
    /// The host of its actors.
    pub actors: HostUid,
    /// Where that is reached.
    pub actors_at: SocketAddr,
    /// The host of its tasks.
    pub tasks: HostUid,
    /// Where that is reached.
    pub tasks_at: SocketAddr,
}

/// What a node says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescriptor {
    /// The agent's host; its id is the node's.
    pub agent: HostUid,
    /// Where all hosts of the node are reached.
    pub address: SocketAddr,
    /// What the machine is called.
    pub hostname: String,
    /// The agent's process.
    pub pid: u32,
    /// Whether the head runs on it.
    pub is_head: bool,
    /// What it has for work.
    pub resources: Resources,
    /// What it is labelled with.
    pub labels: Labels,
    /// How many workers it runs for each job; none if it takes no work.
    pub workers: u32,
    /// What its executables must be built for, such as `x86_64-linux-gnu`.
    pub platform: String,
    /// Where its files are.
    pub session_dir: String,
}

impl NodeDescriptor {
    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.agent.host.0)
    }
}

/// What a driver says of its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDescriptor {
    /// The program and its arguments.
    pub entrypoint: String,
    /// The machine that the driver runs on.
    pub hostname: String,
    /// The driver's process; 0 before it runs.
    pub pid: u32,
    /// The driver's host that the head hears from; none before it runs.
    pub driver: Option<HostUid>,
    /// The driver's host that its messages come from.
    pub user_host: Option<HostUid>,
    /// The namespace of its names.
    pub namespace: String,
    /// The node whose agent runs the driver, if the job was submitted.
    pub runs_on: Option<NodeId>,
}

impl JobDescriptor {
    /// Cuts what is only shown to what the head keeps.
    pub(in crate::cluster) fn bound(&mut self) {
        cut(&mut self.entrypoint, JOB_TEXT_BYTES_MAX);
        cut(&mut self.hostname, JOB_TEXT_BYTES_MAX);
    }
}

/// Cuts a text at the last character that fits.
pub(in crate::cluster) fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
}

/// What has become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NodeState {
    /// It works.
    Alive,
    /// It works, and takes nothing new.
    Draining,
    /// It was there when the head ended, and is not back since the head was started again.
    Rejoining,
    /// It has left, or was not heard of for too long.
    Dead,
}

/// What has become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// Submitted; its driver was not started yet.
    Pending,
    /// Its driver runs.
    Running,
    /// Ended because somebody stopped it.
    Stopped,
    /// Its driver has ended in order.
    Succeeded,
    /// Its driver has failed, or is gone.
    Failed,
}

impl JobState {
    /// Whether it goes on.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }
}

/// What has become of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActorState {
    /// Asked for; it waits for a place, or is being made there.
    PendingCreation,
    /// It lives.
    Alive,
    /// It is being made anew after a failure.
    Restarting,
    /// It has ended.
    Dead,
}

/// What has become of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerState {
    /// Its agent is to start it.
    Starting,
    /// It works.
    Alive,
    /// A signal has stopped its process (SIGSTOP); it works when that is continued.
    Suspended,
    /// It has ended.
    Dead,
}

/// How many tasks of one function are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCount {
    /// The function.
    pub name: String,
    /// Accepted, and not begun.
    pub queued: u64,
    /// Under way.
    pub running: u64,
    /// Ended with a result.
    pub finished: u64,
    /// Ended by a panic, or could not begin.
    pub failed: u64,
}

/// How many actors of one class are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// The name of the type.
    pub class: String,
    /// Asked for, and not begun.
    pub pending_creation: u64,
    /// Alive.
    pub alive: u64,
    /// Being made anew.
    pub restarting: u64,
    /// Ended; only as far as they are remembered.
    pub dead: u64,
}

/// What a machine is at, by its own account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// How many processes ran or waited for a processor lately: the load average over a minute.
    pub load: f64,
    /// The machine's memory that is in use, in bytes.
    pub memory_bytes: u64,
    /// What of that the node's workers have resident, in bytes.
    pub workers_memory_bytes: u64,
}

/// A node, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// The node.
    pub node_id: NodeId,
    /// What has become of it.
    pub state: NodeState,
    /// Where it is reached.
    pub address: SocketAddr,
    /// What the machine is called.
    pub hostname: String,
    /// The agent's process.
    pub pid: u32,
    /// Whether the head runs on it.
    pub is_head: bool,
    /// All that it has.
    pub resources: Resources,
    /// What of that is not taken.
    pub available: Resources,
    /// What it is labelled with.
    pub labels: Labels,
    /// How many worker processes run on it.
    pub workers: usize,
    /// How many actors live on it.
    pub actors: usize,
    /// Where its files are.
    pub session_dir: String,
    /// When it joined, in milliseconds since 1970.
    pub started_ms: u64,
    /// Why it is dead, if it is.
    pub cause: Option<String>,
    /// What its machine is at, as far as it has said.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// A job, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobInfo {
    /// The job.
    pub job_id: JobId,
    /// What has become of it.
    pub state: JobState,
    /// The program and its arguments.
    pub entrypoint: String,
    /// The machine that the driver runs on.
    pub hostname: String,
    /// The driver's process; 0 before it runs.
    pub pid: u32,
    /// The node whose agent runs the driver, if the job was submitted.
    pub runs_on: Option<NodeId>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, if it has.
    pub ended_ms: Option<u64>,
    /// What its driver ended with, if that is known: its exit code, or 128 and the number of the signal that
    /// ended it.
    pub exit_code: Option<i32>,
    /// How it ended, in words.
    pub message: Option<String>,
}

/// An actor, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorInfo {
    /// The actor.
    pub actor_id: ActorKey,
    /// The name of its type.
    pub class: String,
    /// What has become of it.
    pub state: ActorState,
    /// The job that asked for it.
    pub job_id: JobId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The namespace of its name.
    pub namespace: String,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// What it holds of its node.
    pub resources: Resources,
    /// The node that it lives on.
    pub node_id: Option<NodeId>,
    /// The worker that it lives in.
    pub worker_id: Option<WorkerId>,
    /// That worker's process.
    pub pid: Option<u32>,
    /// Why it still waits, or how it ended.
    pub cause: Option<String>,
}

/// A worker, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerSummary {
    /// The worker.
    pub worker_id: WorkerId,
    /// What has become of it.
    pub state: WorkerState,
    /// The job that it works for.
    pub job_id: JobId,
    /// The node that it runs on.
    pub node_id: NodeId,
    /// Its process; 0 before it runs.
    pub pid: u32,
    /// How many actors live in it.
    pub actors: usize,
    /// The one detached actor that it is for, if so.
    pub detached: Option<ActorKey>,
    /// How it ended, if it has.
    pub cause: Option<String>,
}

/// The tasks of one function on one worker, as people see them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskInfo {
    /// The job that they are of.
    pub job_id: JobId,
    /// The worker.
    pub worker_id: WorkerId,
    /// The node that it runs on.
    pub node_id: NodeId,
    /// How many are in which state.
    #[serde(flatten)]
    pub count: TaskCount,
}

/// Something that an operator should see to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What is in trouble.
    pub kind: AlertKind,
    /// What is wrong, and what helps.
    pub text: String,
}

/// What may be in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum AlertKind {
    /// The head cannot keep its state, and takes nothing new.
    HeadState,
    /// A job's workers on a node: they crash, or cannot be started.
    WorkerStarts,
    /// A worker whose process a signal has stopped.
    SuspendedWorker,
}

/// An actor that waits for a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingActor {
    /// The actor.
    pub actor_id: ActorKey,
    /// The name of its type.
    pub class: String,
    /// The job that asked for it.
    pub job_id: JobId,
    /// Why it waits.
    pub reason: String,
}
