//! How a side leaves: it drains, and says goodbye.

use super::Session;
use crate::wire::Goodbye;

/// This side leaves: it makes no more calls and takes none.
#[derive(Debug)]
pub(super) struct Leaving {
    reason: String,
    /// Whether the goodbye is in the log.
    pub(super) said: bool,
}

impl<T> Session<T> {
    /// Begins to leave: no more calls are made or taken, those that are open go on.
    ///
    /// The goodbye is queued when the last of them has ended, in either direction, and what is
    /// parked has gone out.
    pub fn drain(&mut self, reason: &str) {
        self.leave(reason);
        self.say_goodbye_if_idle();
    }

    /// Leaves now: queues the goodbye, whatever calls are open and whatever is parked.
    pub fn finish(&mut self, reason: &str) {
        self.leave(reason);
        self.say_goodbye();
    }

    /// Whether this side has said goodbye, and the peer has all that it said.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.said) && self.log.bytes() == 0
    }

    /// Whether no call is open in either direction and every byte is written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_idle() && self.unwritten_bytes() == 0
    }

    fn is_idle(&self) -> bool {
        self.calls.len() == 0
            && self.inbound.calls.is_empty()
            && self.flows.parked_bytes() == 0
            && self.lanes.bytes() == 0
            && self.lanes.is_empty()
    }

    fn leave(&mut self, reason: &str) {
        self.leaving.get_or_insert_with(|| Leaving { reason: reason.to_owned(), said: false });
        self.dismiss_waiters();
    }

    pub(super) fn say_goodbye_if_idle(&mut self) {
        if self.leaving.is_some() && self.is_idle() {
            self.say_goodbye();
        }
    }

    fn say_goodbye(&mut self) {
        if let Some(leaving) = &mut self.leaving
            && self.attached
            && !leaving.said
        {
            leaving.said = true;
            let goodbye = Goodbye { reason: leaving.reason.clone() };
            self.log.push(|out| goodbye.put(out));
        }
    }
}
