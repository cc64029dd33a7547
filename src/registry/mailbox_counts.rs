//! Counts of one actor's messages.
//!
//! They take 16 bytes of each actor: [`WaitingCount`] lies in padding that the mailbox has anyway.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::spec::ActorKey;

/// Bit of [`WaitingCount`] that is set from a change to the report of it.
const CHANGED: u32 = 1 << 31;

/// Mark of an actor that was started by the program, and only registered.
const REGISTERED: u64 = u64::MAX;

/// Number of messages in a mailbox, with the one that is being handled, and the bit [`CHANGED`].
#[derive(Debug, Default)]
pub(super) struct WaitingCount(AtomicU32);

/// Number of messages that an actor has handled.
#[derive(Debug)]
pub(super) struct HandledCount {
    /// Id of the actor in its cluster; 0 if the cluster does not track it, and [`REGISTERED`] if its host does not
    /// run it. The cluster tracks none of those.
    key: u64,
    handled: AtomicU64,
}

/// Counts of an actor's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActorCounts {
    /// Id of the actor in its cluster.
    pub key: ActorKey,
    /// Messages handled since the start of the actor.
    ///
    /// One from the same host counts when it is sent.
    pub handled: u64,
    /// Messages from other hosts that wait or are being handled.
    pub waiting: u32,
}

// Relaxed throughout: the counters are statistics, and guard no memory.
impl WaitingCount {
    /// Counts queued messages; returns true for the first change since the last report.
    pub(super) fn add(&self, messages: usize) -> bool {
        // A window holds fewer messages than bytes, so the sum stays below the bit of the flag.
        self.mark_changed(self.0.fetch_add(u32::try_from(messages).unwrap_or(0), Ordering::Relaxed))
    }

    /// Counts messages that have left the mailbox; returns true for the first change since the last report.
    pub(super) fn subtract(&self, messages: u32) -> bool {
        self.mark_changed(self.0.fetch_sub(messages, Ordering::Relaxed))
    }

    /// Notes a change of the other count; returns true for the first change since the last report.
    pub(super) fn touch(&self) -> bool {
        self.mark_changed(self.0.load(Ordering::Relaxed))
    }

    fn mark_changed(&self, waiting: u32) -> bool {
        waiting & CHANGED == 0 && self.0.fetch_or(CHANGED, Ordering::Relaxed) & CHANGED == 0
    }

    /// Takes the number for a report.
    fn take(&self) -> u32 {
        self.0.fetch_and(!CHANGED, Ordering::Relaxed) & !CHANGED
    }
}

impl HandledCount {
    pub(super) fn new(key: Option<ActorKey>, is_run_by_host: bool) -> Self {
        let untracked = if is_run_by_host { 0 } else { REGISTERED };
        Self { key: key.map_or(untracked, |key| key.0), handled: AtomicU64::new(0) }
    }

    /// Returns true for an actor that its host runs.
    pub(super) fn is_run_by_host(&self) -> bool {
        self.key != REGISTERED
    }

    /// Returns true for an actor that the cluster tracks.
    pub(super) fn is_tracked(&self) -> bool {
        self.key > 0 && self.key != REGISTERED
    }

    pub(super) fn add(&self, messages: u32) {
        self.handled.fetch_add(messages.into(), Ordering::Relaxed);
    }

    /// Takes both counts for a report; `None` for an actor that the cluster does not track.
    pub(super) fn take(&self, waiting: &WaitingCount) -> Option<ActorCounts> {
        // Cleared first: a change during the report is reported by the next one.
        let waiting = waiting.take();
        let handled = self.handled.load(Ordering::Relaxed);
        self.is_tracked().then_some(ActorCounts { key: ActorKey(self.key), handled, waiting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actor_is_reported_once_after_any_number_of_changes() {
        let (handled, waiting) = (HandledCount::new(Some(ActorKey(7)), true), WaitingCount::default());
        handled.add(3);
        assert_eq!([waiting.add(3), waiting.subtract(2), waiting.touch()], [true, false, false]);
        assert_eq!(handled.take(&waiting), Some(ActorCounts { key: ActorKey(7), handled: 3, waiting: 1 }));
        assert!(waiting.subtract(1) && !waiting.add(1));
        assert_eq!(handled.take(&waiting), Some(ActorCounts { key: ActorKey(7), handled: 3, waiting: 1 }));
        for is_run_by_host in [true, false] {
            let untracked = HandledCount::new(None, is_run_by_host);
            assert_eq!((untracked.take(&waiting), untracked.is_run_by_host()), (None, is_run_by_host));
        }
    }

    #[test]
    fn counts_of_an_actor_are_small() {
        assert_eq!((size_of::<HandledCount>(), size_of::<WaitingCount>()), (16, 4));
    }
}
