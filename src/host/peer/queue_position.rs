//! Senders that wait for capacity at a peer.
//!
//! The session orders the waiters and grants capacity to them; this module holds their wakers. A waiter
//! is woken when capacity is reserved for it, and not on grants to others.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::timer::Timer;
use super::{CallHandle, Peer, PeerState, now};
use crate::config::RESERVED_FOR;
use crate::host::Deadline;
use crate::host::error::NotDelivered;
use crate::id::{Target, TypeHash};
use crate::lock::Locked;
use crate::session::{Retryable, Waiter, WaiterId};
use crate::wire::{CALL_HEADER_BYTES, MessageBody};

/// Position in the wait queue for capacity. Dropping it leaves the queue.
pub(crate) struct QueuePosition {
    peer: Arc<Peer>,
    target: Target,
    number: WaiterId,
    waiter: Waiter,
}

impl QueuePosition {
    /// Is ready once capacity is reserved for the message.
    pub(crate) fn poll_granted(&self, task: &Context<'_>) -> Poll<()> {
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

    /// Waits until capacity is reserved for the message.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) fn granted(&self) -> impl Future<Output = ()> + Unpin {
        poll_fn(|task| self.poll_granted(task))
    }
}

impl Drop for QueuePosition {
    fn drop(&mut self) {
        let mut state = self.peer.lock();
        let waker = state.waiting.remove(&self.number);
        // Leaving the queue may release reserved capacity, which the next waiter gets immediately.
        state.session.stop_waiting(self.number);
        self.peer.serve_and_unlock(state);
        drop(waker);
    }
}

impl Peer {
    /// Queues a message that was refused as full for capacity.
    pub(crate) fn enqueue_waiter(self: &Arc<Self>, target: Target, waiter: Waiter) -> QueuePosition {
        self.enqueue_waiter_locked(self.lock(), target, waiter)
    }

    /// Queues a call without a body behind all other waiters for the actor, if there are any.
    pub(crate) fn enqueue_waiter_last(self: &Arc<Self>, target: Target) -> Option<QueuePosition> {
        let state = self.lock();
        let is_waited_for = state.session.is_waited_for(target);
        let waiter = Waiter { frame_bytes: CALL_HEADER_BYTES, is_call: true, spares_queue: false };
        is_waited_for.then(|| self.enqueue_waiter_locked(state, target, waiter))
    }

    fn enqueue_waiter_locked(
        self: &Arc<Self>,
        mut state: Locked<'_, PeerState>,
        target: Target,
        waiter: Waiter,
    ) -> QueuePosition {
        // Only the timer task lets a reservation expire, so it has to run while there are waiters.
        if state.timer == Timer::NotStarted {
            self.arm_timer(&mut state, now() + RESERVED_FOR);
        }
        let number = state.session.line_up(target, waiter, None);
        self.serve_and_unlock(state);
        QueuePosition { peer: Arc::clone(self), target, number, waiter }
    }

    /// Queues a call as [`call`](Self::call), with the reserved capacity. It keeps its position if that
    /// does not suffice.
    ///
    /// # Errors
    ///
    /// The reason why nothing was queued.
    pub(crate) fn call_in_turn(
        self: &Arc<Self>,
        position: &QueuePosition,
        message: TypeHash,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
        body: MessageBody<'_>,
    ) -> Result<CallHandle, Box<NotDelivered>> {
        let mut state = self.lock_if_alive()?;
        state.session.begin_turn(position.number, position.target);
        let called = self.call_locked(&mut state, position.target, message, deadline, repeat, body);
        self.end_turn(state, position, called.as_ref().err().map(|reason| &**reason));
        called
    }

    /// Queues a one-way message as [`tell`](Self::tell), with the reserved capacity. It keeps its
    /// position if that does not suffice.
    ///
    /// # Errors
    ///
    /// The reason why nothing was queued.
    pub(crate) fn tell_in_turn(
        self: &Arc<Self>,
        position: &QueuePosition,
        message: TypeHash,
        body: MessageBody<'_>,
    ) -> Result<(), NotDelivered> {
        let mut state = self.lock_if_alive()?;
        state.session.begin_turn(position.number, position.target);
        let queued = self.tell_locked(&mut state, position.target, message, body);
        self.end_turn(state, position, queued.as_ref().err());
        queued
    }

    fn end_turn(
        &self,
        mut state: Locked<'_, PeerState>,
        position: &QueuePosition,
        refused: Option<&NotDelivered>,
    ) {
        if let Some(NotDelivered::Full { size, .. }) = refused {
            // It has passed the soft limit once, so from here on it waits for capacity alone.
            let waiter = Waiter { frame_bytes: *size, spares_queue: false, ..position.waiter };
            state.session.line_up(position.target, waiter, Some(position.number));
        }
        state.session.end_turn(position.target);
        self.serve_and_unlock(state);
    }

    /// Grants capacity to waiters; the caller wakes the returned wakers without the lock.
    #[inline]
    pub(super) fn serve(&self, state: &mut PeerState) -> Vec<Waker> {
        // This runs for every batch of frames, and most sessions have no waiters.
        match state.session.has_waiters() {
            true => self.serve_waiters(state),
            false => Vec::new(),
        }
    }

    #[cold]
    fn serve_waiters(&self, state: &mut PeerState) -> Vec<Waker> {
        let served = state.session.serve(now());
        if let Some(due) = state.session.poll_timeout() {
            self.hasten_timer(state, due);
        }
        served.into_iter().filter_map(|number| state.waiting.remove(&number)).collect()
    }

    pub(super) fn serve_and_unlock(&self, mut state: Locked<'_, PeerState>) {
        let wake = self.serve(&mut state);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }
}
