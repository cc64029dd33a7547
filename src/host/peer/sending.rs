//! Messages to a peer: each is queued in the session, and the link is told, or made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Link, OpenCall, Peer, State, now};
use crate::config::TELL_BACKPRESSURE_BYTES;
use crate::host::error::NotDelivered;
use crate::id::{CallId, Target, TypeHash};
use crate::session::{Rejected, Retryable};
use crate::wire::{Encoded, TellHeader};

impl Peer {
    /// Queues a call. `repeat` says afterwards what the call is when it is made again.
    ///
    /// # Errors
    ///
    /// Why nothing was queued; behind a pointer, so that an open call comes back in registers.
    pub(crate) fn call(
        self: &Arc<Self>,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
        body: Encoded<'_>,
    ) -> Result<OpenCall, Box<NotDelivered>> {
        let mut state = self.lock_if_alive()?;
        let called = self.call_inlined(&mut state, target, message, deadline, repeat, body);
        if called.is_err() && state.session.begin_passing(target) {
            let called = self.call_locked(&mut state, target, message, deadline, repeat, body);
            state.session.end_turn(target);
            return called;
        }
        called
    }

    /// As [`call_inlined`](Self::call_inlined), for calls that have waited.
    #[inline(never)]
    pub(super) fn call_locked(
        self: &Arc<Self>,
        state: &mut State,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
        body: Encoded<'_>,
    ) -> Result<OpenCall, Box<NotDelivered>> {
        self.call_inlined(state, target, message, deadline, repeat, body)
    }

    #[inline(always)]
    fn call_inlined(
        self: &Arc<Self>,
        state: &mut State,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
        body: Encoded<'_>,
    ) -> Result<OpenCall, Box<NotDelivered>> {
        let ticket = state.answers.next();
        // Only a deadline has anything to do with the time.
        let now = deadline.map_or(state.created_at, |_| now());
        let made = state.session.call(now, target, message, deadline, *repeat, body, ticket);
        let call = made.map_err(|(rejected, _)| NotDelivered::from_rejection(self.identity, rejected))?;
        state.answers.open(call);
        if !matches!(repeat, Retryable::Never) {
            *repeat = Retryable::Again(call);
        }
        if let Some(deadline) = deadline {
            self.arm_timer(state, deadline);
        }
        self.request_write(state);
        Ok(OpenCall::new(ticket))
    }

    /// Queues a one-way message; `patient` if its sender waits while many are queued for the actor.
    pub(crate) fn tell(
        self: &Arc<Self>,
        target: Target,
        message: TypeHash,
        body: Encoded<'_>,
        patient: bool,
    ) -> Result<(), NotDelivered> {
        let mut state = self.lock_if_alive()?;
        if patient && let Some(waiting) = state.session.over_soft_limit(target) {
            let size = TellHeader::frame_bytes(body);
            let full = Rejected::Full { size, waiting, limit: TELL_BACKPRESSURE_BYTES };
            return Err(NotDelivered::from_rejection(self.identity, full));
        }
        let told = self.tell_locked(&mut state, target, message, body);
        if !patient && told.is_err() && state.session.begin_passing(target) {
            let told = self.tell_locked(&mut state, target, message, body);
            state.session.end_turn(target);
            return told;
        }
        told
    }

    #[inline(always)]
    pub(super) fn tell_locked(
        self: &Arc<Self>,
        state: &mut State,
        target: Target,
        message: TypeHash,
        body: Encoded<'_>,
    ) -> Result<(), NotDelivered> {
        state
            .session
            .tell(target, message, body)
            .map_err(|why| NotDelivered::from_rejection(self.identity, why))?;
        self.request_write(state);
        Ok(())
    }

    /// Whether a one-way message whose sender can wait counts for the budget of its task: once that is
    /// used up the link writes what there is, and the other side works at it.
    #[inline]
    pub(crate) fn consumes_budget(&self) -> bool {
        self.batching.consumes_budget()
    }

    /// A call that was made with [`Retryable`] will not be made again.
    pub(crate) fn end_retries(&self, call: CallId) {
        let mut state = self.lock();
        state.session.end_retries(call);
        state.notify_writer_if_pending();
    }

    /// Sees to it that what is queued gets written.
    pub(super) fn request_write(self: &Arc<Self>, state: &mut State) {
        // Most often the link was told already, and has not looked yet.
        if state.writer_notified && matches!(state.link, Link::Up(_)) {
            return;
        }
        self.request_write_slow(state);
    }

    #[inline(never)]
    fn request_write_slow(self: &Arc<Self>, state: &mut State) {
        match &state.link {
            Link::Up(_) => state.notify_writer(),
            Link::Down => {
                state.connecting_since = tokio::time::Instant::now();
                state.failed_attempts = 0;
                self.start_connect(state, Duration::ZERO);
            }
            Link::Backoff { .. } | Link::Dialing { .. } | Link::AwaitingInbound { .. } => {}
        }
    }
}
