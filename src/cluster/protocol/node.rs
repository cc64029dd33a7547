//! Requests of agents to the head, and commands of the head to agents.

use serde::{Deserialize, Serialize};

use crate::cluster::model::{
    ActorKey, JobId, JobState, LeaseRenewal, NodeReport, TaskCount, Usage, WorkerAddress, WorkerId,
    WorkerSpans, WorkerStatistics,
};
use crate::cluster::protocol::worker::ActorEvent;
use crate::id::{HostUid, TypeHash};
use crate::spec::{ActorLocation, End, Recipe, StateKey};

/// Service of the head that receives requests of agents.
pub(in crate::cluster) const NODE: TypeHash = TypeHash::of("roadshow::Node");

/// Service of agents that receives commands of the head.
pub(in crate::cluster) const AGENT_COMMAND: TypeHash = TypeHash::of("roadshow::AgentCommand");

/// Request of an agent to the head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum NodeRequest {
    /// Joins or rejoins.
    Join(Box<NodeReport>),
    /// Renews the node's lease, and reports its usage if that was measured since the last one.
    Heartbeat { node: HostUid, usage: Option<Usage> },
    /// Reports statistics of workers that have changed since the last report, or a part of them.
    Statistics { node: HostUid, workers: Vec<(WorkerId, WorkerStatistics)> },
    /// Reports events in order.
    Events { node: HostUid, events: Vec<NodeEvent> },
    /// Requests a certificate for a worker's two hosts.
    SignCertificate { node: HostUid, job: JobId, hosts: [HostUid; 2], request: Vec<u8> },
    /// Leaves the cluster.
    Leave { node: HostUid, cause: String },
    /// Requests a certificate for the driver of a submitted job that the node runs.
    SignDriver { node: HostUid, job: JobId, hosts: Vec<HostUid>, request: Vec<u8> },
    /// Reports spans of workers since the last report.
    Spans { node: HostUid, workers: Vec<(WorkerId, WorkerSpans)> },
}

/// Reply to a [`NodeRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum NodeReply {
    Done,
    /// Answer to a heartbeat or a join, which has renewed the node's lease.
    Renewed(LeaseRenewal),
    /// The head does not know this incarnation of the agent, which must join again.
    Unknown,
    Signed {
        chain: Vec<Vec<u8>>,
    },
    Failed {
        text: String,
    },
    /// The events were handled, but the ends of drivers among them are not durable. The agent reports these
    /// again.
    NotPersisted,
}

/// Event on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) enum NodeEvent {
    WorkerReady {
        worker: WorkerId,
        member: WorkerAddress,
        pid: u32,
    },
    WorkerEnded {
        worker: WorkerId,
        end: End,
        /// True if it was killed from outside, and not for want of memory.
        killed: bool,
    },
    /// A signal stopped the worker's process, or continued it.
    WorkerSuspended {
        worker: WorkerId,
        suspended: bool,
    },
    Actor {
        worker: WorkerId,
        event: ActorEvent,
    },
    Tasks {
        worker: WorkerId,
        counts: Vec<TaskCount>,
    },
    /// The node keeps the job's executable until [`AgentCommand::ReleaseJob`].
    ExecutablePinned {
        job: JobId,
    },
    /// The driver of a submitted job runs.
    DriverStarted {
        job: JobId,
    },
    /// The driver of a submitted job exited.
    DriverExited {
        job: JobId,
        state: JobState,
        exit_code: Option<i32>,
        message: String,
    },
}

/// Command of the head to an agent. The reply acknowledges receipt, not completion.
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
    /// Creates an incarnation of a managed actor in a worker.
    StartActor {
        worker: WorkerId,
        at: ActorLocation,
        recipe: Recipe,
        /// Start of the node's lease under which the head has placed an exclusive actor.
        lease: Option<u64>,
    },
    StopActor {
        worker: WorkerId,
        at: ActorLocation,
    },
    /// Removes the state of a durable actor that has ended for good.
    RemoveState {
        key: StateKey,
    },
    StopDriver {
        job: JobId,
    },
    /// Unpins the job's executable.
    ReleaseJob {
        job: JobId,
    },
    /// Stops the agent of a drained node.
    StopNode,
}
