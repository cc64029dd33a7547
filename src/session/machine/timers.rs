//! Time and counts.

use std::time::Instant;

use super::Session;
use crate::session::{CallError, Event};

impl<T> Session<T> {
    /// When [`on_timeout`](Self::on_timeout) is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ack = self.inbound.ack_due.filter(|_| !self.inbound.ack_now);
        ack.into_iter().chain(self.calls.deadline()).chain(self.waiters.next_end()).min()
    }

    /// Ends the calls whose time is up, and makes an acknowledgement go out that is due.
    ///
    /// A call of which nothing went out is taken back. Of another the peer is told that nobody
    /// waits any more.
    pub fn on_timeout(&mut self, now: Instant, events: &mut Vec<Event<T>>) {
        if self.inbound.ack_due.is_some_and(|due| due <= now) {
            self.inbound.ack_due = None;
            self.inbound.ack_now = self.inbound.received > self.inbound.acked;
        }
        self.waiters.end_grants(now);
        while let Some((call, open)) = self.calls.pop_expired(now) {
            let written = self.cancel_at_peer(call, open.place);
            events.push(Event::Failed { call_slot: open.ticket, failure: CallError::TimedOut { written } });
        }
        self.say_goodbye_if_idle();
    }

    /// How many calls made here wait for their end.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// How many calls of the peer are not answered.
    #[must_use]
    pub fn inbound_calls(&self) -> usize {
        self.inbound.calls.len()
    }

    /// Bytes of the peer's windows that messages from here take, as far as is known.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.flows.charged()
    }

    /// Bytes of the windows here that unhandled messages take.
    #[must_use]
    pub fn accepted_bytes(&self) -> u64 {
        self.inbound.flows.accepted()
    }

    /// Bytes of the windows here that are free again, and that the peer has yet to be told of.
    #[must_use]
    pub fn owed_bytes(&self) -> u64 {
        self.inbound.flows.owed()
    }
}
