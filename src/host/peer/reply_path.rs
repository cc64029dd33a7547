//! A peer as the origin of messages: how its calls are answered, and its credit given back.

use std::sync::atomic::Ordering;
use std::task::Waker;

use super::{Peer, State};
use crate::id::{CallId, HostUid};
use crate::lock::Locked;
use crate::observe::log;
use crate::registry::{CreditCharge, ReplyPath};
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

    fn reply(&self, call: CallId, body: Encoded<'_>, claim: Option<&CreditCharge>) {
        let mut state = self.lock();
        let told = state.release_credit(claim);
        if state.session.reply(call, body) || told {
            state.notify_writer();
        }
        self.finish_inbound_call(state, call);
    }

    fn fail(&self, call: CallId, failure: &CallFailure, claim: Option<CreditCharge>) {
        let mut state = self.lock();
        let told = state.release_credit(claim.as_ref());
        if state.session.fail(call, failure) || told {
            state.notify_writer();
        }
        self.finish_inbound_call(state, call);
    }

    fn is_cancelled(&self, call: CallId) -> bool {
        self.has_cancelled.load(Ordering::Relaxed) && self.is_cancelled_slow(call)
    }

    fn wake_when_cancelled(&self, call: CallId, waker: &Waker) -> bool {
        // To clone and to drop a waker runs code of who made it.
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

    fn release_credit(&self, claim: CreditCharge) {
        let mut state = self.lock();
        if state.release_credit(Some(&claim)) {
            state.notify_writer();
        }
    }

    fn dead_letter(&self, why: &CallFailure) {
        log::debug!(peer = %self.identity, ?why, "a one-way message was not delivered");
        self.count_dead_letters(1);
    }
}

impl State {
    /// A message takes nothing of its actor's window any more. Says whether there is something to write.
    #[inline(always)]
    fn release_credit(&mut self, claim: Option<&CreditCharge>) -> bool {
        claim.is_some_and(|claim| {
            let (target, bytes) = (claim.target(), claim.bytes().get());
            self.session.release_credit(session::CreditCharge { target, bytes, epoch: claim.session_epoch() })
        })
    }
}

impl Peer {
    #[cold]
    fn is_cancelled_slow(&self, call: CallId) -> bool {
        self.lock().session.is_cancelled(call)
    }

    /// Nobody works on this call of the peer any more.
    #[inline(always)]
    fn finish_inbound_call(&self, mut state: Locked<'_, State>, call: CallId) {
        let waker = if state.cancel_wakers.is_empty() { None } else { state.cancel_wakers.remove(&call) };
        if self.has_cancelled.load(Ordering::Relaxed) && state.session.cancelled_calls() == 0 {
            self.has_cancelled.store(false, Ordering::Relaxed);
        }
        drop(state);
        drop(waker);
    }
}
