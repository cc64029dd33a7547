//! Timeouts of a session, and its counters.

use std::time::Instant;

use super::Session;
use crate::id::CallId;
use crate::session::{CallError, Event};

impl<T> Session<T> {
    /// Returns the time at which [`on_timeout`](Self::on_timeout) is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // An ACK that is already due goes out with the next write and needs no timer.
        let ack = self.inbound.ack_due.filter(|_| !self.inbound.ack_now);
        ack.into_iter().chain(self.calls.deadline()).chain(self.waiters.next_end()).min()
    }

    /// Fails the calls whose deadline has passed, and triggers a delayed ACK that is due.
    ///
    /// A call that is queued, or of which chunks remain, is withdrawn. One that is in the send buffer
    /// as a whole is cancelled at the peer.
    pub fn on_timeout(&mut self, now: Instant, events: &mut Vec<Event<T>>) {
        if self.inbound.ack_due.is_some_and(|due| due <= now) {
            self.inbound.ack_due = None;
            self.inbound.ack_now = self.inbound.received > self.inbound.acked;
        }
        self.waiters.end_grants(now);
        while let Some((call, open)) = self.calls.pop_expired(now) {
            let written = self.cancel_at_peer(call, open.stage);
            events
                .push(Event::Failed { call_slot: open.call_slot, failure: CallError::TimedOut { written } });
        }
        self.send_goodbye_if_idle();
    }

    /// Number of local calls without an outcome.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// True if a call of the peer has no outcome.
    #[must_use]
    pub fn has_inbound_call(&self, call: CallId) -> bool {
        self.inbound.calls.contains(call)
    }

    /// Number of the peer's calls without an outcome.
    #[must_use]
    pub fn inbound_calls(&self) -> usize {
        self.inbound.calls.len()
    }

    /// Bytes of the peer's windows that messages of this side occupy, as far as this side knows.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.flows.charged()
    }

    /// Bytes of the local windows that unhandled messages occupy.
    #[must_use]
    pub fn accepted_bytes(&self) -> u64 {
        self.inbound.flows.accepted()
    }

    /// Bytes of the local windows that are free but not yet returned to the peer.
    #[must_use]
    pub fn owed_bytes(&self) -> u64 {
        self.inbound.flows.owed()
    }
}
