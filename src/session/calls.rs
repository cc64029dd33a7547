//! The calls that this side has open, and when their time is up.

use std::collections::BTreeSet;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::outbox::FrameNumber;
use crate::id::CallId;

/// The calls that wait for their end. `T` is what the host gave along.
#[derive(Debug)]
pub(super) struct Calls<T> {
    open: FxHashMap<CallId, OpenCall<T>>,
    /// Only of the calls that have one.
    deadlines: BTreeSet<(Instant, CallId)>,
    last: CallId,
}

#[derive(Debug)]
pub(super) struct OpenCall<T> {
    pub(super) ticket: T,
    /// The frame that carries the call.
    pub(super) frame: FrameNumber,
    deadline: Option<Instant>,
}

impl<T> Calls<T> {
    pub(super) fn new() -> Self {
        Self { open: FxHashMap::default(), deadlines: BTreeSet::new(), last: CallId(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The number of the next call. Numbers are not used again.
    pub(super) fn next_id(&mut self) -> CallId {
        self.last.0 += 1;
        self.last
    }

    pub(super) fn insert(&mut self, call: CallId, frame: FrameNumber, deadline: Option<Instant>, ticket: T) {
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, call));
        }
        self.open.insert(call, OpenCall { ticket, frame, deadline });
    }

    pub(super) fn remove(&mut self, call: CallId) -> Option<OpenCall<T>> {
        let open = self.open.remove(&call)?;
        if let Some(deadline) = open.deadline {
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
        let mut all: Vec<_> = self.open.drain().collect();
        all.sort_unstable_by_key(|(call, _)| *call);
        all.into_iter().map(|(_, open)| open).collect()
    }
}
