//! Simulated cluster for benchmarks of the control plane; see the example `control_plane`.
//!
//! Nodes, workers and actors exist only in the control plane, whose actions are dropped.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cluster::control_plane::state::{
    Action, ClusterState, ControlEvent, ControlReply, Millis, Search, Settings, Ticket,
};
use crate::cluster::listing::Query;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorLocation, ActorSpec, JobDescriptor, JobId, Labels, NodeDescriptor, NodeId,
    Resources, WorkerAddress, WorkerId,
};
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::worker::HeadInfo;
use crate::id::{ActorId, ActorIncarnation, HostId, HostUid, Incarnation, Target};
use crate::spec::{End, EndReason};
use crate::wire;

/// Workers of each node.
const WORKERS: u32 = 4;

/// Number of distinct zone labels; each node has one of them.
const ZONES: u64 = 3;

/// Benchmark of a control plane with any number of nodes and actors. Not for programs.
#[derive(Debug)]
pub struct ControlPlaneBench {
    state: ClusterState,
    now: Millis,
    actions: Vec<Action>,
    nodes: u64,
    job: JobId,
    tickets: u64,
    /// Actors that were created.
    actors: Vec<ActorKey>,
    random: u64,
}

impl ControlPlaneBench {
    /// Simulates `nodes` nodes with `room` CPUs each, and one job with workers on all of them.
    #[must_use]
    pub fn new(nodes: u64, room: u32) -> Self {
        let mut bench = Self {
            state: ClusterState::new(Settings::default()),
            now: Millis(1 << 40),
            actions: Vec::new(),
            nodes,
            job: JobId(1),
            tickets: 0,
            actors: Vec::new(),
            random: 1,
        };
        let ticket = bench.ticket();
        bench.handle(ControlEvent::JobStarted { ticket, job: None, descriptor: job_descriptor() });
        for node in 0..nodes {
            bench.join(node, room);
        }
        bench
    }

    /// Adds a node with `room` CPUs and its workers. Returns the bytes sent to the driver.
    pub fn join(&mut self, node: u64, room: u32) -> usize {
        let job = self.job;
        // A join causes several events, and the driver is notified of each.
        let mut sent = 0;
        let mut starts = Vec::new();
        self.nodes = self.nodes.max(node + 1);
        self.handle(ControlEvent::NodeJoined(NodeReport::idle(descriptor(node, room))));
        sent += self.sent_bytes();
        self.handle(ControlEvent::NodeProvisioned { job, node: NodeId(node) });
        sent += self.sent_bytes();
        starts.extend(self.actions.iter().filter_map(|action| match action {
            Action::StartWorker { worker, .. } => Some(*worker),
            _ => None,
        }));
        for worker in starts {
            self.handle(ControlEvent::WorkerReady { worker, member: member(node, worker), pid: 1 });
            sent += self.sent_bytes();
        }
        sent
    }

    /// Bytes that the latest event sends to the driver.
    fn sent_bytes(&self) -> usize {
        let events = self.actions.iter().filter_map(|action| match action {
            Action::NotifyDriver { event, .. } => Some(event),
            _ => None,
        });
        events.map(bytes).sum()
    }

    /// Lists the first page of the actors and counts the rest, one slice at a time, as the head does.
    #[must_use]
    pub fn list(&self, rows: usize) -> ListCost {
        let query = Query { limit: rows, count: true, ..Query::filtered(Vec::new()) };
        let mut cost = ListCost::default();
        let Ok(mut search) = Search::<ActorInfo>::new(&query) else { return cost };
        loop {
            let started = Instant::now();
            let is_done = search.step(&self.state);
            cost.longest_slice = cost.longest_slice.max(started.elapsed());
            cost.slices += 1;
            search.fit_reply();
            if is_done {
                break;
            }
        }
        cost.bytes = bytes(&search.page());
        cost
    }

    /// Bytes of the membership snapshot that a new worker gets, and of one update with as many new workers.
    #[must_use]
    pub fn membership_bytes(workers: u64) -> [usize; 2] {
        let members: Vec<WorkerAddress> =
            (0..workers).map(|worker| member(worker / 4, WorkerId(worker))).collect();
        let head = HeadInfo {
            head: agent(0),
            at: Some(descriptor(0, 0).address),
            job: JobId(1),
            tracks_all_actors: true,
        };
        let several =
            MembershipUpdate::Several(members.iter().copied().map(MembershipUpdate::Joined).collect());
        [bytes(&MembershipUpdate::Snapshot { members, head }), bytes(&several)]
    }

    /// Advances the time by one second, with a heartbeat of every node and of the driver.
    pub fn heartbeat_all(&mut self) {
        self.now = self.now.after(1000);
        for node in 0..self.nodes {
            self.handle(ControlEvent::NodeHeartbeat { node: agent(node) });
        }
        self.handle(ControlEvent::JobHeartbeat { job: self.job });
    }

    /// Handles a tick.
    pub fn tick(&mut self) {
        self.handle(ControlEvent::Tick);
    }

    /// Requests a worker for an actor that needs one CPU, in a zone if one is given.
    ///
    /// Returns true if the actor was placed, and false if it is pending.
    pub fn place(&mut self, zone: Option<u64>) -> bool {
        let labels = zone.map_or_else(Labels::new, labels);
        let resources = Resources::none().with(Resources::CPU, 1.0);
        let spec = ActorSpec { class: "module::Actor".to_owned(), resources, labels, ..ActorSpec::default() };
        let ticket = self.ticket();
        self.handle(ControlEvent::Place { ticket, job: self.job, spec, recipe: None, id: None });
        self.placed().is_some()
    }

    /// Marks the actor placed by the latest event as created.
    ///
    /// # Panics
    ///
    /// If the latest event placed no actor.
    pub fn begin(&mut self) {
        let actor = self.placed().expect("an actor was placed");
        let worker = self.state.worker_of_actor(actor).expect("it was placed on a worker");
        let target = Target { actor: ActorId(actor.0), incarnation: ActorIncarnation(0) };
        let host = HostUid { host: HostId(worker.0), incarnation: Incarnation(1) };
        self.handle(ControlEvent::ActorStarted { actor, worker, at: ActorLocation { host, target } });
        self.actors.push(actor);
    }

    /// Selects the actor that ends next, and returns the zone of its node.
    ///
    /// # Panics
    ///
    /// If no actor has been created.
    pub fn choose(&mut self) -> u64 {
        // Knuth's MMIX generator. Its low bits have short periods, so the upper ones are used.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = self.actors.len() as u64;
        let at = usize::try_from((self.random >> 33) % count).expect("it is an index");
        let last = self.actors.len() - 1;
        self.actors.swap(at, last);
        let worker = self.state.worker_of_actor(self.actors[last]);
        let node = worker.and_then(|worker| self.state.worker(worker));
        node.map_or(0, |(node, _)| node.0 % ZONES)
    }

    /// Ends the selected actor. Returns true if another was placed in its room.
    pub fn end(&mut self) -> bool {
        let Some(actor) = self.actors.pop() else { return false };
        self.handle(ControlEvent::ActorEnded {
            actor,
            incarnation: ActorIncarnation(0),
            end: End::new(EndReason::Stopped, "it stopped"),
        });
        self.placed().is_some()
    }

    fn handle(&mut self, event: ControlEvent) {
        self.actions.clear();
        self.state.handle(self.now, event, &mut self.actions);
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Actor that the latest event placed.
    fn placed(&self) -> Option<ActorKey> {
        self.actions.iter().find_map(|action| match action {
            Action::Reply { reply: Ok(ControlReply::Placed { actor, .. }), .. } => Some(*actor),
            _ => None,
        })
    }
}

/// Cost of a page of a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListCost {
    /// Number of slices, each of which locks the state.
    pub slices: u32,
    /// Longest time that one slice took.
    pub longest_slice: Duration,
    /// Encoded size of the page, in bytes.
    pub bytes: usize,
}

/// Encoded size of a value, in bytes.
fn bytes(value: &impl Serialize) -> usize {
    wire::encode(value, usize::MAX, |body| body.message.len()).unwrap_or_default()
}

fn agent(node: u64) -> HostUid {
    HostUid { host: HostId(node), incarnation: Incarnation(1) }
}

fn labels(zone: u64) -> Labels {
    [("zone".to_owned(), zone.to_string())].into()
}

fn descriptor(node: u64, room: u32) -> NodeDescriptor {
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

fn job_descriptor() -> JobDescriptor {
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
    let at = descriptor(node, 0).address;
    WorkerAddress { actors: host(actors), actors_at: at, tasks: host(tasks), tasks_at: at }
}
