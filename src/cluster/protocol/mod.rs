//! What head, agents and drivers ask of each other, as calls to each other's hosts.
//!
//! All of them travel in sessions of proven members. Members ask the control plane as described in
//! [`control`](super::control_service).

pub(super) mod worker;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::control_plane::state::NodeReport;
use super::executable::Digest;
use super::launch::process::Variables;
use super::model::{
    ActorKey, ActorLocation, JobDescriptor, JobId, JobState, NodeId, TaskCount, Usage, WorkerAddress,
    WorkerId,
};
use super::output::Stream;
use crate::config::Limits;
use crate::id::{HostUid, TypeHash};
use crate::wire::Payload;
use worker::ActorEvent;

/// What agents ask of the head.
pub(super) const NODE: TypeHash = TypeHash::of("roadshow::Node");
/// What drivers ask of the head.
pub(super) const JOB: TypeHash = TypeHash::of("roadshow::Job");
/// What the head tells agents to do.
pub(super) const AGENT_COMMAND: TypeHash = TypeHash::of("roadshow::AgentCommand");
/// What the head tells drivers.
pub(super) const JOB_EVENT: TypeHash = TypeHash::of("roadshow::JobEvent");
/// What drivers send to agents: their executables.
pub(super) const EXECUTABLE: TypeHash = TypeHash::of("roadshow::Executable");
/// Requests of agents to agents: pieces of executables.
pub(super) const FETCH: TypeHash = TypeHash::of("roadshow::Fetch");
/// What agents send to drivers: what workers write.
pub(super) const OUTPUT: TypeHash = TypeHash::of("roadshow::Output");
/// What drivers ask of agents: that they are sent what their workers have written by now.
pub(super) const FLUSH: TypeHash = TypeHash::of("roadshow::Flush");

/// From an agent to the head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum NodeRequest {
    /// It has come, or is back.
    Join(NodeReport),
    /// It is there.
    Heartbeat { node: HostUid, usage: Usage },
    /// What has happened since, in order.
    Events { node: HostUid, events: Vec<NodeEvent> },
    /// A worker is to be known as what it is: signs the request of its certificate.
    SignCertificate { node: HostUid, job: JobId, hosts: [HostUid; 2], request: Vec<u8> },
    /// It leaves.
    Leave { node: HostUid, cause: String },
    /// The driver of a submitted job, which the node runs, is to be known as what it is: signs the request of its
    /// certificate.
    SignDriver { node: HostUid, job: JobId, hosts: Vec<HostUid>, request: Vec<u8> },
}

/// What the head says to that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum NodeReply {
    Done,
    /// The head does not know the node in this life: it is to join again.
    Unknown,
    Signed {
        chain: Vec<Vec<u8>>,
    },
    Failed {
        text: String,
    },
    /// The head has taken in the events, and cannot write the ends of drivers among them to its disk yet:
    /// the agent reports those again.
    NotPersisted,
}

/// What happens on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum NodeEvent {
    WorkerReady {
        worker: WorkerId,
        member: WorkerAddress,
        pid: u32,
    },
    WorkerEnded {
        worker: WorkerId,
        cause: String,
    },
    /// A signal has stopped its process, or it goes on.
    WorkerSuspended {
        worker: WorkerId,
        suspended: bool,
    },
    Actor {
        worker: WorkerId,
        life: ActorEvent,
    },
    Tasks {
        worker: WorkerId,
        counts: Vec<TaskCount>,
    },
    /// The executable of a job is kept, until the head says that the job is over.
    ExecutablePinned {
        job: JobId,
    },
    /// The driver of a submitted job runs.
    DriverStarted {
        job: JobId,
    },
    /// The driver of a submitted job has ended.
    DriverExited {
        job: JobId,
        state: JobState,
        exit_code: Option<i32>,
        message: String,
    },
}

/// From the head to an agent. It is answered when it is understood, not when it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum AgentCommand {
    StartWorker {
        worker: WorkerId,
        job: JobId,
        detached: Option<ActorKey>,
    },
    StopWorker {
        worker: WorkerId,
    },
    StopActor {
        worker: WorkerId,
        at: ActorLocation,
    },
    StopDriver {
        job: JobId,
    },
    /// Its executable need not be kept for it.
    ReleaseJob {
        job: JobId,
    },
    /// There is nothing left to do.
    StopNode,
}

/// From a driver to the head. The reply is a [`control::Reply`](super::control_service::Reply).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum JobRequest {
    /// It has come, or is back: then with its number.
    Start { job: Option<JobId>, facts: JobDescriptor },
    /// It is there.
    Heartbeat { job: JobId },
    /// A node has its executable.
    NodeProvisioned { job: JobId, node: NodeId },
    /// It has ended.
    End { job: JobId, state: JobState, message: String },
}

/// From a driver to an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ExecutableRequest {
    /// How much of an executable is there?
    Stat { digest: Digest, size: u64, platform: String },
    /// These bytes of it come next.
    Write { digest: Digest, size: u64, offset: u64, bytes: Payload },
    /// The next pieces of it are to be fetched from another agent, for a while. `Stat` says how far that has got.
    Fetch(FetchCommand),
    /// It is all there, and this is how workers are started from it.
    Launch(JobSpec),
}

/// An executable that an agent is to fetch, and the agent that has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct FetchCommand {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) from: HostUid,
    pub(super) at: SocketAddr,
}

/// From an agent to another, for the next piece of an executable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FetchRequest {
    pub(super) digest: Digest,
    pub(super) offset: u64,
}

/// Reply to a [`FetchRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum FetchReply {
    /// The bytes from the offset on, a piece at most.
    Piece {
        bytes: Payload,
    },
    /// Other nodes have all places.
    Busy,
    Failed {
        text: String,
    },
}

/// How the workers of a job are started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobSpec {
    pub(super) job: JobId,
    pub(super) digest: Digest,
    /// Arguments by which the executable runs as a worker.
    pub(super) arguments: Vec<String>,
    /// What its environment has beside what an agent gives to each.
    pub(super) environment: Variables,
    pub(super) limits: Limits,
    /// The stack of each thread that runs handlers or tasks.
    pub(super) stack_bytes: usize,
    /// Whose the job is, and who is sent what the workers write.
    pub(super) driver: HostUid,
}

/// What an agent says to that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ExecutableReply {
    /// So many bytes of it are there.
    Stat(u64),
    Done,
    /// All of it came and has another digest. Nothing of it is kept.
    Wrong {
        text: String,
    },
    /// The agent that it was to be fetched from serves others, or this one fetches as much as it can. What has
    /// come before stays.
    Busy,
    /// It did not come from there. What has come before stays.
    NotFetched {
        text: String,
    },
    Failed {
        text: String,
    },
}

/// Output of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(super) pid: u32,
    pub(super) node: NodeId,
    /// What lives in the worker: the name of a type of actors, or `worker`.
    pub(super) label: String,
    pub(super) stream: Stream,
    pub(super) lines: Vec<String>,
    /// The line behind them that has no end yet, as it stands.
    pub(super) unfinished: Option<String>,
}

/// A driver's request for the output of its job. It is answered when the driver has been sent all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Flush {
    pub(super) job: JobId,
}

/// Whether a variable of an environment is for no other process: it would let that join the cluster.
pub(super) fn is_secret(variable: &str) -> bool {
    variable.starts_with("ROADSHOW_TOKEN")
}
