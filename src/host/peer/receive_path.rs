//! The way of a peer's bytes to its host's inbox without a link and without a host, for tests and fuzzing.
//!
//! It owns what stands beside a session in a [`Peer`](super::Peer): the slots of callers and the inbox. Each
//! step is taken by the code that serves links, so what is found here holds for production.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;

use super::SlotId;
use super::io::FrameReceiver;
use super::reply_slots::{Outcome, ReplySlots};
use crate::host::receive::{InboundSink, ReceivedBatch, SessionSink};
use crate::id::{CallId, HostUid, Target, TypeHash};
use crate::registry::{CreditCharge, ReplyPath};
use crate::session::{CallError, DisconnectReason, Event, Rejected, Retryable, Session};
use crate::wire::{Body, CallFailure, Encoded, FrameCodec};

/// The slots of callers and the inbox of one session.
#[doc(hidden)]
#[derive(Default)]
pub struct ReceivePath {
    answers: ReplySlots,
    inbox: ReceivedBatch,
    origin: Arc<DetachedOrigin>,
}

impl ReceivePath {
    /// Queues a call, and takes a slot for its outcome.
    ///
    /// # Errors
    ///
    /// As [`Session::call`].
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a call")]
    pub fn call(
        &mut self,
        session: &mut Session<SlotId>,
        now: Instant,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        repeat: Retryable,
        body: Encoded<'_>,
    ) -> Result<(CallId, SlotId), Rejected> {
        let ticket = self.answers.next();
        let called = session.call(now, target, message, deadline, repeat, body, ticket);
        let call = called.map_err(|(rejected, _)| rejected)?;
        self.answers.open(call);
        Ok((call, ticket))
    }

    /// Cancels a call that is open, and frees its slot.
    pub fn forget(&mut self, session: &mut Session<SlotId>, call: CallId) -> Option<SlotId> {
        let ticket = session.cancel(call)?;
        self.answers.close(ticket);
        Some(ticket)
    }

    /// Takes every whole frame from the front of `bytes`; [`end_read`](Self::end_read) follows the last of a
    /// read, whether it was taken or not.
    ///
    /// # Errors
    ///
    /// The end of the link, where the peer breaks the protocol.
    pub fn receive(
        &mut self,
        session: &mut Session<SlotId>,
        now: Instant,
        codec: &FrameCodec,
        bytes: &mut BytesMut,
    ) -> Result<(), DisconnectReason> {
        let Self { answers, inbox, origin } = self;
        codec.drain(
            bytes,
            &mut FrameReceiver { session, now, to: SessionSink { peer: origin, answers, inbox } },
        )?;
        Ok(())
    }

    /// Ends a read: sees to acknowledgements, wakes callers, and hands over what came.
    pub fn end_read(&mut self, session: &mut Session<SlotId>, now: Instant, to: &mut impl InboundSink) {
        session.schedule_ack(now);
        self.inbox.wakers.drain(..).for_each(Waker::wake);
        self.inbox.dispatch_all(to);
    }

    /// Messages and events that are not handed over yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Puts the outcomes among events into the slots of their callers; gives the other events.
    pub fn settle(&mut self, events: Vec<Event<SlotId>>) -> Vec<Event<SlotId>> {
        let mut wake = Vec::new();
        let others = events.into_iter().filter_map(|event| self.answers.take_event(event, &mut wake));
        let others = others.collect();
        wake.into_iter().for_each(Waker::wake);
        others
    }

    /// The outcome of a call, once it has one; its slot is free then.
    pub fn outcome(&mut self, ticket: SlotId) -> Option<Result<Body, CallError>> {
        let mut old = None;
        let polled = self.answers.poll(ticket, &Context::from_waker(Waker::noop()), &mut old);
        match polled {
            Poll::Pending => None,
            Poll::Ready(Outcome::Answered(body)) => Some(Ok(body.into())),
            Poll::Ready(Outcome::LargeReply(body)) => Some(Ok(*body)),
            Poll::Ready(Outcome::Failed(why)) => {
                Some(Err(why.map_or(CallError::OutcomeUnknown(DisconnectReason::Shutdown), |why| *why)))
            }
        }
    }
}

impl fmt::Debug for ReceivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivePath").field("waiting", &self.inbox.len()).finish_non_exhaustive()
    }
}

/// An origin without a link: the test answers to the session itself.
#[derive(Default)]
pub(in crate::host) struct DetachedOrigin;

impl ReplyPath for DetachedOrigin {
    fn host(&self) -> HostUid {
        unreachable!("no test asks where a message came from")
    }

    fn body_bytes_max(&self) -> usize {
        0
    }

    fn batch_size(&self, waiting: usize) -> usize {
        waiting
    }

    fn reply(&self, _: CallId, _: Encoded<'_>, _: Option<&CreditCharge>) {}

    fn fail(&self, _: CallId, _: &CallFailure, _: Option<CreditCharge>) {}

    fn is_cancelled(&self, _: CallId) -> bool {
        false
    }

    fn wake_when_cancelled(&self, _: CallId, _: &Waker) -> bool {
        false
    }

    fn release_credit(&self, _: CreditCharge) {}

    fn dead_letter(&self, _: &CallFailure) {}
}
