//! Delivery of outcomes other than replies: to callers, to waiting senders, and to the count of dead letters.
//!
//! Outcomes are stored under the lock of the peer. What runs code outside of the library waits until the lock
//! is released.

use std::task::Waker;

use super::{Peer, PeerState, SlotId};
use crate::lock::Locked;
use crate::session::Event;

impl Peer {
    /// Delivers the outcomes of calls and one-way messages that ended without a reply; `events` has no
    /// others.
    ///
    /// The lock is the one under which they left the session: after it is released, new calls may reuse
    /// their slots.
    pub(super) fn deliver_outcomes(&self, mut state: Locked<'_, PeerState>, events: Vec<Event<SlotId>>) {
        let mut deferred = state.resolve(events);
        deferred.add_wakers(self.serve(&mut state));
        drop(state);
        deferred.run(self);
    }

    pub(super) fn count_dead_letters(&self, count: u64) {
        if let Some(host) = self.host.upgrade() {
            host.count_dead_letters(count);
        }
    }
}

/// Work that is deferred until the lock is released, since it runs code outside of the library.
#[derive(Default)]
#[must_use = "callers wait for it"]
pub(in crate::host) struct DeferredWakeups {
    wake: Vec<Waker>,
    dead_letters: u64,
}

impl DeferredWakeups {
    pub(super) fn add_wakers(&mut self, wakers: Vec<Waker>) {
        self.wake.extend(wakers);
    }

    pub(in crate::host) fn run(self, peer: &Peer) {
        self.wake.into_iter().for_each(Waker::wake);
        if self.dead_letters > 0 {
            peer.count_dead_letters(self.dead_letters);
        }
        peer.progress.notify_waiters();
    }
}

impl PeerState {
    /// Stores the outcomes in the slots of their calls; the returned work wakes the callers.
    pub(super) fn resolve(&mut self, events: Vec<Event<SlotId>>) -> DeferredWakeups {
        let mut deferred = DeferredWakeups::default();
        // Without open calls of the peer, these were dropped with the session.
        if self.session.inbound_calls() == 0 && !self.cancel_wakers.is_empty() {
            deferred.wake.extend(std::mem::take(&mut self.cancel_wakers).into_values());
        }
        for event in events {
            if let Some(Event::DeadLetters { count }) = self.reply_slots.take_event(event, &mut deferred.wake)
            {
                deferred.dead_letters += count;
            }
        }
        deferred
    }
}
