//! Open calls of this side and their deadlines.

use std::time::Instant;

use super::call_table::CallTable;
use super::deadlines::{DeadlineTicket, Deadlines};
use super::send_buffer::StreamOffset;
use crate::id::CallId;

/// Kind of a queued or sent message, as far as its loss matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Call(CallId),
    Tell,
    /// A chunked reply. It is lost only with its session, and then the peer fails the call itself.
    Other,
}

/// Stage of a call's frame on its way to the peer.
///
/// ```text
/// Queued --credit, capacity--> Sent
///    |                          ^
///    +--over chunk_bytes--> Chunking
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStage {
    /// Queued under this id, for the credit of its actor or for the link.
    Queued(u64),
    /// Being sent in chunks.
    Chunking,
    /// In the send buffer, up to this position.
    Sent(StreamOffset),
}

/// Calls without an outcome. `T` is the caller's slot.
#[derive(Debug)]
pub(super) struct Calls<T> {
    open: CallTable<CallEntry<T>>,
    /// Deadlines of the calls that have one.
    deadlines: Deadlines,
    last: CallId,
    /// Id before the first call of this generation.
    base: CallId,
    /// Calls that may be retried, until their callers end the retries.
    retryable: CallTable<()>,
    /// Highest call that must not be retried, because one side has forgotten its first attempt.
    void_until: CallId,
}

/// Bits of a call id that count calls within one generation: a reply to a call of an earlier
/// generation matches no call of a later one.
///
/// At a million calls a second the ids last for twelve days. Further ids are those of the next
/// generation, in which a host has forgotten another peer; only with this peer would they collide.
const CALLS_PER_GENERATION_BITS: u32 = 40;

#[derive(Debug)]
pub(super) struct CallEntry<T> {
    pub(super) call_slot: T,
    pub(super) stage: CallStage,
    /// Place of the deadline. Not the deadline itself: most calls have none, and entries are moved
    /// often.
    deadline: DeadlineTicket,
}

impl<T> Calls<T> {
    pub(super) fn of_generation(generation: u32) -> Self {
        // Generations wrap after 16 million.
        let base = CallId(u64::from(generation) << CALLS_PER_GENERATION_BITS);
        Self {
            open: CallTable::default(),
            deadlines: Deadlines::default(),
            last: base,
            base,
            retryable: CallTable::default(),
            void_until: base,
        }
    }

    /// Id before the first call of this generation.
    pub(super) fn base(&self) -> CallId {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns the id of the next call. Ids are never reused.
    pub(super) fn next_id(&mut self) -> CallId {
        // A late reply to an ended call must not end another call, so no id is used twice.
        self.last.0 += 1;
        self.last
    }

    #[inline]
    pub(super) fn insert(&mut self, call: CallId, stage: CallStage, deadline: Option<Instant>, call_slot: T) {
        let deadline = match deadline {
            Some(deadline) => self.deadlines.insert(deadline, call),
            None => DeadlineTicket::NONE,
        };
        let fresh = self.open.insert(call, || CallEntry { call_slot, stage, deadline });
        debug_assert!(fresh, "{call} is open once");
    }

    /// Returns whether the call has ended and may be retried.
    pub(super) fn is_retryable(&self, call: CallId) -> bool {
        self.retryable.contains(call) && !self.open.contains(call)
    }

    /// Records the progress of a call's frame.
    pub(super) fn set_stage(&mut self, call: CallId, stage: CallStage) {
        if let Some(open) = self.open.get_mut(call) {
            open.stage = stage;
        }
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, call: CallId) -> Option<CallEntry<T>> {
        let open = self.open.remove(call)?;
        if !open.deadline.is_none() {
            self.deadlines.remove(call, open.deadline);
        }
        Some(open)
    }

    /// Earliest deadline of all calls.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| deadline)
    }

    /// Removes one call whose deadline has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(CallId, CallEntry<T>)> {
        let (deadline, call) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        Some((call, self.remove(call)?))
    }

    /// Removes all calls, in the order of their ids.
    pub(super) fn take_all(&mut self) -> Vec<CallEntry<T>> {
        self.deadlines.clear();
        self.open.take_all().into_iter().map(|(_, open)| open).collect()
    }

    /// Removes the calls that are not queued, in the order of their ids. With `retryable` it
    /// removes the queued ones that may be retried as well.
    pub(super) fn take_sent(&mut self, retryable: bool) -> Vec<CallEntry<T>> {
        let mut taken = Vec::new();
        for (call, open) in self.open.take_all() {
            // A queued call was never sent, so it can wait for the next link. A retry cannot if the
            // peer has forgotten its first attempt.
            let goes = retryable && self.retryable.contains(call);
            if matches!(open.stage, CallStage::Queued(_)) && !goes {
                let fresh = self.open.insert(call, || open);
                debug_assert!(fresh, "{call} was open once");
                continue;
            }
            if !open.deadline.is_none() {
                self.deadlines.remove(call, open.deadline);
            }
            taken.push(open);
        }
        taken
    }

    /// Excludes all calls made so far from retries.
    pub(super) fn void_retries(&mut self) {
        self.retryable.clear();
        self.void_until = self.last;
    }

    /// Returns whether one side has forgotten the call.
    pub(super) fn is_void(&self, call: CallId) -> bool {
        call <= self.void_until
    }

    /// Allows retries of the call under its id.
    pub(super) fn mark_retryable(&mut self, call: CallId) {
        // A further attempt has the id of the first one, and is present.
        let _ = self.retryable.insert(call, || ());
    }

    /// Ends the retries of the call. Returns whether the low watermark has risen.
    pub(super) fn end_retries(&mut self, call: CallId) -> bool {
        // The watermark is the lowest retryable call, so it rises only when that one is removed.
        let lowest = self.retryable.first() == Some(call);
        self.retryable.remove(call).is_some() && lowest
    }

    /// Returns whether no call may be retried.
    pub(super) fn has_no_retryable(&self) -> bool {
        self.retryable.is_empty()
    }

    /// Lowest call that may be retried: the peer may forget all calls below it.
    pub(super) fn low_watermark(&self) -> CallId {
        self.retryable.first().unwrap_or(CallId(self.last.0 + 1))
    }
}
