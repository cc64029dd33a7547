//! Simulated agents and drivers, which carry out the actions that reach them.

mod commands;

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::actor::{Actor, ActorPhase};
use super::*;
use crate::cluster::model::{NodeReport, WorkerReport};
use crate::spec::Recipe;

/// Actual state of the cluster, against which the control plane's view is checked.
pub(super) struct World {
    pub(super) harness: Harness,
    /// All actions so far.
    pub(super) log: Vec<Action>,
    /// Records on the head's disk.
    pub(super) durable: BTreeMap<RecordKey, Record>,
    /// Writes that are not durable yet; `None` deletes.
    pub(super) unwritten: BTreeMap<RecordKey, Option<Record>>,
    disk_is_full: bool,
    workers_started: BTreeSet<WorkerId>,
    jobs_opened: BTreeSet<JobId>,
    /// Plain actors that are alive and must not be stopped.
    must_live: BTreeSet<ActorKey>,
    /// Actors that were killed, possibly before they were created.
    killed: BTreeSet<ActorKey>,
    /// Of those, actors whose kill was not acknowledged before the last restart of the head.
    killed_in_vain: BTreeSet<ActorKey>,
    /// Starts that wait until all writes are durable.
    unsent_starts: Vec<(NodeId, WorkerId, ActorKey, ActorLocation)>,
    /// Stops of incarnations that wait in the same way.
    pub(super) unsent_stops: Vec<(NodeId, WorkerId, ActorKey, ActorLocation)>,
    /// Managed actors that were ever requested.
    pub(super) managed: BTreeSet<ActorKey>,
    /// Latest believed incarnation of each managed actor, as far as it is durable.
    pub(super) latest: BTreeMap<ActorKey, ActorIncarnation>,
    /// Worker that each incarnation was commanded to start on.
    started_on: BTreeMap<(ActorKey, ActorIncarnation), WorkerId>,
    /// Incarnations that were told to stop, and have not ended.
    pub(super) told_to_stop: BTreeSet<(WorkerId, ActorKey, ActorIncarnation)>,
    /// Requests for managed actors.
    requests: Vec<(RequestId, JobId, ActorSpec, Arc<Recipe>)>,
    /// Hosts whose requests were for plain actors.
    creators: BTreeMap<Ticket, HostUid>,
    /// Hosts that create the plain actors which were assigned to them, and did not end with the head.
    pub(super) assigned_to: BTreeMap<ActorKey, HostUid>,
    /// Assigned plain actors whose requests were given up, since the head started.
    pub(super) given_up: BTreeSet<ActorKey>,
    /// Open requests for locations.
    locates: BTreeMap<Ticket, (ActorKey, Option<ActorIncarnation>)>,
    pub(super) nodes: BTreeMap<u64, ActualNode>,
    /// Latest incarnation of each node.
    incarnations: BTreeMap<u64, u64>,
    /// Requests without a reply.
    pub(super) open: BTreeSet<Ticket>,
    /// Latest listed state of each actor.
    pub(super) states: BTreeMap<ActorKey, ActorState>,
    pub(super) assigned: BTreeSet<ActorKey>,
    pub(super) restarted: bool,
    /// Time up to which each node that was heard lately counts as reachable.
    pub(super) heard_until: BTreeMap<NodeId, u64>,
    /// Nodes that were silent for longer.
    pub(super) silent: BTreeSet<NodeId>,
    /// Time of the last event.
    last_event: u64,
}

/// Actual state of a node.
pub(super) struct ActualNode {
    pub(super) descriptor: NodeDescriptor,
    /// True while the head and the node can reach each other.
    pub(super) linked: bool,
    pub(super) workers: BTreeMap<WorkerId, ActualWorker>,
    /// Jobs whose executables the node has pinned.
    pub(super) pinned: BTreeSet<JobId>,
    /// Jobs whose drivers the node runs.
    pub(super) drivers: BTreeSet<JobId>,
}

pub(super) struct ActualWorker {
    pub(super) job: JobId,
    pub(super) detached: Option<ActorKey>,
    pub(super) ready: bool,
    pub(super) actors: BTreeMap<ActorKey, ActorIncarnation>,
    /// Commanded incarnations whose constructors have not returned.
    starts: BTreeMap<ActorKey, ActorIncarnation>,
}

pub(super) fn pick<T: Clone>(all: &[T], number: u8) -> Option<T> {
    (!all.is_empty()).then(|| all[usize::from(number) % all.len()].clone())
}

/// State that a restart of the head preserves.
type DurableState = (
    Vec<(JobId, JobState)>,
    Vec<(String, ActorKey)>,
    BTreeMap<ActorKey, (ActorIncarnation, Restart, Arc<Recipe>)>,
);

impl World {
    pub(super) fn new() -> Self {
        Self {
            harness: Harness::new(),
            log: Vec::new(),
            durable: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            disk_is_full: false,
            workers_started: BTreeSet::new(),
            jobs_opened: BTreeSet::new(),
            must_live: BTreeSet::new(),
            killed: BTreeSet::new(),
            killed_in_vain: BTreeSet::new(),
            unsent_starts: Vec::new(),
            unsent_stops: Vec::new(),
            managed: BTreeSet::new(),
            latest: BTreeMap::new(),
            started_on: BTreeMap::new(),
            told_to_stop: BTreeSet::new(),
            requests: Vec::new(),
            creators: BTreeMap::new(),
            assigned_to: BTreeMap::new(),
            given_up: BTreeSet::new(),
            locates: BTreeMap::new(),
            nodes: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            open: BTreeSet::new(),
            states: BTreeMap::new(),
            assigned: BTreeSet::new(),
            restarted: false,
            heard_until: BTreeMap::new(),
            silent: BTreeSet::new(),
            last_event: 0,
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Join(node) => self.join(1 + u64::from(*node % 6), false),
            Step::NewIncarnation(node) => self.join(1 + u64::from(*node % 6), true),
            Step::Rejoin(node) => self.rejoin(*node),
            Step::LoseLink(node) => {
                if let Some(node) = pick(&self.linked(), *node) {
                    self.nodes.entry(node).and_modify(|actual| actual.linked = false);
                }
            }
            Step::Leave(node) => {
                let Some(node) = pick(&self.linked(), *node) else { return };
                let Some(actual) = self.nodes.remove(&node) else { return };
                self.event(ControlEvent::NodeLeft {
                    node: actual.descriptor.agent,
                    cause: "it left".to_owned(),
                });
            }
            Step::Drain(node) => {
                if let Some(node) = pick(&self.linked(), *node) {
                    self.event(ControlEvent::NodeDrain { node: NodeId(node) });
                }
            }
            Step::StartJob
            | Step::SubmitJob(_)
            | Step::DriverStarts(_)
            | Step::DriverConnects(_)
            | Step::DriverLeaves(_)
            | Step::EndJob(..)
            | Step::Launch(..)
            | Step::Provision(..) => self.job_step(step),
            Step::Ready(worker) => self.ready(*worker),
            Step::WorkerEnds(worker) => {
                let Some((node, worker)) = pick(&self.workers(|_| true), *worker) else { return };
                self.nodes.entry(node).and_modify(|actual| drop(actual.workers.remove(&worker)));
                self.event(worker_ended(worker, "it broke", worker.0 % 2 == 0));
            }
            Step::Place(job, spec) => {
                if let Some(job) = pick(&self.jobs(), *job) {
                    let size = 10 * self.harness.requests as usize;
                    let recipe = spec.restart.map(|_| recipe(size));
                    self.place(job, spec.clone(), recipe);
                }
            }
            Step::Cancel(ticket) => {
                let open: Vec<Ticket> = self.open.iter().copied().collect();
                if let Some(ticket) = pick(&open, *ticket) {
                    self.open.remove(&ticket);
                    self.locates.remove(&ticket);
                    self.event(ControlEvent::Cancelled { ticket });
                }
            }
            Step::Repeat(number) => {
                if let Some((id, job, spec, recipe)) = pick(&self.requests, *number) {
                    let (id, recipe) = (Some(id), Some(recipe));
                    self.ask(|ticket| ControlEvent::Place { ticket, job, spec, recipe, id });
                }
            }
            Step::Abandon(number) => {
                if let Some((id, ..)) = pick(&self.requests, *number) {
                    let actor = self.harness.state.requested.get(&id).copied();
                    self.killed.extend(actor);
                    self.killed_in_vain.extend(actor);
                    self.event(ControlEvent::Abandoned { id });
                }
            }
            Step::Find(name) => {
                let name = format!("a{}", name % 3);
                self.ask(|ticket| ControlEvent::Find { ticket, namespace: "own".to_owned(), name });
            }
            Step::Kill(actor, with_worker) => {
                let known: Vec<ActorKey> = self.states.keys().copied().collect();
                if let Some(actor) = pick(&known, *actor) {
                    self.killed.insert(actor);
                    self.killed_in_vain.insert(actor);
                    let worker_of = |harness: &Harness, actor| harness.state.worker_of_actor(actor);
                    let worker = worker_of(&self.harness, actor).filter(|_| *with_worker);
                    self.must_live.retain(|it| {
                        *it != actor && (worker.is_none() || worker_of(&self.harness, *it) != worker)
                    });
                    match with_worker {
                        true => {
                            self.ask(|ticket| ControlEvent::KillWorkerOf { ticket, actor });
                            assert!(
                                worker_of(&self.harness, actor).is_none(),
                                "{actor} has survived its kill"
                            );
                        }
                        false => self.ask(|ticket| ControlEvent::Kill { ticket, actor }),
                    }
                }
            }
            Step::CreateActor(actor) => self.create(*actor),
            Step::SpawnCancelled(actor) => {
                let assigned: Vec<ActorKey> = self.assigned.iter().copied().collect();
                if let Some(actor) = pick(&assigned, *actor) {
                    self.must_live.remove(&actor);
                    self.event(ControlEvent::SpawnCancelled { actor, cause: "it was cancelled".to_owned() });
                }
            }
            Step::SpawnGivenUp(actor) => {
                let assigned: Vec<ActorKey> = self.assigned.iter().copied().collect();
                if let Some(actor) = pick(&assigned, *actor) {
                    let is_assigned = |it: &Actor| {
                        matches!(it.phase, ActorPhase::Assigned(_)) && !self.managed.contains(&actor)
                    };
                    if self.harness.state.actors.get(&actor).is_some_and(is_assigned) {
                        self.given_up.insert(actor);
                    }
                    self.event(ControlEvent::SpawnGivenUp { actor });
                }
            }
            Step::ActorEnds(actor, how) => self.actor_ends(*actor, *how),
            Step::StartFails(actor) => self.start_fails(*actor),
            Step::Locate(actor, gone) => {
                let known: Vec<ActorKey> = self.managed.iter().copied().collect();
                if let Some(actor) = pick(&known, *actor) {
                    let gone = gone.map(|gone| ActorIncarnation(gone.into()));
                    self.locates.insert(Ticket(self.harness.requests + 1), (actor, gone));
                    self.ask(|ticket| ControlEvent::Locate { ticket, actor, gone });
                }
            }
            Step::StaleReport(actor, started) => self.report_stale(*actor, *started),
            Step::UnknownIds(number) => self.send_unknown_ids(*number),
            Step::Heartbeat => self.send_heartbeats(),
            Step::Advance(ms, send_heartbeats) => {
                if *send_heartbeats {
                    self.send_heartbeats();
                }
                let tick_ms = if ms % 2 == 0 { 250 } else { u64::from(*ms) };
                let until = self.harness.now + u64::from(*ms);
                while self.harness.now < until {
                    self.harness.now = until.min(self.harness.now + tick_ms);
                    self.event(ControlEvent::Tick);
                }
            }
            Step::DiskFills(noticed) => {
                self.disk_is_full = true;
                if *noticed {
                    self.event(ControlEvent::PersistenceStatus {
                        trouble: Some("the disk is full".to_owned()),
                    });
                }
            }
            Step::DiskFrees => {
                self.disk_is_full = false;
                self.event(ControlEvent::PersistenceStatus { trouble: None });
            }
            Step::Restart => self.restart(),
        }
    }

    /// Requests an actor from a ready worker of the job, or from its driver.
    fn place(&mut self, job: JobId, spec: ActorSpec, recipe: Option<Arc<Recipe>>) {
        let state = &self.harness.state;
        let ready = state.workers.iter().filter(|(_, it)| it.job == job && it.member.is_some());
        let mut hosts: Vec<HostUid> = ready.map(|(worker, _)| member(*worker).actors).collect();
        hosts.extend(state.driver(job));
        let number = self.harness.requests;
        let id = pick(&hosts, number as u8).map(|from| RequestId { from, number });
        if let (Some(id), Some(recipe)) = (id, &recipe) {
            self.requests.push((id, job, spec.clone(), Arc::clone(recipe)));
        }
        let ticket = Ticket(number + 1);
        self.creators.extend(id.filter(|_| recipe.is_none()).map(|id| (ticket, id.from)));
        self.ask(|ticket| ControlEvent::Place { ticket, job, spec, recipe, id });
    }

    /// Jobs that have not ended.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.harness.state.open_jobs.iter().copied().collect()
    }

    pub(super) fn linked(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, actual)| actual.linked).map(|(node, _)| *node).collect()
    }

    /// Workers on linked nodes.
    fn workers(&self, which: impl Fn(&ActualWorker) -> bool) -> Vec<(u64, WorkerId)> {
        let linked = self.nodes.iter().filter(|(_, actual)| actual.linked);
        let workers =
            linked.flat_map(|(node, actual)| actual.workers.iter().map(|(id, it)| (*node, *id, it)));
        workers.filter(|(_, _, worker)| which(worker)).map(|(node, id, _)| (node, id)).collect()
    }

    fn join(&mut self, node: u64, exists: bool) {
        if self.nodes.contains_key(&node) != exists {
            return;
        }
        let incarnation = self.incarnations.entry(node).or_default();
        *incarnation += 1;
        let workers = if node == 6 { 0 } else { 1 + (node % 2) as u32 };
        let zone = [("zone".to_owned(), (node % 2).to_string())];
        let labels = node_descriptor(node, 0.0, 0).labels.into_iter().chain(zone).collect();
        let descriptor = NodeDescriptor {
            agent: agent(node, *incarnation),
            labels,
            ..node_descriptor(node, 4.0, workers)
        };
        let (workers, pinned, drivers) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        self.nodes.insert(
            node,
            ActualNode { descriptor: descriptor.clone(), linked: true, workers, pinned, drivers },
        );
        self.event(ControlEvent::NodeJoined(NodeReport::idle(descriptor)));
    }

    fn rejoin(&mut self, node: u8) {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        let Some(node) = pick(&all, node) else { return };
        let Some(actual) = self.nodes.get_mut(&node) else { return };
        actual.linked = true;
        let actual = &self.nodes[&node];
        let ready = actual.workers.iter().filter(|(_, worker)| worker.ready);
        let workers = ready.map(|(id, worker)| WorkerReport {
            worker: *id,
            job: worker.job,
            detached: worker.detached,
            member: Some(member(*id)),
            pid: 7,
            suspended: false,
            actors: worker
                .actors
                .iter()
                .map(|(key, incarnation)| (*key, "Plain".to_owned(), self.location(*id, *key, *incarnation)))
                .collect(),
            tasks: Vec::new(),
        });
        let report = NodeReport {
            workers: workers.collect(),
            jobs: actual.pinned.iter().copied().collect(),
            drivers: actual.drivers.iter().copied().collect(),
            ..NodeReport::idle(actual.descriptor.clone())
        };
        self.event(ControlEvent::NodeJoined(report));
        self.check_node_view(node);
    }

    /// Checks that everything believed to run on a rejoined node does.
    fn check_node_view(&self, node: u64) {
        let state = &self.harness.state;
        for (id, worker) in state.workers.iter().filter(|(_, worker)| worker.node == NodeId(node)) {
            let actual = &self.nodes[&node].workers[id];
            for key in &worker.actors {
                let ActorPhase::Alive(_, target) = state.actors[key].phase else { continue };
                let present = actual.actors.get(key);
                assert_eq!(present, Some(&target.incarnation), "{key} does not live in {id}");
            }
            assert_eq!(worker.member.is_some(), actual.ready);
        }
    }

    fn ready(&mut self, number: u8) {
        let Some((node, id)) = pick(&self.workers(|worker| !worker.ready), number) else { return };
        let worker = self.nodes.get_mut(&node).and_then(|actual| actual.workers.get_mut(&id)).unwrap();
        worker.ready = true;
        self.event(ControlEvent::WorkerReady { worker: id, member: member(id), pid: 7 });
    }

    /// Creates an assigned actor: the requester a plain one, and the agent a managed one.
    fn create(&mut self, number: u8) {
        let placed = self.harness.state.actors.iter().filter_map(|(key, actor)| match actor.phase {
            ActorPhase::Assigned(worker) if !self.managed.contains(key) => {
                Some((*key, worker, ActorIncarnation(0)))
            }
            _ => None,
        });
        let mut placed: Vec<_> = placed.chain(self.starts()).collect();
        placed.sort_unstable();
        let Some((actor, worker, incarnation)) = pick(&placed, number) else { return };
        let is_managed = self.managed.contains(&actor);
        let at = self.location(worker, actor, incarnation);
        let Some((linked, actual)) = self.actual_worker(worker) else { return };
        actual.starts.remove(&actor);
        actual.actors.insert(actor, incarnation);
        if !is_managed {
            let known = &self.harness.state.actors[&actor];
            let takes_any = self.harness.state.schedule.requires_resources(known.shape);
            let is_killed = self.killed.contains(&actor);
            if !known.detached && known.named.is_none() && !takes_any && !is_killed {
                self.must_live.insert(actor);
            }
        }
        if linked {
            self.event(ControlEvent::ActorStarted { actor, worker, at });
        }
    }

    /// Commanded incarnations that are not created yet.
    fn starts(&self) -> Vec<(ActorKey, WorkerId, ActorIncarnation)> {
        let workers = self.nodes.values().flat_map(|actual| &actual.workers);
        let starts = workers.flat_map(|(worker, actual)| {
            actual.starts.iter().map(|(key, incarnation)| (*key, *worker, *incarnation))
        });
        starts.collect()
    }

    /// Worker that runs, and whether its node is linked.
    fn actual_worker(&mut self, worker: WorkerId) -> Option<(bool, &mut ActualWorker)> {
        self.nodes.values_mut().find_map(|actual| {
            let linked = actual.linked;
            actual.workers.get_mut(&worker).map(|worker| (linked, worker))
        })
    }

    fn location(&self, worker: WorkerId, key: ActorKey, incarnation: ActorIncarnation) -> ActorLocation {
        match self.managed.contains(&key) {
            true => managed_location(worker, key, incarnation.0),
            false => location(worker, key),
        }
    }

    /// Lets the constructor of a commanded incarnation fail.
    fn start_fails(&mut self, number: u8) {
        let mut starts = self.starts();
        starts.sort_unstable();
        let Some((actor, worker, incarnation)) = pick(&starts, number) else { return };
        let Some((linked, actual)) = self.actual_worker(worker) else { return };
        actual.starts.remove(&actor);
        // A report that is lost with the link is made up for by the rejoin, which repeats the command.
        if linked {
            let end = End::new(EndReason::Refused, "it has no licence");
            self.event(ControlEvent::ActorEnded { actor, incarnation, end });
        }
    }

    /// Reports an earlier incarnation, which changes nothing.
    fn report_stale(&mut self, number: u8, started: bool) {
        let state = &self.harness.state;
        let mut replaced: Vec<(ActorKey, u32)> = Vec::new();
        for (key, managed) in &state.managed {
            replaced.extend(managed.incarnation.0.checked_sub(1).map(|earlier| (*key, earlier)));
        }
        replaced.sort_unstable();
        let Some((actor, earlier)) = pick(&replaced, number) else { return };
        let describe = |state: &ClusterState| {
            let (actor, managed) = (&state.actors[&actor], &state.managed[&actor]);
            (actor.phase, managed.incarnation, managed.restarts, state.history.count())
        };
        let before = describe(state);
        let worker = state.workers.iter().find(|(_, worker)| worker.member.is_some()).map(|(id, _)| *id);
        match worker.filter(|_| started) {
            Some(worker) => {
                let at = managed_location(worker, actor, earlier);
                self.event(ControlEvent::ActorStarted { actor, worker, at });
            }
            None => {
                let end = End::new(EndReason::Panicked, "it was long ago");
                self.event(ControlEvent::ActorEnded { actor, incarnation: ActorIncarnation(earlier), end });
            }
        }
        assert_eq!(describe(&self.harness.state), before, "{actor}");
    }

    /// Ends an actor: of a managed one, any incarnation that runs.
    fn actor_ends(&mut self, number: u8, how: u8) {
        let mut actors = Vec::new();
        for actual in self.nodes.values() {
            for (worker, it) in &actual.workers {
                actors.extend(
                    it.actors.iter().map(|(key, incarnation)| (*key, *incarnation, *worker, actual.linked)),
                );
            }
        }
        let Some((actor, incarnation, worker, linked)) = pick(&actors, number) else { return };
        self.must_live.remove(&actor);
        self.told_to_stop.remove(&(worker, actor, incarnation));
        if let Some((_, worker)) = self.actual_worker(worker) {
            worker.actors.remove(&actor);
        }
        if linked {
            let reason = match how % 4 {
                0 => EndReason::Stopped,
                1 => EndReason::Killed,
                _ => EndReason::Panicked,
            };
            self.event(ControlEvent::ActorEnded { actor, incarnation, end: End::new(reason, "it stopped") });
        }
    }

    fn send_unknown_ids(&mut self, number: u8) {
        let n = u64::from(number);
        let (worker, actor) = (WorkerId(n), ActorKey(n));
        let cause = "who knows".to_owned();
        // Late or wrong reports must change nothing, and must not panic.
        match number % 8 {
            0 => self.event(ControlEvent::WorkerReady {
                worker: WorkerId(1 << 40 | n),
                member: member(worker),
                pid: 1,
            }),
            1 => self.event(worker_ended(WorkerId(1 << 40 | n), &cause, false)),
            2 => self.event(ControlEvent::ActorStarted {
                actor,
                worker: WorkerId(1 << 40),
                at: location(worker, actor),
            }),
            3 => self.event(ControlEvent::NodeLeft { node: agent(n % 6, 0), cause }),
            4 => self.event(ControlEvent::NodeHeartbeat { node: agent(n, 1) }),
            5 => self.event(ControlEvent::JobHeartbeat { job: JobId(u32::from(number) | 1 << 20) }),
            6 => self.event(ControlEvent::Cancelled { ticket: Ticket(1 << 40 | n) }),
            _ => self.event(ControlEvent::NodeProvisioned { job: JobId(1 << 20), node: NodeId(n) }),
        }
    }

    /// Sends the heartbeats of all linked nodes and of all drivers.
    fn send_heartbeats(&mut self) {
        self.send_node_heartbeats();
        for job in self.jobs() {
            self.event(ControlEvent::JobHeartbeat { job });
        }
    }

    pub(super) fn send_node_heartbeats(&mut self) {
        let linked = self.linked();
        for node in linked {
            let agent = self.nodes[&node].descriptor.agent;
            self.event(ControlEvent::NodeHeartbeat { node: agent });
        }
    }

    pub(super) fn ask(&mut self, event: impl FnOnce(Ticket) -> ControlEvent) {
        let ticket = self.harness.ticket();
        self.open.insert(ticket);
        self.event(event(ticket));
    }

    pub(super) fn event(&mut self, event: ControlEvent) {
        // These events report actors that were assigned before, so allocations may grow.
        let reports_actors = matches!(
            event,
            ControlEvent::Restored(_) | ControlEvent::NodeJoined(_) | ControlEvent::ActorStarted { .. }
        );
        let before = self.held_of_reserved();
        let unreachable_before = self.bound_to_unreachable();
        self.count_gap();
        let heard = match &event {
            ControlEvent::NodeHeartbeat { node } => Some(*node),
            ControlEvent::NodeJoined(report) => Some(report.descriptor.agent),
            _ => None,
        };
        let is_tick = event == ControlEvent::Tick;
        let actions = self.harness.handle(event);
        self.managed.extend(self.harness.state.managed.keys());
        for action in actions {
            self.apply_action(&action);
            self.log.push(action);
        }
        for (node, (queue, pinned)) in self.held_of_reserved().into_iter().filter(|_| !reports_actors) {
            let stays = before.get(&node).filter(|(before, _)| *before == queue);
            let grows = stays.is_some_and(|(_, before)| pinned > *before);
            assert!(!grows, "{node} is reserved, and another was placed there");
        }
        self.note_reachability(heard, is_tick);
        for (node, bound) in self.bound_to_unreachable() {
            let earlier = unreachable_before.get(&node).filter(|_| !reports_actors);
            let is_new = earlier.and_then(|earlier| bound.difference(earlier).next());
            assert_eq!(is_new, None, "{node} is unreachable, and an actor was placed there");
        }
        self.write();
    }

    /// Adds a gap in the head's clock to the time in which nodes count as reachable, but for one tick.
    fn count_gap(&mut self) {
        let gap = self.harness.now - std::mem::replace(&mut self.last_event, self.harness.now);
        if gap > 500 {
            self.heard_until.values_mut().for_each(|until| *until += gap - 250);
        }
    }

    /// Notes a sign of life from a member, and which nodes have become silent at a tick.
    fn note_reachability(&mut self, heard: Option<HostUid>, is_tick: bool) {
        let (state, now) = (&self.harness.state, self.harness.now);
        if let Some(agent) = heard.filter(|agent| state.is_member(*agent)) {
            let node = NodeId(agent.host.0);
            self.heard_until.insert(node, now + 3000);
            self.silent.remove(&node);
        }
        if is_tick {
            // While members rejoin a restarted head, none becomes unreachable.
            if state.rejoin_period.is_some_and(|period| now - period.last.0 < 3000) {
                self.heard_until.values_mut().for_each(|until| *until = now.max(*until - 3000) + 3000);
            }
            let silent = self.heard_until.extract_if(.., |_, until| *until <= now).map(|(node, _)| node);
            self.silent.extend(silent);
        }
        self.heard_until.retain(|node, _| state.nodes.contains_key(node));
        self.silent.retain(|node| state.nodes.contains_key(node));
    }

    /// Actors that are bound to unreachable nodes.
    fn bound_to_unreachable(&self) -> BTreeMap<NodeId, BTreeSet<ActorKey>> {
        let state = &self.harness.state;
        let unreachable = state.nodes.iter().filter(|(_, node)| node.is_unreachable);
        let mut bound: BTreeMap<_, BTreeSet<_>> = unreachable.map(|(id, _)| (*id, BTreeSet::new())).collect();
        for (key, actor) in &state.actors {
            let node = state.node_of(actor.phase);
            if let Some(actors) = node.and_then(|node| bound.get_mut(&node)) {
                actors.insert(*key);
            }
        }
        bound
    }

    /// Makes all pending writes durable, unless the disk is full.
    fn write(&mut self) {
        if self.disk_is_full {
            return;
        }
        for (key, record) in std::mem::take(&mut self.unwritten) {
            match record {
                Some(record) => drop(self.durable.insert(key, record)),
                None => drop(self.durable.remove(&key)),
            }
            if let Some(&Record::IdWatermarks { jobs, workers, actors }) = self.durable.get(&key) {
                let actions = self.harness.handle(ControlEvent::WatermarksDurable { jobs, workers, actors });
                assert_eq!(actions, []);
            }
        }
        // Acknowledged only now.
        self.killed_in_vain.clear();
        for (node, worker, actor, at) in std::mem::take(&mut self.unsent_stops) {
            self.stop_commanded(node, worker, actor, at);
        }
        for (node, worker, actor, at) in std::mem::take(&mut self.unsent_starts) {
            if self.harness.state.awaits_start(actor, worker, at) {
                self.start_commanded(node, worker, actor, at);
            }
        }
    }

    fn apply_action(&mut self, action: &Action) {
        match action {
            Action::StartWorker { node, worker, job, detached } => {
                let state = self.harness.state.node_state(*node);
                // A worker that ends on an unreachable node is replaced there: its agent has reported the end.
                let may_run = matches!(state, Some(NodeState::Alive | NodeState::Unreachable));
                assert!(may_run, "no worker is started elsewhere: {state:?}");
                let new = ActualWorker {
                    job: *job,
                    detached: *detached,
                    ready: false,
                    actors: BTreeMap::new(),
                    starts: BTreeMap::new(),
                };
                assert!(self.workers_started.insert(*worker), "{worker} was given twice");
                // A command to an unlinked node is lost, as on the network; the rejoin has to make up for
                // it.
                if let Some(actual) = self.nodes.get_mut(&node.0).filter(|actual| actual.linked) {
                    actual.workers.insert(*worker, new);
                }
            }
            Action::StopWorker { node, worker } => {
                if let Some(actual) = self.nodes.get_mut(&node.0).filter(|actual| actual.linked) {
                    actual.workers.remove(worker);
                }
            }
            Action::StopNode { node } => {
                assert_eq!(self.harness.state.nodes[node].state, NodeState::Draining);
            }
            Action::Reply { ticket, reply } => {
                assert!(self.open.remove(ticket), "{ticket:?} was answered although it was not open");
                if let Some((actor, gone)) = self.locates.remove(ticket) {
                    match reply {
                        Ok(ControlReply::Found { actor: found, at, .. }) => {
                            assert_eq!(*found, actor);
                            assert!(
                                gone.is_none_or(|gone| at.target.incarnation > gone),
                                "{actor} is gone there"
                            );
                        }
                        Ok(ControlReply::Gone(_)) => {
                            assert!(!self.harness.state.actors.contains_key(&actor), "{actor} is not gone");
                        }
                        other => panic!("{other:?}"),
                    }
                }
                if let Ok(ControlReply::Job { job, .. }) = reply {
                    self.jobs_opened.insert(*job);
                }
                if let Ok(ControlReply::Placed { actor, member, alive }) = reply {
                    let worker = self.harness.state.worker_of(member.actors).expect("it is ready");
                    assert_eq!(self.harness.state.worker_of_actor(*actor), Some(worker));
                    assert!(alive.is_some() || self.assigned.insert(*actor), "{actor} was given twice");
                    let creator = self.creators.get(ticket).filter(|_| alive.is_none());
                    self.assigned_to.extend(creator.map(|creator| (*actor, *creator)));
                }
            }
            Action::Persist(record) => drop(self.unwritten.insert(record.key(), Some(record.clone()))),
            Action::Delete(key) => drop(self.unwritten.insert(*key, None)),
            Action::StartActor { node, worker, actor, at, .. } => {
                self.unsent_starts.push((*node, *worker, *actor, *at));
            }
            Action::StopDriver { node, job } => {
                if let Some(actual) = self.nodes.get_mut(&node.0).filter(|actual| actual.linked) {
                    actual.drivers.remove(job);
                }
            }
            Action::ReleaseJob { job, nodes } => {
                for node in nodes {
                    if let Some(actual) = self.nodes.get_mut(&node.0).filter(|actual| actual.linked) {
                        actual.pinned.remove(job);
                    }
                }
            }
            Action::ForgetAgent { agent } => assert!(!self.harness.state.is_member(*agent)),
            Action::StopIncarnation { node, worker, actor, at } => {
                self.unsent_stops.push((*node, *worker, *actor, *at));
            }
            Action::StopActor { node, worker, actor, at } => {
                self.stop_commanded(*node, *worker, *actor, *at);
            }
            // No actor of this world is durable.
            Action::NotifyDriver { .. } | Action::RemoveState { .. } => {}
        }
    }

    /// Restarts the head from the durable records. Open requests get no reply.
    fn restart(&mut self) {
        let before = self.durable_state();
        self.harness.state = ClusterState::new(Settings::default());
        self.heard_until.clear();
        self.silent.clear();
        self.open.clear();
        self.locates.clear();
        // A kill that was not acknowledged is forgotten.
        let in_vain = std::mem::take(&mut self.killed_in_vain);
        self.killed.retain(|key| !self.managed.contains(key) || !in_vain.contains(key));
        self.unsent_starts.clear();
        self.unsent_stops.clear();
        self.restarted = true;
        self.assigned_to.clear();
        self.given_up.clear();
        self.nodes.values_mut().for_each(|actual| actual.linked = false);
        // Only jobs have durable rows: the history of actors is lost.
        self.states.retain(|_, state| *state != ActorState::Dead);
        let records = self.durable.values().cloned().collect();
        let all_was_written = self.unwritten.is_empty();
        // Pending writes are lost, and a head is restarted only once its disk has room.
        self.unwritten.clear();
        self.disk_is_full = false;
        if !all_was_written {
            self.latest.clear();
        }
        self.event(ControlEvent::Restored(records));
        if all_was_written {
            assert_eq!(self.durable_state(), before, "what is kept is what lasts");
        }
    }

    /// Jobs, the names of assigned actors, and the managed actors.
    fn durable_state(&self) -> DurableState {
        let state = &self.harness.state;
        let jobs = state.jobs().into_iter().map(|job| (job.job_id, job.state)).collect();
        let is_durable = |key: &ActorKey| !state.actors[key].phase.is_unplaced() || state.is_restarting(*key);
        let names = state.names.all().filter(|(.., owner)| is_durable(owner));
        let mut names: Vec<_> = names.map(|(_, name, owner)| (name.to_owned(), owner)).collect();
        names.sort_unstable();
        let managed = state.managed.iter().filter(|(key, _)| is_durable(key));
        let managed = managed.map(|(key, it)| (*key, (it.incarnation, it.policy, Arc::clone(&it.recipe))));
        (jobs, names, managed.collect())
    }
}
