//! Jobs: submission, start, end, and the leases of their drivers.

use std::collections::{BTreeMap, BTreeSet};

use super::pool::Pool;
use super::{
    Action, ClusterState, ControlError, ControlReply, JobEvent, Millis, Record, RecordKey, Ticket,
    WorkerEntry, lease_expired_text,
};
use crate::cluster::control_plane::scheduler::Schedulability;
use crate::cluster::model::{
    ActorKey, EventKind, JobDescriptor, JobId, JobState, NodeDescriptor, NodeId, NodeState, cut,
};
use crate::config::JOB_TEXT_BYTES_MAX;
use crate::spec::{End, EndReason};

/// Text truncated to the length that the head stores.
fn bounded(text: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, JOB_TEXT_BYTES_MAX);
    text
}

/// Job, open or ended.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) descriptor: JobDescriptor,
    pub(super) state: JobState,
    pub(super) started: Millis,
    pub(super) ended: Option<Millis>,
    pub(super) exit_code: Option<i32>,
    pub(super) message: Option<String>,
    /// Set once the driver of a submitted job has left the cluster. It holds nothing, but its process may
    /// run.
    pub(super) left: bool,
    /// Set once the node's agent has reported that it runs the driver, and will report its exit.
    pub(super) driver_runs: bool,
    /// Set once the driver has joined this incarnation of the head.
    pub(super) has_joined: bool,
    /// Nodes on which the job has, or had, workers.
    pub(super) pools: BTreeMap<NodeId, Pool>,
    /// Actors of the job that do not end with its pools: pending, unaccounted, or detached and not created.
    pub(super) unassigned_actors: BTreeSet<ActorKey>,
    /// Requests of the job that wait for another request's actor.
    pub(super) waiting_tickets: BTreeSet<Ticket>,
    /// Leaf at which the next round-robin search starts.
    pub(super) round_robin: usize,
    /// Total size of the recipes of its managed actors, in bytes.
    pub(super) recipe_bytes: usize,
    /// Value of [`ClusterState::turns`] when the job was last served from the pending queues.
    pub(super) last_turn: u64,
}

impl Job {
    pub(super) fn new(mut descriptor: JobDescriptor, state: JobState, started: Millis) -> Self {
        descriptor.bound();
        Self {
            descriptor,
            state,
            started,
            ended: None,
            exit_code: None,
            message: None,
            left: false,
            driver_runs: false,
            has_joined: false,
            pools: BTreeMap::new(),
            unassigned_actors: BTreeSet::new(),
            waiting_tickets: BTreeSet::new(),
            round_robin: 0,
            recipe_bytes: 0,
            last_turn: 0,
        }
    }

    pub(super) fn record(&self, job: JobId) -> Record {
        Record::Job {
            job,
            descriptor: self.descriptor.clone(),
            state: self.state,
            started_ms: self.started.0,
            ended_ms: self.ended.map(|ended| ended.0),
            exit_code: self.exit_code,
            message: self.message.clone(),
            left: self.left,
        }
    }
}

impl ClusterState {
    fn persist_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get(&id) {
            self.actions.push(Action::Persist(job.record(id)));
        }
    }

    /// Adds an open job, with the lease that its driver needs.
    pub(super) fn open_job(&mut self, id: JobId, job: Job) {
        if let Some(node) = job.descriptor.runs_on.and_then(|node| self.nodes.get_mut(&node)) {
            node.drivers.insert(id);
        }
        match job.descriptor.driver {
            // The driver has no heartbeats yet; this lease only limits the time until its agent starts it.
            None => self.submitted_leases.grant(self.now, id),
            Some(_) => self.job_leases.grant(self.now, id),
        }
        self.jobs.insert(id, job);
        self.open_jobs.insert(id);
    }

    pub(super) fn job_submitted(&mut self, ticket: Ticket, descriptor: JobDescriptor) {
        let runs_on = descriptor.runs_on.and_then(|node| self.nodes.get(&node));
        if runs_on.is_none_or(|node| node.shown_state() != NodeState::Alive) {
            let text = "the node for the job's driver has left the cluster, is draining, or is unreachable";
            return self.reply(ticket, Err(ControlError::Unknown(text.to_owned())));
        }
        let id = match self.new_job() {
            Ok(id) => id,
            Err(error) => return self.reply(ticket, Err(error)),
        };
        self.open_job(id, Job::new(descriptor, JobState::Pending, self.now));
        // The record is requested before the reply: the head holds the reply back until all records so far
        // are durable.
        self.persist_job(id);
        self.record_job_start(id, EventKind::JobSubmitted);
        self.reply_with_job(ticket, id);
    }

    pub(super) fn job_started(&mut self, ticket: Ticket, job: Option<JobId>, descriptor: JobDescriptor) {
        match self.driver_starts(job, descriptor) {
            Ok(id) => {
                self.persist_job(id);
                self.reply_with_job(ticket, id);
            }
            Err(error) => self.reply(ticket, Err(error)),
        }
    }

    fn driver_starts(
        &mut self,
        job: Option<JobId>,
        descriptor: JobDescriptor,
    ) -> Result<JobId, ControlError> {
        if let Some(id) = job {
            self.driver_connected(id, descriptor)?;
            return Ok(id);
        }
        let id = self.new_job()?;
        self.open_job(id, Job::new(descriptor, JobState::Running, self.now));
        self.record_job_start(id, EventKind::JobStarted);
        Ok(id)
    }

    /// Connects, or reconnects, the driver of a known job.
    fn driver_connected(&mut self, id: JobId, descriptor: JobDescriptor) -> Result<(), ControlError> {
        let job = self.active_job(id)?;
        // A second driver must not take over the job: it is identified by its host id, which stays the same
        // across reconnects.
        let known = job.descriptor.driver.map(|driver| driver.host);
        if known.is_some() && known != descriptor.driver.map(|driver| driver.host) {
            return Err(ControlError::Unknown(format!("job {id} has another driver")));
        }
        // A driver does not know whether it was submitted: `runs_on` stays as it is.
        job.descriptor = JobDescriptor { runs_on: job.descriptor.runs_on, ..descriptor };
        job.descriptor.bound();
        let is_first = !std::mem::replace(&mut job.has_joined, true);
        let before = std::mem::replace(&mut job.state, JobState::Running);
        if before != JobState::Running {
            self.record_job_start(id, EventKind::JobStarted);
        }
        // A driver asks again, to compare its workers, for as long as a node is missing. If each time counted, drivers
        // would keep the missing node.
        if is_first {
            self.member_rejoined();
        }
        self.submitted_leases.end(id);
        self.job_leases.grant(self.now, id);
        Ok(())
    }

    /// Looks up a job that has not ended.
    pub(super) fn open(&mut self, id: JobId) -> Result<&mut Job, ControlError> {
        match self.jobs.get_mut(&id) {
            None => Err(ControlError::Unknown(format!("there is no job {id}"))),
            Some(job) if !job.state.is_open() => {
                let cause = job.message.as_deref().unwrap_or("it has ended");
                Err(ControlError::JobEnded(format!("job {id} is over: {cause}")))
            }
            Some(job) => Ok(job),
        }
    }

    /// Looks up a job that has not ended and whose driver has not left.
    pub(super) fn active_job(&mut self, id: JobId) -> Result<&mut Job, ControlError> {
        let job = self.open(id)?;
        match job.left {
            true => Err(ControlError::JobEnded(format!("job {id} has left the cluster"))),
            false => Ok(job),
        }
    }

    /// Checks whether a job may have workers and actors.
    pub(super) fn is_active(&self, id: JobId) -> bool {
        self.open_jobs.contains(&id) && self.jobs.get(&id).is_some_and(|job| !job.left)
    }

    fn reply_with_job(&mut self, ticket: Ticket, job: JobId) {
        let usable = self.nodes.values().filter(|node| node.is_usable());
        let mut nodes: Vec<NodeDescriptor> = usable.map(|node| node.descriptor.clone()).collect();
        // Sorted, so that the same events lead to the same actions: the hash map has no fixed order.
        nodes.sort_unstable_by_key(NodeDescriptor::id);
        let pools = self.jobs.get(&job).into_iter().flat_map(|job| &job.pools);
        let entries = pools.flat_map(|(_, pool)| &pool.workers).filter_map(|id| {
            let worker = self.workers.get(id)?;
            Some(WorkerEntry { node: worker.node, worker: *id, member: worker.member?, pid: worker.pid })
        });
        let workers = entries.collect();
        let rejoining = self.nodes.values().any(|node| node.schedulability() == Schedulability::Rejoining);
        let all_rejoined = self.all_rejoined();
        self.reply(ticket, Ok(ControlReply::Job { job, nodes, workers, rejoining, all_rejoined }));
    }

    /// Notes that a node has pinned a job's executable, or releases it.
    pub(super) fn executable_pinned(&mut self, job: JobId, node_id: NodeId) {
        let Some(node) = self.nodes.get_mut(&node_id) else { return };
        if self.jobs.get(&job).is_some_and(|job| job.state.is_open() && !job.left) {
            node.pinned_jobs.insert(job);
        } else {
            // A node that missed the end of the job would keep the executable forever.
            self.actions.push(Action::ReleaseJob { job, nodes: [node_id].into() });
        }
    }

    /// Notes that an agent runs a job's driver, or stops the driver.
    pub(super) fn driver_started(&mut self, job: JobId, node: NodeId) {
        match self.open(job) {
            Ok(known) if known.descriptor.runs_on == Some(node) => {
                known.driver_runs = true;
                let before = std::mem::replace(&mut known.state, JobState::Running);
                self.submitted_leases.end(job);
                if before != JobState::Running {
                    self.persist_job(job);
                    self.record_job_start(job, EventKind::JobStarted);
                }
            }
            // The job has ended, or belongs to another node.
            _ => self.actions.push(Action::StopDriver { node, job }),
        }
    }

    /// Notes that an actor is in a pool's worker, or no longer ends with the job.
    pub(super) fn mark_assigned(&mut self, job: JobId, actor: ActorKey) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.unassigned_actors.remove(&actor);
        }
    }

    /// Handles the expired lease of a driver.
    ///
    /// The driver of a submitted job loses what it holds, but is not killed: it may have left while the head
    /// was down, and its agent reports how it ends.
    pub(super) fn job_lease_expired(&mut self, id: JobId) {
        let why = format!("the driver was lost: {}", lease_expired_text(self.settings.job_lease));
        if self.jobs.get(&id).is_some_and(|job| job.driver_runs) {
            self.notify_driver(id, JobEvent::Stopped { why: why.clone() });
            return self.driver_left(id, &format!("{why}; its process still runs"));
        }
        self.stop_driver(id, &why);
        self.end_job(id, JobState::Failed, None, &why);
    }

    /// Fails a submitted job whose driver was not started in time.
    pub(super) fn submitted_lease_expired(&mut self, id: JobId) {
        let within = self.settings.submitted_lease.as_secs_f64();
        let why =
            format!("its driver was not started within {within} s of its submission; submit the job again");
        self.stop_driver(id, &why);
        self.end_job(id, JobState::Failed, None, &why);
    }

    pub(super) fn job_ended(&mut self, id: JobId, state: JobState, exit_code: Option<i32>, message: &str) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.state.is_open() {
            // A stopped job ends before the process of its driver; the exit code follows with the report of
            // the agent.
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

    /// Releases everything that a submitted job holds once its driver has left the cluster.
    ///
    /// The job ends when the driver's process exits, which its agent reports, or when it is stopped.
    pub(super) fn driver_left(&mut self, id: JobId, why: &str) {
        let Ok(job) = self.active_job(id) else { return };
        // Only an agent reports the exit of a driver. A job without one would stay open forever; the head
        // treats the leaving of such a driver as the end of its job.
        if job.descriptor.runs_on.is_none() {
            return;
        }
        job.left = true;
        job.message = Some(bounded(why));
        job.descriptor.driver = None;
        job.descriptor.user_host = None;
        let driver_runs = job.driver_runs;
        self.job_leases.end(id);
        // The agent has not confirmed the driver. If it never does, the job still has to end.
        if !driver_runs {
            self.submitted_leases.grant(self.now, id);
        }
        self.release_all(id, &End::new(EndReason::JobEnded, format!("its job has left the cluster: {why}")));
        self.persist_job(id);
    }

    /// Requests the end of an open job's driver, through the driver itself and through the agent that runs
    /// it.
    pub(super) fn stop_driver(&mut self, id: JobId, why: &str) {
        // A driver that has not connected gets no event, and one that a user started has no agent: hence
        // both ways.
        self.notify_driver(id, JobEvent::Stopped { why: why.to_owned() });
        let node = self.jobs.get(&id).and_then(|job| job.descriptor.runs_on);
        if let Some(node) = node.filter(|node| self.nodes.contains_key(node)) {
            self.actions.push(Action::StopDriver { node, job: id });
        }
    }

    /// Ends an open job, and everything that ends with it.
    ///
    /// The indexes that an end updates:
    ///
    /// ```text
    ///   open_jobs, leases of the driver           here, first: nothing is sent to the driver or placed for it
    ///   record, drivers of the node               here
    ///   open_requests, waiting_tickets            release_all: requests of the job are refused
    ///   actors outside of workers                 release_all -> end_actor
    ///   workers, hosts, pools, restarts,          release_all -> close_pool
    ///     scheduler (provisioned), actors in workers
    ///   pinned executables                        release_all: released last, when no worker needs them
    ///   history                                   record_ended_job: may delete the record of the oldest job
    /// ```
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
        let cause = if message.is_empty() {
            "its job has ended".to_owned()
        } else {
            format!("its job has ended: {message}")
        };
        let runs_on = job.descriptor.runs_on;
        // Written before the records of its actors are deleted: a restart in between finds the job ended, and
        // drops its actors.
        self.persist_job(id);
        self.record_job_end(id);
        if let Some(node) = runs_on.and_then(|node| self.nodes.get_mut(&node)) {
            node.drivers.remove(&id);
            self.deferred.maybe_drained.insert(node.descriptor.id());
        }
        self.release_all(id, &End::new(EndReason::JobEnded, cause));
        self.notify_job_watchers(id);
        self.record_ended_job(id);
    }

    /// Releases everything that a job holds, and refuses its open requests.
    fn release_all(&mut self, id: JobId, end: &End) {
        // Both sets are taken first: ending an actor, or a waiter, edits the sets of its job.
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let waiting_tickets = std::mem::take(&mut job.waiting_tickets);
        let unassigned_actors = std::mem::take(&mut job.unassigned_actors);
        let nodes: Vec<NodeId> = job.pools.keys().copied().collect();
        for ticket in waiting_tickets {
            self.cancel_waiter(ticket);
            self.reply(ticket, Err(ControlError::JobEnded(end.text.clone())));
        }
        let shared_end = end.clone().into();
        for actor in unassigned_actors {
            if self.may_still_start(actor) {
                // Its creator may have ended as soon as the actor existed, before the worker reported it. The
                // actor gets some time to appear instead.
                self.start_leases.grant(self.now, actor);
            } else {
                self.end_actor(actor, &shared_end, ControlError::JobEnded);
            }
        }
        for node in nodes {
            self.close_pool(id, node, end);
        }
        let pinned_by = self
            .nodes
            .values_mut()
            .filter_map(|node| node.pinned_jobs.remove(&id).then(|| node.descriptor.id()));
        let nodes = pinned_by.collect();
        self.actions.push(Action::ReleaseJob { job: id, nodes });
    }

    /// Adds an ended job to the history, and deletes the oldest one that it displaces.
    pub(super) fn record_ended_job(&mut self, id: JobId) {
        if let Some(oldest) = self.history.add_job(id) {
            self.jobs.remove(&oldest);
            self.actions.push(Action::Delete(RecordKey::Job(oldest)));
        }
    }
}
