//! Graceful close of a session: drain the open calls, then send the goodbye.

use super::Session;
use crate::wire::Goodbye;

/// State of a side that is closing: it makes no new calls and rejects the peer's.
#[derive(Debug)]
pub(super) struct Closing {
    reason: String,
    /// Set once the goodbye is in the send buffer.
    pub(super) goodbye_sent: bool,
}

impl<T> Session<T> {
    /// Starts the graceful close: new calls are rejected, open calls continue.
    ///
    /// The goodbye is queued when the last open call of either direction has ended and the send
    /// queues are empty.
    pub fn drain(&mut self, reason: &str) {
        self.begin_close(reason);
        self.send_goodbye_if_idle();
    }

    /// Closes immediately: queues the goodbye, whatever calls are open and whatever is queued.
    pub fn finish(&mut self, reason: &str) {
        self.begin_close(reason);
        self.send_goodbye();
    }

    /// Returns whether the goodbye is sent and the peer has acknowledged everything.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // Closing the socket earlier could lose bytes that are still between the two kernels.
        self.closing.as_ref().is_some_and(|closing| closing.goodbye_sent) && self.send_buffer.bytes() == 0
    }

    /// Returns whether no call is open in either direction and every byte is written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_idle() && self.unwritten_bytes() == 0
    }

    fn is_idle(&self) -> bool {
        self.calls.len() == 0
            && self.inbound.calls.is_empty()
            && self.flows.queued_bytes() == 0
            && self.chunked.bytes() == 0
            && self.chunked.is_empty()
    }

    fn begin_close(&mut self, reason: &str) {
        // The first reason stands: `finish` after `drain` only hastens the close.
        self.closing.get_or_insert_with(|| Closing { reason: reason.to_owned(), goodbye_sent: false });
        self.wake_all_waiters();
    }

    pub(super) fn send_goodbye_if_idle(&mut self) {
        if self.closing.is_some() && self.is_idle() {
            self.send_goodbye();
        }
    }

    fn send_goodbye(&mut self) {
        if let Some(closing) = &mut self.closing
            && self.attached
            && !closing.goodbye_sent
        {
            // Once per epoch: a goodbye that was lost with a link is still in the send buffer, and
            // the next link resends it.
            closing.goodbye_sent = true;
            let goodbye = Goodbye { reason: closing.reason.clone() };
            self.send_buffer.push(|out| goodbye.put(out));
        }
    }
}
