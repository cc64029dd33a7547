//! Senders that wait for room at a peer.
//!
//! The session keeps them in their order and says whose turn it is; here are their wakers. A waiter is
//! woken when room is reserved for it, and not for what happens to others.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::timer::Timer;
use super::{OpenCall, Peer, State, now};
use crate::config::RESERVED_FOR;
use crate::host::error::NotDelivered;
use crate::id::{Target, TypeHash};
use crate::lock::Locked;
use crate::session::{Retryable, Waiter, WaiterId};
use crate::wire::{CALL_HEADER_BYTES, Encoded};

/// A place in the line for room. Dropped, it is given up.
pub(crate) struct Place {
    peer: Arc<Peer>,
    target: Target,
    number: WaiterId,
    waiter: Waiter,
}

impl Place {
    /// Is ready once the message is to be sent with this place.
    pub(crate) fn poll_turn(&self, task: &Context<'_>) -> Poll<()> {
        let mut state = self.peer.lock();
        if state.down.is_some() || state.session.has_turn(self.number) {
            return Poll::Ready(());
        }
        let known = state.waiting.get(&self.number);
        let old = match known.is_some_and(|waker| waker.will_wake(task.waker())) {
            true => None,
            false => state.waiting.insert(self.number, task.waker().clone()),
        };
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// Waits until the message is to be sent with this place.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) fn turn(&self) -> impl Future<Output = ()> + Unpin {
        poll_fn(|task| self.poll_turn(task))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.peer.lock();
        let waker = state.waiting.remove(&self.number);
        state.session.stop_waiting(self.number);
        self.peer.serve_and_unlock(state);
        drop(waker);
    }
}

impl Peer {
    /// Lines up for room for a message that was refused as full.
    pub(crate) fn line_up(self: &Arc<Self>, target: Target, waiter: Waiter) -> Place {
        self.line_up_locked(self.lock(), target, waiter)
    }

    /// Lines up, for a call without a body, behind all others that wait for the actor, if any do.
    pub(crate) fn line_up_last(self: &Arc<Self>, target: Target) -> Option<Place> {
        let state = self.lock();
        let is_waited_for = state.session.is_waited_for(target);
        let waiter = Waiter { frame_bytes: CALL_HEADER_BYTES, is_call: true, spares_queue: false };
        is_waited_for.then(|| self.line_up_locked(state, target, waiter))
    }

    fn line_up_locked(
        self: &Arc<Self>,
        mut state: Locked<'_, State>,
        target: Target,
        waiter: Waiter,
    ) -> Place {
        if state.timer == Timer::NotStarted {
            self.arm_timer(&mut state, now() + RESERVED_FOR);
        }
        let number = state.session.line_up(target, waiter, None);
        self.serve_and_unlock(state);
        Place { peer: Arc::clone(self), target, number, waiter }
    }

    /// Queues a call as [`call`](Self::call), at its place in the line. It keeps the place if there is no
    /// room after all.
    ///
    /// # Errors
    ///
    /// Why nothing was queued.
    pub(crate) fn call_in_turn(
        self: &Arc<Self>,
        place: &Place,
        message: TypeHash,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
        body: Encoded<'_>,
    ) -> Result<OpenCall, Box<NotDelivered>> {
        let mut state = self.lock_if_alive()?;
        state.session.begin_turn(place.number, place.target);
        let called = self.call_locked(&mut state, place.target, message, deadline, repeat, body);
        self.end_turn(state, place, called.as_ref().err().map(|reason| &**reason));
        called
    }

    /// Queues a one-way message as [`tell`](Self::tell), at its place in the line. It keeps the place if
    /// there is no room after all.
    ///
    /// # Errors
    ///
    /// Why nothing was queued.
    pub(crate) fn tell_in_turn(
        self: &Arc<Self>,
        place: &Place,
        message: TypeHash,
        body: Encoded<'_>,
    ) -> Result<(), NotDelivered> {
        let mut state = self.lock_if_alive()?;
        state.session.begin_turn(place.number, place.target);
        let told = self.tell_locked(&mut state, place.target, message, body);
        self.end_turn(state, place, told.as_ref().err());
        told
    }

    fn end_turn(&self, mut state: Locked<'_, State>, place: &Place, refused: Option<&NotDelivered>) {
        if let Some(NotDelivered::Full { size, .. }) = refused {
            // It has had its turn: from here on it waits for room alone.
            let waiter = Waiter { frame_bytes: *size, spares_queue: false, ..place.waiter };
            state.session.line_up(place.target, waiter, Some(place.number));
        }
        state.session.end_turn(place.target);
        self.serve_and_unlock(state);
    }

    /// Gives room to those who wait for it; gives the wakers of those whose turn it is, to be woken
    /// behind the lock.
    #[inline]
    pub(super) fn serve(&self, state: &mut State) -> Vec<Waker> {
        match state.session.has_waiters() {
            true => self.serve_waiters(state),
            false => Vec::new(),
        }
    }

    #[cold]
    fn serve_waiters(&self, state: &mut State) -> Vec<Waker> {
        let served = state.session.serve(now());
        if let Some(due) = state.session.poll_timeout() {
            self.hasten_timer(state, due);
        }
        served.into_iter().filter_map(|number| state.waiting.remove(&number)).collect()
    }

    pub(super) fn serve_and_unlock(&self, mut state: Locked<'_, State>) {
        let wake = self.serve(&mut state);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }
}
