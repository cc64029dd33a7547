//! Agent of a simulated node. Its workers are pairs of hosts in the same thread.
//!
//! It has the event queue of the real agent, and speaks the same requests, events and commands. It has no processes, no
//! executables and no certificates.

mod membership;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::network::{Machine, head_at};
use super::{Shared, virtual_time};
use crate::background::gate::Gate;
use crate::cluster::authorization;
use crate::cluster::event_queue::EventQueue;
use crate::cluster::holder::Holder;
use crate::cluster::model::{JobId, NodeDescriptor, NodeReport, WorkerId};
use crate::cluster::node_lease::NodeLease;
use crate::cluster::protocol::worker::ActorEvent;
use crate::cluster::protocol::{
    AGENT_COMMAND, AgentCommand, EXECUTABLE, ExecutableReply, ExecutableRequest, NodeEvent,
};
use crate::config::INBOUND_PEER_EXPIRY;
use crate::durable::protocol::STATE;
use crate::host::{ActorEnd, Executor, Host, HostConfig, HostServices, fresh_identity};
use crate::id::HostUid;
use crate::registry::{Inbound, decode};
use crate::remote::stop_on_host;
use crate::spec::{ActorKey, ActorLocation, Recipe, Resources};
use crate::wire::CallFailure;
use workers::SimWorker;

/// Running agent. Clones are the same agent.
#[derive(Clone, Debug)]
pub(super) struct SimAgent(pub(super) Arc<Agent>);

/// State that the tasks of an agent share.
#[derive(Debug)]
pub(super) struct Agent {
    shared: Arc<Shared>,
    machine: Machine,
    descriptor: NodeDescriptor,
    pub(super) host: Host,
    lease: NodeLease,
    events: EventQueue,
    /// States of durable actors; they are lost with the agent.
    holder: Holder,
    head: Mutex<Option<HostUid>>,
    jobs: Mutex<Jobs>,
    workers: Mutex<BTreeMap<WorkerId, SimWorker>>,
    is_killed: AtomicBool,
    /// Gate of the agent's process.
    pub(super) gate: Gate,
    /// Gate of the machine, with the agent and its workers.
    pub(super) node_gate: Gate,
    /// Set once the head has accepted a join.
    pub(super) has_joined: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
}

/// Jobs of a node.
#[derive(Debug, Default)]
struct Jobs {
    /// Jobs whose executables the node has pinned.
    pinned: BTreeSet<JobId>,
    /// Of those, jobs that have ended. They are unpinned once their last worker has ended.
    ended: BTreeSet<JobId>,
}

type AgentCell = Arc<OnceLock<Weak<Agent>>>;

impl SimAgent {
    /// Starts an agent, which joins the head as soon as it can.
    pub(super) async fn start(shared: &Arc<Shared>, node: usize) -> Self {
        let node_gate = Gate::default();
        let gate = Gate::within(&node_gate);
        gate.wrap(Self::start_behind([gate.clone(), node_gate], shared, node)).await
    }

    async fn start_behind([gate, node_gate]: [Gate; 2], shared: &Arc<Shared>, node: usize) -> Self {
        let (machine, identity) = (Machine::Node(node), fresh_identity());
        let cell = AgentCell::default();
        let host = Host::start(HostConfig {
            identity,
            secret: shared.secret(),
            limits: shared.limits(),
            transport: shared.network.at(machine),
            listen: Some(SocketAddr::new(machine.ip(), 0)),
            io: Handle::current(),
            executor: Executor::here_or(&Handle::current()),
            services: services(Arc::clone(&cell)),
        })
        .await
        .expect("the node has a free port");
        host.expire_inbound_peers(INBOUND_PEER_EXPIRY);
        let descriptor = NodeDescriptor {
            agent: identity,
            address: host.address().expect("the host listens"),
            hostname: machine.to_string(),
            pid: 1,
            is_head: false,
            resources: Resources::none().with(Resources::CPU, shared.plan.cpus),
            labels: Default::default(),
            workers: shared.plan.workers,
            platform: String::new(),
            session_dir: String::new(),
        };
        let agent = Arc::new(Agent {
            shared: Arc::clone(shared),
            machine,
            descriptor,
            host,
            lease: NodeLease::new(virtual_time),
            events: EventQueue::default(),
            holder: Holder::new(),
            head: Mutex::default(),
            jobs: Mutex::default(),
            workers: Mutex::default(),
            is_killed: AtomicBool::new(false),
            gate,
            node_gate,
            has_joined: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        // The cell is new, so this cannot fail.
        let _ = cell.set(Arc::downgrade(&agent));
        shared.register([identity]);
        let joining = membership::membership_loop(Arc::clone(&agent));
        agent.spawn(joining);
        Self(agent)
    }

    /// Kills the agent and its workers.
    pub(super) fn kill(&self) {
        let agent = &self.0;
        agent.is_killed.store(true, Ordering::Relaxed);
        agent.shared.unregister([agent.host.identity()]);
        agent.lock(&agent.workers).values_mut().for_each(|worker| worker.kill(&agent.shared));
        agent.lock(&agent.tasks).abort_all();
        agent.host.abort();
        // Their tasks end, also those of paused processes.
        [&agent.gate, &agent.node_gate].into_iter().for_each(|gate| gate.set_closed(false));
    }

    /// Kills one of the workers that are ready, and returns its id.
    pub(super) fn kill_worker(&self, number: usize) -> Option<WorkerId> {
        let agent = &self.0;
        let mut workers = agent.lock(&agent.workers);
        let ready: Vec<_> = workers.iter().filter(|(_, it)| it.is_ready()).map(|(id, _)| *id).collect();
        let id = *ready.get(number.checked_rem(ready.len())?)?;
        workers.get_mut(&id)?.kill(&agent.shared);
        Some(id)
    }

    /// Ready worker with that number, with its gate.
    pub(super) fn worker_gate(&self, number: usize) -> Option<(WorkerId, Gate)> {
        let workers = self.0.lock(&self.0.workers);
        let ready: Vec<_> = workers.iter().filter(|(_, it)| it.is_ready()).collect();
        let (id, worker) = ready.get(number.checked_rem(ready.len())?)?;
        let gate = worker.gate()?;
        Some((**id, gate))
    }

    /// Ids of the workers that run or start.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.0.lock(&self.0.workers).keys().copied().collect()
    }
}

impl Agent {
    fn lock<'a, T>(&self, part: &'a Mutex<T>) -> MutexGuard<'a, T> {
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Relaxed)
    }

    /// Runs a task that ends with the agent.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock(&self.tasks);
        // Ended ones would be kept otherwise.
        while tasks.try_join_next().is_some() {}
        if !self.is_killed() {
            tasks.spawn(self.gate.wrap(task));
        }
    }

    /// Queues an event for the head.
    fn record(&self, event: NodeEvent) {
        if !self.is_killed() {
            self.events.push(event);
        }
    }

    /// Snapshot of the node for the head. It replaces the queued events.
    fn report(&self) -> NodeReport {
        self.events.clear();
        NodeReport {
            descriptor: self.descriptor.clone(),
            workers: self.lock(&self.workers).iter().map(|(id, worker)| worker.report(*id)).collect(),
            jobs: self.lock(&self.jobs).pinned.iter().copied().collect(),
            drivers: Vec::new(),
            ended: self.events.actor_ends(),
            ended_workers: self.events.worker_ends(),
            holder: Some(self.holder.id()),
            states: self.holder.keys(),
        }
    }

    /// Host of the head, as the agent last knew it.
    fn head(&self) -> Option<HostUid> {
        *self.lock(&self.head)
    }

    /// Unpins the executable of an ended job once none of its workers is left.
    fn release_if_idle(&self, job: JobId) {
        let is_idle = self.lock(&self.workers).values().all(|worker| worker.job() != job);
        let mut jobs = self.lock(&self.jobs);
        if is_idle && jobs.ended.remove(&job) {
            jobs.pinned.remove(&job);
        }
    }
}

fn services(cell: AgentCell) -> HostServices {
    Box::new(move |host, service, inbound| {
        let Some(agent) = cell.get().and_then(Weak::upgrade) else {
            return inbound.fail(&CallFailure::ActorStopped);
        };
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            AGENT_COMMAND => handle_command(&agent, inbound),
            EXECUTABLE => handle_executable(&agent, inbound),
            STATE => agent.holder.serve(host, inbound),
            _ => inbound.fail(&CallFailure::ActorStopped),
        }
    })
}

/// Handles a command of the head. It is acknowledged immediately and executed in the background.
fn handle_command(agent: &Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let command = match decode::<AgentCommand>(&body) {
        Ok(command) => command,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    match command {
        AgentCommand::StartWorker { worker, job, detached } => {
            workers::start(agent, worker, job, detached);
        }
        AgentCommand::StopWorker { worker } => workers::stop(agent, worker),
        AgentCommand::StartActor { worker, at, recipe, lease } => {
            start_actor(agent, worker, at, recipe, lease)
        }
        AgentCommand::StopActor { worker, at } => stop_actor(agent, worker, at),
        AgentCommand::RemoveState { key } => agent.holder.remove(key),
        AgentCommand::ReleaseJob { job } => {
            agent.holder.remove_job(job);
            agent.lock(&agent.jobs).ended.insert(job);
            agent.release_if_idle(job);
        }
        // A simulated node runs no drivers, and none is drained.
        AgentCommand::StopDriver { .. } | AgentCommand::StopNode => {}
    }
    responder.reply(());
}

/// Creates an incarnation of a managed actor, and reports a failure.
fn start_actor(agent: &Arc<Agent>, worker: WorkerId, at: ActorLocation, recipe: Recipe, lease: Option<u64>) {
    if !add_peer(agent, worker, at) {
        return;
    }
    let starting = Arc::clone(agent);
    agent.spawn(async move {
        let prepare = || workers::need_lease(&starting, worker);
        let ended = starting.lease.start_incarnation(&starting.host, at, recipe, lease, prepare).await;
        let Some(ended) = ended else { return };
        if let Some(number) = at.target.actor.managed_number() {
            let ActorEnd { incarnation, end, handled } = ended;
            let event = ActorEvent::Stopped { actor: ActorKey(number), incarnation, end, handled };
            starting.record(NodeEvent::Actor { worker, event });
        }
    });
}

/// Adds a worker's host to the peers of the agent; false if the worker does not run.
fn add_peer(agent: &Agent, worker: WorkerId, at: ActorLocation) -> bool {
    let workers = agent.lock(&agent.workers);
    let member = workers.get(&worker).and_then(SimWorker::member).filter(|member| member.actors == at.host);
    member.map(|member| agent.host.add_peer(at.host, member.actors_at)).is_some()
}

fn stop_actor(agent: &Arc<Agent>, worker: WorkerId, at: ActorLocation) {
    if !add_peer(agent, worker, at) {
        return;
    }
    let host = agent.host.clone();
    agent.spawn(async move {
        if let Err(error) = stop_on_host(&host, at).await {
            tracing::debug!(?at, %error, "cannot stop an actor");
        }
    });
}

/// Pins a job on request of its driver.
fn handle_executable(agent: &Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<ExecutableReply>();
    let request = match decode::<ExecutableRequest>(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    responder.reply(match request {
        ExecutableRequest::Launch(spec) => {
            agent.lock(&agent.jobs).pinned.insert(spec.job);
            agent.record(NodeEvent::ExecutablePinned { job: spec.job });
            ExecutableReply::Done
        }
        _ => ExecutableReply::Failed { text: "simulated nodes need no executables".to_owned() },
    });
}

/// Address of the head for agents.
fn head_address() -> SocketAddr {
    head_at()
}
