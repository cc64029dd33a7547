//! What the control plane is told, and what it wants done.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cluster::listing::Page;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorLocation, ActorSpec, JobDescriptor, JobId, JobState, NodeDescriptor, NodeId,
    NodeInfo, NodeReport, TaskCount, WorkerAddress, WorkerId,
};
use crate::id::HostUid;

/// Whoever waits for an answer, in the words of who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::cluster) struct Ticket(pub(in crate::cluster) u64);

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cluster) enum Event {
    /// What an earlier life of the head has kept; the first event, if any.
    Restored(Vec<Record>),
    /// The agent of the head's own node, which connects the head with all others. Its node is the head's,
    /// and no other is.
    OwnAgent { agent: HostUid },
    /// An agent has joined, or is back after its link or the head were gone.
    NodeJoined(NodeReport),
    /// It is there.
    NodeHeartbeat { node: HostUid },
    /// It leaves in order, or is known to have ended.
    NodeLeft { node: HostUid, cause: String },
    /// It is to get no new work, and to end when its jobs have.
    NodeDrain { node: NodeId },
    /// A worker runs.
    WorkerReady { worker: WorkerId, member: WorkerAddress, pid: u32 },
    /// A worker has ended, or could not be started.
    WorkerEnded { worker: WorkerId, cause: String },
    /// A signal has stopped a worker's process, or it goes on.
    WorkerSuspended { worker: WorkerId, suspended: bool },
    /// An actor that was placed has come to life.
    ActorStarted { actor: ActorKey, worker: WorkerId, at: ActorLocation },
    /// An actor has ended, or refused to come to life.
    ActorEnded { actor: ActorKey, cause: String },
    /// The host that asked for an actor has given its spawning up. It may live all the same.
    NotSpawned { actor: ActorKey, cause: String },
    /// How many tasks a worker has had by now, of functions of which there are more.
    TaskCounts { worker: WorkerId, counts: Vec<TaskCount> },
    /// Somebody submits a job, whose driver is yet to be started. Answered with [`Answer::Job`].
    JobSubmitted { ticket: Ticket, facts: JobDescriptor },
    /// A driver has come, or is back after the head was gone. `job` names a submitted job, or the one
    /// that it had. Answered with [`Answer::Job`].
    JobStarted { ticket: Ticket, job: Option<JobId>, facts: JobDescriptor },
    /// The driver is there.
    JobHeartbeat { job: JobId },
    /// A node has the job's executable: workers may be started there.
    NodeProvisioned { job: JobId, node: NodeId },
    /// A node keeps a job's executable, until it is told that the job is over.
    ExecutablePinned { job: JobId, node: NodeId },
    /// A node's agent runs the driver of a submitted job, and will say how it ended.
    DriverStarted { job: JobId, node: NodeId },
    /// The driver of a submitted job has left the cluster. Its process may run on; its exit is the job's end.
    DriverLeft { job: JobId, why: String },
    /// The driver has ended, or is known to. One that had ended is left as it is, but for a missing exit code.
    JobEnded { job: JobId, state: JobState, exit_code: Option<i32>, message: String },
    /// Somebody asks for a place for an actor. Answered with [`Answer::Placed`], as soon as there is one.
    Place { ticket: Ticket, job: JobId, spec: ActorSpec },
    /// Nobody waits for that answer any more: what has no place yet is dropped.
    Cancelled { ticket: Ticket },
    /// Somebody looks for a living actor by name. Answered with [`Answer::Found`].
    Find { ticket: Ticket, namespace: String, name: String },
    /// An actor is to end. Answered with [`Answer::Done`].
    Kill { ticket: Ticket, actor: ActorKey },
    /// An actor is to end with its worker and all that is in it. Answered with [`Answer::Done`].
    KillWorkerOf { ticket: Ticket, actor: ActorKey },
    /// A record of given numbers is on disk.
    NumbersKept { jobs: u32, workers: u64, actors: u64 },
    /// What is to be kept cannot be, and why; or it can again.
    PersistenceStatus { trouble: Option<String> },
    /// Time has passed: leases may have ended.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cluster) enum Action {
    /// An agent is to start a worker.
    StartWorker { node: NodeId, worker: WorkerId, job: JobId, detached: Option<ActorKey> },
    /// An agent is to end a worker, if it runs.
    StopWorker { node: NodeId, worker: WorkerId },
    /// An agent is to have a worker end one of its actors.
    StopActor { node: NodeId, worker: WorkerId, actor: ActorKey, at: ActorLocation },
    /// An agent has nothing left to do, and is to end.
    StopNode { node: NodeId },
    /// An agent is to end the driver that it runs for a submitted job.
    StopDriver { node: NodeId, job: JobId },
    /// A job is over: those nodes need not keep its executable, and its driver is told nothing more.
    ReleaseJob { job: JobId, nodes: BTreeSet<NodeId> },
    /// That life of an agent is over: it is told nothing more.
    ForgetAgent { agent: HostUid },
    /// Somebody gets an answer.
    Answer { ticket: Ticket, answer: Result<Answer, ControlError> },
    /// A job's driver, if it is there, is told something.
    NotifyDriver { job: JobId, news: JobEvent },
    /// To be kept for a later life of the head, in place of an earlier record of the same thing.
    Persist(Record),
    /// Not to be kept any longer.
    Delete(RecordKey),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) enum Answer {
    /// The job's number, the nodes that it may use, whether others are awaited that it may use, and whether
    /// all nodes are back since the head was away.
    Job {
        job: JobId,
        nodes: Vec<NodeDescriptor>,
        workers: Vec<WorkerEntry>,
        rejoining: bool,
        all_rejoined: bool,
    },
    /// Where an actor is to be made; or the one of that name, which lives.
    Placed { actor: ActorKey, member: WorkerAddress, alive: Option<ActorLocation> },
    /// A living actor: the name of its type, and where its host is reached.
    Found { actor: ActorKey, class: String, at: ActorLocation, member: WorkerAddress },
    /// It is done.
    Done,
    /// A part of the list of nodes. The control plane in action adds these three, for which nothing has to
    /// happen.
    Nodes(Page<NodeInfo>),
    /// A part of the list of actors.
    Actors(Page<ActorInfo>),
    /// How a worker has ended, if it has.
    End(Option<String>),
}

/// A worker that a job has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct WorkerEntry {
    pub(in crate::cluster) node: NodeId,
    pub(in crate::cluster) worker: WorkerId,
    pub(in crate::cluster) member: WorkerAddress,
    pub(in crate::cluster) pid: u32,
}

/// Why somebody does not get what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(in crate::cluster) enum ControlError {
    /// No node of the cluster could ever take it.
    #[error("{0}")]
    Infeasible(String),
    /// A living actor has the name.
    #[error("{0}")]
    NameTaken(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// The job is over.
    #[error("{0}")]
    JobEnded(String),
    /// It would have to be kept, and the head cannot keep anything.
    #[error(
        "the head cannot keep its state, and takes nothing new that has to be kept: {0}; free some disk on its machine"
    )]
    NotPersisted(String),
}

/// What a job's driver is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) enum JobEvent {
    /// A node can be used; it may not have the executable yet.
    NodeUp(NodeDescriptor),
    /// A node that could be used is lost, with all that ran on it. News of its workers came before.
    NodeGone { agent: HostUid },
    /// A worker of the job works.
    WorkerUp { node: NodeId, worker: WorkerId, member: WorkerAddress, pid: u32 },
    /// A worker of the job has ended.
    WorkerDown { node: NodeId, worker: WorkerId, member: Option<WorkerAddress>, cause: String },
    /// The job was stopped.
    Stopped { why: String },
}

/// What a head needs to know again after it was started anew, and that agents cannot tell it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) enum Record {
    /// A job; also ended ones, as long as they are listed.
    Job {
        job: JobId,
        facts: JobDescriptor,
        state: JobState,
        started_ms: u64,
        ended_ms: Option<u64>,
        exit_code: Option<i32>,
        message: Option<String>,
        /// Whether the driver of a submitted job has left the cluster.
        left: bool,
    },
    /// An actor that has a name, holds resources, or outlives its job.
    Actor { actor: ActorKey, job: JobId, spec: ActorSpec },
    /// Bounds of the numbers that were given. The first free numbers are a block behind them.
    IdWatermarks { jobs: u32, workers: u64, actors: u64 },
    /// A node that was alive, since when, and whether it drains.
    Node { facts: NodeDescriptor, joined_ms: u64, draining: bool },
    /// The incarnation of the head's host that ran last. The state itself has no use for it.
    Incarnation { incarnation: u64 },
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::cluster) enum RecordKey {
    Job(JobId),
    Actor(ActorKey),
    IdWatermarks,
    Node(NodeId),
    Incarnation,
}
