//! Jobs, and the workers that they have on each node.

use std::collections::{BTreeMap, BTreeSet};

use super::crash_loop::CrashLoop;
use super::node::Node;
use super::{
    Action, Answer, ControlError, JobEvent, Millis, Record, RecordKey, State, Ticket, WorkerEntry,
    lease_expired_text,
};
use crate::cluster::control_plane::scheduler::Schedulability;
use crate::cluster::model::{
    ActorKey, JobDescriptor, JobId, JobState, NodeDescriptor, NodeId, NodeState, WorkerId, cut,
};
use crate::config::JOB_TEXT_BYTES_MAX;

/// As much of a text as the head keeps.
fn bounded(text: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, JOB_TEXT_BYTES_MAX);
    text
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) facts: JobDescriptor,
    pub(super) state: JobState,
    pub(super) started: Millis,
    pub(super) ended: Option<Millis>,
    pub(super) exit_code: Option<i32>,
    pub(super) message: Option<String>,
    /// Whether the driver of a submitted job has left the cluster: it holds nothing there, and its process
    /// may run on.
    pub(super) left: bool,
    /// Whether its node's agent has said that it runs the driver, and will say how it ends.
    pub(super) driver_runs: bool,
    /// Where it has, or had, workers.
    pub(super) pools: BTreeMap<NodeId, Pool>,
    /// Its actors that end with it and are in none of its pools' workers.
    pub(super) unassigned_actors: BTreeSet<ActorKey>,
    /// Those of its questions that wait for an actor of somebody else.
    pub(super) waiting_tickets: BTreeSet<Ticket>,
    /// Where its next turn begins when nodes take turns.
    pub(super) round_robin: usize,
    /// When it last got room that others waited for, counted in such turns.
    pub(super) served: u64,
}

/// A job's workers on one node.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) workers: BTreeSet<WorkerId>,
    /// Actors that wait until one of them is ready.
    pub(super) awaiting_worker: BTreeSet<ActorKey>,
    /// How many in a row never were.
    pub(super) start_failures: u32,
    /// Why no more are started.
    pub(super) blocked: Option<String>,
    /// Those that crashed at their start.
    pub(super) crash_loop: CrashLoop,
}

impl Job {
    pub(super) fn new(mut facts: JobDescriptor, state: JobState, started: Millis) -> Self {
        facts.bound();
        Self {
            facts,
            state,
            started,
            ended: None,
            exit_code: None,
            message: None,
            left: false,
            driver_runs: false,
            pools: BTreeMap::new(),
            unassigned_actors: BTreeSet::new(),
            waiting_tickets: BTreeSet::new(),
            round_robin: 0,
            served: 0,
        }
    }

    pub(super) fn record(&self, job: JobId) -> Record {
        Record::Job {
            job,
            facts: self.facts.clone(),
            state: self.state,
            started_ms: self.started.0,
            ended_ms: self.ended.map(|ended| ended.0),
            exit_code: self.exit_code,
            message: self.message.clone(),
            left: self.left,
        }
    }
}

impl State {
    pub(super) fn pool(&mut self, job: JobId, node: NodeId) -> Option<&mut Pool> {
        self.jobs.get_mut(&job)?.pools.get_mut(&node)
    }

    fn persist_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get(&id) {
            self.actions.push(Action::Persist(job.record(id)));
        }
    }

    /// Takes up an open job.
    pub(super) fn open_job(&mut self, id: JobId, job: Job) {
        if let Some(node) = job.facts.runs_on.and_then(|node| self.nodes.get_mut(&node)) {
            node.drivers.insert(id);
        }
        match job.facts.driver {
            // Until it comes it is its agent that says how it ends.
            None => self.submitted_leases.grant(self.now, id),
            Some(_) => self.job_leases.grant(self.now, id),
        }
        self.jobs.insert(id, job);
        self.open_jobs.insert(id);
    }

    pub(super) fn job_submitted(&mut self, ticket: Ticket, facts: JobDescriptor) {
        let runs_on = facts.runs_on.and_then(|node| self.nodes.get(&node));
        if runs_on.is_none_or(|node| node.state != NodeState::Alive || !node.has_rejoined) {
            let text = "the node that is to run the job's driver is not there, or is draining";
            return self.answer(ticket, Err(ControlError::Unknown(text.to_owned())));
        }
        let id = match self.new_job() {
            Ok(id) => id,
            Err(denied) => return self.answer(ticket, Err(denied)),
        };
        self.open_job(id, Job::new(facts, JobState::Pending, self.now));
        self.persist_job(id);
        self.answer_job(ticket, id);
    }

    pub(super) fn job_started(&mut self, ticket: Ticket, job: Option<JobId>, facts: JobDescriptor) {
        match self.driver_starts(job, facts) {
            Ok(id) => {
                self.persist_job(id);
                self.answer_job(ticket, id);
            }
            Err(denied) => self.answer(ticket, Err(denied)),
        }
    }

    fn driver_starts(&mut self, job: Option<JobId>, facts: JobDescriptor) -> Result<JobId, ControlError> {
        if let Some(id) = job {
            self.driver_connected(id, facts)?;
            return Ok(id);
        }
        let id = self.new_job()?;
        self.open_job(id, Job::new(facts, JobState::Running, self.now));
        Ok(id)
    }

    /// The driver of a job that is known has come, or is back.
    fn driver_connected(&mut self, id: JobId, facts: JobDescriptor) -> Result<(), ControlError> {
        let job = self.served(id)?;
        let known = job.facts.driver.map(|driver| driver.host);
        if known.is_some() && known != facts.driver.map(|driver| driver.host) {
            return Err(ControlError::Unknown(format!("job {id} has another driver")));
        }
        job.facts = JobDescriptor { runs_on: job.facts.runs_on, ..facts };
        job.facts.bound();
        job.state = JobState::Running;
        self.member_is_back();
        self.submitted_leases.end(id);
        self.job_leases.grant(self.now, id);
        Ok(())
    }

    /// A job that is not over.
    pub(super) fn open(&mut self, id: JobId) -> Result<&mut Job, ControlError> {
        match self.jobs.get_mut(&id) {
            None => Err(ControlError::Unknown(format!("there is no job {id}"))),
            Some(job) if !job.state.is_open() => {
                let how = job.message.as_deref().unwrap_or("it has ended");
                Err(ControlError::JobEnded(format!("job {id} is over: {how}")))
            }
            Some(job) => Ok(job),
        }
    }

    /// A job that is not over, and whose driver has not left the cluster.
    pub(super) fn served(&mut self, id: JobId) -> Result<&mut Job, ControlError> {
        let job = self.open(id)?;
        match job.left {
            true => Err(ControlError::JobEnded(format!("job {id} has left the cluster"))),
            false => Ok(job),
        }
    }

    /// Whether a job may have workers and actors.
    pub(super) fn is_served(&self, id: JobId) -> bool {
        self.open_jobs.contains(&id) && self.jobs.get(&id).is_some_and(|job| !job.left)
    }

    fn answer_job(&mut self, ticket: Ticket, job: JobId) {
        let usable = self.nodes.values().filter(|node| node.is_usable());
        let mut nodes: Vec<NodeDescriptor> = usable.map(|node| node.facts.clone()).collect();
        nodes.sort_unstable_by_key(NodeDescriptor::id);
        let pools = self.jobs.get(&job).into_iter().flat_map(|job| &job.pools);
        let working = pools.flat_map(|(_, pool)| &pool.workers).filter_map(|id| {
            let worker = self.workers.get(id)?;
            Some(WorkerEntry { node: worker.node, worker: *id, member: worker.member?, pid: worker.pid })
        });
        let workers = working.collect();
        let awaited = self.nodes.values().any(|node| node.schedulability() == Schedulability::Rejoining);
        let all_rejoined = self.all_rejoined();
        self.answer(ticket, Ok(Answer::Job { job, nodes, workers, rejoining: awaited, all_rejoined }));
    }

    pub(super) fn node_equipped(&mut self, job: JobId, node_id: NodeId) {
        let is_usable = self.nodes.get(&node_id).is_some_and(Node::is_usable);
        let Some(job_of) = self.served(job).ok().filter(|_| is_usable) else { return };
        // A driver that comes back says so of all its nodes. Where workers could not be started it changes
        // nothing: only another life of the node gets another try.
        let pool = job_of.pools.entry(node_id).or_default();
        if pool.blocked.is_none() && !pool.crash_loop.is_backing_off() {
            self.fill_pool(job, node_id);
        }
    }

    /// Starts the workers that a job has not got on a node, if the node takes work.
    pub(super) fn fill_pool(&mut self, job: JobId, node_id: NodeId) {
        let Some(node) = self.nodes.get(&node_id).filter(|node| node.is_usable()) else { return };
        let wanted = node.facts.workers as usize;
        self.add_pool(job, node_id);
        let there = self.pool(job, node_id).map_or(wanted, |pool| pool.workers.len());
        for _ in there..wanted {
            self.start_worker(node_id, job, None);
        }
    }

    /// A node keeps a job's executable.
    pub(super) fn executable_pinned(&mut self, job: JobId, node_id: NodeId) {
        let Some(node) = self.nodes.get_mut(&node_id) else { return };
        if self.jobs.get(&job).is_some_and(|job| job.state.is_open() && !job.left) {
            node.pinned_jobs.insert(job);
        } else {
            self.actions.push(Action::ReleaseJob { job, nodes: [node_id].into() });
        }
    }

    /// An agent runs a submitted job's driver.
    pub(super) fn driver_started(&mut self, job: JobId, node: NodeId) {
        match self.open(job) {
            // It is over, or it is another's.
            Ok(known) if known.facts.runs_on == Some(node) => {
                known.driver_runs = true;
                let before = std::mem::replace(&mut known.state, JobState::Running);
                self.submitted_leases.end(job);
                if before != JobState::Running {
                    self.persist_job(job);
                }
            }
            _ => self.actions.push(Action::StopDriver { node, job }),
        }
    }

    /// From now on a job can have workers on a node.
    pub(super) fn add_pool(&mut self, job_id: JobId, node_id: NodeId) {
        let (Some(job), Some(node)) = (self.jobs.get_mut(&job_id), self.nodes.get_mut(&node_id)) else {
            return;
        };
        job.pools.entry(node_id).or_default();
        node.pools.insert(job_id);
        self.schedule.set_provisioned(node_id, job_id, true);
        self.deferred.freed.insert(node_id);
    }

    /// That worker of a job on a node which has the fewest actors, of those that are ready.
    pub(super) fn least_busy(&self, job: JobId, node: NodeId) -> Option<WorkerId> {
        let pool = self.jobs.get(&job)?.pools.get(&node)?;
        let ready = pool.workers.iter().filter_map(|id| {
            let worker = self.workers.get(id)?;
            worker.member.map(|_| (worker.actors.len(), *id))
        });
        ready.min().map(|(_, worker)| worker)
    }

    /// Hands actors over that waited for a worker, as many as the ready ones are to have.
    ///
    /// As long as others start, each that gets ready takes its share. If there are none any more the
    /// actors need another node.
    pub(super) fn assign_waiting(&mut self, job: JobId, node: NodeId) {
        let Some(pool) = self.jobs.get(&job).and_then(|job| job.pools.get(&node)) else { return };
        let is_ready = |id: &&WorkerId| self.workers.get(*id).is_some_and(|worker| worker.member.is_some());
        let ready = pool.workers.iter().filter(is_ready).count();
        let starting = pool.workers.len() - ready;
        let parked = pool.awaiting_worker.len();
        if ready + starting == 0 {
            self.schedule.set_provisioned(node, job, false);
            self.deferred.capacity_shrunk = true;
            for actor in pool.awaiting_worker.clone() {
                self.evict(actor);
            }
            return;
        }
        let share = if ready == 0 { 0 } else { parked.div_ceil(starting + 1) };
        for _ in 0..share {
            let Some(worker) = self.least_busy(job, node) else { return };
            let Some(actor) = self.pool(job, node).and_then(|pool| pool.awaiting_worker.pop_first()) else {
                return;
            };
            self.assign(actor, worker);
        }
    }

    pub(super) fn remove_waiting(&mut self, job: JobId, node: NodeId, actor: ActorKey) {
        if let Some(pool) = self.pool(job, node) {
            pool.awaiting_worker.remove(&actor);
        }
    }

    /// An actor lives in a pool's worker now, or on its own.
    pub(super) fn mark_assigned(&mut self, job: JobId, actor: ActorKey) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.unassigned_actors.remove(&actor);
        }
    }

    /// The driver's lease has ended.
    ///
    /// The driver of a submitted job loses what it holds of the cluster, and is not killed: it may have left
    /// while the head was away, and its agent reports how it ends.
    pub(super) fn job_lease_expired(&mut self, id: JobId) {
        let why = format!("the driver was lost: {}", lease_expired_text(self.settings.job_lease));
        if self.jobs.get(&id).is_some_and(|job| job.driver_runs) {
            self.notify_driver(id, JobEvent::Stopped { why: why.clone() });
            return self.driver_left(id, &format!("{why}; its process still runs"));
        }
        self.stop_driver(id, &why);
        self.end_job(id, JobState::Failed, None, &why);
    }

    /// Nobody has had the driver of a submitted job started.
    pub(super) fn submitted_lease_expired(&mut self, id: JobId) {
        let within = self.settings.submitted_lease.as_secs_f64();
        let why = format!(
            "its driver was not started within {within} s of its submission: whoever submitted it has gone"
        );
        self.stop_driver(id, &why);
        self.end_job(id, JobState::Failed, None, &why);
    }

    pub(super) fn job_ended(&mut self, id: JobId, state: JobState, exit_code: Option<i32>, message: &str) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.state.is_open() {
            if job.exit_code.is_none() && exit_code.is_some() {
                job.exit_code = exit_code;
                self.persist_job(id);
            }
            return;
        }
        match state {
            JobState::Pending | JobState::Running => return,
            JobState::Stopped => self.stop_driver(id, message),
            JobState::Succeeded | JobState::Failed => {}
        }
        self.end_job(id, state, exit_code, message);
    }

    /// The driver of a submitted job has left the cluster: what the job holds is freed. The job ends with
    /// the driver's process, which its agent reports, or when it is stopped.
    pub(super) fn driver_left(&mut self, id: JobId, why: &str) {
        let Ok(job) = self.served(id) else { return };
        if job.facts.runs_on.is_none() {
            return;
        }
        job.left = true;
        job.message = Some(bounded(why));
        job.facts.driver = None;
        job.facts.user_host = None;
        let driver_runs = job.driver_runs;
        self.job_leases.end(id);
        if !driver_runs {
            self.submitted_leases.grant(self.now, id);
        }
        self.release_all(id, &format!("its job has left the cluster: {why}"));
        self.persist_job(id);
    }

    /// Has the driver of an open job ended, wherever it runs.
    fn stop_driver(&mut self, id: JobId, why: &str) {
        self.notify_driver(id, JobEvent::Stopped { why: why.to_owned() });
        let node = self.jobs.get(&id).and_then(|job| job.facts.runs_on);
        if let Some(node) = node.filter(|node| self.nodes.contains_key(node)) {
            self.actions.push(Action::StopDriver { node, job: id });
        }
    }

    /// Ends an open job, and all that ends with it.
    pub(super) fn end_job(&mut self, id: JobId, state: JobState, exit_code: Option<i32>, message: &str) {
        if !self.open_jobs.remove(&id) {
            return;
        }
        self.job_leases.end(id);
        self.submitted_leases.end(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = state;
        job.ended = Some(self.now);
        job.exit_code = exit_code;
        job.message = Some(bounded(message)).filter(|message| !message.is_empty());
        let how = if message.is_empty() {
            "its job has ended".to_owned()
        } else {
            format!("its job has ended: {message}")
        };
        let runs_on = job.facts.runs_on;
        self.persist_job(id);
        if let Some(node) = runs_on.and_then(|node| self.nodes.get_mut(&node)) {
            node.drivers.remove(&id);
            self.deferred.maybe_drained.insert(node.facts.id());
        }
        self.release_all(id, &how);
        self.add_past_job(id);
    }

    /// Frees all that a job holds, and answers what it has asked.
    fn release_all(&mut self, id: JobId, how: &str) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let following = std::mem::take(&mut job.waiting_tickets);
        let loose = std::mem::take(&mut job.unassigned_actors);
        let nodes: Vec<NodeId> = job.pools.keys().copied().collect();
        for ticket in following {
            self.cancel_waiter(ticket);
            self.answer(ticket, Err(ControlError::JobEnded(how.to_owned())));
        }
        let cause = how.into();
        for actor in loose {
            if self.may_still_start(actor) {
                self.start_leases.grant(self.now, actor);
            } else {
                self.end_actor(actor, &cause, ControlError::JobEnded);
            }
        }
        for node in nodes {
            self.close_pool(id, node, how);
        }
        let holders =
            self.nodes.values_mut().filter_map(|node| node.pinned_jobs.remove(&id).then(|| node.facts.id()));
        let nodes = holders.collect();
        self.actions.push(Action::ReleaseJob { job: id, nodes });
    }

    /// Stops a job's workers on a node.
    fn close_pool(&mut self, job: JobId, node: NodeId, cause: &str) {
        let workers = self.pool(job, node).map(|pool| pool.workers.clone());
        for worker in workers.into_iter().flatten() {
            self.stop_worker(worker, cause);
        }
        self.schedule.set_provisioned(node, job, false);
        self.deferred.capacity_shrunk = true;
        self.remove_pool(job, node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.pools.remove(&job);
        }
    }

    /// A job has no workers on a node any more.
    pub(super) fn remove_pool(&mut self, job: JobId, node: NodeId) {
        let pool = self.jobs.get_mut(&job).and_then(|job| job.pools.remove(&node));
        if let Some(at) = pool.and_then(|pool| pool.crash_loop.next_start()) {
            self.restarts.remove(&(at, job, node));
        }
    }

    /// Lists a job that has ended, and forgets the one that gives way to it.
    pub(super) fn add_past_job(&mut self, id: JobId) {
        if let Some(oldest) = self.history.add_job(id) {
            self.jobs.remove(&oldest);
            self.actions.push(Action::Delete(RecordKey::Job(oldest)));
        }
    }
}
