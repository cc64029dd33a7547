//! The peer's calls that it may make again: each is handled once, however often it comes.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::config::REPLIES_KEPT_BYTES_MAX;
use crate::id::CallId;

/// What is remembered of them, until the peer says that they will not come again.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    calls: BTreeMap<CallId, Known>,
    /// Of the ends that are kept.
    bytes: usize,
}

/// What became of a call that may come again.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Its handler has not answered yet.
    Running,
    /// Its end: the bytes of the frame.
    Ended(Bytes),
    /// It has ended, and its end was too much to keep.
    Lost,
}

impl Repeats {
    /// Notes that a call has come. Gives what is known of it if it came before.
    pub(super) fn came(&mut self, call: CallId) -> Option<Known> {
        match self.calls.get(&call) {
            Some(known) => Some(known.clone()),
            None => {
                self.calls.insert(call, Known::Running);
                None
            }
        }
    }

    /// Whether the call may come again, and its handler has not answered yet.
    pub(super) fn is_running(&self, call: CallId) -> bool {
        !self.calls.is_empty() && matches!(self.calls.get(&call), Some(Known::Running))
    }

    /// Keeps how a call has ended.
    pub(super) fn ended(&mut self, call: CallId, frame: Bytes) {
        let Some(known) = self.calls.get_mut(&call) else { return };
        self.bytes += frame.len();
        *known = Known::Ended(frame);
        let mut oldest = self.calls.values_mut();
        while self.bytes > REPLIES_KEPT_BYTES_MAX
            && let Some(known) = oldest.next()
        {
            if let Known::Ended(frame) = known {
                self.bytes -= frame.len();
                *known = Known::Lost;
            }
        }
    }

    /// The handler of this call never ran, and may when it comes again.
    pub(super) fn forget(&mut self, call: CallId) {
        if let Some(Known::Ended(frame)) = self.calls.remove(&call) {
            self.bytes -= frame.len();
        }
    }

    /// No call below this one comes again.
    pub(super) fn raise_floor(&mut self, floor: CallId) {
        let kept = self.calls.split_off(&floor);
        for known in std::mem::replace(&mut self.calls, kept).into_values() {
            if let Known::Ended(frame) = known {
                self.bytes -= frame.len();
            }
        }
    }
}
