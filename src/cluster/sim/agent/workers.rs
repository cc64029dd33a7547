//! Workers of a simulated node: the hosts of a real worker, as tasks.
//!
//! ```text
//!            start        launch             ready
//!  (absent) ──────▶ reserved ──────▶ starting ──────▶ ready ──┐
//!     ▲                │                │                     │ stop, kill
//!     └────────────────┴────────────────┴── removed, ◀────────┘
//!                                           WorkerEnded
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Agent, head_address, membership};
use crate::background::gate::Gate;
use crate::cluster::model::{ActorKey, ActorLocation, JobId, WorkerAddress, WorkerId, WorkerReport};
use crate::cluster::protocol::worker::{ActorEvent, HeadInfo, WorkerInit, WorkerMessage};
use crate::cluster::protocol::{MEMBERSHIP, MembershipUpdate, NodeEvent, NodeRequest};
use crate::cluster::sim::{Shared, random_between, virtual_time};
use crate::cluster::worker::hosts::{Executors, HostEndpoint, Observers, WorkerEndpoints, WorkerHosts};
use crate::cluster::worker_actors::WorkerActors;
use crate::config::WORKER_STOP_TIMEOUT;
use crate::host::{ActorEnd, Executor, Host, Leases, LifecycleObserver, fresh_identity};
use crate::id::HostUid;
use crate::remote::call_host;
use crate::spec::{End, EndReason, LeaseGrant};

/// Shortest and longest time that a worker's process takes to start, in milliseconds.
const START_MS: [u64; 2] = [5, 60];

/// Shortest and longest time until an agent notices the end of a process, in microseconds.
const NOTICE_MICROS: [u64; 2] = [100, 5_000];

/// Worker that runs, or is being started.
#[derive(Debug)]
pub(super) struct SimWorker {
    job: JobId,
    detached: Option<ActorKey>,
    is_stopping: bool,
    is_killed: bool,
    /// `None` until its hosts are started.
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    identities: [HostUid; 2],
    gate: Gate,
    /// Its hosts, once they are started.
    hosts: Vec<Host>,
    /// A message stops the worker gracefully; dropping it kills the worker.
    stop: Option<oneshot::Sender<()>>,
    /// `None` until the worker is ready.
    member: Option<WorkerAddress>,
    actors: WorkerActors,
    leases: Arc<Leases>,
    /// Set once it may have exclusive actors.
    needs_lease: bool,
}

impl SimWorker {
    pub(super) fn job(&self) -> JobId {
        self.job
    }

    pub(super) fn member(&self) -> Option<WorkerAddress> {
        self.process.as_ref()?.member
    }

    pub(super) fn gate(&self) -> Option<Gate> {
        self.process.as_ref().map(|process| process.gate.clone())
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.is_killed && self.member().is_some()
    }

    pub(super) fn report(&self, id: WorkerId) -> WorkerReport {
        WorkerReport {
            worker: id,
            job: self.job,
            detached: self.detached,
            member: self.member(),
            pid: pid(id),
            suspended: false,
            actors: self.process.as_ref().map(|process| process.actors.report()).unwrap_or_default(),
            tasks: Vec::new(),
        }
    }

    /// Ends the worker as SIGKILL does: nothing of it runs from now on.
    pub(super) fn kill(&mut self, shared: &Shared) {
        self.is_killed = true;
        if let Some(process) = &mut self.process {
            shared.unregister(process.identities);
            // Now, and not when its task runs next: what arrives in this instant is not read any more.
            process.hosts.iter().for_each(Host::abort);
            process.stop = None;
            // Its tasks end, also those of a paused process.
            process.gate.set_closed(false);
        }
    }
}

fn pid(worker: WorkerId) -> u32 {
    worker.0 as u32
}

/// Starts a worker in the background. Its end, or the failure to start it, is reported to the head.
pub(super) fn start(agent: &Arc<Agent>, worker: WorkerId, job: JobId, detached: Option<ActorKey>) {
    let entry = SimWorker { job, detached, is_stopping: false, is_killed: false, process: None };
    agent.lock(&agent.workers).insert(worker, entry);
    let starting = Arc::clone(agent);
    agent.spawn(async move {
        if let Err(cause) = launch(&starting, worker, job).await {
            ended(&starting, worker, End::new(EndReason::Refused, cause), false);
        }
    });
}

/// Stops a worker gracefully, and kills it after a timeout.
pub(super) fn stop(agent: &Arc<Agent>, worker: WorkerId) {
    let stop = {
        let mut workers = agent.lock(&agent.workers);
        let Some(entry) = workers.get_mut(&worker) else { return };
        entry.is_stopping = true;
        entry.process.as_mut().and_then(|process| process.stop.take())
    };
    let Some(stop) = stop else { return };
    // Fails if the worker has ended.
    let _ = stop.send(());
    let stopping = Arc::downgrade(agent);
    agent.spawn(async move {
        tokio::time::sleep(WORKER_STOP_TIMEOUT).await;
        if let Some(agent) = stopping.upgrade()
            && let Some(entry) = agent.lock(&agent.workers).get_mut(&worker)
        {
            entry.kill(&agent.shared);
        }
    });
}

/// Notifies all workers of the head's current host.
pub(super) fn announce_head(agent: &Agent, head: HostUid) {
    for entry in agent.lock(&agent.workers).values() {
        let Some(member) = entry.member() else { continue };
        let info = HeadInfo { head, at: Some(head_address()), job: entry.job, tracks_all_actors: true };
        for (to, at) in [(member.actors, member.actors_at), (member.tasks, member.tasks_at)] {
            let host = agent.host.clone();
            host.add_peer(to, at);
            agent.spawn(async move {
                let _: Result<(), _> =
                    call_host(&host, to, MEMBERSHIP, MembershipUpdate::Head(info), None).await;
            });
        }
    }
}

/// Starts the hosts of a worker, and reports it as ready.
async fn launch(agent: &Arc<Agent>, worker: WorkerId, job: JobId) -> Result<(), String> {
    if !agent.lock(&agent.jobs).pinned.contains(&job) {
        return Err("this node does not have the job's executable".to_owned());
    }
    let identities = [fresh_identity(), fresh_identity()];
    let node = agent.host.identity();
    let request = NodeRequest::SignCertificate { node, job, hosts: identities, request: Vec::new() };
    membership::sign(agent, request).await?;
    let head = agent.head().ok_or("the head is not known")?;
    tokio::time::sleep(random_between(START_MS.map(Duration::from_millis))).await;
    let (stop, stopped) = oneshot::channel();
    let gate = Gate::within(&agent.node_gate);
    let leases = Arc::new(Leases::new(virtual_time, Handle::current(), overrun(agent, worker)));
    if let Some(entry) = agent.lock(&agent.workers).get_mut(&worker) {
        if entry.is_stopping {
            return Err("it was stopped while it started".to_owned());
        }
        entry.process = Some(Process {
            identities,
            gate: gate.clone(),
            hosts: Vec::new(),
            stop: Some(stop),
            member: None,
            actors: WorkerActors::default(),
            leases: Arc::clone(&leases),
            needs_lease: false,
        });
    }
    agent.shared.register(identities);
    let (ready, is_ready) = oneshot::channel();
    let (report_end, process_end) = oneshot::channel();
    let serving = serve(agent, (worker, job), head, identities, leases, ready, stopped);
    // Not one of the agent's tasks: killed with the agent, it still has to break its links.
    tokio::spawn(gate.wrap(async move {
        serving.await;
        let _ = report_end.send(());
    }));
    let Ok((actors_at, tasks_at)) = is_ready.await else {
        return Err("it ended while it started".to_owned());
    };
    let member = WorkerAddress { actors: identities[0], actors_at, tasks: identities[1], tasks_at };
    if let Some(process) = agent.lock(&agent.workers).get_mut(&worker).and_then(|it| it.process.as_mut()) {
        process.member = Some(member);
    }
    agent.record(NodeEvent::WorkerReady { worker, member, pid: pid(worker) });
    let watching = Arc::clone(agent);
    agent.spawn(async move {
        // An error means that the task was dropped, which ends the worker as well.
        let _ = process_end.await;
        tokio::time::sleep(random_between(NOTICE_MICROS.map(Duration::from_micros))).await;
        let (is_stopping, is_killed) = watching
            .lock(&watching.workers)
            .get(&worker)
            .map_or((false, false), |entry| (entry.is_stopping, entry.is_killed));
        let end = match (is_stopping, is_killed) {
            (true, _) => End::new(EndReason::Killed, "it was stopped"),
            (false, true) => End::new(EndReason::Signalled(9), "it was killed by SIGKILL"),
            (false, false) => End::new(EndReason::Exited(0), "it exited"),
        };
        ended(&watching, worker, end, is_killed && !is_stopping);
    });
    Ok(())
}

/// Function that ends a worker whose user code overruns its lease: no handler takes virtual time.
fn overrun(agent: &Arc<Agent>, worker: WorkerId) -> Arc<dyn Fn() + Send + Sync> {
    let journal = agent.shared.journal.clone();
    Arc::new(move || journal.violation(format_args!("a handler in worker {worker} overruns its lease")))
}

/// Passes the node's lease on to a worker from now on.
pub(super) fn need_lease(agent: &Agent, worker: WorkerId) {
    let mut workers = agent.lock(&agent.workers);
    if let Some(process) = workers.get_mut(&worker).and_then(|entry| entry.process.as_mut()) {
        process.needs_lease = true;
    }
}

/// Passes the node's lease on to the workers that need it.
pub(super) fn pass_on(agent: &Agent, grant: LeaseGrant) {
    let workers = agent.lock(&agent.workers);
    let running = workers.values().filter(|entry| !entry.is_killed);
    let processes = running.filter_map(|entry| entry.process.as_ref());
    processes.filter(|process| process.needs_lease).for_each(|process| drop(process.leases.renew(grant)));
}

/// Runs the hosts of a worker until it is stopped or killed.
fn serve(
    agent: &Arc<Agent>,
    (worker, job): (WorkerId, JobId),
    head: HostUid,
    [actors, tasks]: [HostUid; 2],
    leases: Arc<Leases>,
    ready: oneshot::Sender<(SocketAddr, SocketAddr)>,
    stop: oneshot::Receiver<()>,
) -> impl Future<Output = ()> + Send + 'static {
    let shared = &agent.shared;
    let endpoint = HostEndpoint {
        transport: shared.network.at(agent.machine),
        listen: SocketAddr::new(agent.machine.ip(), 0),
        io: Handle::current(),
    };
    let info = HeadInfo { head, at: Some(head_address()), job, tracks_all_actors: true };
    let endpoints = WorkerEndpoints { head: Some(info), actors: endpoint.clone(), tasks: endpoint };
    let executor = || Executor::here_or(&Handle::current());
    let executors = Executors { actors: executor(), tasks: executor(), leases };
    let observer = Observer { agent: Arc::downgrade(agent), worker };
    let observers = Observers { lifecycle: Arc::new(observer), statistics: None };
    let init = WorkerInit {
        secret: *shared.secret().as_bytes(),
        limits: shared.limits(),
        stack_bytes: 0,
        actors,
        tasks,
        node: None,
    };
    let report = move |message: WorkerMessage| {
        if let WorkerMessage::Ready { actors_at, tasks_at } = message {
            // Fails if the agent was killed meanwhile.
            let _ = ready.send((actors_at, tasks_at));
        }
        Ok(())
    };
    let (shared, agent) = (Arc::clone(shared), Arc::downgrade(agent));
    async move {
        let served = match WorkerHosts::start(&init, endpoints, executors, observers).await {
            Ok(hosts) => {
                if let Some(agent) = agent.upgrade()
                    && let Some(entry) = agent.lock(&agent.workers).get_mut(&worker)
                    && let Some(process) = &mut entry.process
                {
                    process.hosts = vec![hosts.actors.clone(), hosts.tasks.clone()];
                }
                hosts.serve(report, stop, std::future::pending()).await.map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            shared.journal.violation(format_args!("worker {worker} cannot start: {error}"));
        }
        shared.unregister([actors, tasks]);
    }
}

/// Removes a worker, and reports its end.
fn ended(agent: &Agent, worker: WorkerId, end: End, killed: bool) {
    let Some(entry) = agent.lock(&agent.workers).remove(&worker) else { return };
    agent.shared.journal.note(format_args!("worker {worker} on {} ended: {end}", agent.machine));
    agent.release_if_idle(entry.job);
    for host in entry.process.into_iter().flat_map(|process| process.identities) {
        agent.host.mark_peer_down(host, "the worker has ended");
        agent.host.forget(host);
    }
    agent.record(NodeEvent::WorkerEnded { worker, end, killed });
}

/// Observer of a worker's actors, over its control socket to the agent.
#[derive(Debug)]
struct Observer {
    agent: Weak<Agent>,
    worker: WorkerId,
}

impl Observer {
    fn report(&self, event: ActorEvent) {
        let Some(agent) = self.agent.upgrade() else { return };
        {
            let mut workers = agent.lock(&agent.workers);
            // A killed process reports nothing, although its actors are dropped in this one.
            let entry = workers.get_mut(&self.worker).filter(|entry| !entry.is_killed);
            let Some(process) = entry.and_then(|entry| entry.process.as_mut()) else { return };
            if let ActorEvent::Started { actor, at, .. } = &event {
                agent.shared.actor_created(agent.machine, *actor, *at);
            }
            process.actors.on_event(&event);
        }
        agent.record(NodeEvent::Actor { worker: self.worker, event });
    }
}

impl LifecycleObserver for Observer {
    fn actor_started(&self, actor: ActorKey, class: &'static str, at: ActorLocation) {
        self.report(ActorEvent::Started { actor, class: class.to_owned(), at });
    }

    fn actor_stopped(&self, actor: ActorKey, end: ActorEnd) {
        let ActorEnd { incarnation, end, handled } = end;
        self.report(ActorEvent::Stopped { actor, incarnation, end, handled });
    }
}
