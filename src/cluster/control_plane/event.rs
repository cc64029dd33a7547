//! Events that the control plane handles, and actions that it requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::listing::Page;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorLocation, ActorSpec, JobDescriptor, JobId, JobState, NodeDescriptor, NodeId,
    NodeInfo, NodeReport, TaskCount, WorkerAddress, WorkerId, WorkerStatistics,
};
use crate::id::{ActorIncarnation, HostUid};
use crate::spec::{Copies, End, HolderAddress, HolderId, HolderPlan, HolderRequest, Recipe, StateKey};

/// Id of a request that waits for a reply, chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::cluster) struct Ticket(pub(in crate::cluster) u64);

/// Placement request of a host, by the number that the host gave it. It stays the same if the request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::cluster) struct RequestId {
    pub(in crate::cluster) from: HostUid,
    pub(in crate::cluster) number: u64,
}

/// Input of the control plane.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cluster) enum ControlEvent {
    /// Records that an earlier incarnation of the head persisted; the first event, if any.
    Restored(Vec<Record>),
    /// Identifies the agent of the head's own node, which relays the head's connections.
    ///
    /// Exactly the node of this agent is the head's own.
    OwnAgent { agent: HostUid },
    /// An agent joined, or rejoined after it lost its link or the head restarted.
    NodeJoined(NodeReport),
    /// A node renews its lease.
    NodeHeartbeat { node: HostUid },
    /// A node closed gracefully, or its agent is known to have ended.
    NodeLeft { node: HostUid, cause: String },
    /// Requests that a node accept no new work and stop once its jobs have ended.
    NodeDrain { node: NodeId },
    /// A worker accepts actors and tasks.
    WorkerReady { worker: WorkerId, member: WorkerAddress, pid: u32 },
    /// A worker ended, or could not be started.
    WorkerEnded { worker: WorkerId, end: End, killed: bool },
    /// A signal stopped a worker's process, or continued it.
    WorkerSuspended { worker: WorkerId, suspended: bool },
    /// An assigned actor was created.
    ActorStarted { actor: ActorKey, worker: WorkerId, at: ActorLocation },
    /// An actor ended, or its creation failed.
    ActorEnded { actor: ActorKey, incarnation: ActorIncarnation, end: End },
    /// The requesting host cancelled the spawn of an actor. The actor may be alive nevertheless.
    SpawnCancelled { actor: ActorKey, cause: String },
    /// The requesting host waits no longer for an actor. Its worker may have created it, or may never hear of it.
    SpawnGivenUp { actor: ActorKey },
    /// The disk does not take the record of an incarnation whose creation waits for it. A first one is given up, and its
    /// request refused; a restart waits.
    StartNotPersisted { actor: ActorKey, at: ActorLocation, why: String },
    /// Task counts of a worker; only the functions whose counts have changed.
    TaskCounts { worker: WorkerId, counts: Vec<TaskCount> },
    /// Statistics of a worker that have changed. They decide nothing.
    Statistics { worker: WorkerId, statistics: WorkerStatistics },
    /// Submits a job; its driver is started later. Answered with [`ControlReply::Job`].
    JobSubmitted { ticket: Ticket, descriptor: JobDescriptor },
    /// A driver connected, or reconnected after the head restarted.
    ///
    /// `job` is the id of a submitted job, or the id that the driver had before. Answered with
    /// [`ControlReply::Job`].
    JobStarted { ticket: Ticket, job: Option<JobId>, descriptor: JobDescriptor },
    /// A driver renews its lease.
    JobHeartbeat { job: JobId },
    /// A node has the job's executable: workers can be started there.
    NodeProvisioned { job: JobId, node: NodeId },
    /// A node keeps a job's executable until [`Action::ReleaseJob`].
    ExecutablePinned { job: JobId, node: NodeId },
    /// An agent runs the driver of a submitted job, and will report its exit.
    DriverStarted { job: JobId, node: NodeId },
    /// The driver of a submitted job left the cluster. The job ends when the driver's process exits.
    DriverLeft { job: JobId, why: String },
    /// A driver ended, or is known to have ended. For a job that has already ended, only adds a missing exit
    /// code.
    JobEnded { job: JobId, state: JobState, exit_code: Option<i32>, message: String },
    /// Requests a node for an actor. Answered with [`ControlReply::Placed`] once a worker is ready for it, or once an
    /// actor with a recipe is alive.
    ///
    /// A repeated request for an actor with a recipe gets the actor of the first one. `id` is `None` if the requester
    /// is this process.
    Place { ticket: Ticket, job: JobId, spec: ActorSpec, recipe: Option<Arc<Recipe>>, id: Option<RequestId> },
    /// The requester has got no reply and waits for none: nothing has the address of the actor with a recipe.
    Abandoned { id: RequestId },
    /// Cancels a request that has not been answered; a pending actor is dropped.
    Cancelled { ticket: Ticket },
    /// Looks up an alive actor by name. Answered with [`ControlReply::Found`].
    Find { ticket: Ticket, namespace: String, name: String },
    /// Locates a managed actor, in an incarnation after `gone`. Answered with [`ControlReply::Found`] once there is
    /// one, or with [`ControlReply::Gone`].
    Locate { ticket: Ticket, actor: ActorKey, gone: Option<ActorIncarnation> },
    /// Waits for the end of a node. Answered with [`ControlReply::End`].
    WatchNode { ticket: Ticket, node: NodeId },
    /// Waits for the end of a job. Answered with [`ControlReply::End`].
    WatchJob { ticket: Ticket, job: JobId },
    /// Waits for the final end of a managed actor. Answered with [`ControlReply::End`].
    WatchActor { ticket: Ticket, actor: ActorKey },
    /// A node of which the agent does not tell it has a holder of states: that of a local cluster.
    HolderStarted { node: NodeId, holder: HolderAddress },
    /// Checks whether there are nodes for the copies of a state. Answered with [`ControlReply::Done`].
    CheckHolders { ticket: Ticket, copies: Copies },
    /// Requests the next configuration of a state. Answered with [`ControlReply::Holders`], or with
    /// [`ControlReply::Done`] if the present one stays.
    ProposeHolders { ticket: Ticket, request: HolderRequest },
    /// Makes a proposed configuration the active one. Answered with [`ControlReply::Done`].
    ActivateHolders { ticket: Ticket, actor: ActorKey, incarnation: ActorIncarnation, number: u64 },
    /// Ends an actor. Answered with [`ControlReply::Done`].
    Kill { ticket: Ticket, actor: ActorKey },
    /// Ends an actor by killing its worker, with everything in it. Answered with [`ControlReply::Done`].
    KillWorkerOf { ticket: Ticket, actor: ActorKey },
    /// A record of id watermarks is durable.
    WatermarksDurable { jobs: u32, workers: u64, actors: u64 },
    /// Reports that writes fail, with the reason, or that they succeed again.
    PersistenceStatus { trouble: Option<String> },
    /// Advances the clock and expires leases.
    Tick,
}

impl ControlEvent {
    /// False for an event that by itself changes no row of a list, but for the times and counts in it.
    pub(super) fn changes_rows(&self) -> bool {
        !matches!(
            self,
            Self::NodeHeartbeat { .. }
                | Self::JobHeartbeat { .. }
                | Self::TaskCounts { .. }
                | Self::Statistics { .. }
                | Self::SpawnGivenUp { .. }
                | Self::Find { .. }
                | Self::Locate { .. }
                | Self::WatchNode { .. }
                | Self::WatchJob { .. }
                | Self::WatchActor { .. }
                | Self::HolderStarted { .. }
                | Self::CheckHolders { .. }
                | Self::ProposeHolders { .. }
                | Self::ActivateHolders { .. }
                | Self::WatermarksDurable { .. }
                | Self::Tick
        )
    }
}

/// Output of the control plane, carried out by the `ActionExecutor`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cluster) enum Action {
    /// Commands an agent to start a worker.
    StartWorker { node: NodeId, worker: WorkerId, job: JobId, detached: Option<ActorKey> },
    /// Commands an agent to stop a worker, if it runs.
    StopWorker { node: NodeId, worker: WorkerId },
    /// Commands an agent to create an incarnation of a managed actor in a worker, once all records before it are
    /// durable: another incarnation must never get the same number.
    ///
    /// An exclusive one runs under the node's lease that began at this time.
    StartActor {
        node: NodeId,
        worker: WorkerId,
        actor: ActorKey,
        at: ActorLocation,
        recipe: Arc<Recipe>,
        lease: Option<u64>,
    },
    /// Commands an agent to stop one actor of a worker.
    StopActor { node: NodeId, worker: WorkerId, actor: ActorKey, at: ActorLocation },
    /// Commands the stop of an incarnation without which its actor goes on, or whose actor has ended, once all records
    /// before it are durable: a restarted head would take the end of the incarnation for that of the actor.
    StopIncarnation { node: NodeId, worker: WorkerId, actor: ActorKey, at: ActorLocation },
    /// Commands the agent of a drained node to stop.
    StopNode { node: NodeId },
    /// Commands an agent to stop the driver of a submitted job.
    StopDriver { node: NodeId, job: JobId },
    /// Releases an ended job: the nodes unpin its executable, and its driver's outbox is dropped.
    ReleaseJob { job: JobId, nodes: BTreeSet<NodeId> },
    /// Drops the outbox of an agent incarnation that is dead.
    ForgetAgent { agent: HostUid },
    /// Answers a request.
    Reply { ticket: Ticket, reply: Result<ControlReply, ControlError> },
    /// Sends an event to the driver of a job, if it is connected.
    NotifyDriver { job: JobId, event: JobEvent },
    /// Writes a record for later incarnations of the head, replacing the one with the same key.
    Persist(Record),
    /// Deletes a record.
    Delete(RecordKey),
    /// Commands agents to remove the state of an actor that has ended for good.
    RemoveState { key: StateKey, nodes: Vec<NodeId> },
}

/// Successful answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) enum ControlReply {
    /// Id of the job, and the workers and nodes that it can use.
    ///
    /// `rejoining` is set while usable nodes have not rejoined since the head restarted; `all_rejoined` once
    /// every node has.
    Job {
        job: JobId,
        nodes: Vec<NodeDescriptor>,
        workers: Vec<WorkerEntry>,
        rejoining: bool,
        all_rejoined: bool,
    },
    /// Worker to create an actor on, or, in `alive`, the existing actor of that name.
    Placed { actor: ActorKey, member: WorkerAddress, alive: Option<ActorLocation> },
    /// New managed actor, which is alive.
    Created { actor: ActorKey, at: ActorLocation, member: WorkerAddress },
    /// Alive actor with its type name and location.
    Found { actor: ActorKey, class: String, at: ActorLocation, member: WorkerAddress },
    /// The actor has ended for good.
    Gone(End),
    /// Proposed configuration of an actor's state.
    Holders(HolderPlan),
    /// The request was carried out.
    Done,
    /// Page of the node list. The control service produces this answer and the next two; they change no
    /// state.
    Nodes(Page<NodeInfo>),
    /// Page of the actor list.
    Actors(Page<ActorInfo>),
    /// End of a worker, a node or a job; `None` for a worker that may be alive.
    End(Option<End>),
}

/// Holders of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cluster) struct HolderConfiguration {
    /// Number of the last configuration, proposed or active.
    pub(in crate::cluster) number: u64,
    /// Holders of the last active configuration; none if there was none.
    pub(in crate::cluster) active: Vec<HolderId>,
    /// Holders that are proposed, and do not have the state for certain.
    pub(in crate::cluster) proposed: Option<Vec<HolderId>>,
}

/// Ready worker of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct WorkerEntry {
    pub(in crate::cluster) node: NodeId,
    pub(in crate::cluster) worker: WorkerId,
    pub(in crate::cluster) member: WorkerAddress,
    pub(in crate::cluster) pid: u32,
    /// False while its node is unreachable.
    pub(in crate::cluster) is_reachable: bool,
}

/// Reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(in crate::cluster) enum ControlError {
    /// No node of the cluster could ever host the actor.
    #[error("{0}")]
    Infeasible(String),
    /// The actor's own `spawn` returned an error.
    #[error("{0}")]
    Refused(String),
    /// The actor's own `spawn` panicked.
    #[error("{0}")]
    Panicked(String),
    /// The worker had too little memory left for the actor.
    #[error("{0}")]
    LowMemory(String),
    /// An actor that is not dead has the name.
    #[error("{0}")]
    NameTaken(String),
    /// The named job, actor or node does not exist.
    #[error("{0}")]
    Unknown(String),
    /// The job has ended.
    #[error("{0}")]
    JobEnded(String),
    /// The request needs a durable record, and the head cannot write.
    #[error(
        "the head cannot keep its state and accepts no work that must be durable: {0}; free some disk space on its machine"
    )]
    NotPersisted(String),
}

/// Event for the driver of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) enum JobEvent {
    /// A node is usable; the job's executable may still be missing there.
    NodeUp(NodeDescriptor),
    /// A usable node was lost, with everything on it. [`WorkerDown`](Self::WorkerDown) events precede this
    /// one.
    NodeGone { agent: HostUid },
    /// A worker of the job is ready.
    WorkerUp { node: NodeId, worker: WorkerId, member: WorkerAddress, pid: u32 },
    /// A worker of the job ended.
    WorkerDown { node: NodeId, worker: WorkerId, member: Option<WorkerAddress>, end: End },
    /// The node of these workers of the job became unreachable, or is reachable again. Each is named by its host for
    /// tasks.
    Reachability { workers: Vec<HostUid>, is_reachable: bool },
    /// An actor of the job was restarted, and is alive at another location.
    ActorMoved { at: ActorLocation, member: WorkerAddress },
    /// The job was stopped.
    Stopped { why: String },
}

/// Persisted state of the head, which a later incarnation cannot learn from agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) enum Record {
    /// Job, including ended ones while they are listed.
    Job {
        job: JobId,
        descriptor: JobDescriptor,
        state: JobState,
        started_ms: u64,
        ended_ms: Option<u64>,
        exit_code: Option<i32>,
        message: Option<String>,
        /// True if the driver of a submitted job has left the cluster.
        left: bool,
    },
    /// Actor that has a name, holds resources, outlives its job, or is restarted.
    Actor {
        actor: ActorKey,
        job: JobId,
        spec: ActorSpec,
        incarnation: ActorIncarnation,
        /// True once the actor was killed, while it may still run.
        #[serde(default)]
        is_killed: bool,
        /// True once its incarnation was told to stop so that the next one can begin, while it may still run.
        #[serde(default)]
        is_replaced: bool,
        /// Request that has created the actor, if it has a recipe.
        #[serde(default)]
        request: Option<RequestId>,
    },
    /// Recipe of an actor that is restarted.
    Recipe { actor: ActorKey, recipe: Recipe },
    /// Configuration of a durable actor's state.
    Holders { actor: ActorKey, configuration: HolderConfiguration },
    /// Watermarks of the allocated ids; the next incarnation starts one block above them.
    IdWatermarks { jobs: u32, workers: u64, actors: u64 },
    /// Alive node, with the time of its join and its drain flag.
    Node { descriptor: NodeDescriptor, joined_ms: u64, draining: bool },
    /// Incarnation of the head's host that ran last. The state ignores this record; the head reads it.
    Incarnation { incarnation: u64 },
}

/// Key of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::cluster) enum RecordKey {
    Job(JobId),
    Actor(ActorKey),
    Recipe(ActorKey),
    Holders(ActorKey),
    IdWatermarks,
    Node(NodeId),
    Incarnation,
}
