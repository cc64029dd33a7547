//! Work that an event leaves until all of its direct effects are applied.
//!
//! The loss of a node or a job ends many workers and actors. Only after all of them is it known which nodes
//! have room, and for which actors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::placement::NameWaiter;
use super::supervision::Consequences;
use super::{ClusterState, ControlError};
use crate::cluster::control_plane::scheduler::ShapeId;
use crate::cluster::model::{ActorKey, JobId, NodeId};
use crate::spec::{End, EndReason};

/// Work to do at the end of the event.
#[derive(Debug, Default)]
pub(super) struct DeferredWork {
    /// Set when capacity was lost, which may make pending actors infeasible.
    pub(super) capacity_shrunk: bool,
    /// Actors that lost their node or worker before they were assigned.
    pub(super) evicted: BTreeSet<ActorKey>,
    /// Nodes that may have gained room.
    pub(super) freed: BTreeSet<NodeId>,
    /// Waiters for actors that are dead.
    pub(super) retries: VecDeque<NameWaiter>,
    /// Consequences of ends and restarts for other actors.
    pub(super) consequences: Consequences,
    /// Draining nodes that may have become idle.
    pub(super) maybe_drained: BTreeSet<NodeId>,
}

impl ClusterState {
    /// Runs the deferred work until none is left.
    pub(super) fn run_deferred(&mut self) {
        // The order of the arms matters. Consequences come first, since they end actors. Infeasible actors fail before
        // others are placed. Evicted actors are placed, or queued by age, before freed nodes serve the queues. Waiters
        // retry once names are free. Reservations come last: they are for actors that no free room fits.
        loop {
            if self.run_consequence() {
                continue;
            }
            if std::mem::take(&mut self.deferred.capacity_shrunk) {
                self.drop_reservations();
                self.fail_infeasible();
            } else if let Some(actor) = self.deferred.evicted.pop_first() {
                self.reschedule(actor);
            } else if let Some(node) = self.deferred.freed.pop_first() {
                self.schedule_pending_on(node);
            } else if let Some(waiter) = self.deferred.retries.pop_front() {
                self.retry(waiter);
            } else if !self.reserve_overdue() {
                break;
            }
        }
        while let Some(node) = self.deferred.maybe_drained.pop_first() {
            // After the loop: only now is it certain that no worker is left, and none is being started.
            self.end_if_drained(node);
        }
    }

    /// Fails pending actors that no remaining node could ever host.
    fn fail_infeasible(&mut self) {
        // Collected first, since ending an actor changes the queues.
        let mut infeasible = Vec::new();
        for ((_, shape), actors) in self.waiting.queues() {
            if !self.schedule.is_feasible(shape) {
                infeasible.push((shape, actors.clone()));
            }
        }
        for (shape, actors) in infeasible {
            let why = self.explain_infeasible(shape, actors.first());
            let why = End::new(EndReason::Evicted, why).into();
            // One that restarts waits for a node that may still come.
            for actor in actors.into_iter().filter(|actor| !self.is_restarting(*actor)).collect::<Vec<_>>() {
                self.end_actor(actor, &why, ControlError::Infeasible);
            }
        }
    }

    pub(super) fn explain_infeasible(&self, shape: ShapeId, actor: Option<&ActorKey>) -> String {
        let unavailable = self.schedule.only_node(shape).and_then(|node| self.why_unavailable(node));
        let spec = actor.and_then(|actor| self.actors.get(actor)).map(|actor| self.spec(actor));
        unavailable.unwrap_or_else(|| self.schedule.explain_infeasible(&spec.unwrap_or_default()))
    }

    fn reschedule(&mut self, key: ActorKey) {
        let Some(shape) = self.actors.get(&key).map(|actor| actor.shape) else { return };
        if self.schedule.is_feasible(shape) || self.is_restarting(key) {
            self.schedule(key);
        } else {
            let why = self.explain_infeasible(shape, Some(&key));
            self.end_actor(key, &End::new(EndReason::Evicted, why).into(), ControlError::Infeasible);
        }
    }

    /// Places pending actors on a node that has gained room; jobs take turns.
    fn schedule_pending_on(&mut self, node: NodeId) {
        // First: the other queues see nothing of the withheld resources, even if the actor does not need all
        // of them.
        self.fill_reservation(node);
        let mut turns = BTreeMap::new();
        for (job, queues) in self.waiting.by_job(|queue| self.schedule.fits(node, queue)) {
            let turn = self.jobs.get(&job).map_or(0, |job| job.last_turn);
            turns.insert((turn, job), queues);
        }
        // Room on the node only shrinks in this loop, so a queue that does not fit is dropped for good.
        while let Some(((_, job), mut queues)) = turns.pop_first() {
            while let Some((key, queue)) = queues.pop_first() {
                if !self.schedule.fits(node, queue) {
                    continue;
                }
                self.stop_waiting(queue, key);
                self.bind_to_node(key, node);
                // One actor a turn. The queue goes on with its next actor when the job has its next turn.
                if let Some(next) = self.waiting.first(queue) {
                    queues.insert(next, queue);
                }
                turns.insert((self.next_turn(job), job), queues);
                break;
            }
        }
    }

    /// Ends a job's turn: it comes after all others.
    fn next_turn(&mut self, job: JobId) -> u64 {
        self.turns += 1;
        if let Some(job) = self.jobs.get_mut(&job) {
            job.last_turn = self.turns;
        }
        self.turns
    }
}
