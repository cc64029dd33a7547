//! Receive path of a peer from bytes to its host's sink, without a link and without a host, for tests and
//! fuzzing.
//!
//! It owns the parts of a [`Peer`](super::Peer) beside the session: reply slots and the received batch.
//! Each step runs the production code, so that findings apply to it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;

use super::SlotId;
use super::io::FrameReceiver;
use super::reply_slots::{CallOutcome, ReplySlots};
use crate::host::receive::{InboundSink, ReceivedBatch, SessionSink};
use crate::id::{CallId, HostUid, Target, TypeHash};
use crate::registry::{PackedCharge, ReplyPath};
use crate::session::{CallError, DisconnectReason, Event, Rejected, Retryable, Session};
use crate::wire::{Body, CallFailure, Encoded, FrameCodec, MessageBody};

/// Reply slots and received batch of one session.
#[doc(hidden)]
#[derive(Default)]
pub struct ReceivePath {
    reply_slots: ReplySlots,
    inbox: ReceivedBatch,
    reply_path: Arc<DetachedReplyPath>,
}

impl ReceivePath {
    /// Queues a call, and takes a slot for its reply.
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
        body: MessageBody<'_>,
    ) -> Result<(CallId, SlotId), Rejected> {
        let ticket = self.reply_slots.next();
        let called = session.call(now, target, message, deadline, repeat, body, ticket);
        let call = called.map_err(|(rejected, _)| rejected)?;
        self.reply_slots.open(call);
        Ok((call, ticket))
    }

    /// Cancels an open call, and frees its slot.
    pub fn forget(&mut self, session: &mut Session<SlotId>, call: CallId) -> Option<SlotId> {
        let ticket = session.cancel(call)?;
        self.reply_slots.close(ticket);
        Some(ticket)
    }

    /// Consumes every complete frame at the front of `bytes`.
    ///
    /// [`end_read`](Self::end_read) follows the last of a read, even after an error.
    ///
    /// # Errors
    ///
    /// The reason to end the link if the peer violates the protocol.
    pub fn receive(
        &mut self,
        session: &mut Session<SlotId>,
        now: Instant,
        codec: &FrameCodec,
        bytes: &mut BytesMut,
    ) -> Result<(), DisconnectReason> {
        let Self { reply_slots, inbox, reply_path } = self;
        codec.drain(
            bytes,
            &mut FrameReceiver { session, now, to: SessionSink { peer: reply_path, reply_slots, inbox } },
        )?;
        Ok(())
    }

    /// Ends a read: schedules acknowledgements, wakes callers and dispatches the received messages.
    pub fn end_read(&mut self, session: &mut Session<SlotId>, now: Instant, to: &mut impl InboundSink) {
        session.schedule_ack(now);
        self.inbox.wakers.drain(..).for_each(Waker::wake);
        self.inbox.dispatch_all(to);
    }

    /// Number of received messages and events that are not dispatched.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Stores the outcomes among the events in their slots; returns the other events.
    pub fn settle(&mut self, events: Vec<Event<SlotId>>) -> Vec<Event<SlotId>> {
        let mut wake = Vec::new();
        let others = events.into_iter().filter_map(|event| self.reply_slots.take_event(event, &mut wake));
        let others = others.collect();
        wake.into_iter().for_each(Waker::wake);
        others
    }

    /// Takes the outcome of a call, if any, and frees its slot.
    pub fn outcome(&mut self, ticket: SlotId) -> Option<Result<Body, CallError>> {
        let mut old = None;
        let polled = self.reply_slots.poll(ticket, &Context::from_waker(Waker::noop()), &mut old);
        match polled {
            Poll::Pending => None,
            Poll::Ready(CallOutcome::Replied(body)) => Some(Ok(body.into())),
            Poll::Ready(CallOutcome::LongReply(message)) => Some(Ok(message.into())),
            Poll::Ready(CallOutcome::LargeReply(body)) => Some(Ok(*body)),
            Poll::Ready(CallOutcome::Failed(why)) => {
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

/// Reply path without a link: the test replies through the session itself.
#[derive(Default)]
pub(in crate::host) struct DetachedReplyPath;

impl ReplyPath for DetachedReplyPath {
    fn host(&self) -> HostUid {
        unreachable!("no test uses the host of a message")
    }

    fn body_bytes_max(&self) -> usize {
        0
    }

    fn batch_size(&self, waiting: usize) -> usize {
        waiting
    }

    fn reply(&self, _: CallId, _: Encoded<'_>, _: Option<&PackedCharge>) {}

    fn fail(&self, _: CallId, _: &CallFailure, _: Option<PackedCharge>) {}

    fn is_cancelled(&self, _: CallId) -> bool {
        false
    }

    fn wake_when_cancelled(&self, _: CallId, _: &Waker) -> bool {
        false
    }

    fn release_credit(&self, _: PackedCharge) {}

    fn dead_letter(&self, _: &CallFailure) {}
}
