//! Workers: started for a job on a node, or for one detached actor.

use std::sync::Arc;

use super::history::WorkerRecord;
use super::{Action, ControlError, JobEvent, Millis, State, millis};
use crate::cluster::model::{
    ActorKey, JobId, NodeId, NodeState, TaskCount, WorkerAddress, WorkerId, WorkerState, WorkerSummary, cut,
};
use crate::config::{ACTOR_NAME_BYTES_MAX, TASK_NAMES_MAX, WORKER_STABLE_AFTER, WORKER_STARTS_FAILED_MAX};

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) node: NodeId,
    pub(super) job: JobId,
    pub(super) detached: Option<ActorKey>,
    /// None before it is ready.
    pub(super) member: Option<WorkerAddress>,
    pub(super) pid: u32,
    /// Whether a signal has stopped its process.
    pub(super) suspended: bool,
    pub(super) ready_since: Millis,
    /// Those that were placed in it.
    pub(super) actors: Vec<ActorKey>,
    /// How many of them have begun.
    pub(super) alive_actors: usize,
    /// By the names of their functions.
    pub(super) tasks: Vec<TaskCount>,
}

impl Worker {
    /// One that is being started.
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
        }
    }

    /// Whether it has worked for so long that it did not crash at its start.
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
            cause,
        }
    }
}

impl State {
    /// Has a worker started.
    pub(super) fn start_worker(&mut self, node: NodeId, job: JobId, detached: Option<ActorKey>) -> WorkerId {
        let id = self.new_worker();
        self.add_worker(id, Worker::new(node, job, detached));
        self.actions.push(Action::StartWorker { node, worker: id, job, detached });
        id
    }

    /// Takes up a worker.
    pub(super) fn add_worker(&mut self, id: WorkerId, worker: Worker) {
        if let Some(node) = self.nodes.get_mut(&worker.node) {
            node.workers.insert(id);
        }
        match worker.detached {
            Some(actor) => drop(self.own_workers.insert(actor, id)),
            None => {
                if let Some(pool) = self.pool(worker.job, worker.node) {
                    pool.workers.insert(id);
                }
            }
        }
        self.workers.insert(id, worker);
    }

    /// A worker can be reached.
    pub(super) fn set_ready(&mut self, id: WorkerId, member: WorkerAddress, pid: u32) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let before = worker.member.replace(member);
        worker.pid = pid;
        if before == Some(member) {
            return;
        }
        worker.ready_since = self.now;
        if let Some(before) = before {
            self.hosts.remove(&before.actors.host);
            self.hosts.remove(&before.tasks.host);
        }
        self.hosts.insert(member.actors.host, (member.actors, id));
        self.hosts.insert(member.tasks.host, (member.tasks, id));
        let (node, job, detached) = (worker.node, worker.job, worker.detached);
        // The worker of a detached actor is for nothing else.
        if detached.is_none() {
            self.notify_driver(job, JobEvent::WorkerUp { node, worker: id, member, pid });
        }
    }

    pub(super) fn worker_ready(&mut self, id: WorkerId, member: WorkerAddress, pid: u32) {
        let Some(worker) = self.workers.get(&id) else {
            // It was given up while it started.
            if let Some(past) = self.history.worker(id) {
                self.actions.push(Action::StopWorker { node: past.summary.node_id, worker: id });
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
                    pool.start_failures = 0;
                }
                self.assign_waiting(job, node);
            }
        }
    }

    pub(super) fn worker_ended(&mut self, id: WorkerId, cause: &str) {
        self.finish_worker(id, cause, true);
    }

    /// A worker is gone, and what has to go on without it does. `failed` if it has ended by itself, or
    /// could not be started.
    pub(super) fn finish_worker(&mut self, id: WorkerId, cause: &str, failed: bool) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (node, job, detached, ready) =
            (worker.node, worker.job, worker.detached, worker.member.is_some());
        let was_settled = worker.is_stable(self.now);
        if let Some(actor) = detached.filter(|_| !ready) {
            self.dedicated_worker_failed(actor, cause, failed);
        }
        self.remove_worker(id, cause);
        if detached.is_some() {
            return;
        }
        let goes_on = self.nodes.get(&node).is_some_and(|node| node.state == NodeState::Alive);
        let Some(pool) = self.pool(job, node) else { return };
        pool.start_failures = if ready { 0 } else { pool.start_failures + u32::from(failed) };
        if pool.start_failures >= WORKER_STARTS_FAILED_MAX {
            pool.blocked = Some(cause.to_owned());
        }
        let given_up = pool.blocked.is_some();
        if ready && failed {
            self.record_exit(job, node, was_settled, cause);
        }
        let rests = self.pool(job, node).is_some_and(|pool| pool.crash_loop.is_backing_off());
        if goes_on && !given_up && !rests {
            self.start_worker(node, job, None);
        }
        self.assign_waiting(job, node);
    }

    /// A worker for a detached actor could not be started: there is another try, somewhere.
    fn dedicated_worker_failed(&mut self, key: ActorKey, cause: &str, failed: bool) {
        let Some(unplaced) = self.pending.get_mut(&key) else { return };
        unplaced.failed += u32::from(failed);
        let too_often = unplaced.failed >= WORKER_STARTS_FAILED_MAX;
        self.evict(key);
        if too_often {
            let cause =
                format!("no worker of its own could be started, {WORKER_STARTS_FAILED_MAX} times: {cause}");
            self.end_actor(key, &cause.into(), ControlError::Infeasible);
        }
    }

    /// Has a worker ended, for which nothing is to go on.
    pub(super) fn stop_worker(&mut self, id: WorkerId, cause: &str) {
        let Some(worker) = self.workers.get(&id) else { return };
        self.actions.push(Action::StopWorker { node: worker.node, worker: id });
        self.remove_worker(id, cause);
    }

    /// Forgets a worker; the actors in it are dead.
    pub(super) fn remove_worker(&mut self, id: WorkerId, cause: &str) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        // Those that end look for themselves here.
        let detached = worker.detached.take();
        if let Some(actor) = detached.filter(|actor| self.own_workers.get(actor) == Some(&id)) {
            self.own_workers.remove(&actor);
        }
        self.suspended.remove(&id);
        let summary =
            WorkerSummary { detached, ..worker.summary(id, WorkerState::Dead, Some(cause.to_owned())) };
        let shared: Arc<str> = cause.into();
        for actor in worker.actors.clone() {
            self.end_actor(actor, &shared, ControlError::Unknown);
        }
        let Some(worker) = self.workers.remove(&id) else { return };
        if let Some(member) = worker.member {
            self.hosts.remove(&member.actors.host);
            self.hosts.remove(&member.tasks.host);
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
        self.notify_driver(
            worker.job,
            JobEvent::WorkerDown { node, worker: id, member, cause: cause.to_owned() },
        );
        self.history.add_worker(WorkerRecord { summary, member, tasks: worker.tasks });
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

    /// A worker has counted its tasks; of functions that it does not mention the counts are as they were.
    pub(super) fn task_counts(&mut self, worker: WorkerId, counts: Vec<TaskCount>) {
        let known = match self.workers.get_mut(&worker) {
            Some(worker) => &mut worker.tasks,
            // Its last word may come when it is over already.
            None => match self.history.worker_mut(worker) {
                Some(past) => &mut past.tasks,
                None => return,
            },
        };
        for mut count in counts {
            cut(&mut count.name, ACTOR_NAME_BYTES_MAX);
            match known.binary_search_by(|other| other.name.cmp(&count.name)) {
                Ok(at) => known[at] = count,
                Err(at) if known.len() < TASK_NAMES_MAX => known.insert(at, count),
                // A worker cannot have so many functions.
                Err(_) => {}
            }
        }
    }

    /// Tells a job's driver something, unless the job is over or its driver has left.
    pub(super) fn notify_driver(&mut self, job: JobId, news: JobEvent) {
        if self.is_served(job) {
            self.actions.push(Action::NotifyDriver { job, news });
        }
    }
}
