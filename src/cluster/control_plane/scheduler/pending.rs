//! Queues of pending actors: one for all actors of a job with the same shape.
//!
//! A node with room is compared once with each queue, whatever the length of the queue. Jobs take turns for
//! room that becomes free: a job with many requests delays another by one actor, not by its whole queue.
//!
//! Free room goes to any actor that fits, so small requests could pass a large one forever. A queue becomes
//! overdue once its first actor has been passed or has waited for too long; it may then reserve a node.
//! Slurm's backfill scheduler reserves for the first job of its queue and relies on run time limits. Actors
//! have none, so a reservation expires here, and the next one goes to another node.
//!
//! ```text
//!             RESERVE_AFTER or RESERVE_AFTER_PASSED       room for it
//!   waiting ---------------------------------> reserved ------------> placed
//!      ^                                        |    |
//!      |   overdue immediately: node lost       |    |
//!      |<---------------------------------------'    |
//!      '---- RESERVE_AGAIN_AFTER: RESERVATION_MAX ---'
//! ```

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::shape::ShapeId;
use crate::cluster::control_plane::lease::Millis;
use crate::cluster::model::{ActorKey, JobId, NodeId};
use crate::config::{RESERVATION_MAX, RESERVE_AFTER, RESERVE_AFTER_PASSED, RESERVE_AGAIN_AFTER};

/// Key of a queue: what all of its actors have in common.
pub(in crate::cluster) type Queue = (JobId, ShapeId);

/// All queues of pending actors, with their deadlines and reservations.
#[derive(Debug, Default)]
pub(in crate::cluster) struct PendingQueues {
    queues: FxHashMap<Queue, PendingQueue>,
    /// Queue of each queue's first actor, oldest first.
    heads: BTreeMap<ActorKey, Queue>,
    /// Number of placements of actors that hold resources.
    placed: u64,
    /// Queues that may become overdue, by number of placements and by time.
    overdue_by_placements: BTreeSet<(u64, Queue)>,
    overdue_by_time: BTreeSet<(Millis, Queue)>,
    /// Reservations: at most [`RESERVATIONS_MAX`](crate::config::RESERVATIONS_MAX), one for each job.
    ///
    /// There is no index by queue, job or expiry: scanning a few entries is cheap, and indexes could disagree.
    reserved_nodes: BTreeMap<NodeId, Reservation>,
}

/// Actors of one queue.
#[derive(Debug)]
struct PendingQueue {
    /// Keys grow with the time of the request, so the first actor has waited longest.
    actors: BTreeSet<ActorKey>,
    deadline: Option<OverdueAt>,
    /// Node whose reservation for the present first actor expired unused.
    tried: Option<NodeId>,
}

/// Deadline of a queue: overdue at the earlier of the two.
#[derive(Clone, Copy, Debug)]
struct OverdueAt {
    placed: u64,
    at: Millis,
}

/// Reservation of a node for the first actor of a queue.
#[derive(Clone, Copy, Debug)]
struct Reservation {
    queue: Queue,
    until: Millis,
}

impl PendingQueues {
    pub(in crate::cluster) fn has(&self, queue: Queue) -> bool {
        self.queues.contains_key(&queue)
    }

    /// Adds an actor. `needs_resources` is false for an actor without resources, whose queue never becomes overdue.
    pub(in crate::cluster) fn add(
        &mut self,
        now: Millis,
        queue: Queue,
        actor: ActorKey,
        needs_resources: bool,
    ) {
        let entry = self.queues.entry(queue).or_insert_with(|| PendingQueue {
            actors: BTreeSet::new(),
            deadline: None,
            tried: None,
        });
        let first = entry.actors.first().copied();
        entry.actors.insert(actor);
        if first.is_none_or(|first| actor < first) {
            first.and_then(|first| self.heads.remove(&first));
            self.heads.insert(actor, queue);
        }
        // Only the first actor has a deadline; the next gets one when it becomes the first.
        if first.is_none() && needs_resources {
            self.set_deadline(queue, Some(self.next_deadline(now)));
        }
    }

    /// Removes an actor, and returns the node that was reserved for it, if any.
    pub(in crate::cluster) fn remove(
        &mut self,
        now: Millis,
        queue: Queue,
        actor: ActorKey,
    ) -> Option<NodeId> {
        let entry = self.queues.get_mut(&queue)?;
        // Only the first actor of a queue has an entry in `heads`. The deadline and the reservation are the
        // first one's too, so for any other actor nothing else changes.
        entry.actors.remove(&actor);
        self.heads.remove(&actor)?;
        let next_first = entry.actors.first().copied();
        let had_deadline = entry.deadline.is_some();
        entry.tried = None;
        let released = self.reservation(queue);
        released.and_then(|node| self.reserved_nodes.remove(&node));
        let needs_deadline = had_deadline || released.is_some();
        self.set_deadline(queue, None);
        match next_first {
            Some(first) => {
                self.heads.insert(first, queue);
                // Counted from now: earlier placements were counted against the removed actor.
                if needs_deadline {
                    self.set_deadline(queue, Some(self.next_deadline(now)));
                }
            }
            None => drop(self.queues.remove(&queue)),
        }
        released
    }

    /// Heads of the queues that pass a test, by job.
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

    /// Oldest actor of a queue.
    pub(in crate::cluster) fn first(&self, queue: Queue) -> Option<ActorKey> {
        self.queues.get(&queue)?.actors.first().copied()
    }

    /// All queues with their actors; the queue with the oldest actor first.
    pub(in crate::cluster) fn queues(&self) -> impl Iterator<Item = (Queue, &BTreeSet<ActorKey>)> {
        self.heads.values().filter_map(|queue| Some((*queue, &self.queues.get(queue)?.actors)))
    }

    /// Counts a placement of an actor that holds resources.
    pub(in crate::cluster) fn count_placement(&mut self) {
        self.placed += 1;
    }

    /// Takes an overdue queue.
    pub(in crate::cluster) fn take_overdue(&mut self, now: Millis) -> Option<Queue> {
        let by_placed = self.overdue_by_placements.first().filter(|(placed, _)| *placed <= self.placed);
        let by_time = self.overdue_by_time.first().filter(|(at, _)| *at <= now);
        let queue = by_placed.map(|deadline| deadline.1).or_else(|| by_time.map(|deadline| deadline.1))?;
        // The deadline is renewed first, in case the caller cannot reserve a node. The queue is then not returned
        // again for the same event, and the search over all nodes is not repeated with each event.
        self.set_deadline(queue, Some(self.next_deadline(now)));
        Some(queue)
    }

    /// Checks that the job has no reservation.
    pub(in crate::cluster) fn may_reserve(&self, job: JobId) -> bool {
        self.reserved_nodes.values().all(|reservation| reservation.queue.0 != job)
    }

    /// Node whose reservation for the first actor of the queue expired unused.
    pub(in crate::cluster) fn tried(&self, queue: Queue) -> Option<NodeId> {
        self.queues.get(&queue)?.tried
    }

    /// Reserves a node for the first actor of a queue.
    pub(in crate::cluster) fn reserve(&mut self, now: Millis, queue: Queue, node: NodeId) {
        if self.has(queue) {
            self.set_deadline(queue, None);
            self.reserved_nodes
                .insert(node, Reservation { queue, until: now.after(millis(RESERVATION_MAX)) });
        }
    }

    /// Queue that a node is reserved for.
    pub(in crate::cluster) fn holder(&self, node: NodeId) -> Option<Queue> {
        Some(self.reserved_nodes.get(&node)?.queue)
    }

    /// Node that is reserved for a queue.
    pub(in crate::cluster) fn reservation(&self, queue: Queue) -> Option<NodeId> {
        let mut entries = self.reserved_nodes.iter();
        entries.find(|(_, reservation)| reservation.queue == queue).map(|(node, _)| *node)
    }

    /// All reserved nodes with their queues.
    pub(in crate::cluster) fn reservations(&self) -> impl ExactSizeIterator<Item = (NodeId, Queue)> {
        self.reserved_nodes.iter().map(|(node, reservation)| (*node, reservation.queue))
    }

    /// Ends the reservations that have expired unused, and returns their nodes.
    pub(in crate::cluster) fn end_expired(&mut self, now: Millis) -> Vec<NodeId> {
        let expired = self.reserved_nodes.iter().filter(|(_, reservation)| reservation.until <= now);
        let expired: Vec<NodeId> = expired.map(|(node, _)| *node).collect();
        for node in &expired {
            let Some(Reservation { queue, .. }) = self.reserved_nodes.remove(node) else { continue };
            if let Some(entry) = self.queues.get_mut(&queue) {
                entry.tried = Some(*node);
            }
            // The node is put to use for a while before the queue may reserve another one; placements that pass
            // the actor in that time do not count.
            self.set_deadline(
                queue,
                Some(OverdueAt { placed: u64::MAX, at: now.after(millis(RESERVE_AGAIN_AFTER)) }),
            );
        }
        expired
    }

    /// Drops the reservation of a node that can no longer host the actor. The queue is overdue immediately.
    pub(in crate::cluster) fn lose(&mut self, now: Millis, node: NodeId) {
        if let Some(Reservation { queue, .. }) = self.reserved_nodes.remove(&node) {
            self.set_deadline(queue, Some(OverdueAt { placed: self.placed, at: now }));
        }
    }

    fn next_deadline(&self, now: Millis) -> OverdueAt {
        OverdueAt { placed: self.placed + RESERVE_AFTER_PASSED, at: now.after(millis(RESERVE_AFTER)) }
    }

    fn set_deadline(&mut self, queue: Queue, deadline: Option<OverdueAt>) {
        let Some(entry) = self.queues.get_mut(&queue) else { return };
        if let Some(OverdueAt { placed, at }) = std::mem::replace(&mut entry.deadline, deadline) {
            self.overdue_by_placements.remove(&(placed, queue));
            self.overdue_by_time.remove(&(at, queue));
        }
        if let Some(OverdueAt { placed, at }) = deadline {
            self.overdue_by_placements.insert((placed, queue));
            self.overdue_by_time.insert((at, queue));
        }
    }
}

#[cfg(test)]
impl PendingQueues {
    /// Asserts that the indexes agree.
    pub(in crate::cluster) fn check(&self, now: Millis) {
        let heads =
            self.queues.iter().map(|(queue, entry)| (*entry.actors.first().expect("none is empty"), *queue));
        assert_eq!(self.heads, heads.collect());
        let deadline = || self.queues.iter().filter_map(|(queue, entry)| Some((entry.deadline?, *queue)));
        assert_eq!(
            self.overdue_by_placements,
            deadline().map(|(deadline, queue)| (deadline.placed, queue)).collect()
        );
        assert_eq!(self.overdue_by_time, deadline().map(|(deadline, queue)| (deadline.at, queue)).collect());
        for (node, Reservation { queue, until }) in &self.reserved_nodes {
            let entry =
                self.queues.get(queue).unwrap_or_else(|| panic!("{node} is reserved for an empty queue"));
            assert!(entry.deadline.is_none(), "{queue:?} has {node} reserved and a deadline for another");
            assert!(*until <= now.after(millis(RESERVATION_MAX)), "{node} is reserved for too long");
        }
        let jobs: BTreeSet<JobId> = self.reservations().map(|(_, (job, _))| job).collect();
        assert_eq!(jobs.len(), self.reserved_nodes.len(), "a job has two reservations");
    }
}

fn millis(duration: std::time::Duration) -> u64 {
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
    fn queues_of_a_job_are_ordered_by_their_oldest_actor() {
        let [one, other] = queues();
        let mut pending = PendingQueues::default();
        for (queue, actor) in [(one, 3), (other, 4), (one, 5), (one, 1)] {
            pending.add(NOW, queue, ActorKey(actor), true);
        }
        let heads = |pending: &PendingQueues| -> Vec<u64> {
            pending.by_job(|_| true).values().flat_map(|queues| queues.keys().map(|key| key.0)).collect()
        };
        assert_eq!(heads(&pending), [1, 4]);
        assert_eq!(pending.remove(NOW, one, ActorKey(1)), None);
        assert_eq!(heads(&pending), [3, 4]);
        for (queue, actor) in [(one, 5), (one, 3), (other, 4)] {
            pending.remove(NOW, queue, ActorKey(actor));
        }
        assert!(!pending.has(one) && !pending.has(other));
        assert_eq!(
            (pending.queues().count(), pending.overdue_by_placements.len(), pending.overdue_by_time.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn queue_is_overdue_after_a_number_of_placements_or_a_time() {
        let [one, other] = queues();
        let mut pending = PendingQueues::default();
        pending.add(NOW, one, ActorKey(1), true);
        for _ in 1..RESERVE_AFTER_PASSED {
            pending.count_placement();
        }
        pending.add(NOW, other, ActorKey(2), true);
        assert_eq!(pending.take_overdue(NOW), None);
        pending.count_placement();
        assert_eq!(pending.take_overdue(NOW), Some(one));
        assert_eq!(pending.take_overdue(NOW), None);
        let later = NOW.after(millis(RESERVE_AFTER));
        let both = [pending.take_overdue(later), pending.take_overdue(later)];
        assert!(both.contains(&Some(one)) && both.contains(&Some(other)), "{both:?}");
        assert_eq!(pending.take_overdue(later), None);
    }

    #[test]
    fn reservation_ends_with_its_actor_or_expires_and_the_next_waits() {
        let [one, other] = queues();
        let mut pending = PendingQueues::default();
        pending.add(NOW, one, ActorKey(1), true);
        pending.add(NOW, other, ActorKey(2), true);
        pending.reserve(NOW, one, NodeId(7));
        assert_eq!((pending.holder(NodeId(7)), pending.reservation(one)), (Some(one), Some(NodeId(7))));
        assert!(!pending.may_reserve(one.0) && pending.may_reserve(other.0));
        let end = NOW.after(millis(RESERVATION_MAX));
        assert_eq!(pending.end_expired(NOW), []);
        assert_eq!(pending.end_expired(end), [NodeId(7)]);
        assert_eq!(pending.end_expired(end), []);
        pending.check(end);
        assert_eq!((pending.holder(NodeId(7)), pending.tried(one)), (None, Some(NodeId(7))));
        assert!(pending.may_reserve(one.0));
        assert_eq!(pending.take_overdue(end), Some(other));
        assert_eq!(pending.take_overdue(end), None);
        assert_eq!(pending.take_overdue(end.after(millis(RESERVE_AGAIN_AFTER))), Some(other));
        assert_eq!(pending.take_overdue(end.after(millis(RESERVE_AGAIN_AFTER))), Some(one));

        pending.reserve(end, other, NodeId(7));
        assert_eq!(pending.remove(end, other, ActorKey(2)), Some(NodeId(7)));
        assert_eq!((pending.holder(NodeId(7)), pending.reservations().len()), (None, 0));
        pending.check(end);
    }

    #[test]
    fn actors_without_resources_are_never_overdue() {
        let [one, _] = queues();
        let mut pending = PendingQueues::default();
        pending.add(NOW, one, ActorKey(1), false);
        assert_eq!(pending.take_overdue(NOW.after(u64::MAX)), None);
    }
}
