//! The peer's calls that it may make again: each is handled once, however often it comes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::config::{DEDUP_CACHE_BYTES_MAX, DEDUP_CACHE_ENTRIES_MAX, KEPT_REPLY_OVERHEAD_BYTES};
use crate::id::CallId;

/// What is remembered of them, until the peer says that they will not come again.
#[derive(Debug, Default)]
pub(super) struct DedupCache {
    calls: BTreeMap<CallId, DuplicateState>,
    /// The calls whose ends are kept, the oldest first; some may be forgotten by now.
    lru: VecDeque<CallId>,
    /// What the ends that are kept count.
    bytes: usize,
    /// The highest call whose end was dropped: one below it that is not known may have been another.
    evicted_up_to: Option<CallId>,
}

/// What became of a call that may come again.
#[derive(Clone, Debug)]
pub(super) enum DuplicateState {
    /// Its handler has not answered yet.
    Running,
    /// Its end: the bytes of the frame.
    Ended(Bytes),
    /// It has ended, and its end was too much to keep.
    Lost,
}

/// What a kept end counts for its budget.
fn kept_cost(frame: &Bytes) -> usize {
    frame.len() + KEPT_REPLY_OVERHEAD_BYTES
}

impl DedupCache {
    /// Notes that a call has come. Gives what is known of it if it came before.
    pub(super) fn observe(&mut self, call: CallId) -> Option<DuplicateState> {
        match self.calls.get(&call) {
            Some(known) => Some(known.clone()),
            None if self.evicted_up_to.is_some_and(|lost| call <= lost) => Some(DuplicateState::Lost),
            None => {
                self.calls.insert(call, DuplicateState::Running);
                None
            }
        }
    }

    /// Whether the call may come again, and its handler has not answered yet.
    pub(super) fn is_running(&self, call: CallId) -> bool {
        !self.calls.is_empty() && matches!(self.calls.get(&call), Some(DuplicateState::Running))
    }

    /// Keeps how a call has ended.
    pub(super) fn store_reply(&mut self, call: CallId, frame: Bytes) {
        let Some(known) = self.calls.get_mut(&call) else { return };
        self.bytes += kept_cost(&frame);
        *known = DuplicateState::Ended(frame);
        self.lru.push_back(call);
        while (self.bytes > DEDUP_CACHE_BYTES_MAX || self.lru.len() > DEDUP_CACHE_ENTRIES_MAX)
            && let Some(oldest) = self.lru.pop_front()
        {
            if let Some(DuplicateState::Ended(frame)) = self.calls.remove(&oldest) {
                self.bytes -= kept_cost(&frame);
                self.evicted_up_to = self.evicted_up_to.max(Some(oldest));
            }
        }
    }

    /// The handler of this call never ran, and may when it comes again.
    pub(super) fn forget(&mut self, call: CallId) {
        if let Some(DuplicateState::Ended(frame)) = self.calls.remove(&call) {
            self.bytes -= kept_cost(&frame);
        }
    }

    /// No call below this one comes again.
    pub(super) fn advance_watermark(&mut self, floor: CallId) {
        let kept = self.calls.split_off(&floor);
        for known in std::mem::replace(&mut self.calls, kept).into_values() {
            if let DuplicateState::Ended(frame) = known {
                self.bytes -= kept_cost(&frame);
            }
        }
    }
}
