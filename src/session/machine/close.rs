//! How a side leaves: it drains, and says goodbye.

use super::Session;
use crate::wire::Goodbye;

/// This side leaves: it makes no more calls and takes none.
#[derive(Debug)]
pub(super) struct Closing {
    reason: String,
    /// Whether the goodbye is in the log.
    pub(super) goodbye_sent: bool,
}

impl<T> Session<T> {
    /// Begins to leave: no more calls are made or taken, those that are open go on.
    ///
    /// The goodbye is queued when the last of them has ended, in either direction, and what is
    /// parked has gone out.
    pub fn drain(&mut self, reason: &str) {
        self.begin_close(reason);
        self.say_goodbye_if_idle();
    }

    /// Leaves now: queues the goodbye, whatever calls are open and whatever is parked.
    pub fn finish(&mut self, reason: &str) {
        self.begin_close(reason);
        self.say_goodbye();
    }

    /// Whether this side has said goodbye, and the peer has all that it said.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closing.as_ref().is_some_and(|leaving| leaving.goodbye_sent) && self.send_buffer.bytes() == 0
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
            && self.chunked.bytes() == 0
            && self.chunked.is_empty()
    }

    fn begin_close(&mut self, reason: &str) {
        self.closing.get_or_insert_with(|| Closing { reason: reason.to_owned(), goodbye_sent: false });
        self.dismiss_waiters();
    }

    pub(super) fn say_goodbye_if_idle(&mut self) {
        if self.closing.is_some() && self.is_idle() {
            self.say_goodbye();
        }
    }

    fn say_goodbye(&mut self) {
        if let Some(leaving) = &mut self.closing
            && self.attached
            && !leaving.goodbye_sent
        {
            leaving.goodbye_sent = true;
            let goodbye = Goodbye { reason: leaving.reason.clone() };
            self.send_buffer.push(|out| goodbye.put(out));
        }
    }
}
