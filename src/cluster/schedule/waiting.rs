//! Who waits for a node to have room: one queue for all actors of a job that want the same.
//!
//! A node with room is compared with each queue once, however long they are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use rustc_hash::FxHashMap;

use super::shape::ShapeId;
use crate::cluster::model::{ActorKey, JobId};

/// What all actors of a queue have in common.
pub(in crate::cluster) type Queue = (JobId, ShapeId);

#[derive(Debug, Default)]
pub(in crate::cluster) struct Waiting {
    /// An actor's key grows with the time at which it was asked for, so the first one has waited longest.
    queues: FxHashMap<Queue, BTreeSet<ActorKey>>,
    /// The queues by their first.
    firsts: BTreeMap<ActorKey, Queue>,
}

impl Waiting {
    pub(in crate::cluster) fn has(&self, queue: Queue) -> bool {
        self.queues.contains_key(&queue)
    }

    pub(in crate::cluster) fn add(&mut self, queue: Queue, actor: ActorKey) {
        let actors = self.queues.entry(queue).or_default();
        let first = actors.first().copied();
        actors.insert(actor);
        if first.is_none_or(|first| actor < first) {
            first.and_then(|first| self.firsts.remove(&first));
            self.firsts.insert(actor, queue);
        }
    }

    pub(in crate::cluster) fn remove(&mut self, queue: Queue, actor: ActorKey) {
        let Some(actors) = self.queues.get_mut(&queue) else { return };
        actors.remove(&actor);
        if self.firsts.remove(&actor).is_some() {
            match actors.first() {
                Some(first) => drop(self.firsts.insert(*first, queue)),
                None => drop(self.queues.remove(&queue)),
            }
        }
    }

    /// The first of the queue whose first has waited longest, of those behind `after`.
    pub(in crate::cluster) fn next(
        &self,
        after: Option<ActorKey>,
        fits: impl Fn(Queue) -> bool,
    ) -> Option<(ActorKey, Queue)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.firsts.range((after, Bound::Unbounded));
        behind.find(|(_, queue)| fits(**queue)).map(|(actor, queue)| (*actor, *queue))
    }

    /// All queues, the one whose first has waited longest first.
    pub(in crate::cluster) fn queues(&self) -> impl Iterator<Item = (Queue, &BTreeSet<ActorKey>)> {
        self.firsts.values().filter_map(|queue| Some((*queue, self.queues.get(queue)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::schedule::Schedule;
    use crate::spec::ActorSpec;

    #[test]
    fn the_first_of_each_queue_is_seen_once_in_the_order_of_asking() {
        let mut schedule = Schedule::default();
        let shape = schedule.shape_of(&ActorSpec::default());
        let [one, other] = [(JobId(1), shape), (JobId(2), shape)];
        let mut waiting = Waiting::default();
        for (queue, actor) in [(one, 3), (other, 4), (one, 5), (one, 1)] {
            waiting.add(queue, ActorKey(actor));
        }
        let mut seen = Vec::new();
        let mut after = None;
        while let Some((actor, queue)) = waiting.next(after, |_| true) {
            waiting.remove(queue, actor);
            seen.push(actor.0);
            after = Some(actor);
        }
        assert_eq!(seen, [1, 3, 4, 5]);
        assert!(!waiting.has(one) && !waiting.has(other));
        assert_eq!(waiting.queues().count(), 0);
    }
}
