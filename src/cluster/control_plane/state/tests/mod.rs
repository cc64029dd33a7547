//! Tests of the control plane, event by event.

mod events;
mod fair;
mod jobs;
mod lists;
mod managed;
mod names;
mod nodes;
mod placement;
mod random;
mod reachability;
mod restart;
mod statistics;
mod watchers;
mod workers;

use std::sync::Arc;

use crate::cluster::control_plane::state::*;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorLocation, ActorSpec, ActorState, JobDescriptor, JobId, JobState, Lifetime,
    NodeDescriptor, NodeId, NodeReport, NodeState, Resources, WorkerAddress, WorkerId, WorkerReport,
};
use crate::config::RECIPE_BYTES_MAX;
use crate::id::{ActorId, ActorIncarnation, HostId, Incarnation, Target, TypeHash};
use crate::spec::{End, EndReason, Recipe, Restart};
use crate::wire::Payload;

/// Control plane under test, with a clock in milliseconds and the number of requests so far.
struct Harness {
    state: ClusterState,
    now: u64,
    requests: u64,
}

/// Addresses of a worker's hosts.
fn member(worker: WorkerId) -> WorkerAddress {
    let host = |kind: u64| HostUid { host: HostId(kind << 32 | worker.0), incarnation: Incarnation(1) };
    let at = "127.0.0.1:1".parse().unwrap();
    WorkerAddress { actors: host(1), actors_at: at, tasks: host(2), tasks_at: at }
}

/// Entry of a worker, as its driver sees it.
fn worker_entry(node: u64, worker: WorkerId) -> WorkerEntry {
    WorkerEntry { node: NodeId(node), worker, member: member(worker), pid: 7, is_reachable: true }
}

/// Location of an actor.
fn location(worker: WorkerId, actor: ActorKey) -> ActorLocation {
    let target = Target { actor: ActorId(actor.0), incarnation: ActorIncarnation(0) };
    ActorLocation { host: member(worker).actors, target }
}

/// Location of a managed actor's incarnation.
fn managed_location(worker: WorkerId, actor: ActorKey, incarnation: u32) -> ActorLocation {
    let (actor, incarnation) = (ActorId::managed(actor.0).unwrap(), ActorIncarnation(incarnation));
    ActorLocation { host: member(worker).actors, target: Target { actor, incarnation } }
}

/// Recipe with arguments of about this size.
fn recipe(bytes: usize) -> Arc<Recipe> {
    let args = Payload::from(vec![7; bytes]);
    Arc::new(Recipe::new(TypeHash(1), &args, 2 * RECIPE_BYTES_MAX).unwrap())
}

/// Report that an actor's first incarnation has ended.
fn actor_ended(actor: ActorKey, text: &str) -> ControlEvent {
    let end = End::new(EndReason::Stopped, text);
    ControlEvent::ActorEnded { actor, incarnation: ActorIncarnation(0), end }
}

/// Report that an actor's first incarnation has panicked.
fn actor_panicked(actor: ActorKey, text: &str) -> ControlEvent {
    let end = End::new(EndReason::Panicked, text);
    ControlEvent::ActorEnded { actor, incarnation: ActorIncarnation(0), end }
}

/// Report that a worker's process has ended.
fn worker_ended(worker: WorkerId, text: &str, killed: bool) -> ControlEvent {
    ControlEvent::WorkerEnded { worker, end: End::new(EndReason::Exited(1), text), killed }
}

fn agent(node: u64, incarnation: u64) -> HostUid {
    HostUid { host: HostId(node), incarnation: Incarnation(incarnation) }
}

fn node_descriptor(node: u64, cpus: f64, workers: u32) -> NodeDescriptor {
    NodeDescriptor {
        agent: agent(node, 1),
        address: "127.0.0.1:1".parse().unwrap(),
        hostname: format!("n{node}"),
        pid: 1,
        is_head: false,
        resources: Resources::none().with(Resources::CPU, cpus),
        labels: [("name".to_owned(), format!("n{node}"))].into(),
        workers,
        platform: String::new(),
        session_dir: String::new(),
    }
}

fn job_descriptor(driver: u64) -> JobDescriptor {
    JobDescriptor {
        entrypoint: "program".to_owned(),
        hostname: "here".to_owned(),
        pid: 1,
        driver: Some(HostUid { host: HostId(3 << 32 | driver), incarnation: Incarnation(1) }),
        user_host: None,
        namespace: "own".to_owned(),
        runs_on: None,
    }
}

/// Lease of nodes and drivers, in seconds.
fn lease() -> u64 {
    Settings::default().node_lease.as_secs()
}

fn plain() -> ActorSpec {
    ActorSpec { class: "Plain".to_owned(), ..ActorSpec::default() }
}

fn cpus(cpus: f64) -> ActorSpec {
    ActorSpec { resources: Resources::none().with(Resources::CPU, cpus), ..plain() }
}

fn named(name: &str) -> ActorSpec {
    ActorSpec { name: Some(name.to_owned()), ..plain() }
}

fn detached(spec: ActorSpec) -> ActorSpec {
    ActorSpec { lifetime: Lifetime::Detached, ..spec }
}

fn on(node: u64, spec: ActorSpec) -> ActorSpec {
    ActorSpec { node: Some(NodeId(node)), ..spec }
}

impl Harness {
    fn new() -> Self {
        Self { state: ClusterState::new(Settings::default()), now: 1_000_000, requests: 0 }
    }

    /// Cluster of nodes with four CPUs and one worker each, and a job whose workers are ready.
    fn with_nodes(nodes: u64) -> (Self, JobId) {
        let mut harness = Self::new();
        for node in 1..=nodes {
            harness.join(node_descriptor(node, 4.0, 1));
        }
        let job = harness.start_job();
        for node in 1..=nodes {
            harness.provision_and_start(job, node);
        }
        (harness, job)
    }

    fn handle(&mut self, event: ControlEvent) -> Vec<Action> {
        let mut actions = Vec::new();
        self.state.handle(Millis(self.now), event, &mut actions);
        actions
    }

    /// Makes the id watermarks among the actions durable.
    fn persist_watermarks(&mut self, actions: &[Action]) {
        for record in durable_records(actions) {
            if let Record::IdWatermarks { jobs, workers, actors } = record {
                self.handle(ControlEvent::WatermarksDurable { jobs, workers, actors });
            }
        }
    }

    fn join(&mut self, descriptor: NodeDescriptor) -> Vec<Action> {
        self.rejoin(descriptor, Vec::new())
    }

    fn rejoin(&mut self, descriptor: NodeDescriptor, workers: Vec<WorkerReport>) -> Vec<Action> {
        self.handle(ControlEvent::NodeJoined(NodeReport { workers, ..NodeReport::idle(descriptor) }))
    }

    fn ticket(&mut self) -> Ticket {
        self.requests += 1;
        Ticket(self.requests)
    }

    /// Sends a request, and removes its reply from the actions.
    fn ask(&mut self, event: impl FnOnce(Ticket) -> ControlEvent) -> IssuedRequest {
        let ticket = self.ticket();
        let mut actions = self.handle(event(ticket));
        IssuedRequest { ticket, reply: take_reply(&mut actions, ticket), actions }
    }

    fn start_job(&mut self) -> JobId {
        let driver = self.requests + 1;
        let request = self.ask(|ticket| ControlEvent::JobStarted {
            ticket,
            job: None,
            descriptor: job_descriptor(driver),
        });
        let Some(Ok(ControlReply::Job { job, .. })) = request.reply else { panic!("{request:?}") };
        job
    }

    fn end_job(&mut self, job: JobId) -> Vec<Action> {
        let message = "done".to_owned();
        self.handle(ControlEvent::JobEnded { job, state: JobState::Succeeded, exit_code: Some(0), message })
    }

    /// Provisions a node for a job. Returns the workers that are started.
    fn provision(&mut self, job: JobId, node: u64) -> Vec<WorkerId> {
        started(&self.handle(ControlEvent::NodeProvisioned { job, node: NodeId(node) }))
    }

    fn provision_and_start(&mut self, job: JobId, node: u64) -> Vec<WorkerId> {
        let workers = self.provision(job, node);
        for worker in &workers {
            self.ready(*worker);
        }
        workers
    }

    fn ready(&mut self, worker: WorkerId) -> Vec<Action> {
        self.handle(ControlEvent::WorkerReady { worker, member: member(worker), pid: 7 })
    }

    fn ended(&mut self, worker: WorkerId) -> Vec<Action> {
        self.handle(worker_ended(worker, "exit code 1", false))
    }

    fn place(&mut self, job: JobId, spec: ActorSpec) -> IssuedRequest {
        self.ask(|ticket| ControlEvent::Place { ticket, job, spec, recipe: None, id: None })
    }

    /// Places an actor, and reports it as created.
    fn spawn(&mut self, job: JobId, spec: ActorSpec) -> (ActorKey, WorkerId) {
        let placed = self.place(job, spec);
        let actor = placed.expect_placed();
        (actor, self.create(actor))
    }

    fn create(&mut self, actor: ActorKey) -> WorkerId {
        let worker = self.state.worker_of_actor(actor).unwrap();
        self.handle(ControlEvent::ActorStarted { actor, worker, at: location(worker, actor) });
        worker
    }

    fn node_of(&self, worker: WorkerId) -> u64 {
        self.state.worker(worker).unwrap().0.0
    }

    fn actor(&self, actor: ActorKey) -> ActorInfo {
        self.state.actors().into_iter().find(|info| info.actor_id == actor).unwrap()
    }

    #[track_caller]
    fn expect_dead(&self, actor: ActorKey, cause: &str) {
        let info = self.actor(actor);
        assert_eq!((info.state, info.cause.as_deref()), (ActorState::Dead, Some(cause)));
    }

    fn free_cpus(&self, node: u64) -> f64 {
        let nodes = self.state.nodes();
        let node = nodes.iter().find(|info| info.node_id == NodeId(node)).unwrap();
        f64::from(node.available.0[Resources::CPU])
    }

    fn reasons(&self) -> Vec<String> {
        self.state.waiting(usize::MAX).into_iter().map(|waiting| waiting.reason).collect()
    }

    /// Advances the time tick by tick, with heartbeats of the given members in each second.
    fn advance(&mut self, seconds: u64, nodes: &[HostUid], jobs: &[JobId]) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..seconds {
            for _ in 0..3 {
                self.now += 250;
                actions.extend(self.handle(ControlEvent::Tick));
            }
            self.now += 250;
            for node in nodes {
                actions.extend(self.handle(ControlEvent::NodeHeartbeat { node: *node }));
            }
            for job in jobs {
                actions.extend(self.handle(ControlEvent::JobHeartbeat { job: *job }));
            }
            actions.extend(self.handle(ControlEvent::Tick));
        }
        actions
    }
}

/// Request with its immediate answer, if any, and the other actions.
#[derive(Debug)]
struct IssuedRequest {
    ticket: Ticket,
    reply: Option<Result<ControlReply, ControlError>>,
    actions: Vec<Action>,
}

impl IssuedRequest {
    #[track_caller]
    fn expect_placed(&self) -> ActorKey {
        match &self.reply {
            Some(Ok(ControlReply::Placed { actor, alive: None, .. })) => *actor,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect_pending(&self) -> Ticket {
        assert_eq!(self.reply, None);
        self.ticket
    }

    #[track_caller]
    fn expect_error(&self, denied: fn(String) -> ControlError, text: &str) {
        assert_eq!(self.reply, Some(Err(denied(text.to_owned()))));
    }
}

fn take_reply(actions: &mut Vec<Action>, ticket: Ticket) -> Option<Result<ControlReply, ControlError>> {
    let is_it = |action: &Action| matches!(action, Action::Reply { ticket: of, .. } if *of == ticket);
    let at = actions.iter().position(is_it)?;
    match actions.remove(at) {
        Action::Reply { reply, .. } => Some(reply),
        _ => None,
    }
}

/// Removes the placement that answers a pending request.
#[track_caller]
fn take_placed(actions: &mut Vec<Action>, ticket: Ticket) -> ActorKey {
    match take_reply(actions, ticket) {
        Some(Ok(ControlReply::Placed { actor, alive: None, .. })) => actor,
        other => panic!("{other:?}"),
    }
}

fn started(actions: &[Action]) -> Vec<WorkerId> {
    let started = actions.iter().filter_map(|action| match action {
        Action::StartWorker { worker, .. } => Some(*worker),
        _ => None,
    });
    started.collect()
}

fn stopped(actions: &[Action]) -> Vec<WorkerId> {
    let stopped = actions.iter().filter_map(|action| match action {
        Action::StopWorker { worker, .. } => Some(*worker),
        _ => None,
    });
    stopped.collect()
}

/// Actors whose kill is written.
fn killed_records(actions: &[Action]) -> Vec<ActorKey> {
    let killed = actions.iter().filter_map(|action| match action {
        Action::Persist(Record::Actor { actor, is_killed: true, .. }) => Some(*actor),
        _ => None,
    });
    killed.collect()
}

fn driver_events(actions: &[Action]) -> Vec<&JobEvent> {
    let events = actions.iter().filter_map(|action| match action {
        Action::NotifyDriver { event, .. } => Some(event),
        _ => None,
    });
    events.collect()
}

/// Records that a restart of the head finds.
fn durable_records(actions: &[Action]) -> Vec<Record> {
    let mut records = BTreeMap::new();
    for action in actions {
        match action {
            Action::Persist(record) => drop(records.insert(record.key(), record.clone())),
            Action::Delete(key) => drop(records.remove(key)),
            _ => {}
        }
    }
    records.into_values().collect()
}
