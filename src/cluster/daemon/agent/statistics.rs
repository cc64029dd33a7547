//! Latest statistics of the node's workers, and what of them the head has not received yet.
//!
//! Statistics are values and not events: a later value replaces an earlier one that was not sent, so the memory
//! is bounded while the head is away. Nothing is acknowledged. A failed request ends the session with the head,
//! and after the next join everything is sent again ([`StatisticsBuffer::mark_all_changed`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::cluster::model::{
    ActorCount, ActorKey, MessageCount, WorkerId, WorkerStatistics, WorkerUsage, cut,
};
use crate::cluster::protocol::worker::ActorEvent;
use crate::config::{ACTOR_NAME_BYTES_MAX, MESSAGE_NAMES_MAX, STATISTICS_REQUEST_MAX};

/// Statistics of all workers that run, or whose last statistics have not been sent.
#[derive(Debug, Default)]
pub(super) struct StatisticsBuffer(Mutex<AllStatistics>);

#[derive(Debug, Default)]
struct AllStatistics {
    workers: BTreeMap<WorkerId, Latest>,
    /// Worker that the last request ended with. The next one begins behind it, so that none waits for ever.
    last: Option<WorkerId>,
}

/// Latest statistics of one worker.
#[derive(Debug, Default)]
struct Latest {
    usage: Tracked<Option<WorkerUsage>>,
    /// Counts by class and message.
    messages: BTreeMap<(String, String), Tracked<MessageCount>>,
    changed_messages: Vec<(String, String)>,
    actors: FxHashMap<ActorKey, Tracked<ActorCount>>,
    changed_actors: Vec<ActorKey>,
    /// The worker has ended: its entry is removed once it is sent.
    ended: bool,
}

/// Value, and a flag from its change to its report.
#[derive(Debug, Default)]
struct Tracked<T> {
    value: T,
    changed: bool,
}

impl<T> Tracked<T> {
    fn new(value: T) -> Self {
        Self { value, changed: false }
    }

    /// Marks the value as changed; returns false if it was marked already.
    fn mark(&mut self) -> bool {
        !std::mem::replace(&mut self.changed, true)
    }
}

impl StatisticsBuffer {
    /// Merges what has changed in a worker.
    pub(super) fn merge(&self, worker: WorkerId, statistics: WorkerStatistics) {
        self.lock().workers.entry(worker).or_default().merge(statistics);
    }

    /// Drops the counts of an actor that has ended. Its last ones are in the event of its end.
    pub(super) fn actor_event(&self, worker: WorkerId, event: &ActorEvent) {
        if let (ActorEvent::Stopped { actor, .. }, Some(latest)) =
            (event, self.lock().workers.get_mut(&worker))
        {
            latest.actors.remove(actor);
        }
    }

    /// Notes that a worker has ended.
    pub(super) fn worker_ended(&self, worker: WorkerId) {
        if let Some(latest) = self.lock().workers.get_mut(&worker) {
            latest.ended = true;
        }
    }

    /// Marks everything as changed, for a head that has joined or restarted.
    pub(super) fn mark_all_changed(&self) {
        let mut all = self.lock();
        // The head has learned of these ends from the join report.
        all.workers.retain(|_, latest| !latest.ended);
        all.workers.values_mut().for_each(Latest::mark_all_changed);
    }

    /// Takes the next part of what has changed: at most [`STATISTICS_REQUEST_MAX`] actors and messages, or the
    /// rest of one worker. Empty if nothing is left.
    pub(super) fn take_changed(&self) -> Vec<(WorkerId, WorkerStatistics)> {
        let mut all = self.lock();
        let AllStatistics { workers, last } = &mut *all;
        let (mut left, mut taken) = (STATISTICS_REQUEST_MAX, Vec::new());
        let behind = workers.keys().copied().filter(|worker| Some(*worker) > *last);
        let order: Vec<_> =
            behind.chain(workers.keys().copied().filter(|worker| Some(*worker) <= *last)).collect();
        for worker in order {
            if left == 0 {
                break;
            }
            if let Some(statistics) = workers.get_mut(&worker).and_then(|latest| latest.take(&mut left)) {
                taken.push((worker, statistics));
                *last = Some(worker);
            }
        }
        workers.retain(|_, latest| !latest.ended || latest.has_changes());
        taken
    }

    fn lock(&self) -> MutexGuard<'_, AllStatistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    fn merge(&mut self, statistics: WorkerStatistics) {
        let WorkerStatistics { usage, messages, actors } = statistics;
        if usage.is_some() {
            self.usage = Tracked { value: usage, changed: true };
        }
        for mut count in messages {
            // A request has a number of names, and must not exceed a frame.
            cut(&mut count.class, ACTOR_NAME_BYTES_MAX);
            cut(&mut count.message, ACTOR_NAME_BYTES_MAX);
            let names = (count.class.clone(), count.message.clone());
            // A worker that invents names must not use up the agent's memory.
            if self.messages.len() >= MESSAGE_NAMES_MAX && !self.messages.contains_key(&names) {
                continue;
            }
            let entry = self.messages.entry(names).or_default();
            if entry.mark() {
                self.changed_messages.push((count.class.clone(), count.message.clone()));
            }
            entry.value = count;
        }
        for count in actors {
            let entry = self.actors.entry(count.actor).or_insert_with(|| Tracked::new(count));
            entry.value = count;
            if entry.mark() {
                self.changed_actors.push(count.actor);
            }
        }
    }

    fn mark_all_changed(&mut self) {
        self.usage.changed = self.usage.value.is_some();
        self.messages.values_mut().for_each(|count| count.changed = true);
        self.changed_messages = self.messages.keys().cloned().collect();
        self.actors.values_mut().for_each(|count| count.changed = true);
        self.changed_actors = self.actors.keys().copied().collect();
    }

    fn has_changes(&self) -> bool {
        self.usage.changed || !self.changed_messages.is_empty() || !self.changed_actors.is_empty()
    }

    /// Takes at most `left` changed actors and messages, and subtracts their number.
    fn take(&mut self, left: &mut usize) -> Option<WorkerStatistics> {
        if !self.has_changes() {
            return None;
        }
        let usage = self.usage.value.filter(|_| std::mem::take(&mut self.usage.changed));
        let names = take_end(&mut self.changed_messages, left);
        let mut messages = Vec::with_capacity(names.len());
        for names in names {
            if let Some(count) = self.messages.get_mut(&names) {
                count.changed = false;
                messages.push(count.value.clone());
            }
        }
        let keys = take_end(&mut self.changed_actors, left);
        let mut actors = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(count) = self.actors.get_mut(&key) {
                count.changed = false;
                actors.push(count.value);
            }
        }
        Some(WorkerStatistics { usage, messages, actors })
    }
}

/// Takes at most `left` values off the end of a list, and subtracts their number.
fn take_end<T>(list: &mut Vec<T>, left: &mut usize) -> Vec<T> {
    let count = list.len().min(*left);
    *left -= count;
    list.split_off(list.len() - count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorIncarnation;
    use crate::spec::{End, EndReason};

    fn actors(counts: &[(u64, u64)]) -> WorkerStatistics {
        let count = |(actor, handled): &(u64, u64)| ActorCount {
            actor: ActorKey(*actor),
            handled: *handled,
            mailbox: 0,
        };
        WorkerStatistics { actors: counts.iter().map(count).collect(), ..WorkerStatistics::default() }
    }

    fn messages(names: &[&str]) -> WorkerStatistics {
        let count = |name: &&str| MessageCount { message: (*name).to_owned(), ..MessageCount::default() };
        WorkerStatistics { messages: names.iter().map(count).collect(), ..WorkerStatistics::default() }
    }

    fn handled(taken: &[(WorkerId, WorkerStatistics)]) -> Vec<(u64, u64)> {
        let all = taken.iter().flat_map(|(_, statistics)| &statistics.actors);
        let mut all: Vec<_> = all.map(|count| (count.actor.0, count.handled)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn only_changes_are_sent_and_a_later_value_replaces_an_earlier_one() {
        let buffer = StatisticsBuffer::default();
        buffer.merge(WorkerId(1), actors(&[(1, 5), (2, 7)]));
        buffer.merge(WorkerId(1), actors(&[(1, 6)]));
        assert_eq!(handled(&buffer.take_changed()), [(1, 6), (2, 7)]);
        assert!(buffer.take_changed().is_empty());
        buffer.merge(WorkerId(1), actors(&[(2, 8)]));
        assert_eq!(handled(&buffer.take_changed()), [(2, 8)]);
        buffer.mark_all_changed();
        assert_eq!(handled(&buffer.take_changed()), [(1, 6), (2, 8)]);
    }

    #[test]
    fn requests_are_bounded_and_contain_everything_together() {
        let buffer = StatisticsBuffer::default();
        let all: Vec<_> = (1..=3 * STATISTICS_REQUEST_MAX as u64 / 2).map(|actor| (actor, actor)).collect();
        for worker in 1..=2 {
            buffer.merge(WorkerId(worker), actors(&all));
        }
        let mut sent = 0;
        loop {
            let taken = handled(&buffer.take_changed()).len();
            assert!(taken <= STATISTICS_REQUEST_MAX);
            sent += taken;
            if taken == 0 {
                break;
            }
        }
        assert_eq!(sent, 2 * all.len());
    }

    #[test]
    fn worker_that_changes_all_the_time_does_not_hold_up_the_others() {
        let buffer = StatisticsBuffer::default();
        let all: Vec<_> = (1..=STATISTICS_REQUEST_MAX as u64).map(|actor| (actor, actor)).collect();
        buffer.merge(WorkerId(2), actors(&[(1, 1)]));
        let mut served = Vec::new();
        for _ in 0..3 {
            buffer.merge(WorkerId(1), actors(&all));
            served.push(buffer.take_changed().iter().map(|(worker, _)| worker.0).collect::<Vec<_>>());
        }
        assert_eq!(served, [vec![1], vec![2, 1], vec![1]]);
    }

    #[test]
    fn names_are_cut_so_that_a_request_fits_a_frame() {
        let buffer = StatisticsBuffer::default();
        buffer.merge(WorkerId(1), messages(&[&"n".repeat(2 * ACTOR_NAME_BYTES_MAX)]));
        assert_eq!(buffer.take_changed()[0].1.messages[0].message.len(), ACTOR_NAME_BYTES_MAX);
    }

    #[test]
    fn ended_actors_and_workers_leave_nothing_behind() {
        let buffer = StatisticsBuffer::default();
        buffer.merge(WorkerId(1), actors(&[(1, 5)]));
        let (actor, incarnation) = (ActorKey(1), ActorIncarnation(0));
        let end = End::new(EndReason::Stopped, "it stopped");
        let event = ActorEvent::Stopped { actor, incarnation, end, handled: 5 };
        buffer.actor_event(WorkerId(1), &event);
        assert_eq!(handled(&buffer.take_changed()), []);
        // The last statistics of a worker are sent after its end.
        buffer.merge(WorkerId(1), messages(&["Add"]));
        buffer.worker_ended(WorkerId(1));
        assert_eq!(buffer.take_changed()[0].1, messages(&["Add"]));
        assert!(buffer.lock().workers.is_empty());
    }

    #[test]
    fn invented_message_names_are_bounded() {
        let buffer = StatisticsBuffer::default();
        for name in 0..2 * MESSAGE_NAMES_MAX {
            buffer.merge(WorkerId(1), messages(&[&name.to_string()]));
        }
        assert_eq!(buffer.lock().workers[&WorkerId(1)].messages.len(), MESSAGE_NAMES_MAX);
    }
}
