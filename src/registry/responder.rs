//! Where a message came from, and the duty to answer it exactly once.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::panics;
use crate::id::{ActorId, ActorIncarnation, CallId, HostUid, Target};
use crate::wire::{self, Body, CallFailure, EncodeError, Encoded};

/// Where a message came from, as far as its receiver needs to know.
pub trait ReplyPath: Send + Sync {
    /// The host that it came from.
    fn host(&self) -> HostUid;
    /// How many bytes an answer's body may have.
    fn body_bytes_max(&self) -> usize;
    /// How many of so many messages that wait are handled before the answers so far leave.
    fn batch_size(&self, waiting: usize) -> usize;
    /// Sends the answer of a call, and gives back what it still took of its actor's window.
    fn reply(&self, call: CallId, body: Encoded<'_>, claim: Option<&CreditCharge>);
    /// Sends why a call has no answer, and gives back what it still took of its actor's window.
    fn fail(&self, call: CallId, failure: &CallFailure, claim: Option<CreditCharge>);
    /// Whether the caller is known to wait no longer.
    fn is_cancelled(&self, call: CallId) -> bool;
    /// As [`ReplyPath::is_cancelled`]; if not so yet, the waker is woken when it comes to be. Each call
    /// has one waker, and is done with when it is answered.
    fn wake_when_cancelled(&self, call: CallId, waker: &Waker) -> bool;
    /// A message is handled, or dropped: what it took of its actor's window is free again.
    fn release_credit(&self, claim: CreditCharge);
    /// Counts a one-way message that no handler saw.
    fn dead_letter(&self, why: &CallFailure);
}

/// What a message from another host takes of its actor's window there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditCharge {
    actor: ActorId,
    /// Which life of the actor, and below that which of the session: a message is moved in whole words, and
    /// a word is to be read as it was written.
    epochs: u64,
    bytes: NonZeroU64,
}

impl CreditCharge {
    /// So many bytes of an actor's window, in that life of the session.
    #[must_use]
    pub fn new(target: Target, life: u32, bytes: NonZeroU64) -> Self {
        let lives = u64::from(target.incarnation.0) << 32 | u64::from(life);
        Self { actor: target.actor, epochs: lives, bytes }
    }

    /// Whose window it is.
    #[must_use]
    pub fn target(self) -> Target {
        Target { actor: self.actor, incarnation: ActorIncarnation((self.epochs >> 32) as u32) }
    }

    /// The same for another message to that actor.
    #[must_use]
    pub fn with_bytes(self, bytes: NonZeroU64) -> Self {
        Self { bytes, ..self }
    }

    /// The life of the session that the message came over.
    #[must_use]
    pub fn session_epoch(self) -> u32 {
        self.epochs as u32
    }

    /// Bytes of the window.
    #[must_use]
    pub fn bytes(self) -> NonZeroU64 {
        self.bytes
    }
}

/// A message as it came in, still encoded.
pub struct Inbound {
    /// The message.
    pub body: Body,
    /// When the caller stops waiting, if it said so.
    pub deadline: Option<Instant>,
    origin: Arc<dyn ReplyPath>,
    call: Option<CallId>,
    claim: Option<CreditCharge>,
}

impl Inbound {
    /// A message from `origin`; one-way without a call. One from this very host takes nothing of a window.
    pub fn new(
        origin: Arc<dyn ReplyPath>,
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: Body,
        claim: Option<CreditCharge>,
    ) -> Self {
        Self { body, deadline, origin, call, claim }
    }

    /// The message's body, and who waits for the answer.
    #[inline]
    pub fn into_parts<R>(self) -> (Body, Option<Instant>, Responder<R>) {
        (self.body, self.deadline, Responder::remote(self.origin, self.call, self.claim))
    }

    /// The caller's number for it; none for a one-way message.
    pub fn call(&self) -> Option<CallId> {
        self.call
    }

    /// Where it came from.
    pub(super) fn origin(&self) -> &Arc<dyn ReplyPath> {
        &self.origin
    }

    /// What it takes of its actor's window.
    pub fn claim(&self) -> Option<CreditCharge> {
        self.claim
    }

    /// The host that it came from.
    pub fn from(&self) -> HostUid {
        self.origin.host()
    }

    /// Refuses the message.
    pub fn fail(self, failure: &CallFailure) {
        if let Some(call) = self.call {
            return self.origin.fail(call, failure, self.claim);
        }
        if let Some(claim) = self.claim {
            self.origin.release_credit(claim);
        }
        self.origin.dead_letter(failure);
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("call", &self.call)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A message that takes less of a window than this keeps nobody from sending while it is handled.
const SMALL_CLAIM_BYTES: u64 = 4 << 10;

/// How an answer reaches a caller on the same host: as the value itself.
pub type LocalReply<R> = oneshot::Sender<Result<R, CallFailure>>;

/// The duty to answer one message once; dropped unanswered, it says why there is no answer.
pub struct Responder<R> {
    to: Option<ReplyTo<R>>,
    started: bool,
    /// Whether the caller's origin has a waker of ours.
    cancel_waker_set: bool,
    /// What the message takes of a window, until it is released, or answered.
    claim: Option<CreditCharge>,
}

enum ReplyTo<R> {
    None(Arc<dyn ReplyPath>),
    Remote(Arc<dyn ReplyPath>, CallId),
    Local(LocalReply<R>),
}

impl<R> Responder<R> {
    /// Answers a caller on another host; nobody without a call.
    #[inline(always)]
    pub(super) fn remote(
        origin: Arc<dyn ReplyPath>,
        call: Option<CallId>,
        claim: Option<CreditCharge>,
    ) -> Self {
        let to = match call {
            Some(call) => ReplyTo::Remote(origin, call),
            None => ReplyTo::None(origin),
        };
        Self { to: Some(to), started: false, cancel_waker_set: false, claim }
    }

    /// Answers a caller on the same host.
    #[must_use]
    pub fn local(reply: LocalReply<R>) -> Self {
        Self { to: Some(ReplyTo::Local(reply)), started: false, cancel_waker_set: false, claim: None }
    }

    /// Answers nobody: a one-way message from the same host.
    #[must_use]
    pub fn nobody(origin: Arc<dyn ReplyPath>) -> Self {
        Self { to: Some(ReplyTo::None(origin)), started: false, cancel_waker_set: false, claim: None }
    }

    /// Notes that the handler runs now: from here on the outcome is the handler's.
    ///
    /// What a small call takes of its actor's window is given back with its answer, if the handler
    /// answers at once; whoever keeps the responder for longer is to [`release_credit`](Self::release_credit) it.
    #[inline]
    pub fn start(&mut self) {
        self.started = true;
        let small = self.claim.is_some_and(|claim| claim.bytes().get() < SMALL_CLAIM_BYTES);
        if !(small && matches!(self.to, Some(ReplyTo::Remote(..)))) {
            self.release_credit();
        }
    }

    /// Gives back what the message takes of its actor's window: another may come in its place.
    pub fn release_credit(&mut self) {
        if let (Some(claim), Some(ReplyTo::Remote(origin, _) | ReplyTo::None(origin))) =
            (self.claim.take(), &self.to)
        {
            origin.release_credit(claim);
        }
    }

    /// Whether the caller is known to wait no longer: it gave up, or dropped the future.
    #[must_use]
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        match &self.to {
            Some(ReplyTo::Remote(origin, call)) => origin.is_cancelled(*call),
            Some(ReplyTo::Local(reply)) => reply.is_closed(),
            Some(ReplyTo::None(_)) | None => false,
        }
    }

    /// Whether the message need not be handled: its deadline has passed, or nobody waits any more.
    #[must_use]
    #[inline]
    pub fn is_expired_or_cancelled(&self, deadline: Option<Instant>) -> bool {
        deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now().into_std())
            || self.is_cancelled()
    }

    /// Is ready once the caller is known to wait no longer. To be polled by one task only.
    pub fn poll_cancelled(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let abandoned = match &mut self.to {
            Some(ReplyTo::Local(reply)) => return reply.poll_closed(task),
            Some(ReplyTo::Remote(origin, call)) if !self.cancel_waker_set => {
                self.cancel_waker_set = true;
                origin.wake_when_cancelled(*call, task.waker())
            }
            _ => self.is_cancelled(),
        };
        if abandoned { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The duty, to be seen to elsewhere; nothing is left of it here.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let Self { to, started, cancel_waker_set: watched, claim } = self;
        Self { to: to.take(), started: *started, cancel_waker_set: *watched, claim: claim.take() }
    }

    /// Lifts the duty: the message goes back to its sender.
    pub fn disarm(mut self) {
        self.to = None;
    }

    /// Says that there will be no answer.
    pub fn fail(mut self, failure: CallFailure) {
        self.finish_with(failure);
    }

    fn finish_with(&mut self, failure: CallFailure) {
        let claim = match self.to {
            Some(ReplyTo::Remote(..)) => self.claim.take(),
            _ => None,
        };
        self.release_credit();
        match self.to.take() {
            None => {}
            // A one-way message whose handler ran was delivered, whatever became of the handler.
            Some(ReplyTo::None(origin)) if !failure.handler_ran() => origin.dead_letter(&failure),
            Some(ReplyTo::None(_)) => {}
            Some(ReplyTo::Remote(origin, call)) => origin.fail(call, &failure, claim),
            Some(ReplyTo::Local(reply)) => drop(reply.send(Err(failure))),
        }
    }
}

impl<R: Serialize + DeserializeOwned> Responder<R> {
    /// Answers; the value is encoded here, on the handler's thread.
    ///
    /// A panic in the value's `Serialize` fails the call as an answer that cannot be encoded: the
    /// handler is through by then, and its actor lives on.
    #[inline]
    pub fn answer(mut self, value: R) {
        self.answer_in_place(value);
    }

    /// As [`answer`](Self::answer), for who holds the duty by reference; nothing is left of it.
    #[inline]
    pub fn answer_in_place(&mut self, value: R) {
        match self.to.take() {
            None => {}
            Some(ReplyTo::None(origin)) => {
                if let Some(claim) = self.claim.take() {
                    origin.release_credit(claim);
                }
            }
            Some(ReplyTo::Local(reply)) => drop(reply.send(Ok(value))),
            Some(ReplyTo::Remote(origin, call)) => {
                let (limit, claim) = (origin.body_bytes_max(), self.claim.as_ref());
                let mut replied = false;
                let reply = |body: Encoded<'_>| {
                    origin.reply(call, body, claim);
                    replied = true;
                };
                let encoded = panics::catch(|| wire::encode_message(&value, limit, reply));
                // The owner of an attachment may panic when that is dropped: the answer is out by then.
                if replied {
                    self.claim = None;
                    return;
                }
                let failure = match encoded {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => unencodable(error),
                    Err(text) => CallFailure::ReplyUnencodable { text },
                };
                origin.fail(call, &failure, self.claim.take());
            }
        }
    }
}

fn unencodable(error: EncodeError) -> CallFailure {
    match error {
        EncodeError::TooLarge { size, limit } => {
            CallFailure::ReplyTooLarge { size: size as u64, limit: limit as u64 }
        }
        other => CallFailure::ReplyUnencodable { text: other.to_string() },
    }
}

impl<R> Drop for Responder<R> {
    fn drop(&mut self) {
        if self.to.is_none() {
            return;
        }
        self.finish_with(match (self.started, panics::current()) {
            (false, _) => CallFailure::ActorStopped,
            (true, Some(text)) => CallFailure::Panicked { text },
            (true, None) => CallFailure::NoReply,
        });
    }
}

impl<R> fmt::Debug for Responder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match &self.to {
            None => "answered",
            Some(ReplyTo::None(_)) => "nobody",
            Some(ReplyTo::Remote(..)) => "another host",
            Some(ReplyTo::Local(_)) => "this host",
        };
        f.debug_struct("Responder").field("to", &to).field("started", &self.started).finish()
    }
}
