//! Reply path of messages from a peer: replies, cancellation and credit.

use std::sync::atomic::Ordering;
use std::task::Waker;

use super::{Peer, PeerState};
use crate::id::{CallId, HostUid};
use crate::lock::Locked;
use crate::observe::log;
use crate::registry::{PackedCharge, ReplyPath};
use crate::session;
use crate::wire::{CallFailure, Encoded};

impl ReplyPath for Peer {
    fn host(&self) -> HostUid {
        self.identity()
    }

    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    fn batch_size(&self, waiting: usize) -> usize {
        self.batching.batch_size(waiting)
    }

    fn reply(&self, call: CallId, body: Encoded<'_>, charge: Option<&PackedCharge>) {
        let mut state = self.lock();
        let credit_due = state.release_credit(charge);
        if state.session.reply(call, body) || credit_due {
            state.notify_writer();
        }
        self.finish_inbound_call(state, call);
    }

    fn fail(&self, call: CallId, failure: &CallFailure, charge: Option<PackedCharge>) {
        let mut state = self.lock();
        let credit_due = state.release_credit(charge.as_ref());
        if state.session.fail(call, failure) || credit_due {
            state.notify_writer();
        }
        self.finish_inbound_call(state, call);
    }

    fn is_cancelled(&self, call: CallId) -> bool {
        self.has_cancelled.load(Ordering::Relaxed) && self.is_cancelled_slow(call)
    }

    fn wake_when_cancelled(&self, call: CallId, waker: &Waker) -> bool {
        // Cloning and dropping a waker runs foreign code, which must not run under the lock.
        let waker = waker.clone();
        let mut state = self.lock();
        if state.session.is_cancelled(call) {
            return true;
        }
        let old = state.cancel_wakers.insert(call, waker);
        drop(state);
        drop(old);
        false
    }

    fn is_lost(&self, call: CallId) -> bool {
        !self.lock().session.has_inbound_call(call)
    }

    fn release_credit(&self, charge: PackedCharge) {
        let mut state = self.lock();
        if state.release_credit(Some(&charge)) {
            state.notify_writer();
        }
    }

    fn dead_letter(&self, why: &CallFailure) {
        log::debug!(peer = %self.identity, ?why, "a one-way message was not delivered");
        self.count_dead_letters(1);
    }
}

impl PeerState {
    /// Releases the credit of a message; returns true if a credit frame is due.
    #[inline(always)]
    fn release_credit(&mut self, charge: Option<&PackedCharge>) -> bool {
        charge.is_some_and(|charge| {
            let (target, bytes) = (charge.target(), charge.bytes().get());
            self.session.release_credit(session::CreditCharge {
                target,
                bytes,
                epoch: charge.session_epoch(),
            })
        })
    }
}

impl Peer {
    #[cold]
    fn is_cancelled_slow(&self, call: CallId) -> bool {
        self.lock().session.is_cancelled(call)
    }

    /// Ends the work on a call of the peer.
    #[inline(always)]
    fn finish_inbound_call(&self, mut state: Locked<'_, PeerState>, call: CallId) {
        // Few handlers register a waker, and this check is cheaper than a hash.
        let waker = if state.cancel_wakers.is_empty() { None } else { state.cancel_wakers.remove(&call) };
        // The session counts a cancelled call before its event sets the flag, so the flag can be
        // cleared at zero without losing a cancellation.
        if self.has_cancelled.load(Ordering::Relaxed) && state.session.cancelled_calls() == 0 {
            self.has_cancelled.store(false, Ordering::Relaxed);
        }
        drop(state);
        drop(waker);
    }
}
