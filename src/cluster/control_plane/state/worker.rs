//! Workers: in the pool of a job on a node, or dedicated to one detached actor.

use std::sync::Arc;

use super::history::WorkerRecord;
use super::managed::Loss;
use super::statistics::LatestStatistics;
use super::{Action, ClusterState, ControlError, JobEvent, Millis, millis};
use crate::cluster::model::{
    ActorKey, JobId, NodeId, NodeState, TaskCount, WorkerAddress, WorkerId, WorkerState, WorkerSummary, cut,
};
use crate::config::{ACTOR_NAME_BYTES_MAX, TASK_NAMES_MAX, WORKER_STABLE_AFTER, WORKER_STARTS_FAILED_MAX};
use crate::spec::End;

/// Worker that is starting or running.
#[derive(Debug)]
pub(super) struct LiveWorker {
    pub(super) node: NodeId,
    pub(super) job: JobId,
    pub(super) detached: Option<ActorKey>,
    /// Addresses of its hosts; `None` before it is ready.
    pub(super) member: Option<WorkerAddress>,
    pub(super) pid: u32,
    /// True while a signal has stopped the process.
    pub(super) suspended: bool,
    pub(super) ready_since: Millis,
    /// Actors that are assigned to it.
    pub(super) actors: Vec<ActorKey>,
    /// Number of these that were created.
    pub(super) alive_actors: usize,
    /// Task counts, sorted by function name.
    pub(super) tasks: Vec<TaskCount>,
    pub(super) statistics: LatestStatistics,
}

/// Kind of a worker's end, as far as the start of the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerExit {
    /// End that the cluster has requested.
    Requested,
    /// Kill from outside.
    Killed,
    /// Crash, exit or failed start.
    Failed,
}

impl LiveWorker {
    /// Creates a worker that is about to start.
    pub(super) fn new(node: NodeId, job: JobId, detached: Option<ActorKey>) -> Self {
        Self {
            node,
            job,
            detached,
            member: None,
            pid: 0,
            suspended: false,
            ready_since: Millis::default(),
            actors: Vec::new(),
            alive_actors: 0,
            tasks: Vec::new(),
            statistics: LatestStatistics::default(),
        }
    }

    /// Checks whether the worker has run for too long to count as a crash at its start.
    pub(super) fn is_stable(&self, now: Millis) -> bool {
        self.member.is_some() && now.since(self.ready_since) >= millis(WORKER_STABLE_AFTER)
    }

    pub(super) fn summary(
        &self,
        worker_id: WorkerId,
        state: WorkerState,
        cause: Option<String>,
    ) -> WorkerSummary {
        WorkerSummary {
            worker_id,
            state,
            job_id: self.job,
            node_id: self.node,
            pid: self.pid,
            actors: self.alive_actors,
            detached: self.detached,
            started_ms: self.member.map(|_| self.ready_since.0),
            ended_ms: None,
            cause,
            usage: self.statistics.usage,
        }
    }
}

impl ClusterState {
    /// Commands an agent to start a worker.
    pub(super) fn start_worker(&mut self, node: NodeId, job: JobId, detached: Option<ActorKey>) -> WorkerId {
        let id = self.new_worker();
        self.add_worker(id, LiveWorker::new(node, job, detached));
        self.actions.push(Action::StartWorker { node, worker: id, job, detached });
        id
    }

    /// Adds a worker to its node and pool.
    pub(super) fn add_worker(&mut self, id: WorkerId, worker: LiveWorker) {
        if let Some(node) = self.nodes.get_mut(&worker.node) {
            node.workers.insert(id);
        }
        match worker.detached {
            Some(actor) => drop(self.dedicated_workers.insert(actor, id)),
            None => {
                if let Some(pool) = self.pool(worker.job, worker.node) {
                    pool.workers.insert(id);
                }
            }
        }
        self.workers.insert(id, worker);
    }

    /// Records the addresses of a worker, and announces it.
    pub(super) fn set_ready(&mut self, id: WorkerId, member: WorkerAddress, pid: u32) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let previous = worker.member.replace(member);
        worker.pid = pid;
        // A rejoin reports the same addresses again. That must neither restart the stability clock nor
        // repeat the event.
        if previous == Some(member) {
            return;
        }
        worker.ready_since = self.now;
        if let Some(previous) = previous {
            self.hosts.remove(&previous.actors.host);
            self.hosts.remove(&previous.tasks.host);
        }
        self.hosts.insert(member.actors.host, (member.actors, id));
        self.hosts.insert(member.tasks.host, (member.tasks, id));
        let (node, job, detached) = (worker.node, worker.job, worker.detached);
        // The driver places nothing on a dedicated worker, so it gets no event for it.
        if detached.is_none() {
            self.notify_driver(job, JobEvent::WorkerUp { node, worker: id, member, pid });
            if self.is_unreachable(node) {
                let workers = vec![member.tasks];
                self.notify_driver(job, JobEvent::Reachability { workers, is_reachable: false });
            }
        }
    }

    pub(super) fn worker_ready(&mut self, id: WorkerId, member: WorkerAddress, pid: u32) {
        let Some(worker) = self.workers.get(&id) else {
            // It was removed while it started, and its agent may have missed the command to stop it.
            if let Some(record) = self.history.worker(id) {
                self.actions.push(Action::StopWorker { node: record.summary.node_id, worker: id });
            }
            return;
        };
        let (node, job, detached) = (worker.node, worker.job, worker.detached);
        self.set_ready(id, member, pid);
        match detached {
            Some(actor) if self.pending.contains_key(&actor) => self.assign(actor, id),
            Some(_) => {}
            None => {
                if let Some(pool) = self.pool(job, node) {
                    (pool.has_worked, pool.start_failures) = (true, 0);
                }
                self.assign_waiting(job, node);
            }
        }
    }

    pub(super) fn worker_ended(&mut self, id: WorkerId, end: &End, killed: bool) {
        self.fenced_worker_ended(id);
        self.record_worker_death(id, &end.text);
        self.finish_worker(id, end, if killed { WorkerExit::Killed } else { WorkerExit::Failed });
    }

    /// Handles the end of a worker, and starts a replacement if its job needs one.
    pub(super) fn finish_worker(&mut self, id: WorkerId, end: &End, exit: WorkerExit) {
        let failed = exit == WorkerExit::Failed;
        let Some(worker) = self.workers.get(&id) else { return };
        let (node, job, detached, ready) =
            (worker.node, worker.job, worker.detached, worker.member.is_some());
        let was_stable = worker.is_stable(self.now);
        // Before `remove_worker`, which ends all actors that are still in the worker: this one is evicted.
        if let Some(actor) = detached.filter(|_| !ready) {
            self.dedicated_worker_failed(actor, end, failed);
        }
        self.record_deaths_with(id, &end.text);
        self.remove_worker(id, end, if failed { Loss::Failure } else { Loss::External });
        if detached.is_some() {
            return;
        }
        let node_is_alive = self.nodes.get(&node).is_some_and(|node| node.state == NodeState::Alive);
        // A local cluster has no other node: what its program waits for fails soon, and not after a time limit.
        let may_recover = !self.settings.is_single_node;
        let Some(pool) = self.pool(job, node) else { return };
        let has_worked = ready || pool.has_worked && may_recover;
        pool.start_failures = if has_worked { 0 } else { pool.start_failures + u32::from(failed) };
        if pool.start_failures >= WORKER_STARTS_FAILED_MAX {
            pool.blocked = Some(end.text.clone());
        }
        let is_blocked = pool.blocked.is_some();
        // Where workers were ready, a failed start is no fault of the executable. What it lacks, such as file
        // descriptors, may come back, so the pool backs off. Otherwise the failures counted above block it.
        match exit {
            WorkerExit::Failed if has_worked => self.record_exit(job, node, was_stable, &end.text),
            WorkerExit::Killed => self.record_kill(job, node, was_stable),
            WorkerExit::Failed | WorkerExit::Requested => {}
        }
        let is_backing_off = self.pool(job, node).is_some_and(|pool| pool.crash_loop.is_backing_off());
        if node_is_alive && !is_blocked && !is_backing_off {
            self.start_worker(node, job, None);
        }
        // The share of the ended worker goes to the others; if none is left, the actors move to other nodes.
        self.assign_waiting(job, node);
    }

    /// Evicts a detached actor whose dedicated worker could not be started, or fails it after several
    /// attempts.
    fn dedicated_worker_failed(&mut self, key: ActorKey, end: &End, failed: bool) {
        let Some(unplaced) = self.pending.get_mut(&key) else { return };
        unplaced.failed += u32::from(failed);
        let attempts_exhausted = unplaced.failed >= WORKER_STARTS_FAILED_MAX;
        self.evict(key);
        if attempts_exhausted {
            let text =
                format!("its dedicated worker failed to start {WORKER_STARTS_FAILED_MAX} times: {end}");
            self.end_actor(key, &End::new(end.reason, text).into(), ControlError::Infeasible);
        }
    }

    /// Stops a worker that needs no replacement.
    pub(super) fn stop_worker(&mut self, id: WorkerId, end: &End) {
        let Some(worker) = self.workers.get(&id) else { return };
        self.actions.push(Action::StopWorker { node: worker.node, worker: id });
        self.remove_worker(id, end, Loss::External);
    }

    /// Removes a worker. The actors in it are dead, or restart elsewhere.
    pub(super) fn remove_worker(&mut self, id: WorkerId, end: &End, loss: Loss) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        // `end_actor` stops the dedicated worker of the actor that it ends. Without this entry it does not
        // find the worker that is being removed here.
        let detached = worker.detached.take();
        if let Some(actor) = detached.filter(|actor| self.dedicated_workers.get(actor) == Some(&id)) {
            self.dedicated_workers.remove(&actor);
        }
        self.suspended.remove(&id);
        let summary = WorkerSummary {
            detached,
            ended_ms: Some(self.now.0),
            ..worker.summary(id, WorkerState::Dead, Some(end.text.clone()))
        };
        // The worker stays in the table while its actors end: `end_actor` looks up the node through it to
        // release their resources.
        let shared_end: Arc<End> = end.clone().into();
        for actor in worker.actors.clone() {
            self.lose_actor(actor, &shared_end, loss, ControlError::Unknown);
        }
        let Some(worker) = self.workers.remove(&id) else { return };
        if let Some(member) = worker.member {
            self.hosts.remove(&member.actors.host);
            self.hosts.remove(&member.tasks.host);
            self.creators_ended([member.actors, member.tasks]);
        }
        if let Some(node) = self.nodes.get_mut(&worker.node) {
            node.workers.remove(&id);
        }
        self.deferred.maybe_drained.insert(worker.node);
        if detached.is_none()
            && let Some(pool) = self.pool(worker.job, worker.node)
        {
            pool.workers.remove(&id);
        }
        let (node, member) = (worker.node, worker.member);
        self.notify_driver(worker.job, JobEvent::WorkerDown { node, worker: id, member, end: end.clone() });
        let (tasks, mut statistics) = (worker.tasks, worker.statistics);
        statistics.bound_ended();
        self.history.add_worker(WorkerRecord { summary, member, reason: end.reason, tasks, statistics });
    }

    pub(super) fn worker_suspended(&mut self, id: WorkerId, suspended: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.suspended = suspended;
            match suspended {
                true => self.suspended.insert(id),
                false => self.suspended.remove(&id),
            };
        }
    }

    /// Merges task counts; functions that are not mentioned keep theirs.
    pub(super) fn task_counts(&mut self, worker: WorkerId, counts: Vec<TaskCount>) {
        let counts_by_name = match self.workers.get_mut(&worker) {
            Some(worker) => &mut worker.tasks,
            // The last report of a worker may arrive after its end.
            None => match self.history.worker_mut(worker) {
                Some(record) => &mut record.tasks,
                None => return,
            },
        };
        for mut count in counts {
            cut(&mut count.name, ACTOR_NAME_BYTES_MAX);
            match counts_by_name.binary_search_by(|other| other.name.cmp(&count.name)) {
                Ok(at) => counts_by_name[at] = count,
                Err(at) if counts_by_name.len() < TASK_NAMES_MAX => counts_by_name.insert(at, count),
                // No program has as many functions; a worker that invents names must not use up the
                // head's memory.
                Err(_) => {}
            }
        }
    }

    /// Sends an event to a job's driver, unless the job has ended or the driver has left.
    pub(super) fn notify_driver(&mut self, job: JobId, event: JobEvent) {
        if self.is_active(job) {
            self.actions.push(Action::NotifyDriver { job, event });
        }
    }
}
