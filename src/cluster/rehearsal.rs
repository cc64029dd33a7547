//! A made-up cluster, on which the control plane can be measured: see the example `control_plane`.
//!
//! Nodes, workers and actors exist in the control plane alone; what it wants done is dropped.

use crate::cluster::model::{
    ActorKey, ActorPlace, ActorSpec, JobFacts, JobId, Labels, Member, NodeFacts, NodeId, Resources, WorkerId,
};
use crate::cluster::state::{Action, Answer, Event, Millis, NodeReport, Settings, State, Ticket};
use crate::id::{ActorId, ActorIncarnation, HostId, Identity, Incarnation, Target};

/// How many workers each node has.
const WORKERS: u32 = 4;

/// How many labels of one name there are: a node has one of them.
const ZONES: u64 = 3;

/// A control plane with as many nodes and actors as one likes. Not for programs.
#[derive(Debug)]
pub struct Rehearsal {
    state: State,
    now: Millis,
    actions: Vec<Action>,
    nodes: u64,
    job: JobId,
    asked: u64,
    /// Those that have begun.
    actors: Vec<ActorKey>,
    random: u64,
}

impl Rehearsal {
    /// A cluster of `nodes` nodes with room for `room` actors each, and one job with workers on all of them.
    #[must_use]
    pub fn new(nodes: u64, room: u32) -> Self {
        let mut rehearsal = Self {
            state: State::new(Settings::default()),
            now: Millis(1 << 40),
            actions: Vec::new(),
            nodes,
            job: JobId(1),
            asked: 0,
            actors: Vec::new(),
            random: 1,
        };
        for node in 0..nodes {
            rehearsal.handle(Event::NodeJoined(NodeReport::idle(facts(node, room))));
        }
        let ticket = rehearsal.ticket();
        rehearsal.handle(Event::JobStarted { ticket, job: None, facts: job_facts() });
        for node in 0..nodes {
            let job = rehearsal.job;
            rehearsal.handle(Event::NodeEquipped { job, node: NodeId(node) });
            for action in std::mem::take(&mut rehearsal.actions) {
                if let Action::StartWorker { worker, .. } = action {
                    let member = member(node, worker);
                    rehearsal.handle(Event::WorkerReady { worker, member, pid: 1 });
                }
            }
        }
        rehearsal
    }

    /// Every node is heard of once, and the driver; time passes.
    pub fn beat(&mut self) {
        self.now = self.now.after(1000);
        for node in 0..self.nodes {
            self.handle(Event::NodeBeat { node: agent(node) });
        }
        self.handle(Event::JobBeat { job: self.job });
    }

    /// The control plane is told that time has passed.
    pub fn tick(&mut self) {
        self.handle(Event::Tick);
    }

    /// Somebody asks for a place for an actor that wants one processor, in a zone if one is given.
    ///
    /// Whether there was one. Whoever gets none waits for one.
    pub fn place(&mut self, zone: Option<u64>) -> bool {
        let labels = zone.map_or_else(Labels::new, labels);
        let resources = Resources::none().with(Resources::CPU, 1.0);
        let spec = ActorSpec { class: "module::Actor".to_owned(), resources, labels, ..ActorSpec::default() };
        let ticket = self.ticket();
        self.handle(Event::Place { ticket, job: self.job, spec });
        self.placed().is_some()
    }

    /// The actor that was placed last has begun.
    ///
    /// # Panics
    ///
    /// If none was placed by the latest event.
    pub fn begin(&mut self) {
        let actor = self.placed().expect("an actor was placed");
        let worker = self.state.worker_of_actor(actor).expect("it was placed on a worker");
        let target = Target { actor: ActorId(actor.0), incarnation: ActorIncarnation(0) };
        let host = Identity { host: HostId(worker.0), incarnation: Incarnation(1) };
        self.handle(Event::ActorBegan { actor, worker, at: ActorPlace { host, target } });
        self.actors.push(actor);
    }

    /// One of the actors that have begun is chosen to end next. The zone of its node.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn choose(&mut self) -> u64 {
        // The multiplier of Knuth's MMIX; its upper bits are random enough.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = self.actors.len() as u64;
        let at = usize::try_from((self.random >> 33) % count).expect("it is an index");
        let last = self.actors.len() - 1;
        self.actors.swap(at, last);
        let worker = self.state.worker_of_actor(self.actors[last]);
        let node = worker.and_then(|worker| self.state.worker(worker));
        node.map_or(0, |(node, _)| node.0 % ZONES)
    }

    /// The actor that was chosen ends. Whether another got its place.
    pub fn end(&mut self) -> bool {
        let Some(actor) = self.actors.pop() else { return false };
        self.handle(Event::ActorEnded { actor, cause: "it stopped".to_owned() });
        self.placed().is_some()
    }

    fn handle(&mut self, event: Event) {
        self.actions.clear();
        self.state.handle(self.now, event, &mut self.actions);
    }

    fn ticket(&mut self) -> Ticket {
        self.asked += 1;
        Ticket(self.asked)
    }

    /// The actor that the latest event has placed.
    fn placed(&self) -> Option<ActorKey> {
        self.actions.iter().find_map(|action| match action {
            Action::Answer { answer: Ok(Answer::Placed { actor, .. }), .. } => Some(*actor),
            _ => None,
        })
    }
}

fn agent(node: u64) -> Identity {
    Identity { host: HostId(node), incarnation: Incarnation(1) }
}

fn labels(zone: u64) -> Labels {
    [("zone".to_owned(), zone.to_string())].into()
}

fn facts(node: u64, room: u32) -> NodeFacts {
    let resources = Resources::none().with(Resources::CPU, room.into());
    NodeFacts {
        agent: agent(node),
        address: ([10, 0, 0, 1], 6380).into(),
        hostname: format!("node-{node}"),
        pid: 1,
        is_head: node == 0,
        resources: resources.with(Resources::MEMORY, 64e9),
        labels: labels(node % ZONES),
        workers: WORKERS,
        platform: "x86_64-linux-gnu".to_owned(),
        session_dir: "session".to_owned(),
    }
}

fn job_facts() -> JobFacts {
    JobFacts {
        entrypoint: "program".to_owned(),
        hostname: "node-0".to_owned(),
        pid: 1,
        driver: Some(Identity { host: HostId(u64::MAX), incarnation: Incarnation(1) }),
        caller: None,
        namespace: "job".to_owned(),
        runs_on: None,
    }
}

fn member(node: u64, worker: WorkerId) -> Member {
    let [actors, tasks] = [worker.0, worker.0 | 1 << 63];
    let host = |id| Identity { host: HostId(id), incarnation: Incarnation(1) };
    let at = facts(node, 0).address;
    Member { actors: host(actors), actors_at: at, tasks: host(tasks), tasks_at: at }
}
