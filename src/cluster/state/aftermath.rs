//! What an event leaves to be done once all of it has been taken in.
//!
//! Much ends at once when a node or a job does. Only afterwards is it clear who has room, and for whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::place::NameWaiter;
use super::{Denied, State};
use crate::cluster::model::{ActorKey, JobId, NodeId};
use crate::cluster::schedule::ShapeId;

#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Whether less may be possible than before.
    pub(super) shrunk: bool,
    /// Actors that have lost their place before anybody was told of it.
    pub(super) homeless: BTreeSet<ActorKey>,
    /// Nodes that may have more room, or room for others.
    pub(super) freed: BTreeSet<NodeId>,
    /// Those who waited for actors that are dead.
    pub(super) again: VecDeque<NameWaiter>,
    /// Nodes that may have nothing left to do.
    pub(super) quieter: BTreeSet<NodeId>,
}

impl State {
    /// Does what is left to be done.
    pub(super) fn settle(&mut self) {
        loop {
            if std::mem::take(&mut self.aftermath.shrunk) {
                self.drop_reservations();
                self.fail_infeasible();
            } else if let Some(actor) = self.aftermath.homeless.pop_first() {
                self.rehouse(actor);
            } else if let Some(node) = self.aftermath.freed.pop_first() {
                self.fill(node);
            } else if let Some(follower) = self.aftermath.again.pop_front() {
                self.retry(follower);
            } else if !self.reserve_overdue() {
                break;
            }
        }
        while let Some(node) = self.aftermath.quieter.pop_first() {
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
                self.end_actor(actor, &why, Denied::Infeasible);
            }
        }
    }

    fn why_never(&self, shape: ShapeId, actor: Option<&ActorKey>) -> String {
        let there = self.schedule.only_node(shape).and_then(|node| self.why_unavailable(node));
        let spec = actor.and_then(|actor| self.actors.get(actor)).map(|actor| self.spec(actor));
        there.unwrap_or_else(|| self.schedule.why_never(&spec.unwrap_or_default()))
    }

    fn rehouse(&mut self, key: ActorKey) {
        let Some(shape) = self.actors.get(&key).map(|actor| actor.shape) else { return };
        if self.schedule.is_feasible(shape) {
            self.seek(key);
        } else {
            let why = self.why_never(shape, Some(&key));
            self.end_actor(key, &why.into(), Denied::Infeasible);
        }
    }

    /// Gives the room that a node has to actors that wait. Jobs take turns.
    fn fill(&mut self, node: NodeId) {
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
                self.put(key, node);
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
