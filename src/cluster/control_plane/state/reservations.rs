//! Reservations of nodes for actors that have been passed for too long.

use super::ClusterState;
use crate::cluster::control_plane::scheduler::Queue;
use crate::cluster::model::{ActorKey, NodeId};
use crate::config::RESERVATIONS_MAX;

impl ClusterState {
    /// Removes an actor from its queue, and releases the node that was reserved for it.
    pub(super) fn stop_waiting(&mut self, queue: Queue, key: ActorKey) {
        if let Some(node) = self.waiting.remove(self.now, queue, key) {
            self.unreserve(node);
        }
    }

    /// Binds the actor to the node that is reserved for it, once it fits.
    pub(super) fn fill_reservation(&mut self, node: NodeId) {
        let Some(queue) = self.waiting.holder(node) else { return };
        let first = self.waiting.first(queue).filter(|_| self.schedule.fits_reserved(node, queue));
        if let Some(key) = first {
            self.stop_waiting(queue, key);
            self.bind_to_node(key, node);
        }
    }

    /// Reserves a node for one overdue queue, and reports whether more may be overdue.
    pub(super) fn reserve_overdue(&mut self) -> bool {
        // Bounded, since a search for a node may look at all nodes; the other queues follow with the next
        // event.
        for _ in 0..RESERVATIONS_MAX {
            let Some(queue) = self.waiting.take_overdue(self.now) else { return false };
            // Each reservation leaves a node partly idle, so their number is bounded, in all and for each
            // job.
            if !self.waiting.may_reserve(queue.0) || self.waiting.reservations().len() >= RESERVATIONS_MAX {
                continue;
            }
            let tried = self.waiting.tried(queue);
            if let Some(node) = self.schedule.reservable(queue, tried) {
                self.waiting.reserve(self.now, queue, node);
                self.schedule.reserve(node, queue.1);
                self.deferred.freed.insert(node);
                return true;
            }
        }
        false
    }

    /// Ends reservations that have expired, or whose nodes can no longer host the actor.
    pub(super) fn end_reservations(&mut self) {
        for node in self.waiting.end_expired(self.now) {
            self.unreserve(node);
        }
        self.drop_reservations();
    }

    /// Ends reservations of nodes that can no longer host the actor.
    pub(super) fn drop_reservations(&mut self) {
        let lost = self.waiting.reservations();
        let lost = lost.filter(|(node, queue)| !self.schedule.is_possible_on(*node, *queue));
        for node in lost.map(|(node, _)| node).collect::<Vec<_>>() {
            self.waiting.lose(self.now, node);
            self.unreserve(node);
        }
    }

    fn unreserve(&mut self, node: NodeId) {
        self.schedule.unreserve(node);
        // The withheld resources are visible to all queues again.
        self.deferred.freed.insert(node);
    }
}
