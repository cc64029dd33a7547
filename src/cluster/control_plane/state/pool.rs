//! Worker pools: the workers of a job on each of its nodes, and the actors that wait for them.

use std::collections::BTreeSet;

use super::ClusterState;
use super::crash_loop::CrashLoop;
use super::node::LiveNode;
use crate::cluster::model::{ActorKey, JobId, NodeId, WorkerId};
use crate::spec::End;

/// Workers of a job on one node.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) workers: BTreeSet<WorkerId>,
    /// Actors bound to the node that wait for one of its workers to become ready.
    pub(super) awaiting_worker: BTreeSet<ActorKey>,
    /// Set once a worker was ready: the executable works on this node.
    pub(super) has_worked: bool,
    /// Number of consecutive workers that failed to start, before one was ready.
    pub(super) start_failures: u32,
    /// Last start failure, once no more workers are started.
    pub(super) blocked: Option<String>,
    /// Back-off after workers that crash soon after they are ready, or fail to start after others were ready.
    pub(super) crash_loop: CrashLoop,
}

impl ClusterState {
    pub(super) fn pool(&mut self, job: JobId, node: NodeId) -> Option<&mut Pool> {
        self.jobs.get_mut(&job)?.pools.get_mut(&node)
    }

    pub(super) fn node_provisioned(&mut self, job: JobId, node_id: NodeId) {
        let is_usable = self.nodes.get(&node_id).is_some_and(LiveNode::is_usable);
        let Some(active_job) = self.active_job(job).ok().filter(|_| is_usable) else { return };
        // A driver that reconnects reports all of its nodes again. That must not restart a pool which is
        // blocked or backing off: only a new incarnation of the node gets another attempt.
        let pool = active_job.pools.entry(node_id).or_default();
        if pool.blocked.is_none() && !pool.crash_loop.is_backing_off() {
            self.fill_pool(job, node_id);
        }
    }

    /// Starts workers up to the number that the node runs for each job.
    pub(super) fn fill_pool(&mut self, job: JobId, node_id: NodeId) {
        let Some(node) = self.nodes.get(&node_id).filter(|node| node.is_usable()) else { return };
        let target = node.descriptor.workers as usize;
        self.add_pool(job, node_id);
        let current = self.pool(job, node_id).map_or(target, |pool| pool.workers.len());
        for _ in current..target {
            self.start_worker(node_id, job, None);
        }
    }

    /// Allows a job to have workers on a node.
    pub(super) fn add_pool(&mut self, job_id: JobId, node_id: NodeId) {
        let (Some(job), Some(node)) = (self.jobs.get_mut(&job_id), self.nodes.get_mut(&node_id)) else {
            return;
        };
        job.pools.entry(node_id).or_default();
        node.pools.insert(job_id);
        self.schedule.set_provisioned(node_id, job_id, true);
        self.deferred.freed.insert(node_id);
    }

    /// Ready worker of a job on a node with the fewest actors.
    pub(super) fn least_busy(&self, job: JobId, node: NodeId) -> Option<WorkerId> {
        let pool = self.jobs.get(&job)?.pools.get(&node)?;
        let ready = pool.workers.iter().filter_map(|id| {
            let worker = self.workers.get(id)?;
            worker.member.map(|_| (worker.actors.len(), *id))
        });
        ready.min().map(|(_, worker)| worker)
    }

    /// Assigns waiting actors to the ready workers of a pool.
    ///
    /// While other workers start, each that becomes ready takes an equal share. If no worker is left, the
    /// actors are evicted to other nodes.
    pub(super) fn assign_waiting(&mut self, job: JobId, node: NodeId) {
        let Some(pool) = self.jobs.get(&job).and_then(|job| job.pools.get(&node)) else { return };
        let is_ready = |id: &&WorkerId| self.workers.get(*id).is_some_and(|worker| worker.member.is_some());
        let ready = pool.workers.iter().filter(is_ready).count();
        let starting = pool.workers.len() - ready;
        let waiting = pool.awaiting_worker.len();
        if ready + starting == 0 {
            self.schedule.set_provisioned(node, job, false);
            self.deferred.capacity_shrunk = true;
            for actor in pool.awaiting_worker.clone() {
                self.evict(actor);
            }
            return;
        }
        // The share leaves actors for the workers that still start: with all of them in the first ready
        // one, the others would stay idle.
        let share = if ready == 0 { 0 } else { waiting.div_ceil(starting + 1) };
        for _ in 0..share {
            let Some(worker) = self.least_busy(job, node) else { return };
            let Some(actor) = self.pool(job, node).and_then(|pool| pool.awaiting_worker.pop_first()) else {
                return;
            };
            self.assign(actor, worker);
        }
    }

    pub(super) fn remove_awaiting_worker(&mut self, job: JobId, node: NodeId, actor: ActorKey) {
        if let Some(pool) = self.pool(job, node) {
            pool.awaiting_worker.remove(&actor);
        }
    }

    /// Stops a job's workers on a node.
    pub(super) fn close_pool(&mut self, job: JobId, node: NodeId, end: &End) {
        let workers = self.pool(job, node).map(|pool| pool.workers.clone());
        for worker in workers.into_iter().flatten() {
            self.stop_worker(worker, end);
        }
        self.schedule.set_provisioned(node, job, false);
        self.deferred.capacity_shrunk = true;
        self.remove_pool(job, node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.pools.remove(&job);
        }
    }

    /// Removes a job's pool on a node, with its pending restart.
    pub(super) fn remove_pool(&mut self, job: JobId, node: NodeId) {
        let pool = self.jobs.get_mut(&job).and_then(|job| job.pools.remove(&node));
        if let Some(at) = pool.and_then(|pool| pool.crash_loop.next_start()) {
            self.restarts.remove(&(at, job, node));
        }
    }
}
