//! Messages to a peer: each is queued in the session, and the link's writer is notified, or a link
//! opened.

use std::sync::Arc;
use std::time::Duration;

use super::{CallHandle, LinkState, Peer, PeerState};
use crate::config::TELL_BACKPRESSURE_BYTES;
use crate::host::Deadline;
use crate::host::error::NotDelivered;
use crate::id::{CallId, Target, TypeHash};
use crate::session::{Rejected, Retryable};
use crate::wire::{MessageBody, TellHeader};

impl Peer {
    /// Queues a call. `repeat` is updated to identify the call in a retry.
    ///
    /// # Errors
    ///
    /// The reason why nothing was queued. It is boxed so that an open call is returned in registers.
    pub(crate) fn call(
        self: &Arc<Self>,
        target: Target,
        message: TypeHash,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
        body: MessageBody<'_>,
    ) -> Result<CallHandle, Box<NotDelivered>> {
        let mut state = self.lock_if_alive()?;
        let called = self.call_inlined(&mut state, target, message, deadline, repeat, body);
        // A waiting `tell` of the soft limit must not block a call that still has capacity.
        if called.is_err() && state.session.begin_passing(target) {
            let called = self.call_locked(&mut state, target, message, deadline, repeat, body);
            state.session.end_turn(target);
            return called;
        }
        called
    }

    /// [`call_inlined`](Self::call_inlined) out of line, for calls that have waited.
    #[inline(never)]
    pub(super) fn call_locked(
        self: &Arc<Self>,
        state: &mut PeerState,
        target: Target,
        message: TypeHash,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
        body: MessageBody<'_>,
    ) -> Result<CallHandle, Box<NotDelivered>> {
        self.call_inlined(state, target, message, deadline, repeat, body)
    }

    #[inline(always)]
    fn call_inlined(
        self: &Arc<Self>,
        state: &mut PeerState,
        target: Target,
        message: TypeHash,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
        body: MessageBody<'_>,
    ) -> Result<CallHandle, Box<NotDelivered>> {
        let slot_id = state.reply_slots.next();
        // Only a deadline depends on the time, so a call without one needs no clock.
        let now = deadline.map_or(state.created_at, |deadline| deadline.now);
        let deadline = deadline.map(|deadline| deadline.at);
        let made = state.session.call(now, target, message, deadline, *repeat, body, slot_id);
        let call = made.map_err(|(rejected, _)| NotDelivered::from_rejection(self.identity, rejected))?;
        state.reply_slots.open(call);
        state.messages_uncounted += 1;
        if !matches!(repeat, Retryable::Never) {
            // A retry has the call id of the first attempt, by which the receiver detects a duplicate.
            *repeat = Retryable::Again(call);
        }
        if let Some(deadline) = deadline {
            // The session has a single timer for all of its deadlines.
            self.arm_timer(state, deadline);
        }
        self.request_write(state);
        Ok(CallHandle::new(slot_id))
    }

    /// Queues a one-way message. A `patient` sender waits at the soft limit of the actor's queue.
    pub(crate) fn tell(
        self: &Arc<Self>,
        target: Target,
        message: TypeHash,
        body: MessageBody<'_>,
        patient: bool,
    ) -> Result<(), NotDelivered> {
        let mut state = self.lock_if_alive()?;
        if patient && let Some(waiting) = state.session.over_soft_limit(target) {
            let size = TellHeader::frame_bytes(body);
            let full = Rejected::Full { size, waiting, limit: TELL_BACKPRESSURE_BYTES };
            return Err(NotDelivered::from_rejection(self.identity, full));
        }
        let queued = self.tell_locked(&mut state, target, message, body);
        // A sender that cannot wait must not fail because of waiters that only spare the queue.
        if !patient && queued.is_err() && state.session.begin_passing(target) {
            let queued = self.tell_locked(&mut state, target, message, body);
            state.session.end_turn(target);
            return queued;
        }
        queued
    }

    #[inline(always)]
    pub(super) fn tell_locked(
        self: &Arc<Self>,
        state: &mut PeerState,
        target: Target,
        message: TypeHash,
        body: MessageBody<'_>,
    ) -> Result<(), NotDelivered> {
        state
            .session
            .tell(target, message, body)
            .map_err(|why| NotDelivered::from_rejection(self.identity, why))?;
        state.messages_uncounted += 1;
        self.request_write(state);
        Ok(())
    }

    /// True if a one-way message of a patient sender consumes a unit of its task's budget.
    ///
    /// When the budget is used up, the link writes its output and the other side can process it.
    #[inline]
    pub(crate) fn consumes_budget(&self) -> bool {
        self.batching.consumes_budget()
    }

    /// Ends the retries of a call that was sent with [`Retryable`].
    pub(crate) fn end_retries(&self, call: CallId) {
        let mut state = self.lock();
        state.session.end_retries(call);
        state.notify_writer_if_pending();
    }

    /// Ensures that queued frames are written.
    pub(super) fn request_write(self: &Arc<Self>, state: &mut PeerState) {
        // In most cases a notification is pending: a burst of messages costs one wake-up of the writer.
        if state.writer_notified && matches!(state.link, LinkState::Up(_)) {
            return;
        }
        self.request_write_slow(state);
    }

    #[inline(never)]
    fn request_write_slow(self: &Arc<Self>, state: &mut PeerState) {
        match &state.link {
            LinkState::Up(_) => state.notify_writer(),
            LinkState::Down => {
                // The connect timeout of a first link counts from the message that needs it.
                state.connecting_since = tokio::time::Instant::now();
                state.failed_attempts = 0;
                self.start_connect(state, Duration::ZERO);
            }
            LinkState::Backoff { .. } | LinkState::Dialing { .. } | LinkState::AwaitingInbound { .. } => {}
        }
    }
}
