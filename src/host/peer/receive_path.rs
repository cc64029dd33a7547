//! The way of a peer's bytes to its host's inbox without a link and without a host, for tests and fuzzing.
//!
//! It owns what stands beside a session in a [`Peer`](super::Peer): the slots of callers and the inbox. Each
//! step is taken by the code that serves links, so what is found here holds for production.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;

use super::Ticket;
use super::answers::{Answers, Outcome};
use super::traffic::FrameReceiver;
use crate::host::inbox::{InboundSink, ReceivedBatch, SessionSink};
use crate::id::{CallId, Identity, Target, TypeHash};
use crate::registry::{Claim, ReplyPath};
use crate::session::{Event, Failed, LinkLoss, Rejected, Retryable, Session};
use crate::wire::{Body, CallFailure, Encoded, FrameCodec};

/// The slots of callers and the inbox of one session.
#[doc(hidden)]
#[derive(Default)]
pub struct ReceivePath {
    answers: Answers,
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
        session: &mut Session<Ticket>,
        now: Instant,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        repeat: Retryable,
        body: Encoded<'_>,
    ) -> Result<(CallId, Ticket), Rejected> {
        let ticket = self.answers.next();
        let called = session.call(now, target, message, deadline, repeat, body, ticket);
        let call = called.map_err(|(rejected, _)| rejected)?;
        self.answers.open(call);
        Ok((call, ticket))
    }

    /// Cancels a call that is open, and frees its slot.
    pub fn forget(&mut self, session: &mut Session<Ticket>, call: CallId) -> Option<Ticket> {
        let ticket = session.forget(call)?;
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
        session: &mut Session<Ticket>,
        now: Instant,
        codec: &FrameCodec,
        bytes: &mut BytesMut,
    ) -> Result<(), LinkLoss> {
        let Self { answers, inbox, origin } = self;
        codec.drain(
            bytes,
            &mut FrameReceiver { session, now, to: SessionSink { peer: origin, answers, inbox } },
        )?;
        Ok(())
    }

    /// Ends a read: sees to acknowledgements, wakes callers, and hands over what came.
    pub fn end_read(&mut self, session: &mut Session<Ticket>, now: Instant, to: &mut impl InboundSink) {
        session.schedule_ack(now);
        self.inbox.wake.drain(..).for_each(Waker::wake);
        self.inbox.hand_over(to);
    }

    /// Messages and events that are not handed over yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Puts the outcomes among events into the slots of their callers; gives the other events.
    pub fn settle(&mut self, events: Vec<Event<Ticket>>) -> Vec<Event<Ticket>> {
        let mut wake = Vec::new();
        let others = events.into_iter().filter_map(|event| self.answers.take_event(event, &mut wake));
        let others = others.collect();
        wake.into_iter().for_each(Waker::wake);
        others
    }

    /// The outcome of a call, once it has one; its slot is free then.
    pub fn outcome(&mut self, ticket: Ticket) -> Option<Result<Body, Failed>> {
        let mut old = None;
        let polled = self.answers.poll(ticket, &Context::from_waker(Waker::noop()), &mut old);
        match polled {
            Poll::Pending => None,
            Poll::Ready(Outcome::Answered(body)) => Some(Ok(body.into())),
            Poll::Ready(Outcome::LargeReply(body)) => Some(Ok(*body)),
            Poll::Ready(Outcome::Failed(why)) => {
                Some(Err(why.map_or(Failed::OutcomeUnknown(LinkLoss::Shutdown), |why| *why)))
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
    fn host(&self) -> Identity {
        unreachable!("no test asks where a message came from")
    }

    fn body_bytes_max(&self) -> usize {
        0
    }

    fn turn(&self, waiting: usize) -> usize {
        waiting
    }

    fn reply(&self, _: CallId, _: Encoded<'_>, _: Option<&Claim>) {}

    fn fail(&self, _: CallId, _: &CallFailure, _: Option<Claim>) {}

    fn is_cancelled(&self, _: CallId) -> bool {
        false
    }

    fn wake_when_cancelled(&self, _: CallId, _: &Waker) -> bool {
        false
    }

    fn handled(&self, _: Claim) {}

    fn dead_letter(&self, _: &CallFailure) {}
}
