//! Ordered queue of events for the head; an event stays until the head has acknowledged it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::cluster::protocol::NodeEvent;
use crate::cluster::protocol::worker::ActorEvent;

/// Number of events in one request.
const EVENT_BATCH_MAX: usize = 512;

/// Queue of unacknowledged events.
///
/// It has no bound. While the head is away it grows with the starts and ends of actors, workers and drivers, and
/// with the workers' counts of tasks. A rejoin replaces most events by a report of the current state
/// ([`EventQueue::clear`]).
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    queue: Mutex<VecDeque<NodeEvent>>,
    notify: Notify,
}

impl EventQueue {
    pub(super) fn push(&self, event: NodeEvent) {
        self.lock().push_back(event);
        // `notify_one` stores a permit, so an event between `take` and `notified` in `next` is not missed.
        self.notify.notify_one();
    }

    /// Takes the next batch, and waits while the queue is empty.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    pub(super) async fn next(&self) -> EventBatch<'_> {
        loop {
            let events = self.take();
            if !events.is_empty() {
                return EventBatch { queue: self, events };
            }
            self.notify.notified().await;
        }
    }

    fn take(&self) -> Vec<NodeEvent> {
        let mut queue = self.lock();
        let count = queue.len().min(EVENT_BATCH_MAX);
        queue.drain(..count).collect()
    }

    /// Returns events to the front of the queue, since the head may not have received them.
    fn requeue(&self, events: Vec<NodeEvent>) {
        let mut queue = self.lock();
        // Backwards, so that they keep their order in front of later events.
        for event in events.into_iter().rev() {
            queue.push_front(event);
        }
    }

    /// Drops the events that a join report contains. Ends of drivers and actors stay, since a report lists only
    /// what runs. The head may have placed an actor that has started and ended since.
    pub(super) fn clear(&self) {
        let is_end = |event: &NodeEvent| {
            matches!(
                event,
                NodeEvent::DriverExited { .. } | NodeEvent::Actor { life: ActorEvent::Stopped { .. }, .. }
            )
        };
        self.lock().retain(is_end);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<NodeEvent>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Batch of events on its way to the head. Dropped without an acknowledgement, it returns them to the queue: the
/// session may be cancelled between the request and its reply.
#[derive(Debug)]
pub(super) struct EventBatch<'a> {
    queue: &'a EventQueue,
    events: Vec<NodeEvent>,
}

impl EventBatch<'_> {
    pub(super) fn events(&self) -> Vec<NodeEvent> {
        self.events.clone()
    }

    /// Acknowledges all events.
    pub(super) fn ack(mut self) {
        self.events.clear();
    }

    /// Acknowledges all events but the ends of drivers, which are sent again.
    pub(super) fn ack_except_driver_ends(mut self) {
        self.events.retain(|event| matches!(event, NodeEvent::DriverExited { .. }));
    }
}

impl Drop for EventBatch<'_> {
    fn drop(&mut self) {
        self.queue.requeue(std::mem::take(&mut self.events));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::model::{ActorKey, JobId, JobState, WorkerId};

    fn driver_ended() -> NodeEvent {
        let (job, state, message) = (JobId(1), JobState::Succeeded, String::new());
        NodeEvent::DriverExited { job, state, exit_code: Some(0), message }
    }

    fn actor_ended() -> NodeEvent {
        let life = ActorEvent::Stopped { actor: ActorKey(1), cause: "it stopped".to_owned() };
        NodeEvent::Actor { worker: WorkerId(1), life }
    }

    #[tokio::test]
    async fn driver_end_that_is_not_persisted_is_sent_again_and_no_other_event() {
        let events = EventQueue::default();
        let pinned = NodeEvent::ExecutablePinned { job: JobId(1) };
        [driver_ended(), pinned, actor_ended()].into_iter().for_each(|event| events.push(event));
        events.next().await.ack_except_driver_ends();
        let again = events.next().await;
        assert!(matches!(again.events()[..], [NodeEvent::DriverExited { .. }]), "{:?}", again.events());
        again.ack();
        assert!(events.take().is_empty());
    }

    #[tokio::test]
    async fn events_that_no_report_contains_survive_a_rejoin() {
        let events = EventQueue::default();
        let pinned = NodeEvent::ExecutablePinned { job: JobId(1) };
        [pinned, actor_ended(), driver_ended()].into_iter().for_each(|event| events.push(event));
        events.clear();
        let kept = events.take();
        assert!(matches!(kept[..], [NodeEvent::Actor { .. }, NodeEvent::DriverExited { .. }]), "{kept:?}");
    }
}
