//! Ordered queue of events for the head; an event stays until the head has acknowledged it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::cluster::model::{ActorKey, EndedWorker, TaskCount, WorkerId};
use crate::cluster::protocol::NodeEvent;
use crate::cluster::protocol::worker::ActorEvent;
use crate::id::ActorIncarnation;
use crate::spec::End;

/// Number of events in one request.
const EVENT_BATCH_MAX: usize = 512;

/// Number of ends of actors, and of workers, in a join report: some hundred kilobytes with their texts.
const ENDS_PER_REPORT_MAX: usize = 1024;

/// Queue of unacknowledged events.
///
/// While the head is away it grows with the starts and ends of actors, workers and drivers. The counts of a worker's
/// tasks, which come at any time, take one event for each worker. A rejoin replaces most events by a report of the current state
/// ([`EventQueue::clear`]).
#[derive(Debug, Default)]
pub(in crate::cluster) struct EventQueue {
    queue: Mutex<VecDeque<NodeEvent>>,
    notify: Notify,
}

impl EventQueue {
    pub(in crate::cluster) fn push(&self, event: NodeEvent) {
        let mut queue = self.lock();
        match event {
            NodeEvent::Tasks { worker, counts } => push_counts(&mut queue, worker, counts),
            event => queue.push_back(event),
        }
        drop(queue);
        // `notify_one` stores a permit, so an event between `take` and `notified` in `next` is not missed.
        self.notify.notify_one();
    }

    /// Takes the next batch, and waits while the queue is empty.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    pub(in crate::cluster) async fn next(&self) -> EventBatch<'_> {
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
            match event {
                NodeEvent::Tasks { worker, counts } => requeue_counts(&mut queue, worker, counts),
                event => queue.push_front(event),
            }
        }
    }

    /// Drops the events that a join report contains. Ends stay, since a report lists what runs, and only the last
    /// ends. The head may have placed an actor that has started and ended since.
    pub(in crate::cluster) fn clear(&self) {
        self.lock().retain(is_end);
    }

    /// Drops all events, as an injected bug does.
    #[cfg(feature = "sim")]
    pub(in crate::cluster) fn lose(&self) {
        self.lock().clear();
    }

    /// Last ends of actors in the queue, oldest first.
    pub(in crate::cluster) fn actor_ends(&self) -> Vec<(ActorKey, ActorIncarnation, End)> {
        let queue = self.lock();
        let ends = queue.iter().rev().filter_map(|event| match event {
            NodeEvent::Actor { event: ActorEvent::Stopped { actor, incarnation, end, .. }, .. } => {
                Some((*actor, *incarnation, end.clone()))
            }
            _ => None,
        });
        let mut ends: Vec<_> = ends.take(ENDS_PER_REPORT_MAX).collect();
        ends.reverse();
        ends
    }

    /// Last ends of workers in the queue, latest first.
    pub(in crate::cluster) fn worker_ends(&self) -> Vec<EndedWorker> {
        let queue = self.lock();
        let ends = queue.iter().rev().filter_map(|event| match event {
            NodeEvent::WorkerEnded { worker, end, killed } => {
                Some(EndedWorker { worker: *worker, end: end.clone(), killed: *killed })
            }
            _ => None,
        });
        ends.take(ENDS_PER_REPORT_MAX).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<NodeEvent>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True for the end of a driver, a worker or an actor, which no later report contains.
fn is_end(event: &NodeEvent) -> bool {
    matches!(
        event,
        NodeEvent::DriverExited { .. }
            | NodeEvent::WorkerEnded { .. }
            | NodeEvent::Actor { event: ActorEvent::Stopped { .. }, .. }
    )
}

/// Task counts of a worker in the queue, which has at most one event with them.
fn queued_counts(queue: &mut VecDeque<NodeEvent>, worker: WorkerId) -> Option<&mut Vec<TaskCount>> {
    queue.iter_mut().find_map(|event| match event {
        NodeEvent::Tasks { worker: of, counts } if *of == worker => Some(counts),
        _ => None,
    })
}

/// Queues task counts. They are totals, so they replace earlier ones of the same functions.
fn push_counts(queue: &mut VecDeque<NodeEvent>, worker: WorkerId, counts: Vec<TaskCount>) {
    let Some(queued) = queued_counts(queue, worker) else {
        return queue.push_back(NodeEvent::Tasks { worker, counts });
    };
    for count in counts {
        match queued.iter_mut().find(|earlier| earlier.name == count.name) {
            Some(earlier) => *earlier = count,
            None => queued.push(count),
        }
    }
}

/// Returns task counts to the queue. Those of the same functions that were queued since are later, and stay.
fn requeue_counts(queue: &mut VecDeque<NodeEvent>, worker: WorkerId, counts: Vec<TaskCount>) {
    let Some(queued) = queued_counts(queue, worker) else {
        return queue.push_front(NodeEvent::Tasks { worker, counts });
    };
    for count in counts {
        if queued.iter().all(|later| later.name != count.name) {
            queued.push(count);
        }
    }
}

/// Batch of events on its way to the head. Dropped without an acknowledgement, it returns them to the queue: the
/// session may be cancelled between the request and its reply.
#[derive(Debug)]
pub(in crate::cluster) struct EventBatch<'a> {
    queue: &'a EventQueue,
    events: Vec<NodeEvent>,
}

impl EventBatch<'_> {
    pub(in crate::cluster) fn events(&self) -> Vec<NodeEvent> {
        self.events.clone()
    }

    /// Acknowledges all events.
    pub(in crate::cluster) fn ack(mut self) {
        self.events.clear();
    }

    /// Acknowledges all events but ends, which are sent again.
    pub(in crate::cluster) fn ack_except_ends(mut self) {
        self.events.retain(is_end);
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
    use crate::cluster::model::{ActorKey, JobId, JobState};
    use crate::id::ActorIncarnation;
    use crate::spec::{End, EndReason};

    fn driver_ended() -> NodeEvent {
        let (job, state, message) = (JobId(1), JobState::Succeeded, String::new());
        NodeEvent::DriverExited { job, state, exit_code: Some(0), message }
    }

    fn actor_ended() -> NodeEvent {
        let (incarnation, end) = (ActorIncarnation(0), End::new(EndReason::Stopped, "it stopped"));
        let event = ActorEvent::Stopped { actor: ActorKey(1), incarnation, end, handled: 0 };
        NodeEvent::Actor { worker: WorkerId(1), event }
    }

    fn worker_ended(worker: u64, text: &str) -> NodeEvent {
        let end = End::new(EndReason::Exited(1), text);
        NodeEvent::WorkerEnded { worker: WorkerId(worker), end, killed: false }
    }

    #[tokio::test]
    async fn task_counts_of_a_worker_take_one_event_however_long_the_head_is_away() {
        let count =
            |name: &str, finished| TaskCount { name: name.to_owned(), finished, ..TaskCount::default() };
        let events = EventQueue::default();
        for finished in 1..=1000 {
            events.push(NodeEvent::Tasks { worker: WorkerId(1), counts: vec![count("square", finished)] });
        }
        events.push(NodeEvent::Tasks { worker: WorkerId(2), counts: vec![count("square", 7)] });
        events.push(NodeEvent::Tasks { worker: WorkerId(1), counts: vec![count("cube", 1)] });
        // A batch that the head does not acknowledge returns, and does not replace what was counted since.
        let lost = events.next().await;
        events.push(NodeEvent::Tasks { worker: WorkerId(1), counts: vec![count("square", 1001)] });
        drop(lost);
        let [NodeEvent::Tasks { counts: second, .. }, NodeEvent::Tasks { counts: first, .. }] =
            &events.take()[..]
        else {
            panic!("one event for each worker")
        };
        assert_eq!(first[..], [count("square", 1001), count("cube", 1)]);
        assert_eq!(second[..], [count("square", 7)]);
    }

    #[tokio::test]
    async fn ends_that_are_not_persisted_are_sent_again_and_no_other_event() {
        let events = EventQueue::default();
        let pinned = NodeEvent::ExecutablePinned { job: JobId(1) };
        let ended = worker_ended(1, "exit code 1");
        [driver_ended(), pinned, actor_ended(), ended.clone()].into_iter().for_each(|it| events.push(it));
        events.next().await.ack_except_ends();
        let again = events.next().await;
        assert_eq!(again.events(), [driver_ended(), actor_ended(), ended]);
        again.ack();
        assert!(events.take().is_empty());
    }

    #[tokio::test]
    async fn events_that_no_report_contains_survive_a_rejoin() {
        let events = EventQueue::default();
        let pinned = NodeEvent::ExecutablePinned { job: JobId(1) };
        let ended = worker_ended(1, "exit code 1");
        [pinned, actor_ended(), ended.clone(), driver_ended()].into_iter().for_each(|it| events.push(it));
        events.clear();
        assert_eq!(events.take(), [actor_ended(), ended, driver_ended()]);
    }

    #[test]
    fn report_has_the_last_ends_of_workers() {
        let events = EventQueue::default();
        let ended = |worker| worker_ended(worker, "exit code 1");
        (0..=ENDS_PER_REPORT_MAX as u64).for_each(|worker| events.push(ended(worker)));
        events.push(actor_ended());
        let ends = events.worker_ends();
        assert_eq!((ends.len(), ends[0].worker.0), (ENDS_PER_REPORT_MAX, ENDS_PER_REPORT_MAX as u64));
        assert_eq!((ends[0].end.text.as_str(), ends[0].killed), ("exit code 1", false));
    }
}
