//! Received messages, and the obligation to reply to each exactly once.

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

/// Path of a reply back to the sender of a message.
pub trait ReplyPath: Send + Sync {
    /// Host that sent the message.
    fn host(&self) -> HostUid;
    /// Maximum bytes of a reply's body.
    fn body_bytes_max(&self) -> usize;
    /// Number of the `waiting` messages that are handled before replies are sent.
    fn batch_size(&self, waiting: usize) -> usize;
    /// Sends the reply of a call, and releases the credit that it still holds.
    fn reply(&self, call: CallId, body: Encoded<'_>, charge: Option<&PackedCharge>);
    /// Sends the failure of a call, and releases the credit that it still holds.
    fn fail(&self, call: CallId, failure: &CallFailure, charge: Option<PackedCharge>);
    /// True if the caller is known to have cancelled the call.
    fn is_cancelled(&self, call: CallId) -> bool;
    /// Registers a waker for the cancellation; returns true if the call is cancelled already.
    ///
    /// Each call has one waker, which is dropped with the reply.
    fn wake_when_cancelled(&self, call: CallId, waker: &Waker) -> bool;
    /// True if the call was dropped with its session: the caller has ended, or has dropped its half.
    ///
    /// The waker of the call is woken then.
    fn is_lost(&self, _call: CallId) -> bool {
        false
    }
    /// Releases the credit of a message that was handled or dropped.
    fn release_credit(&self, charge: PackedCharge);
    /// Counts a one-way message that reached no handler.
    fn dead_letter(&self, why: &CallFailure);
}

/// Bytes that a remote message is charged to its actor's credit window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedCharge {
    actor: ActorId,
    /// The actor's incarnation in the upper half, and the session's epoch in the lower.
    ///
    /// Packed by hand, since a charge is copied in whole words. Reading part of a word that was just
    /// written as a whole, or the reverse, defeats the CPU's store forwarding.
    epochs: u64,
    bytes: NonZeroU64,
}

impl PackedCharge {
    /// Creates a charge of `bytes` to an actor's window, in that epoch of the session.
    #[must_use]
    pub fn new(target: Target, epoch: u32, bytes: NonZeroU64) -> Self {
        let epochs = u64::from(target.incarnation.0) << 32 | u64::from(epoch);
        Self { actor: target.actor, epochs, bytes }
    }

    /// Actor whose window is charged.
    #[must_use]
    pub fn target(self) -> Target {
        Target { actor: self.actor, incarnation: ActorIncarnation((self.epochs >> 32) as u32) }
    }

    /// Charge of another message to the same window.
    #[must_use]
    pub fn with_bytes(self, bytes: NonZeroU64) -> Self {
        Self { bytes, ..self }
    }

    /// Epoch of the session that received the message.
    #[must_use]
    pub fn session_epoch(self) -> u32 {
        self.epochs as u32
    }

    /// Charged bytes.
    #[must_use]
    pub fn bytes(self) -> NonZeroU64 {
        self.bytes
    }
}

/// Received message, still encoded.
pub struct Inbound {
    /// Encoded message.
    pub body: Body,
    /// Time when the caller stops waiting, if it has a deadline.
    pub deadline: Option<Instant>,
    reply_path: Arc<dyn ReplyPath>,
    call: Option<CallId>,
    charge: Option<PackedCharge>,
}

impl Inbound {
    /// Creates a message from `reply_path`, one-way without a call. A message from this host itself has no
    /// charge.
    pub fn new(
        reply_path: Arc<dyn ReplyPath>,
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: Body,
        charge: Option<PackedCharge>,
    ) -> Self {
        Self { body, deadline, reply_path, call, charge }
    }

    /// Splits the message into body, deadline and responder.
    #[inline]
    pub fn into_parts<R>(self) -> (Body, Option<Instant>, Responder<R>) {
        (self.body, self.deadline, Responder::remote(self.reply_path, self.call, self.charge))
    }

    /// The caller's id of the call; `None` for a one-way message.
    pub fn call(&self) -> Option<CallId> {
        self.call
    }

    /// Path of the reply.
    pub(super) fn reply_path(&self) -> &Arc<dyn ReplyPath> {
        &self.reply_path
    }

    /// Credit that the message holds.
    pub fn charge(&self) -> Option<PackedCharge> {
        self.charge
    }

    /// Host that sent the message.
    pub fn from(&self) -> HostUid {
        self.reply_path.host()
    }

    /// Rejects the message.
    pub fn fail(self, failure: &CallFailure) {
        if let Some(call) = self.call {
            return self.reply_path.fail(call, failure, self.charge);
        }
        if let Some(charge) = self.charge {
            self.reply_path.release_credit(charge);
        }
        self.reply_path.dead_letter(failure);
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

/// Charge in bytes below which credit is released together with the reply.
///
/// So small a charge does not block other senders while the message is handled.
const SMALL_CHARGE_BYTES: u64 = 4 << 10;

/// Sender of a reply to a caller on the same host, which gets the value itself.
pub type LocalReply<R> = oneshot::Sender<Result<R, CallFailure>>;

/// Obligation to reply to one message once; dropped without a reply, it sends the reason.
pub struct Responder<R> {
    to: Option<ReplyTo<R>>,
    started: bool,
    /// The reply path holds a waker of this responder.
    cancel_waker_set: bool,
    /// Credit that the message holds until it is released or answered.
    charge: Option<PackedCharge>,
}

enum ReplyTo<R> {
    None(Arc<dyn ReplyPath>),
    Remote(Arc<dyn ReplyPath>, CallId),
    Local(LocalReply<R>),
}

impl<R> Responder<R> {
    /// Replies to a caller on another host, or discards the reply of a one-way message.
    #[inline(always)]
    pub(super) fn remote(
        reply_path: Arc<dyn ReplyPath>,
        call: Option<CallId>,
        charge: Option<PackedCharge>,
    ) -> Self {
        let to = match call {
            Some(call) => ReplyTo::Remote(reply_path, call),
            None => ReplyTo::None(reply_path),
        };
        Self { to: Some(to), started: false, cancel_waker_set: false, charge }
    }

    /// Replies to a caller on the same host.
    #[must_use]
    pub fn local(reply: LocalReply<R>) -> Self {
        Self { to: Some(ReplyTo::Local(reply)), started: false, cancel_waker_set: false, charge: None }
    }

    /// Discards the reply, for a one-way message from the same host.
    #[must_use]
    pub fn discard(reply_path: Arc<dyn ReplyPath>) -> Self {
        Self { to: Some(ReplyTo::None(reply_path)), started: false, cancel_waker_set: false, charge: None }
    }

    /// Marks the start of the handler, which determines the outcome from now on.
    ///
    /// The credit of a small call is released with its reply, if that is immediate. A responder that is
    /// kept for longer must [release](Self::release_credit) it.
    #[inline]
    pub fn start(&mut self) {
        self.started = true;
        let small = self.charge.is_some_and(|charge| charge.bytes().get() < SMALL_CHARGE_BYTES);
        // Releasing credit together with the reply saves a lock, but delays other messages of the
        // sender.
        if !(small && matches!(self.to, Some(ReplyTo::Remote(..)))) {
            self.release_credit();
        }
    }

    /// Releases the credit that the message holds, so that the sender can send another.
    pub fn release_credit(&mut self) {
        if let (Some(charge), Some(ReplyTo::Remote(reply_path, _) | ReplyTo::None(reply_path))) =
            (self.charge.take(), &self.to)
        {
            reply_path.release_credit(charge);
        }
    }

    /// True if the caller is known to have cancelled the call or dropped its future.
    #[must_use]
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        match &self.to {
            Some(ReplyTo::Remote(reply_path, call)) => reply_path.is_cancelled(*call),
            Some(ReplyTo::Local(reply)) => reply.is_closed(),
            Some(ReplyTo::None(_)) | None => false,
        }
    }

    /// True if the message need not be handled, since it was cancelled or its deadline has passed.
    #[must_use]
    #[inline]
    pub fn is_expired_or_cancelled(&self, deadline: Option<Instant>) -> bool {
        deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now().into_std())
            || self.is_cancelled()
    }

    /// Is ready once the caller is known to have cancelled; only one task may poll it.
    pub fn poll_cancelled(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let cancelled = match &mut self.to {
            Some(ReplyTo::Local(reply)) => return reply.poll_closed(task),
            // A single task polls a responder, so its waker is registered once.
            Some(ReplyTo::Remote(reply_path, call)) if !self.cancel_waker_set => {
                self.cancel_waker_set = true;
                reply_path.wake_when_cancelled(*call, task.waker())
            }
            _ => self.is_cancelled(),
        };
        if cancelled { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Is ready once the caller has cancelled or is gone; only one task may poll it.
    pub fn poll_abandoned(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if self.poll_cancelled(task).is_ready() {
            return Poll::Ready(());
        }
        match &self.to {
            Some(ReplyTo::Remote(reply_path, call)) if reply_path.is_lost(*call) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Moves the obligation out; none remains here.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let Self { to, started, cancel_waker_set, charge } = self;
        Self { to: to.take(), started: *started, cancel_waker_set: *cancel_waker_set, charge: charge.take() }
    }

    /// Discards the obligation of a message that goes back to its sender.
    pub fn disarm(mut self) {
        self.to = None;
    }

    /// Sends a failure in place of a reply.
    pub fn fail(mut self, failure: CallFailure) {
        self.finish_with(failure);
    }

    fn finish_with(&mut self, failure: CallFailure) {
        // The failure below releases the credit under the same lock.
        let charge = match self.to {
            Some(ReplyTo::Remote(..)) => self.charge.take(),
            _ => None,
        };
        self.release_credit();
        match self.to.take() {
            None => {}
            // A one-way message whose handler ran counts as delivered, even if the handler failed.
            Some(ReplyTo::None(reply_path)) if !failure.handler_ran() => reply_path.dead_letter(&failure),
            Some(ReplyTo::None(_)) => {}
            Some(ReplyTo::Remote(reply_path, call)) => reply_path.fail(call, &failure, charge),
            // A caller that has dropped its future needs no failure.
            Some(ReplyTo::Local(reply)) => drop(reply.send(Err(failure))),
        }
    }
}

impl<R: Serialize + DeserializeOwned> Responder<R> {
    /// Sends the reply, which is encoded on the handler's thread.
    ///
    /// A panic in the value's `Serialize` fails the call as a reply that cannot be encoded. The handler
    /// has returned by then, so its actor continues.
    #[inline]
    pub fn reply(mut self, value: R) {
        self.reply_in_place(value);
    }

    /// [`reply`](Self::reply) by reference, which avoids a move; no obligation remains.
    #[inline]
    pub fn reply_in_place(&mut self, value: R) {
        match self.to.take() {
            None => {}
            Some(ReplyTo::None(reply_path)) => {
                if let Some(charge) = self.charge.take() {
                    reply_path.release_credit(charge);
                }
            }
            Some(ReplyTo::Local(reply)) => drop(reply.send(Ok(value))),
            Some(ReplyTo::Remote(reply_path, call)) => {
                let (limit, charge) = (reply_path.body_bytes_max(), self.charge.as_ref());
                let mut replied = false;
                let reply = |body: Encoded<'_>| {
                    reply_path.reply(call, body, charge);
                    replied = true;
                };
                // `Serialize` is user code, which may panic after any number of bytes.
                let encoded = panics::catch(|| wire::encode_message(&value, limit, reply));
                // Dropping an attachment may panic, and the reply has been sent by then.
                if replied {
                    self.charge = None;
                    return;
                }
                let failure = match encoded {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => unencodable(error),
                    Err(text) => CallFailure::ReplyUnencodable { text },
                };
                reply_path.fail(call, &failure, self.charge.take());
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
            Some(ReplyTo::None(_)) => "none",
            Some(ReplyTo::Remote(..)) => "another host",
            Some(ReplyTo::Local(_)) => "this host",
        };
        f.debug_struct("Responder").field("to", &to).field("started", &self.started).finish()
    }
}
