//! Actors that wait for room: one queue for all actors of a job that want the same.
//!
//! A node with room is compared with each queue once, however long they are. Jobs take turns for room that
//! becomes free, so a job that has asked for much delays another by one actor and not by its whole queue.
//!
//! Room that is free goes to whatever fits it, so a large request can be passed by small ones without end.
//! A queue whose first actor was passed often, or has waited long, therefore becomes overdue; it may then
//! reserve a node. Slurm's backfill does so for the first job of its queue, which knows how long jobs run.
//! Actors may run for ever, so a reservation here has an end, and the node after it is another one.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::shape::ShapeId;
use crate::cluster::control_plane::lease::Millis;
use crate::cluster::model::{ActorKey, JobId, NodeId};
use crate::config::{RESERVATION_MAX, RESERVE_AFTER, RESERVE_AFTER_PASSED, RESERVE_AGAIN_AFTER};

/// What all actors of a queue have in common.
pub(in crate::cluster) type Queue = (JobId, ShapeId);

/// Actors that wait.
#[derive(Debug, Default)]
pub(in crate::cluster) struct PendingQueues {
    queues: FxHashMap<Queue, Line>,
    /// The queues by their first.
    heads: BTreeMap<ActorKey, Queue>,
    /// Placements so far of actors that take something of their node.
    placed: u64,
    /// The queues that may become overdue, by the placement and by the time at which they do.
    due_placed: BTreeSet<(u64, Queue)>,
    due_time: BTreeSet<(Millis, Queue)>,
    /// The reservations: at most [`RESERVATIONS_MAX`](crate::config::RESERVATIONS_MAX), one for each job. They are
    /// in no other table, since a search through so few is cheaper than tables that may disagree.
    reserved: BTreeMap<NodeId, Reservation>,
}

/// One queue.
#[derive(Debug)]
struct Line {
    /// An actor's key grows with the time at which it was asked for, so the first one has waited longest.
    actors: BTreeSet<ActorKey>,
    due: Option<Due>,
    /// The node that was reserved last for the present first, in vain.
    tried: Option<NodeId>,
}

/// When a queue becomes overdue: by whichever comes first.
#[derive(Clone, Copy, Debug)]
struct Due {
    placed: u64,
    at: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Reservation {
    queue: Queue,
    until: Millis,
}

impl PendingQueues {
    pub(in crate::cluster) fn has(&self, queue: Queue) -> bool {
        self.queues.contains_key(&queue)
    }

    /// Adds an actor. One that takes nothing of a node waits for no room, and is never overdue.
    pub(in crate::cluster) fn add(&mut self, now: Millis, queue: Queue, actor: ActorKey, takes_any: bool) {
        let line = self.queues.entry(queue).or_insert_with(|| Line {
            actors: BTreeSet::new(),
            due: None,
            tried: None,
        });
        let first = line.actors.first().copied();
        line.actors.insert(actor);
        if first.is_none_or(|first| actor < first) {
            first.and_then(|first| self.heads.remove(&first));
            self.heads.insert(actor, queue);
        }
        if first.is_none() && takes_any {
            self.set_due(queue, Some(self.fresh(now)));
        }
    }

    /// Removes an actor. The node that was reserved for it, if one was, is free again.
    pub(in crate::cluster) fn remove(
        &mut self,
        now: Millis,
        queue: Queue,
        actor: ActorKey,
    ) -> Option<NodeId> {
        let line = self.queues.get_mut(&queue)?;
        line.actors.remove(&actor);
        self.heads.remove(&actor)?;
        let next = line.actors.first().copied();
        let has_due = line.due.is_some();
        line.tried = None;
        let released = self.reservation(queue);
        released.and_then(|node| self.reserved.remove(&node));
        let was_due = has_due || released.is_some();
        self.set_due(queue, None);
        match next {
            Some(first) => {
                self.heads.insert(first, queue);
                if was_due {
                    self.set_due(queue, Some(self.fresh(now)));
                }
            }
            None => drop(self.queues.remove(&queue)),
        }
        released
    }

    /// The queues that pass a test, by job, each by its first.
    pub(in crate::cluster) fn by_job(
        &self,
        fits: impl Fn(Queue) -> bool,
    ) -> BTreeMap<JobId, BTreeMap<ActorKey, Queue>> {
        let mut jobs: BTreeMap<JobId, BTreeMap<ActorKey, Queue>> = BTreeMap::new();
        for (&actor, &queue) in self.heads.iter().filter(|(_, queue)| fits(**queue)) {
            jobs.entry(queue.0).or_default().insert(actor, queue);
        }
        jobs
    }

    /// The one of a queue that has waited longest.
    pub(in crate::cluster) fn first(&self, queue: Queue) -> Option<ActorKey> {
        self.queues.get(&queue)?.actors.first().copied()
    }

    /// All queues, the one whose first has waited longest first.
    pub(in crate::cluster) fn queues(&self) -> impl Iterator<Item = (Queue, &BTreeSet<ActorKey>)> {
        self.heads.values().filter_map(|queue| Some((*queue, &self.queues.get(queue)?.actors)))
    }

    /// An actor was placed that takes something of its node.
    pub(in crate::cluster) fn count_placement(&mut self) {
        self.placed += 1;
    }

    /// Takes a queue that is overdue by the number of placements, or by the time. It becomes overdue again
    /// after some more, if nothing is reserved for it.
    pub(in crate::cluster) fn take_overdue(&mut self, now: Millis) -> Option<Queue> {
        let by_placed = self.due_placed.first().filter(|(placed, _)| *placed <= self.placed);
        let by_time = self.due_time.first().filter(|(at, _)| *at <= now);
        let queue = by_placed.map(|due| due.1).or_else(|| by_time.map(|due| due.1))?;
        self.set_due(queue, Some(self.fresh(now)));
        Some(queue)
    }

    /// Whether a job's queues have no reservation yet.
    pub(in crate::cluster) fn may_reserve(&self, job: JobId) -> bool {
        self.reserved.values().all(|reservation| reservation.queue.0 != job)
    }

    /// The node that was reserved for the first of a queue before, in vain.
    pub(in crate::cluster) fn tried(&self, queue: Queue) -> Option<NodeId> {
        self.queues.get(&queue)?.tried
    }

    /// A node is reserved for the first of a queue.
    pub(in crate::cluster) fn reserve(&mut self, now: Millis, queue: Queue, node: NodeId) {
        if self.has(queue) {
            self.set_due(queue, None);
            self.reserved.insert(node, Reservation { queue, until: now.after(ms(RESERVATION_MAX)) });
        }
    }

    /// The queue that a node is reserved for.
    pub(in crate::cluster) fn holder(&self, node: NodeId) -> Option<Queue> {
        Some(self.reserved.get(&node)?.queue)
    }

    /// The node that is reserved for a queue.
    pub(in crate::cluster) fn reservation(&self, queue: Queue) -> Option<NodeId> {
        let mut reserved = self.reserved.iter();
        reserved.find(|(_, reservation)| reservation.queue == queue).map(|(node, _)| *node)
    }

    /// The nodes that are reserved.
    pub(in crate::cluster) fn reservations(&self) -> impl ExactSizeIterator<Item = (NodeId, Queue)> {
        self.reserved.iter().map(|(node, reservation)| (*node, reservation.queue))
    }

    /// Ends the reservations that have lasted their time, in vain; returns their nodes. Their queues rest before
    /// the next one, so that what the nodes have is used.
    pub(in crate::cluster) fn end_expired(&mut self, now: Millis) -> Vec<NodeId> {
        let expired = self.reserved.iter().filter(|(_, reservation)| reservation.until <= now);
        let expired: Vec<NodeId> = expired.map(|(node, _)| *node).collect();
        for node in &expired {
            let Some(Reservation { queue, .. }) = self.reserved.remove(node) else { continue };
            if let Some(line) = self.queues.get_mut(&queue) {
                line.tried = Some(*node);
            }
            self.set_due(queue, Some(Due { placed: u64::MAX, at: now.after(ms(RESERVE_AGAIN_AFTER)) }));
        }
        expired
    }

    /// A reserved node cannot take the actor any more. Another may be reserved.
    pub(in crate::cluster) fn lose(&mut self, now: Millis, node: NodeId) {
        if let Some(Reservation { queue, .. }) = self.reserved.remove(&node) {
            self.set_due(queue, Some(Due { placed: self.placed, at: now }));
        }
    }

    fn fresh(&self, now: Millis) -> Due {
        Due { placed: self.placed + RESERVE_AFTER_PASSED, at: now.after(ms(RESERVE_AFTER)) }
    }

    fn set_due(&mut self, queue: Queue, due: Option<Due>) {
        let Some(line) = self.queues.get_mut(&queue) else { return };
        if let Some(Due { placed, at }) = std::mem::replace(&mut line.due, due) {
            self.due_placed.remove(&(placed, queue));
            self.due_time.remove(&(at, queue));
        }
        if let Some(Due { placed, at }) = due {
            self.due_placed.insert((placed, queue));
            self.due_time.insert((at, queue));
        }
    }
}

#[cfg(test)]
impl PendingQueues {
    /// Asserts that the tables agree.
    pub(in crate::cluster) fn check(&self, now: Millis) {
        let firsts =
            self.queues.iter().map(|(queue, line)| (*line.actors.first().expect("none is empty"), *queue));
        assert_eq!(self.heads, firsts.collect());
        let due = || self.queues.iter().filter_map(|(queue, line)| Some((line.due?, *queue)));
        assert_eq!(self.due_placed, due().map(|(due, queue)| (due.placed, queue)).collect());
        assert_eq!(self.due_time, due().map(|(due, queue)| (due.at, queue)).collect());
        for (node, Reservation { queue, until }) in &self.reserved {
            let line = self.queues.get(queue).unwrap_or_else(|| panic!("{node} is reserved for none"));
            assert!(line.due.is_none(), "{queue:?} has {node}, and is to be given another");
            assert!(*until <= now.after(ms(RESERVATION_MAX)), "{node} is reserved for too long");
        }
        let jobs: BTreeSet<JobId> = self.reservations().map(|(_, (job, _))| job).collect();
        assert_eq!(jobs.len(), self.reserved.len(), "a job has two reservations");
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::control_plane::scheduler::Scheduler;
    use crate::spec::ActorSpec;

    const NOW: Millis = Millis(1000);

    fn queues() -> [Queue; 2] {
        let shape = Scheduler::default().shape_of(&ActorSpec::default());
        [(JobId(1), shape), (JobId(2), shape)]
    }

    #[test]
    fn the_queues_of_each_job_stand_in_the_order_of_their_firsts() {
        let [one, other] = queues();
        let mut waiting = PendingQueues::default();
        for (queue, actor) in [(one, 3), (other, 4), (one, 5), (one, 1)] {
            waiting.add(NOW, queue, ActorKey(actor), true);
        }
        let firsts = |waiting: &PendingQueues| -> Vec<u64> {
            waiting.by_job(|_| true).values().flat_map(|queues| queues.keys().map(|key| key.0)).collect()
        };
        assert_eq!(firsts(&waiting), [1, 4]);
        assert_eq!(waiting.remove(NOW, one, ActorKey(1)), None);
        assert_eq!(firsts(&waiting), [3, 4]);
        for (queue, actor) in [(one, 5), (one, 3), (other, 4)] {
            waiting.remove(NOW, queue, ActorKey(actor));
        }
        assert!(!waiting.has(one) && !waiting.has(other));
        assert_eq!((waiting.queues().count(), waiting.due_placed.len(), waiting.due_time.len()), (0, 0, 0));
    }

    #[test]
    fn a_queue_is_overdue_after_so_many_placements_or_so_long() {
        let [one, other] = queues();
        let mut waiting = PendingQueues::default();
        waiting.add(NOW, one, ActorKey(1), true);
        for _ in 1..RESERVE_AFTER_PASSED {
            waiting.count_placement();
        }
        waiting.add(NOW, other, ActorKey(2), true);
        assert_eq!(waiting.take_overdue(NOW), None);
        waiting.count_placement();
        assert_eq!(waiting.take_overdue(NOW), Some(one));
        assert_eq!(waiting.take_overdue(NOW), None);
        let later = NOW.after(ms(RESERVE_AFTER));
        let both = [waiting.take_overdue(later), waiting.take_overdue(later)];
        assert!(both.contains(&Some(one)) && both.contains(&Some(other)), "{both:?}");
        assert_eq!(waiting.take_overdue(later), None);
    }

    #[test]
    fn a_reservation_ends_with_its_actor_or_its_time_and_another_follows_a_rest() {
        let [one, other] = queues();
        let mut waiting = PendingQueues::default();
        waiting.add(NOW, one, ActorKey(1), true);
        waiting.add(NOW, other, ActorKey(2), true);
        waiting.reserve(NOW, one, NodeId(7));
        assert_eq!((waiting.holder(NodeId(7)), waiting.reservation(one)), (Some(one), Some(NodeId(7))));
        assert!(!waiting.may_reserve(one.0) && waiting.may_reserve(other.0));
        let end = NOW.after(ms(RESERVATION_MAX));
        assert_eq!(waiting.end_expired(NOW), []);
        assert_eq!(waiting.end_expired(end), [NodeId(7)]);
        assert_eq!(waiting.end_expired(end), []);
        waiting.check(end);
        assert_eq!((waiting.holder(NodeId(7)), waiting.tried(one)), (None, Some(NodeId(7))));
        assert!(waiting.may_reserve(one.0));
        assert_eq!(waiting.take_overdue(end), Some(other));
        assert_eq!(waiting.take_overdue(end), None);
        assert_eq!(waiting.take_overdue(end.after(ms(RESERVE_AGAIN_AFTER))), Some(other));
        assert_eq!(waiting.take_overdue(end.after(ms(RESERVE_AGAIN_AFTER))), Some(one));

        waiting.reserve(end, other, NodeId(7));
        assert_eq!(waiting.remove(end, other, ActorKey(2)), Some(NodeId(7)));
        assert_eq!((waiting.holder(NodeId(7)), waiting.reservations().len()), (None, 0));
        waiting.check(end);
    }

    #[test]
    fn what_takes_nothing_is_never_overdue() {
        let [one, _] = queues();
        let mut waiting = PendingQueues::default();
        waiting.add(NOW, one, ActorKey(1), false);
        assert_eq!(waiting.take_overdue(NOW.after(u64::MAX)), None);
    }
}
