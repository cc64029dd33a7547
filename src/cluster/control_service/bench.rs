//! A made-up cluster, on which the control plane can be measured: see the example `control_plane`.
//!
//! Nodes, workers and actors exist in the control plane alone; what it wants done is dropped.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cluster::control_plane::state::{Action, Answer, Event, Millis, Search, Settings, State, Ticket};
use crate::cluster::listing::Query;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorLocation, ActorSpec, JobDescriptor, JobId, Labels, NodeDescriptor, NodeId,
    Resources, WorkerAddress, WorkerId,
};
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::worker::HeadInfo;
use crate::id::{ActorId, ActorIncarnation, HostId, HostUid, Incarnation, Target};
use crate::wire;

/// How many workers each node has.
const WORKERS: u32 = 4;

/// How many labels of one name there are: a node has one of them.
const ZONES: u64 = 3;

/// A control plane with as many nodes and actors as one likes. Not for programs.
#[derive(Debug)]
pub struct ControlPlaneBench {
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

impl ControlPlaneBench {
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
        let ticket = rehearsal.ticket();
        rehearsal.handle(Event::JobStarted { ticket, job: None, facts: job_facts() });
        for node in 0..nodes {
            rehearsal.join(node, room);
        }
        rehearsal
    }

    /// A node joins with its workers, and room for so many actors. The bytes that the driver is told of it.
    pub fn join(&mut self, node: u64, room: u32) -> usize {
        let job = self.job;
        let mut told = 0;
        let mut starts = Vec::new();
        self.nodes = self.nodes.max(node + 1);
        self.handle(Event::NodeJoined(NodeReport::idle(facts(node, room))));
        told += self.told_bytes();
        self.handle(Event::NodeProvisioned { job, node: NodeId(node) });
        told += self.told_bytes();
        starts.extend(self.actions.iter().filter_map(|action| match action {
            Action::StartWorker { worker, .. } => Some(*worker),
            _ => None,
        }));
        for worker in starts {
            self.handle(Event::WorkerReady { worker, member: member(node, worker), pid: 1 });
            told += self.told_bytes();
        }
        told
    }

    /// The bytes of what the driver is told after the latest event.
    fn told_bytes(&self) -> usize {
        let news = self.actions.iter().filter_map(|action| match action {
            Action::NotifyDriver { news, .. } => Some(news),
            _ => None,
        });
        news.map(bytes).sum()
    }

    /// The first page of the list of actors, with the others counted, as the head answers it: a slice of the
    /// table for each look at the state.
    #[must_use]
    pub fn list(&self, rows: usize) -> Listing {
        let query = Query { limit: rows, count: true, ..Query::filtered(Vec::new()) };
        let mut listing = Listing::default();
        let Ok(mut search) = Search::<ActorInfo>::new(&query) else { return listing };
        loop {
            let begun = Instant::now();
            let is_done = search.step(&self.state);
            listing.longest_look = listing.longest_look.max(begun.elapsed());
            listing.looks += 1;
            search.weigh();
            if is_done {
                break;
            }
        }
        listing.bytes = bytes(&search.page());
        listing
    }

    /// The bytes that a worker is told of all workers when it joins, and those that each is told of so many
    /// that have joined at the same time.
    #[must_use]
    pub fn membership_bytes(workers: u64) -> [usize; 2] {
        let members: Vec<WorkerAddress> =
            (0..workers).map(|worker| member(worker / 4, WorkerId(worker))).collect();
        let head = HeadInfo {
            head: agent(0),
            at: Some(facts(0, 0).address),
            job: JobId(1),
            tracks_all_actors: true,
        };
        let several =
            MembershipUpdate::Several(members.iter().copied().map(MembershipUpdate::Joined).collect());
        [bytes(&MembershipUpdate::Snapshot { members, head }), bytes(&several)]
    }

    /// Every node is heard of once, and the driver; time passes.
    pub fn heartbeat_all(&mut self) {
        self.now = self.now.after(1000);
        for node in 0..self.nodes {
            self.handle(Event::NodeHeartbeat { node: agent(node) });
        }
        self.handle(Event::JobHeartbeat { job: self.job });
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
        let host = HostUid { host: HostId(worker.0), incarnation: Incarnation(1) };
        self.handle(Event::ActorStarted { actor, worker, at: ActorLocation { host, target } });
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

/// What a part of a list has cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    /// How often the state was looked at, and locked.
    pub looks: u32,
    /// The longest of these looks.
    pub longest_look: Duration,
    /// What is sent.
    pub bytes: usize,
}

/// What a value takes on the wire.
fn bytes(value: &impl Serialize) -> usize {
    wire::encode(value, usize::MAX, |body| body.message.len()).unwrap_or_default()
}

fn agent(node: u64) -> HostUid {
    HostUid { host: HostId(node), incarnation: Incarnation(1) }
}

fn labels(zone: u64) -> Labels {
    [("zone".to_owned(), zone.to_string())].into()
}

fn facts(node: u64, room: u32) -> NodeDescriptor {
    let resources = Resources::none().with(Resources::CPU, room.into());
    NodeDescriptor {
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

fn job_facts() -> JobDescriptor {
    JobDescriptor {
        entrypoint: "program".to_owned(),
        hostname: "node-0".to_owned(),
        pid: 1,
        driver: Some(HostUid { host: HostId(u64::MAX), incarnation: Incarnation(1) }),
        user_host: None,
        namespace: "job".to_owned(),
        runs_on: None,
    }
}

fn member(node: u64, worker: WorkerId) -> WorkerAddress {
    let [actors, tasks] = [worker.0, worker.0 | 1 << 63];
    let host = |id| HostUid { host: HostId(id), incarnation: Incarnation(1) };
    let at = facts(node, 0).address;
    WorkerAddress { actors: host(actors), actors_at: at, tasks: host(tasks), tasks_at: at }
}
