//! A message on its last step: from a link or a local sender into the actor's own handler.

use std::any::Any;
use std::fmt;
use std::time::Instant;

use actix::prelude::SendError;
use actix::{ActorContext, Handler, Message};
use serde::de::DeserializeOwned;

use super::mailbox::{DecodeScope, DrainRequest, ErasedMailbox, Mailbox};
use super::{
    Handles, Inbound, MailboxError, MessageBatch, RemoteActor, RemoteMessage, Responder, TaskFn, panics,
    synchronous,
};
use crate::id::{HostUid, TypeHash};
use crate::wire::{self, CallFailure, Encoded};

/// What the host tells an actor beside its messages.
#[derive(Debug)]
pub enum ControlMessage {
    /// Stop after the messages that came before; the asker hears when stopping begins.
    Stop(Responder<()>),
    /// Die of the panic of a future that ran beside the actor, with this text.
    Panic(String),
    /// See to the messages that have come from afar.
    Drain(DrainRequest),
}

impl Message for ControlMessage {
    type Result = ();
}

impl ControlMessage {
    /// Does it; called by the generated handler.
    pub fn apply<A: RemoteActor>(self, actor: &mut A, ctx: &mut A::Context) {
        match self {
            Self::Stop(mut responder) => {
                responder.start();
                ctx.stop();
                responder.answer(());
            }
            Self::Panic(text) => panics::resume(text),
            Self::Drain(turn) => turn.take(actor, ctx),
        }
    }
}

/// A message in an actor's mailbox, with who waits for its answer.
///
/// The derive of `RemoteActor` implements `Handler<Delivery<M>>` for the user's own type, where the
/// concrete result type of its `Handler<M>` is known: an answer that is there when `handle` returns
/// is encoded on the spot, without a channel and without a task.
pub struct Delivery<M: RemoteMessage> {
    message: M,
    deadline: Option<Instant>,
    responder: Responder<M::Result>,
}

impl<M: RemoteMessage> Message for Delivery<M> {
    type Result = ();
}

impl<M: RemoteMessage> Delivery<M> {
    /// A message for a mailbox.
    pub fn new(message: M, deadline: Option<Instant>, responder: Responder<M::Result>) -> Self {
        Self { message, deadline, responder }
    }

    /// The message itself, when no mailbox took it; the duty to answer is lifted.
    pub fn into_message(self) -> M {
        self.responder.disarm();
        self.message
    }

    /// Runs the handler and hands its response to `respond`; called by the generated handler.
    ///
    /// A message whose deadline has passed, or whose caller waits no longer, is not handled. A panic
    /// in the handler fails this call with its text and goes on through the actor, which ends.
    #[inline]
    pub fn run<A: Handles<M>>(
        mut self,
        actor: &mut A,
        ctx: &mut A::Context,
        respond: impl FnOnce(<A as Handler<M>>::Result, &mut Responder<M::Result>, &mut A::Context),
    ) {
        if self.responder.is_expired_or_cancelled(self.deadline) {
            return self.responder.fail(CallFailure::Expired);
        }
        self.responder.start();
        let message = self.message;
        match synchronous::call(|| panics::catch(|| actor.handle(message, ctx))) {
            // By reference: most answers are there, and to move the responder would cost more than they do.
            Ok(response) => respond(response, &mut self.responder, ctx),
            Err(text) => {
                self.responder.fail(CallFailure::Panicked { text: text.clone() });
                panics::resume(text);
            }
        }
    }
}

impl<M: RemoteMessage> fmt::Debug for Delivery<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("message", &M::NAME).field("responder", &self.responder).finish()
    }
}

/// Puts messages into the mailbox of an `A`.
pub(super) fn deliver<A: Handles<M>, M: RemoteMessage>(to: &dyn ErasedMailbox, run: MessageBatch) {
    match mailbox(to) {
        Some(mailbox) => mailbox.deliver(handle::<A, M>, run),
        // Two actor types share a name, and this one does not handle the message.
        None => run.for_each(|inbound| {
            inbound.fail(&CallFailure::NotHandled { actor: A::NAME.into(), message: M::NAME.into() });
        }),
    }
}

/// The message that stops any actor: a call in the flow of the actor, so that it comes last.
pub(crate) const STOP: TypeHash = TypeHash::of("roadshow::Stop");

/// Puts stops into an actor's mailbox, behind the messages that came before.
pub(crate) fn stop(to: &dyn ErasedMailbox, run: MessageBatch) {
    run.for_each(|inbound| {
        let (_, _, responder) = inbound.into_parts();
        to.control(ControlMessage::Stop(responder));
    });
}

/// Decodes the next message of a run and has the actor handle it.
fn handle<A: Handles<M>, M: RemoteMessage>(
    actor: &mut A,
    ctx: &mut A::Context,
    run: &mut MessageBatch,
    decoding: &dyn DecodeScope,
) {
    let Some(body) = run.front() else { return };
    let decoded = match body.message.len() < HostUid::ENCODED_BYTES_MIN {
        true => decode(body),
        false => decode_in_context(decoding, run),
    };
    // From here on it is the responder that sees to an answer, whatever the handler does.
    let Some((deadline, responder)) = run.pop() else { return };
    match decoded {
        Ok(message) => {
            Handler::<Delivery<M>>::handle(actor, Delivery::new(message, deadline, responder), ctx);
        }
        Err(failure) => responder.fail(failure),
    }
}

/// Decodes the next message of a run, which may have addresses in it.
fn decode_in_context<M: RemoteMessage>(
    decoding: &dyn DecodeScope,
    run: &MessageBatch,
) -> Result<M, CallFailure> {
    let mut decoded = Err(CallFailure::NoReply);
    decoding.within(&mut || {
        if let Some(body) = run.front() {
            decoded = decode(body);
        }
    });
    decoded
}

/// Moves the delivery in `slot` into the mailbox of an `A`; it stays there if that is not possible.
pub(super) fn deliver_local<A: Handles<M>, M: RemoteMessage>(
    to: &dyn ErasedMailbox,
    slot: &mut dyn Any,
    only_if_room: bool,
) -> Result<(), MailboxError> {
    let (Some(mailbox), Some(slot)) = (mailbox::<A>(to), slot.downcast_mut::<Option<Delivery<M>>>()) else {
        return Err(MailboxError::Closed);
    };
    let Some(delivery) = slot.take() else { return Ok(()) };
    if !only_if_room {
        mailbox.addr().do_send(delivery);
        return Ok(());
    }
    mailbox.addr().try_send(delivery).map_err(|error| {
        let (delivery, why) = match error {
            SendError::Full(delivery) => (delivery, MailboxError::Full),
            SendError::Closed(delivery) => (delivery, MailboxError::Closed),
        };
        *slot = Some(delivery);
        why
    })
}

fn mailbox<A: RemoteActor>(to: &dyn ErasedMailbox) -> Option<&Mailbox<A>> {
    (to as &dyn Any).downcast_ref()
}

/// Decodes a task's arguments, runs it and answers. Says whether there was a result.
pub(super) fn run_task<F: TaskFn>(inbound: Inbound) -> bool {
    let (body, deadline, mut responder) = inbound.into_parts::<F::Output>();
    let ran = || {
        if responder.is_expired_or_cancelled(deadline) {
            return Err(CallFailure::Expired);
        }
        let args = decode(&body)?;
        drop(body);
        responder.start();
        responder.release_credit();
        synchronous::call(|| panics::catch(|| F::call(args))).map_err(|text| CallFailure::Panicked { text })
    };
    match ran() {
        Ok(output) => {
            responder.answer(output);
            true
        }
        Err(failure) => {
            responder.fail(failure);
            false
        }
    }
}

/// Decodes what a peer sent; a panic in a type's own `Deserialize` is the sender's failure, not ours.
///
/// # Errors
///
/// [`CallFailure::Undecodable`] with the reason.
#[inline(always)]
pub(crate) fn decode<'a, T: DeserializeOwned>(body: impl Into<Encoded<'a>>) -> Result<T, CallFailure> {
    let body = body.into();
    panics::catch(|| wire::decode(body))
        .and_then(|decoded| decoded.map_err(|error| error.to_string()))
        .map_err(|text| CallFailure::Undecodable { text })
}
