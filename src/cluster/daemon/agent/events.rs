//! What the head is to hear, in order, until it has heard it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::cluster::protocol::NodeEvent;
use crate::cluster::protocol::worker::ActorEvent;

/// How many are told at once.
const EVENT_BATCH_MAX: usize = 512;

/// Events that the head has not heard of. Their number is that of lives that begin and end meanwhile;
/// when the head was gone they are dropped, and the node reports as it is by then.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    queue: Mutex<VecDeque<NodeEvent>>,
    notify: Notify,
}

impl EventQueue {
    pub(super) fn push(&self, event: NodeEvent) {
        self.lock().push_back(event);
        self.notify.notify_one();
    }

    /// The next ones, once there are any.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses none.
    pub(super) async fn next(&self) -> Batch<'_> {
        loop {
            let events = self.take();
            if !events.is_empty() {
                return Batch { queue: self, events };
            }
            self.notify.notified().await;
        }
    }

    fn take(&self) -> Vec<NodeEvent> {
        let mut queue = self.lock();
        let count = queue.len().min(EVENT_BATCH_MAX);
        queue.drain(..count).collect()
    }

    /// Takes back what the head may not have heard of.
    fn requeue(&self, events: Vec<NodeEvent>) {
        let mut queue = self.lock();
        for event in events.into_iter().rev() {
            queue.push_front(event);
        }
    }

    /// Drops all but the ends of drivers and actors, which no report has: the head may know an actor as
    /// placed that began and ended since.
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

/// Events that are being told. Dropped before they were, they go back.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    queue: &'a EventQueue,
    events: Vec<NodeEvent>,
}

impl Batch<'_> {
    pub(super) fn events(&self) -> Vec<NodeEvent> {
        self.events.clone()
    }

    /// The head has heard of them.
    pub(super) fn ack(mut self) {
        self.events.clear();
    }

    /// The head has heard of them, and is to hear of the ends of drivers once more.
    pub(super) fn told_but_ends_of_drivers(mut self) {
        self.events.retain(|event| matches!(event, NodeEvent::DriverExited { .. }));
    }
}

impl Drop for Batch<'_> {
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
    async fn an_end_of_a_driver_that_is_not_kept_is_told_again_and_nothing_else_is() {
        let events = EventQueue::default();
        let held = NodeEvent::ExecutablePinned { job: JobId(1) };
        [driver_ended(), held, actor_ended()].into_iter().for_each(|event| events.push(event));
        events.next().await.told_but_ends_of_drivers();
        let again = events.next().await;
        assert!(matches!(again.events()[..], [NodeEvent::DriverExited { .. }]), "{:?}", again.events());
        again.ack();
        assert!(events.take().is_empty());
    }

    #[tokio::test]
    async fn what_no_report_has_outlasts_a_rejoin() {
        let events = EventQueue::default();
        let held = NodeEvent::ExecutablePinned { job: JobId(1) };
        [held, actor_ended(), driver_ended()].into_iter().for_each(|event| events.push(event));
        events.clear();
        let kept = events.take();
        assert!(matches!(kept[..], [NodeEvent::Actor { .. }, NodeEvent::DriverExited { .. }]), "{kept:?}");
    }
}
