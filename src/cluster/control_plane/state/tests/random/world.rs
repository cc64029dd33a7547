//! Agents and drivers that do what they are told, as far as they hear of it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::actor::Phase;
use super::*;
use crate::cluster::model::{NodeReport, WorkerReport};

/// What really runs, beside what the control plane believes.
pub(super) struct World {
    pub(super) lab: Lab,
    /// What was done, all of it, and since the head's last start.
    pub(super) log: Vec<Action>,
    /// What is on the head's disk.
    pub(super) kept: BTreeMap<RecordKey, Record>,
    /// What is to be written there.
    unwritten: BTreeMap<RecordKey, Option<Record>>,
    disk_is_full: bool,
    workers_given: BTreeSet<WorkerId>,
    jobs_given: BTreeSet<JobId>,
    /// Plain actors that live, and that nobody has ended.
    wanted: BTreeSet<ActorKey>,
    /// Actors that were killed, perhaps before they began.
    killed: BTreeSet<ActorKey>,
    pub(super) nodes: BTreeMap<u64, Real>,
    /// The latest life of each node.
    lives: BTreeMap<u64, u64>,
    /// Questions without an answer.
    pub(super) open: BTreeSet<Ticket>,
    /// What became of each actor that was listed.
    pub(super) states: BTreeMap<ActorKey, ActorState>,
    pub(super) given: BTreeSet<ActorKey>,
    pub(super) restarted: bool,
}

/// A node as it is.
pub(super) struct Real {
    pub(super) facts: NodeDescriptor,
    /// Whether the head hears of it.
    pub(super) linked: bool,
    pub(super) workers: BTreeMap<WorkerId, RealWorker>,
    /// The jobs whose executables it keeps.
    pub(super) held: BTreeSet<JobId>,
    /// The jobs whose drivers it runs.
    pub(super) drivers: BTreeSet<JobId>,
}

pub(super) struct RealWorker {
    pub(super) job: JobId,
    pub(super) detached: Option<ActorKey>,
    pub(super) ready: bool,
    pub(super) actors: BTreeSet<ActorKey>,
}

fn pick<T: Clone>(all: &[T], number: u8) -> Option<T> {
    (!all.is_empty()).then(|| all[usize::from(number) % all.len()].clone())
}

/// What a restart of the head leaves as it was.
type Lasting = (Vec<(JobId, JobState)>, Vec<(String, ActorKey)>);

impl World {
    pub(super) fn new() -> Self {
        Self {
            lab: Lab::new(),
            log: Vec::new(),
            kept: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            disk_is_full: false,
            workers_given: BTreeSet::new(),
            jobs_given: BTreeSet::new(),
            wanted: BTreeSet::new(),
            killed: BTreeSet::new(),
            nodes: BTreeMap::new(),
            lives: BTreeMap::new(),
            open: BTreeSet::new(),
            states: BTreeMap::new(),
            given: BTreeSet::new(),
            restarted: false,
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Join(node) => self.join(1 + u64::from(*node % 6), false),
            Step::NewLife(node) => self.join(1 + u64::from(*node % 6), true),
            Step::Back(node) => self.back(*node),
            Step::Cut(node) => {
                if let Some(node) = pick(&self.linked(), *node) {
                    self.nodes.entry(node).and_modify(|real| real.linked = false);
                }
            }
            Step::Leave(node) => {
                let Some(node) = pick(&self.linked(), *node) else { return };
                let Some(real) = self.nodes.remove(&node) else { return };
                self.event(Event::NodeLeft { node: real.facts.agent, cause: "it left".to_owned() });
            }
            Step::Drain(node) => {
                if let Some(node) = pick(&self.linked(), *node) {
                    self.event(Event::NodeDrain { node: NodeId(node) });
                }
            }
            Step::StartJob
            | Step::SubmitJob(_)
            | Step::DriverBegins(_)
            | Step::DriverComes(_)
            | Step::DriverLeaves(_)
            | Step::EndJob(..)
            | Step::Launch(..)
            | Step::Equip(..) => self.job_step(step),
            Step::Ready(worker) => self.ready(*worker),
            Step::WorkerEnds(worker) => {
                let Some((node, worker)) = pick(&self.workers(|_| true), *worker) else { return };
                self.nodes.entry(node).and_modify(|real| drop(real.workers.remove(&worker)));
                self.event(Event::WorkerEnded { worker, cause: "it broke".to_owned() });
            }
            Step::Place(job, spec) => {
                if let Some(job) = pick(&self.jobs(), *job) {
                    self.ask(|ticket| Event::Place { ticket, job, spec: spec.clone() });
                }
            }
            Step::Withdraw(ticket) => {
                let open: Vec<Ticket> = self.open.iter().copied().collect();
                if let Some(ticket) = pick(&open, *ticket) {
                    self.open.remove(&ticket);
                    self.event(Event::Cancelled { ticket });
                }
            }
            Step::Find(name) => {
                let name = format!("a{}", name % 3);
                self.ask(|ticket| Event::Find { ticket, namespace: "own".to_owned(), name });
            }
            Step::Kill(actor, with_worker) => {
                let known: Vec<ActorKey> = self.states.keys().copied().collect();
                if let Some(actor) = pick(&known, *actor) {
                    self.killed.insert(actor);
                    let worker_of = |actor| self.lab.state.worker_of_actor(actor);
                    let worker = worker_of(actor).filter(|_| *with_worker);
                    self.wanted.retain(|it| *it != actor && (worker.is_none() || worker_of(*it) != worker));
                    match with_worker {
                        true => self.ask(|ticket| Event::KillWorkerOf { ticket, actor }),
                        false => self.ask(|ticket| Event::Kill { ticket, actor }),
                    }
                }
            }
            Step::Begin(actor) => self.begin(*actor),
            Step::NotSpawned(actor) => {
                let given: Vec<ActorKey> = self.given.iter().copied().collect();
                if let Some(actor) = pick(&given, *actor) {
                    self.wanted.remove(&actor);
                    self.event(Event::NotSpawned { actor, cause: "it was given up".to_owned() });
                }
            }
            Step::ActorEnds(actor) => self.actor_ends(*actor),
            Step::Nonsense(number) => self.nonsense(*number),
            Step::Beat => self.beat(),
            Step::Pass(ms, beat) => {
                if *beat {
                    self.beat();
                }
                self.lab.now += u64::from(*ms);
                self.event(Event::Tick);
            }
            Step::DiskFills(noticed) => {
                self.disk_is_full = true;
                if *noticed {
                    self.event(Event::PersistenceStatus { trouble: Some("the disk is full".to_owned()) });
                }
            }
            Step::DiskFrees => {
                self.disk_is_full = false;
                self.event(Event::PersistenceStatus { trouble: None });
            }
            Step::Restart => self.restart(),
        }
    }

    fn job_step(&mut self, step: &Step) {
        match step {
            Step::StartJob if self.jobs().len() < 4 => {
                let driver = self.lab.asked;
                self.ask(|ticket| Event::JobStarted { ticket, job: None, facts: job_facts(driver) });
            }
            Step::SubmitJob(node) if self.jobs().len() < 4 => {
                let runs_on = Some(NodeId(1 + u64::from(node % 6)));
                let facts = JobDescriptor { driver: None, runs_on, ..job_facts(0) };
                self.ask(|ticket| Event::JobSubmitted { ticket, facts });
            }
            Step::DriverComes(job) => {
                let Some(job) = pick(&self.jobs(), *job) else { return };
                let known = self.lab.state.job_facts(job).and_then(|facts| facts.driver);
                let facts = JobDescriptor { driver: known.or(job_facts(99).driver), ..job_facts(0) };
                self.ask(|ticket| Event::JobStarted { ticket, job: Some(job), facts });
            }
            Step::DriverLeaves(job) => {
                let submitted = |job: &JobId| {
                    let facts = self.lab.state.job_facts(*job);
                    facts.is_some_and(|facts| facts.runs_on.is_some() && facts.driver.is_some())
                };
                let jobs: Vec<JobId> = self.jobs().into_iter().filter(submitted).collect();
                let Some(job) = pick(&jobs, *job) else { return };
                self.event(Event::DriverLeft { job, why: "it was asked to".to_owned() });
            }
            Step::EndJob(job, how) => {
                let Some(job) = pick(&self.jobs(), *job) else { return };
                let how = [JobState::Succeeded, JobState::Failed, JobState::Stopped][usize::from(how % 3)];
                let message = String::new();
                for real in self.nodes.values_mut() {
                    real.drivers.remove(&job);
                }
                self.event(Event::JobEnded { job, state: how, exit_code: None, message });
            }
            Step::DriverBegins(job) => {
                let pending = |job: &JobId| self.lab.state.job_state(*job) == Some(JobState::Pending);
                let pending: Vec<JobId> = self.jobs().into_iter().filter(pending).collect();
                let Some(job) = pick(&pending, *job) else { return };
                let Some(node) = self.lab.state.job_facts(job).and_then(|facts| facts.runs_on) else {
                    return;
                };
                let Some(real) = self.nodes.get_mut(&node.0).filter(|real| real.linked) else { return };
                real.drivers.insert(job);
                self.event(Event::DriverStarted { job, node });
            }
            // Also of a job that is over: its driver may not have heard of it.
            Step::Launch(job, node) => {
                let all: Vec<JobId> = self.lab.state.jobs.keys().copied().collect();
                if let (Some(job), Some(node)) = (pick(&all, *job), pick(&self.linked(), *node)) {
                    self.hold(job, node);
                }
            }
            Step::Equip(job, node) => {
                if let (Some(job), Some(node)) = (pick(&self.jobs(), *job), pick(&self.linked(), *node)) {
                    self.hold(job, node);
                    self.event(Event::NodeProvisioned { job, node: NodeId(node) });
                }
            }
            _ => {}
        }
    }

    fn hold(&mut self, job: JobId, node: u64) {
        self.nodes.get_mut(&node).unwrap().held.insert(job);
        self.event(Event::ExecutablePinned { job, node: NodeId(node) });
    }

    /// The jobs that are not over.
    fn jobs(&self) -> Vec<JobId> {
        self.lab.state.open_jobs.iter().copied().collect()
    }

    fn linked(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, real)| real.linked).map(|(node, _)| *node).collect()
    }

    /// The workers that the head hears of.
    fn workers(&self, which: impl Fn(&RealWorker) -> bool) -> Vec<(u64, WorkerId)> {
        let linked = self.nodes.iter().filter(|(_, real)| real.linked);
        let workers = linked.flat_map(|(node, real)| real.workers.iter().map(|(id, it)| (*node, *id, it)));
        workers.filter(|(_, _, worker)| which(worker)).map(|(node, id, _)| (node, id)).collect()
    }

    fn join(&mut self, node: u64, anew: bool) {
        if self.nodes.contains_key(&node) != anew {
            return;
        }
        let life = self.lives.entry(node).or_default();
        *life += 1;
        let workers = if node == 6 { 0 } else { 1 + (node % 2) as u32 };
        let zone = [("zone".to_owned(), (node % 2).to_string())];
        let labels = node_facts(node, 0.0, 0).labels.into_iter().chain(zone).collect();
        let facts = NodeDescriptor { agent: agent(node, *life), labels, ..node_facts(node, 4.0, workers) };
        let (workers, held, drivers) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        self.nodes.insert(node, Real { facts: facts.clone(), linked: true, workers, held, drivers });
        self.event(Event::NodeJoined(NodeReport::idle(facts)));
    }

    fn back(&mut self, node: u8) {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        let Some(node) = pick(&all, node) else { return };
        let Some(real) = self.nodes.get_mut(&node) else { return };
        real.linked = true;
        let ready = real.workers.iter().filter(|(_, worker)| worker.ready);
        let workers = ready.map(|(id, worker)| WorkerReport {
            worker: *id,
            job: worker.job,
            detached: worker.detached,
            member: Some(member(*id)),
            pid: 7,
            suspended: false,
            actors: worker.actors.iter().map(|key| (*key, "Plain".to_owned(), place(*id, *key))).collect(),
            tasks: Vec::new(),
        });
        let report = NodeReport {
            workers: workers.collect(),
            facts: real.facts.clone(),
            jobs: real.held.iter().copied().collect(),
            drivers: real.drivers.iter().copied().collect(),
        };
        self.event(Event::NodeJoined(report));
        self.check_belief(node);
    }

    /// What is believed to live on a node that is back does.
    fn check_belief(&self, node: u64) {
        let state = &self.lab.state;
        for (id, worker) in state.workers.iter().filter(|(_, worker)| worker.node == NodeId(node)) {
            let real = &self.nodes[&node].workers[id];
            for key in &worker.actors {
                let alive = state.actors[key].phase.state() == ActorState::Alive;
                assert!(!alive || real.actors.contains(key), "{key} does not live in {id}");
            }
            assert_eq!(worker.member.is_some(), real.ready);
        }
    }

    fn ready(&mut self, number: u8) {
        let Some((node, id)) = pick(&self.workers(|worker| !worker.ready), number) else { return };
        let worker = self.nodes.get_mut(&node).and_then(|real| real.workers.get_mut(&id)).unwrap();
        worker.ready = true;
        self.event(Event::WorkerReady { worker: id, member: member(id), pid: 7 });
    }

    /// Whoever asked for an actor makes it.
    fn begin(&mut self, number: u8) {
        let placed = self.lab.state.actors.iter().filter_map(|(key, actor)| match actor.phase {
            Phase::Assigned(worker) => Some((*key, worker)),
            _ => None,
        });
        let mut placed: Vec<_> = placed.collect();
        placed.sort_unstable();
        let Some((actor, worker)) = pick(&placed, number) else { return };
        let holder = self.nodes.values_mut().find_map(|real| {
            let linked = real.linked;
            real.workers.get_mut(&worker).map(|worker| (linked, worker))
        });
        let Some((linked, real)) = holder else { return };
        real.actors.insert(actor);
        let known = &self.lab.state.actors[&actor];
        let takes_any = self.lab.state.schedule.requires_resources(known.shape);
        let is_killed = self.killed.contains(&actor);
        if !known.detached && known.named.is_none() && !takes_any && !is_killed {
            self.wanted.insert(actor);
        }
        if linked {
            self.event(Event::ActorStarted { actor, worker, at: place(worker, actor) });
        }
    }

    fn actor_ends(&mut self, number: u8) {
        let workers = self.nodes.values().flat_map(|real| {
            let linked = real.linked;
            real.workers.values().flat_map(move |worker| worker.actors.iter().map(move |key| (*key, linked)))
        });
        let actors: Vec<(ActorKey, bool)> = workers.collect();
        let Some((actor, linked)) = pick(&actors, number) else { return };
        self.end_for_real(actor);
        if linked {
            self.event(Event::ActorEnded { actor, cause: "it stopped".to_owned() });
        }
    }

    fn end_for_real(&mut self, actor: ActorKey) {
        self.wanted.remove(&actor);
        let workers = self.nodes.values_mut().flat_map(|real| real.workers.values_mut());
        for worker in workers {
            worker.actors.remove(&actor);
        }
    }

    fn nonsense(&mut self, number: u8) {
        let n = u64::from(number);
        let (worker, actor) = (WorkerId(n), ActorKey(n));
        let cause = "who knows".to_owned();
        match number % 8 {
            0 => self.event(Event::WorkerReady {
                worker: WorkerId(1 << 40 | n),
                member: member(worker),
                pid: 1,
            }),
            1 => self.event(Event::WorkerEnded { worker: WorkerId(1 << 40 | n), cause }),
            2 => {
                self.event(Event::ActorStarted { actor, worker: WorkerId(1 << 40), at: place(worker, actor) })
            }
            3 => self.event(Event::NodeLeft { node: agent(n % 6, 0), cause }),
            4 => self.event(Event::NodeHeartbeat { node: agent(n, 1) }),
            5 => self.event(Event::JobHeartbeat { job: JobId(u32::from(number) | 1 << 20) }),
            6 => self.event(Event::Cancelled { ticket: Ticket(1 << 40 | n) }),
            _ => self.event(Event::NodeProvisioned { job: JobId(1 << 20), node: NodeId(n) }),
        }
    }

    /// Everybody who can is heard of.
    fn beat(&mut self) {
        self.beat_nodes();
        for job in self.jobs() {
            self.event(Event::JobHeartbeat { job });
        }
    }

    pub(super) fn beat_nodes(&mut self) {
        let linked = self.linked();
        for node in linked {
            let agent = self.nodes[&node].facts.agent;
            self.event(Event::NodeHeartbeat { node: agent });
        }
    }

    fn ask(&mut self, event: impl FnOnce(Ticket) -> Event) {
        let ticket = self.lab.ticket();
        self.open.insert(ticket);
        self.event(event(ticket));
    }

    pub(super) fn event(&mut self, event: Event) {
        // These tell of actors that were placed before.
        let tells = matches!(event, Event::Restored(_) | Event::NodeJoined(_) | Event::ActorStarted { .. });
        let before = self.held_of_reserved();
        for action in self.lab.handle(event) {
            self.obey(&action);
            self.log.push(action);
        }
        for (node, (queue, held)) in self.held_of_reserved().into_iter().filter(|_| !tells) {
            let stays = before.get(&node).filter(|(before, _)| *before == queue);
            let grows = stays.is_some_and(|(_, before)| held > *before);
            assert!(!grows, "{node} is reserved, and another was placed there");
        }
        self.write();
    }

    /// The disk takes what is to be written, all of it, unless it is full.
    fn write(&mut self) {
        if self.disk_is_full {
            return;
        }
        for (key, record) in std::mem::take(&mut self.unwritten) {
            match record {
                Some(record) => drop(self.kept.insert(key, record)),
                None => drop(self.kept.remove(&key)),
            }
            if let Some(&Record::IdWatermarks { jobs, workers, actors }) = self.kept.get(&key) {
                let actions = self.lab.handle(Event::NumbersKept { jobs, workers, actors });
                assert_eq!(actions, []);
            }
        }
    }

    fn obey(&mut self, action: &Action) {
        match action {
            Action::StartWorker { node, worker, job, detached } => {
                let state = self.lab.state.node_state(*node);
                assert_eq!(state, Some(NodeState::Alive), "no worker is started elsewhere");
                let new =
                    RealWorker { job: *job, detached: *detached, ready: false, actors: BTreeSet::new() };
                assert!(self.workers_given.insert(*worker), "{worker} was given twice");
                if let Some(real) = self.nodes.get_mut(&node.0).filter(|real| real.linked) {
                    real.workers.insert(*worker, new);
                }
            }
            Action::StopWorker { node, worker } => {
                if let Some(real) = self.nodes.get_mut(&node.0).filter(|real| real.linked) {
                    real.workers.remove(worker);
                }
            }
            Action::StopNode { node } => {
                assert_eq!(self.lab.state.node_state(*node), Some(NodeState::Draining));
            }
            Action::Answer { ticket, answer } => {
                assert!(self.open.remove(ticket), "{ticket:?} was answered, and nobody waited");
                if let Ok(Answer::Job { job, .. }) = answer {
                    self.jobs_given.insert(*job);
                }
                if let Ok(Answer::Placed { actor, member, alive }) = answer {
                    let worker = self.lab.state.worker_of(member.actors).expect("it is ready");
                    assert_eq!(self.lab.state.worker_of_actor(*actor), Some(worker));
                    assert!(alive.is_some() || self.given.insert(*actor), "{actor} was given twice");
                }
            }
            Action::Persist(record) => drop(self.unwritten.insert(record.key(), Some(record.clone()))),
            Action::Delete(key) => drop(self.unwritten.insert(*key, None)),
            Action::StopDriver { node, job } => {
                if let Some(real) = self.nodes.get_mut(&node.0).filter(|real| real.linked) {
                    real.drivers.remove(job);
                }
            }
            Action::ReleaseJob { job, nodes } => {
                for node in nodes {
                    if let Some(real) = self.nodes.get_mut(&node.0).filter(|real| real.linked) {
                        real.held.remove(job);
                    }
                }
            }
            Action::ForgetAgent { agent } => assert!(!self.lab.state.is_member(*agent)),
            Action::StopActor { actor, .. } => {
                assert!(!self.wanted.contains(actor), "{actor} lives, and nobody has ended it");
            }
            Action::NotifyDriver { .. } => {}
        }
    }

    /// The head starts anew, with what was kept. Nobody has an answer from it.
    fn restart(&mut self) {
        let before = self.lasting();
        self.lab.state = State::new(Settings::default());
        self.open.clear();
        self.restarted = true;
        self.nodes.values_mut().for_each(|real| real.linked = false);
        self.states.retain(|_, state| *state != ActorState::Dead);
        let records = self.kept.values().cloned().collect();
        let all_was_written = self.unwritten.is_empty();
        // What was not written is lost, and a head is started again when there is room.
        self.unwritten.clear();
        self.disk_is_full = false;
        self.event(Event::Restored(records));
        if all_was_written {
            assert_eq!(self.lasting(), before, "what is kept is what lasts");
        }
    }

    /// Jobs, and names of actors that somebody was told of.
    fn lasting(&self) -> Lasting {
        let state = &self.lab.state;
        let jobs = state.jobs().into_iter().map(|job| (job.job_id, job.state)).collect();
        let names = state.names.all().filter(|(.., owner)| !state.actors[owner].phase.is_unplaced());
        let mut names: Vec<_> = names.map(|(_, name, owner)| (name.to_owned(), owner)).collect();
        names.sort_unstable();
        (jobs, names)
    }
}
