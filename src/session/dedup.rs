//! Duplicate suppression for the peer's retryable calls: each is executed at most once.

use std::collections::VecDeque;

use bytes::Bytes;

use super::call_table::CallTable;
use crate::config::{DEDUP_CACHE_BYTES_MAX, DEDUP_CACHE_ENTRIES_MAX, KEPT_REPLY_OVERHEAD_BYTES};
use crate::id::CallId;
use crate::wire::ShortBytes;

/// Outcomes of retryable calls, until the peer's low watermark passes them.
#[derive(Debug, Default)]
pub(super) struct DedupCache {
    calls: CallTable<DuplicateState>,
    /// Calls with a cached outcome, in the order of their ends. Some may have been removed from
    /// `calls`.
    oldest_first: VecDeque<CallId>,
    /// Bytes of the cached outcomes, overhead included.
    bytes: usize,
    /// Highest call whose outcome was evicted. An unknown call up to here may be a retry of an
    /// evicted one.
    evicted_up_to: Option<CallId>,
}

/// Known state of a call that may be retried.
#[derive(Clone, Debug)]
pub(super) enum DuplicateState {
    /// The handler has not replied yet.
    Running,
    /// The call has ended with this outcome.
    Ended(CachedOutcome),
    /// The call has ended, and its outcome was evicted.
    Lost,
}

/// Outcome of a call, for a retry.
#[derive(Clone, Debug)]
pub(super) enum CachedOutcome {
    /// Body of a short reply. Most replies are short, and need no memory of their own here.
    Short(ShortBytes),
    /// Encoded frame.
    Frame(Bytes),
}

impl CachedOutcome {
    /// Bytes that the outcome is accounted with.
    fn cost(&self) -> usize {
        let content = match self {
            Self::Short(body) => body.len(),
            Self::Frame(frame) => frame.len(),
        };
        content + KEPT_REPLY_OVERHEAD_BYTES
    }
}

impl DedupCache {
    /// Records a received call. Returns its state if it was received before.
    pub(super) fn observe(&mut self, call: CallId) -> Option<DuplicateState> {
        if let Some(known) = self.calls.get(call) {
            return Some(known.clone());
        }
        // Not executed: at-most-once is the promise, so a call that may have run is reported as such.
        if self.evicted_up_to.is_some_and(|lost| call <= lost) {
            return Some(DuplicateState::Lost);
        }
        let fresh = self.calls.insert(call, || DuplicateState::Running);
        debug_assert!(fresh, "{call} was looked up");
        None
    }

    /// Returns whether the call is retryable and its handler has not replied yet.
    pub(super) fn is_running(&self, call: CallId) -> bool {
        // Asked for every reply, while most peers never retry: the first test saves the lookup.
        !self.calls.is_empty() && matches!(self.calls.get(call), Some(DuplicateState::Running))
    }

    /// Caches the outcome of a call, and evicts the oldest outcomes beyond the limits.
    pub(super) fn store(&mut self, call: CallId, outcome: CachedOutcome) {
        // A call that the watermark has removed is not retried any more, so its outcome is not
        // needed.
        let Some(known) = self.calls.get_mut(call) else { return };
        self.bytes += outcome.cost();
        *known = DuplicateState::Ended(outcome);
        self.oldest_first.push_back(call);
        while (self.bytes > DEDUP_CACHE_BYTES_MAX || self.oldest_first.len() > DEDUP_CACHE_ENTRIES_MAX)
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            // The watermark may have removed the call already.
            if let Some(DuplicateState::Ended(outcome)) = self.calls.remove(oldest) {
                self.bytes -= outcome.cost();
                self.evicted_up_to = self.evicted_up_to.max(Some(oldest));
            }
        }
    }

    /// Removes a call whose handler never ran: a retry may run it.
    pub(super) fn forget(&mut self, call: CallId) {
        if let Some(DuplicateState::Ended(outcome)) = self.calls.remove(call) {
            self.bytes -= outcome.cost();
        }
    }

    /// Removes all calls below the peer's low watermark.
    pub(super) fn advance_watermark(&mut self, watermark: CallId) {
        while let Some(lowest) = self.calls.first().filter(|lowest| *lowest < watermark) {
            if let Some(DuplicateState::Ended(outcome)) = self.calls.remove(lowest) {
                self.bytes -= outcome.cost();
            }
        }
    }
}
