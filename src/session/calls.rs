//! The calls that this side has open, and when their time is up.

use std::collections::BTreeSet;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::call_table::CallTable;
use super::send_buffer::Position;
use crate::id::CallId;

/// What a frame is, as far as its loss means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Call(CallId),
    Tell,
    /// Whoever misses it sees the session end.
    Other,
}

/// Where the frame of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStage {
    /// It waits for its actor's credit, or for the link, under this number.
    Queued(u64),
    /// It is on its way in chunks.
    Chunking,
    /// It is in the log and ends there.
    Sent(Position),
}

/// The calls that wait for their end. `T` is what the host gave along.
#[derive(Debug)]
pub(super) struct Calls<T> {
    open: CallTable<OpenCall<T>>,
    /// Only of the calls that have one.
    deadlines: BTreeSet<(Instant, CallId)>,
    /// The same by the call: most have none, and an open call is moved often.
    deadline_of: FxHashMap<CallId, Instant>,
    last: CallId,
    /// The number before the first of this generation.
    base: CallId,
    /// Calls that may be made again, until their callers say that they will not be.
    retryable: BTreeSet<CallId>,
    /// No call up to this one may be made again: one of the two sides remembers nothing of it.
    void_until: CallId,
}

/// Numbers of calls that each generation has for itself, as a power of two: an answer to a call of an earlier
/// generation fits none of a later one. A million calls a second use them up in twelve days; the next ones
/// are those of a host that has forgotten one peer more, which this peer need not be.
const CALLS_PER_GENERATION_BITS: u32 = 40;

#[derive(Debug)]
pub(super) struct OpenCall<T> {
    pub(super) ticket: T,
    pub(super) place: CallStage,
    /// Whether it has a deadline.
    has_deadline: bool,
}

impl<T> Calls<T> {
    pub(super) fn of_generation(generation: u32) -> Self {
        // Higher ones begin again below, after sixteen million.
        let base = CallId(u64::from(generation) << CALLS_PER_GENERATION_BITS);
        Self {
            open: CallTable::default(),
            deadlines: BTreeSet::new(),
            deadline_of: FxHashMap::default(),
            last: base,
            base,
            retryable: BTreeSet::new(),
            void_until: base,
        }
    }

    /// The number before the first of this generation.
    pub(super) fn base(&self) -> CallId {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The number of the next call. Numbers are not used again.
    pub(super) fn next_id(&mut self) -> CallId {
        self.last.0 += 1;
        self.last
    }

    #[inline]
    pub(super) fn insert(&mut self, call: CallId, place: CallStage, deadline: Option<Instant>, ticket: T) {
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, call));
            self.deadline_of.insert(call, deadline);
        }
        let timed = deadline.is_some();
        let fresh = self.open.insert(call, || OpenCall { ticket, place, has_deadline: timed });
        debug_assert!(fresh, "{call} is open once");
    }

    /// Whether the call is one that may be made again, and has ended.
    pub(super) fn is_retryable(&self, call: CallId) -> bool {
        self.retryable.contains(&call) && !self.open.contains(call)
    }

    /// The frame of a call has got further.
    pub(super) fn set_stage(&mut self, call: CallId, place: CallStage) {
        if let Some(open) = self.open.get_mut(call) {
            open.place = place;
        }
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, call: CallId) -> Option<OpenCall<T>> {
        let open = self.open.remove(call)?;
        if open.has_deadline
            && let Some(deadline) = self.deadline_of.remove(&call)
        {
            self.deadlines.remove(&(deadline, call));
        }
        Some(open)
    }

    /// The earliest deadline of all.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Removes one call whose time is up.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(CallId, OpenCall<T>)> {
        let (deadline, call) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        Some((call, self.remove(call)?))
    }

    /// Removes all calls, in the order they were made.
    pub(super) fn take_all(&mut self) -> Vec<OpenCall<T>> {
        self.deadlines.clear();
        self.deadline_of.clear();
        self.open.take_all().into_iter().map(|(_, open)| open).collect()
    }

    /// Removes the calls that are not parked, in the order they were made. Of the parked ones those go, too,
    /// that may be made again, if `repeatable` says so.
    pub(super) fn take_sent(&mut self, repeatable: bool) -> Vec<OpenCall<T>> {
        let mut taken = Vec::new();
        for (call, open) in self.open.take_all() {
            let goes = repeatable && self.retryable.contains(&call);
            if matches!(open.place, CallStage::Queued(_)) && !goes {
                let fresh = self.open.insert(call, || open);
                debug_assert!(fresh, "{call} was open once");
                continue;
            }
            if let Some(deadline) = self.deadline_of.remove(&call) {
                self.deadlines.remove(&(deadline, call));
            }
            taken.push(open);
        }
        taken
    }

    /// No call that was made so far may be made again.
    pub(super) fn void_repeats(&mut self) {
        self.retryable.clear();
        self.void_until = self.last;
    }

    /// Whether one of the two sides remembers nothing of the call any more.
    pub(super) fn is_void(&self, call: CallId) -> bool {
        call <= self.void_until
    }

    /// The call may be made again under its number.
    pub(super) fn mark_retryable(&mut self, call: CallId) {
        self.retryable.insert(call);
    }

    /// The call will not be made again. Says whether the floor has risen.
    pub(super) fn end_retries(&mut self, call: CallId) -> bool {
        let lowest = self.retryable.first() == Some(&call);
        self.retryable.remove(&call) && lowest
    }

    /// Whether no call may be made again.
    pub(super) fn has_no_retryable(&self) -> bool {
        self.retryable.is_empty()
    }

    /// No call below this one will be made again.
    pub(super) fn low_watermark(&self) -> CallId {
        self.retryable.first().copied().unwrap_or(CallId(self.last.0 + 1))
    }
}
