//! What an event leaves to be done once all of it has been taken in.
//!
//! Much ends at once when a node or a job does. Only afterwards is it clear who has room, and for whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::placement::NameWaiter;
use super::{ControlError, State};
use crate::cluster::control_plane::scheduler::ShapeId;
use crate::cluster::model::{ActorKey, JobId, NodeId};

#[derive(Debug, Default)]
pub(super) struct DeferredWork {
    /// Whether less may be possible than before.
    pub(super) capacity_shrunk: bool,
    /// Actors that have lost their place before anybody was told of it.
    pub(super) evicted: BTreeSet<ActorKey>,
    /// Nodes that may have more room, or room for others.
    pub(super) freed: BTreeSet<NodeId>,
    /// Those who waited for actors that are dead.
    pub(super) retries: VecDeque<NameWaiter>,
    /// Nodes that may have nothing left to do.
    pub(super) maybe_drained: BTreeSet<NodeId>,
}

impl State {
    /// Does what is left to be done.
    pub(super) fn run_deferred(&mut self) {
        loop {
            if std::mem::take(&mut self.deferred.capacity_shrunk) {
                self.drop_reservations();
                self.fail_infeasible();
            } else if let Some(actor) = self.deferred.evicted.pop_first() {
                self.reschedule(actor);
            } else if let Some(node) = self.deferred.freed.pop_first() {
                self.schedule_pending_on(node);
            } else if let Some(follower) = self.deferred.retries.pop_front() {
                self.retry(follower);
            } else if !self.reserve_overdue() {
                break;
            }
        }
        while let Some(node) = self.deferred.maybe_drained.pop_first() {
            self.end_if_drained(node);
        }
    }

    /// Denies a place to those who wait and for whom no node is left that could ever take them.
    fn fail_infeasible(&mut self) {
        let mut hopeless = Vec::new();
        for ((_, shape), actors) in self.waiting.queues() {
            if !self.schedule.is_feasible(shape) {
                hopeless.push((shape, actors.clone()));
            }
        }
        for (shape, actors) in hopeless {
            let why = self.why_never(shape, actors.first()).into();
            for actor in actors {
                self.end_actor(actor, &why, ControlError::Infeasible);
            }
        }
    }

    fn why_never(&self, shape: ShapeId, actor: Option<&ActorKey>) -> String {
        let there = self.schedule.only_node(shape).and_then(|node| self.why_unavailable(node));
        let spec = actor.and_then(|actor| self.actors.get(actor)).map(|actor| self.spec(actor));
        there.unwrap_or_else(|| self.schedule.explain_infeasible(&spec.unwrap_or_default()))
    }

    fn reschedule(&mut self, key: ActorKey) {
        let Some(shape) = self.actors.get(&key).map(|actor| actor.shape) else { return };
        if self.schedule.is_feasible(shape) {
            self.schedule(key);
        } else {
            let why = self.why_never(shape, Some(&key));
            self.end_actor(key, &why.into(), ControlError::Infeasible);
        }
    }

    /// Gives the room that a node has to actors that wait. Jobs take turns.
    fn schedule_pending_on(&mut self, node: NodeId) {
        self.fill_reservation(node);
        let mut turns = BTreeMap::new();
        for (job, queues) in self.waiting.by_job(|queue| self.schedule.fits(node, queue)) {
            let turn = self.jobs.get(&job).map_or(0, |job| job.served);
            turns.insert((turn, job), queues);
        }
        // Room only gets less here: what does not fit by now is not looked at again.
        while let Some(((_, job), mut queues)) = turns.pop_first() {
            while let Some((key, queue)) = queues.pop_first() {
                if !self.schedule.fits(node, queue) {
                    continue;
                }
                self.stop_waiting(queue, key);
                self.bind_to_node(key, node);
                if let Some(next) = self.waiting.first(queue) {
                    queues.insert(next, queue);
                }
                turns.insert((self.next_turn(job), job), queues);
                break;
            }
        }
    }

    /// A job's turn is over: the others come before it.
    fn next_turn(&mut self, job: JobId) -> u64 {
        self.turns += 1;
        if let Some(job) = self.jobs.get_mut(&job) {
            job.served = self.turns;
        }
        self.turns
    }
}
