//! Requests of agents to the head, and commands of the head to agents.

use serde::{Deserialize, Serialize};

use crate::cluster::model::{
    ActorKey, JobId, JobState, NodeReport, TaskCount, Usage, WorkerAddress, WorkerId,
};
use crate::cluster::protocol::worker::ActorEvent;
use crate::id::{HostUid, TypeHash};
use crate::spec::ActorLocation;

/// What agents ask of the head.
pub(in crate::cluster) const NODE: TypeHash = TypeHash::of("roadshow::Node");

/// What the head tells agents to do.
pub(in crate::cluster) const AGENT_COMMAND: TypeHash = TypeHash::of("roadshow::AgentCommand");

/// From an agent to the head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum NodeRequest {
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
pub(in crate::cluster) enum NodeReply {
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
pub(in crate::cluster) enum NodeEvent {
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
pub(in crate::cluster) enum AgentCommand {
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
