//! The control plane, event by event.

mod fair;
mod jobs;
mod lists;
mod names;
mod nodes;
mod places;
mod random;
mod restart;
mod workers;

use crate::cluster::control_plane::state::*;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorLocation, ActorSpec, ActorState, JobDescriptor, JobId, JobState, Lifetime,
    NodeDescriptor, NodeId, NodeReport, NodeState, Resources, WorkerAddress, WorkerId, WorkerReport,
};
use crate::id::{ActorId, ActorIncarnation, HostId, Incarnation, Target};

/// A control plane, the hour, and what it has been asked.
struct Lab {
    state: State,
    now: u64,
    asked: u64,
}

/// Where a worker's hosts are.
fn member(worker: WorkerId) -> WorkerAddress {
    let host = |kind: u64| HostUid { host: HostId(kind << 32 | worker.0), incarnation: Incarnation(1) };
    let at = "127.0.0.1:1".parse().unwrap();
    WorkerAddress { actors: host(1), actors_at: at, tasks: host(2), tasks_at: at }
}

/// What a driver is told of a worker of its job.
fn working(node: u64, worker: WorkerId) -> WorkerEntry {
    WorkerEntry { node: NodeId(node), worker, member: member(worker), pid: 7 }
}

/// Where an actor lives.
fn place(worker: WorkerId, actor: ActorKey) -> ActorLocation {
    let target = Target { actor: ActorId(actor.0), incarnation: ActorIncarnation(0) };
    ActorLocation { host: member(worker).actors, target }
}

fn agent(node: u64, incarnation: u64) -> HostUid {
    HostUid { host: HostId(node), incarnation: Incarnation(incarnation) }
}

fn node_facts(node: u64, cpus: f64, workers: u32) -> NodeDescriptor {
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

fn job_facts(driver: u64) -> JobDescriptor {
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

/// The lease of nodes and drivers, in seconds.
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

impl Lab {
    fn new() -> Self {
        Self { state: State::new(Settings::default()), now: 1_000_000, asked: 0 }
    }

    /// A cluster of nodes with four processors and a worker, and one job with its workers ready everywhere.
    fn with_nodes(nodes: u64) -> (Self, JobId) {
        let mut lab = Self::new();
        for node in 1..=nodes {
            lab.join(node_facts(node, 4.0, 1));
        }
        let job = lab.start_job();
        for node in 1..=nodes {
            lab.equip_and_start(job, node);
        }
        (lab, job)
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.state.handle(Millis(self.now), event, &mut actions);
        actions
    }

    /// The disk takes the numbers that are to be kept.
    fn numbers_are_kept(&mut self, actions: &[Action]) {
        for record in kept(actions) {
            if let Record::IdWatermarks { jobs, workers, actors } = record {
                self.handle(Event::NumbersKept { jobs, workers, actors });
            }
        }
    }

    fn join(&mut self, facts: NodeDescriptor) -> Vec<Action> {
        self.rejoin(facts, Vec::new())
    }

    fn rejoin(&mut self, facts: NodeDescriptor, workers: Vec<WorkerReport>) -> Vec<Action> {
        self.handle(Event::NodeJoined(NodeReport { workers, ..NodeReport::idle(facts) }))
    }

    fn ticket(&mut self) -> Ticket {
        self.asked += 1;
        Ticket(self.asked)
    }

    /// Asks something, and takes the answer out of what is to be done.
    fn ask(&mut self, event: impl FnOnce(Ticket) -> Event) -> Asking {
        let ticket = self.ticket();
        let mut actions = self.handle(event(ticket));
        Asking { ticket, answer: take_answer(&mut actions, ticket), actions }
    }

    fn start_job(&mut self) -> JobId {
        let driver = self.asked + 1;
        let asking = self.ask(|ticket| Event::JobStarted { ticket, job: None, facts: job_facts(driver) });
        let Some(Ok(Answer::Job { job, .. })) = asking.answer else { panic!("{asking:?}") };
        job
    }

    fn end_job(&mut self, job: JobId) -> Vec<Action> {
        let message = "done".to_owned();
        self.handle(Event::JobEnded { job, state: JobState::Succeeded, exit_code: Some(0), message })
    }

    /// The workers that are to be started when a node has a job's executable.
    fn equip(&mut self, job: JobId, node: u64) -> Vec<WorkerId> {
        started(&self.handle(Event::NodeProvisioned { job, node: NodeId(node) }))
    }

    fn equip_and_start(&mut self, job: JobId, node: u64) -> Vec<WorkerId> {
        let workers = self.equip(job, node);
        for worker in &workers {
            self.ready(*worker);
        }
        workers
    }

    fn ready(&mut self, worker: WorkerId) -> Vec<Action> {
        self.handle(Event::WorkerReady { worker, member: member(worker), pid: 7 })
    }

    fn ended(&mut self, worker: WorkerId) -> Vec<Action> {
        self.handle(Event::WorkerEnded { worker, cause: "exit code 1".to_owned() })
    }

    fn place(&mut self, job: JobId, spec: ActorSpec) -> Asking {
        self.ask(|ticket| Event::Place { ticket, job, spec })
    }

    /// Places an actor, and has it begin.
    fn spawn(&mut self, job: JobId, spec: ActorSpec) -> (ActorKey, WorkerId) {
        let placed = self.place(job, spec);
        let actor = placed.placed();
        (actor, self.begin(actor))
    }

    fn begin(&mut self, actor: ActorKey) -> WorkerId {
        let worker = self.state.worker_of_actor(actor).unwrap();
        self.handle(Event::ActorStarted { actor, worker, at: place(worker, actor) });
        worker
    }

    fn node_of(&self, worker: WorkerId) -> u64 {
        self.state.worker(worker).unwrap().0.0
    }

    fn actor(&self, actor: ActorKey) -> ActorInfo {
        self.state.actors().into_iter().find(|info| info.actor_id == actor).unwrap()
    }

    #[track_caller]
    fn is_dead(&self, actor: ActorKey, cause: &str) {
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

    /// Lets time pass, tick by tick, while these are heard of.
    fn pass(&mut self, seconds: u64, nodes: &[HostUid], jobs: &[JobId]) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..seconds {
            self.now += 1000;
            for node in nodes {
                actions.extend(self.handle(Event::NodeHeartbeat { node: *node }));
            }
            for job in jobs {
                actions.extend(self.handle(Event::JobHeartbeat { job: *job }));
            }
            actions.extend(self.handle(Event::Tick));
        }
        actions
    }
}

/// A question, what was answered at once, and what else is to be done.
#[derive(Debug)]
struct Asking {
    ticket: Ticket,
    answer: Option<Result<Answer, ControlError>>,
    actions: Vec<Action>,
}

impl Asking {
    #[track_caller]
    fn placed(&self) -> ActorKey {
        match &self.answer {
            Some(Ok(Answer::Placed { actor, alive: None, .. })) => *actor,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn waits(&self) -> Ticket {
        assert_eq!(self.answer, None);
        self.ticket
    }

    #[track_caller]
    fn is_denied(&self, denied: fn(String) -> ControlError, text: &str) {
        assert_eq!(self.answer, Some(Err(denied(text.to_owned()))));
    }
}

fn take_answer(actions: &mut Vec<Action>, ticket: Ticket) -> Option<Result<Answer, ControlError>> {
    let is_it = |action: &Action| matches!(action, Action::Answer { ticket: of, .. } if *of == ticket);
    let at = actions.iter().position(is_it)?;
    match actions.remove(at) {
        Action::Answer { answer, .. } => Some(answer),
        _ => None,
    }
}

/// Takes the place that somebody has waited for.
#[track_caller]
fn take_placed(actions: &mut Vec<Action>, ticket: Ticket) -> ActorKey {
    match take_answer(actions, ticket) {
        Some(Ok(Answer::Placed { actor, alive: None, .. })) => actor,
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

fn news(actions: &[Action]) -> Vec<&JobEvent> {
    let news = actions.iter().filter_map(|action| match action {
        Action::NotifyDriver { news, .. } => Some(news),
        _ => None,
    });
    news.collect()
}

/// What a later life of the head finds.
fn kept(actions: &[Action]) -> Vec<Record> {
    let mut kept = BTreeMap::new();
    for action in actions {
        match action {
            Action::Persist(record) => drop(kept.insert(record.key(), record.clone())),
            Action::Delete(key) => drop(kept.remove(key)),
            _ => {}
        }
    }
    kept.into_values().collect()
}
