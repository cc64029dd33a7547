//! Delivery of a message from a link or a local sender to the actor's handler.

use std::any::Any;
use std::fmt;
use std::time::Instant;

use actix::prelude::SendError;
use actix::{ActorContext, AsyncContext, Handler, Message};
use serde::de::DeserializeOwned;

use super::attachment::{self, Attachment};
use super::batch::Envelope;
use super::handler_stats::HandlerStats;
use super::mailbox::{DecodeScope, DrainRequest, ErasedMailbox, Mailbox, MessageHandler};
use super::{
    Handles, Inbound, MailboxError, MessageBatch, RemoteActor, RemoteMessage, Responder, TaskFn, panics,
    synchronous,
};
use crate::id::{HostUid, TraceContext, TypeHash};
use crate::observe::trace;
use crate::spec::{End, EndReason};
use crate::wire::{self, Attachments, CallFailure, DecodeError, Encoded};

/// Message from the host to an actor, beside the user's messages.
#[derive(Debug)]
pub enum ControlMessage {
    /// Stops the actor behind earlier messages; the requester gets a reply when stopping begins. The end is what
    /// watchers get.
    Stop(Responder<()>, Box<End>),
    /// Ends the actor with the panic of a future that ran beside it.
    Panic(String),
    /// Drains the queue of remote messages.
    Drain(DrainRequest),
    /// Leaves something in the actor's context that is dropped with it.
    Attach(Attachment),
}

impl Message for ControlMessage {
    type Result = ();
}

impl ControlMessage {
    /// Executes the request; called by the generated handler.
    pub fn apply<A: RemoteActor>(self, actor: &mut A, ctx: &mut A::Context) {
        match self {
            Self::Stop(mut responder, end) => {
                responder.start();
                ctx.stop();
                attachment::note_stop(end);
                responder.reply(());
            }
            Self::Panic(text) => panics::resume(text),
            Self::Drain(request) => request.take(actor, ctx),
            Self::Attach(attachment) => drop(ctx.spawn(attachment.attached())),
        }
    }
}

/// Message in an actor's mailbox, with the responder for its reply.
///
/// The derive of `RemoteActor` implements `Handler<Delivery<M>>` for the user's own type, which knows the
/// concrete result type of its `Handler<M>`. A reply that is available when `handle` returns is encoded
/// immediately, without a channel and without a task.
pub struct Delivery<M: RemoteMessage> {
    message: M,
    deadline: Option<Instant>,
    responder: Responder<M::Result>,
    /// Trace context of the sender.
    trace: Option<Box<TraceContext>>,
    /// Statistics of the handler, for a message of the same host. The drain counts all others.
    stats: Option<&'static HandlerStats>,
}

impl<M: RemoteMessage> Message for Delivery<M> {
    type Result = ();
}

impl<M: RemoteMessage> Delivery<M> {
    /// Creates a message for a mailbox.
    pub fn new(
        message: M,
        deadline: Option<Instant>,
        responder: Responder<M::Result>,
        trace: Option<Box<TraceContext>>,
    ) -> Self {
        Self { message, deadline, responder, trace, stats: None }
    }

    /// The message itself, when no mailbox accepted it; the obligation to reply is discarded.
    pub fn into_message(self) -> M {
        self.responder.disarm();
        self.message
    }

    /// Runs the handler and passes its response to `respond`; called by the generated handler.
    ///
    /// A message is skipped if its deadline has passed or its caller has cancelled. A panic in the
    /// handler fails this call with its text, and then ends the actor.
    // Always: out of line, a delivery is copied for each message, and its fields are read right after.
    #[inline(always)]
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
        let _span = trace::enter_handler(self.trace, A::NAME, M::NAME);
        let sampled = self.stats.and_then(HandlerStats::begin_local);
        match synchronous::call(|| panics::catch(|| actor.handle(message, ctx))) {
            // By reference: most replies are immediate, and moving the responder would cost more than
            // they do.
            Ok(response) => {
                respond(response, &mut self.responder, ctx);
                if let (Some(stats), Some(started_at)) = (self.stats, sampled) {
                    stats.end_local(started_at);
                }
            }
            Err(text) => {
                trace::record_panic(&trace::current_span(), &text);
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

/// Queues messages in the mailbox of an `A`.
pub(super) fn deliver<A: Handles<M>, M: RemoteMessage>(
    to: &dyn ErasedMailbox,
    messages: MessageBatch,
    stats: &'static HandlerStats,
) {
    match mailbox(to) {
        Some(mailbox) => mailbox.deliver(MessageHandler { handle: handle::<A, M>, stats }, messages),
        // Two actor types share a name, and this one does not handle the message.
        None => messages.for_each(|inbound| {
            inbound.fail(&CallFailure::NotHandled { actor: A::NAME.into(), message: M::NAME.into() });
        }),
    }
}

/// Message that stops any actor. It travels in the actor's flow, behind all earlier messages.
pub(crate) const STOP: TypeHash = TypeHash::of("roadshow::Stop");

/// Queues stops in an actor's mailbox, behind earlier messages.
pub(crate) fn stop(to: &dyn ErasedMailbox, messages: MessageBatch, _: &'static HandlerStats) {
    messages.for_each(|inbound| {
        let end = stopped_by(inbound.from());
        let (_, _, responder) = inbound.into_parts();
        to.control(ControlMessage::Stop(responder, end));
    });
}

/// End of an actor that a host has stopped by address.
pub(crate) fn stopped_by(host: HostUid) -> Box<End> {
    Box::new(End::new(EndReason::Killed, format!("it was stopped by host {host}")))
}

/// Decodes the next message of a batch and runs its handler.
fn handle<A: Handles<M>, M: RemoteMessage>(
    actor: &mut A,
    ctx: &mut A::Context,
    messages: &mut MessageBatch,
    scope: &dyn DecodeScope,
) {
    // The value takes its payloads: a message is decoded once.
    let Some((body, attachments)) = messages.front_mut() else { return };
    // A body shorter than an encoded host id cannot contain an address, and entering the scope is
    // not free.
    let decoded = match body.len() < HostUid::ENCODED_BYTES_MIN {
        true => decode_taking(body, attachments),
        false => decode_in_context(scope, body, attachments),
    };
    // From here on the responder ensures a reply, whatever the handler does.
    let Some(Envelope { deadline, responder, trace }) = messages.pop() else { return };
    match decoded {
        Ok(message) => {
            // The generated handler, which knows the concrete type of the result.
            Handler::<Delivery<M>>::handle(actor, Delivery::new(message, deadline, responder, trace), ctx);
        }
        Err(failure) => responder.fail(failure),
    }
}

/// Decodes a message in a scope to which its addresses bind.
fn decode_in_context<M: RemoteMessage>(
    scope: &dyn DecodeScope,
    body: &[u8],
    mut attachments: Option<&mut Attachments>,
) -> Result<M, CallFailure> {
    let mut decoded = Err(CallFailure::NoReply);
    scope.within(&mut || decoded = decode_taking(body, attachments.as_deref_mut()));
    decoded
}

/// Moves the delivery in `slot` into the mailbox of an `A`; on failure it stays in the slot.
pub(super) fn deliver_local<A: Handles<M>, M: RemoteMessage>(
    to: &dyn ErasedMailbox,
    slot: &mut dyn Any,
    only_if_room: bool,
    stats: &'static HandlerStats,
) -> Result<(), MailboxError> {
    let (Some(mailbox), Some(slot)) = (mailbox::<A>(to), slot.downcast_mut::<Option<Delivery<M>>>()) else {
        return Err(MailboxError::Closed);
    };
    let Some(mut delivery) = slot.take() else { return Ok(()) };
    delivery.stats = Some(stats);
    // As in actix, `do_send` ignores the limit of the mailbox.
    if !only_if_room {
        mailbox.addr().do_send(delivery);
        mailbox.count_local();
        return Ok(());
    }
    mailbox.addr().try_send(delivery).map(|()| mailbox.count_local()).map_err(|error| {
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

/// Decodes a task's arguments, runs it and replies; returns true if it had a result.
pub(super) fn run_task<F: TaskFn>(inbound: Inbound) -> bool {
    let (mut body, deadline, mut responder) = inbound.into_parts::<F::Output>();
    let trace = body.trace.take();
    let ran = || {
        if responder.is_expired_or_cancelled(deadline) {
            return Err(CallFailure::Expired);
        }
        let args = decode(&body)?;
        // The body may hold a large read buffer, which the task does not need.
        drop(body);
        responder.start();
        // A task may run for long, and its credit would block other calls of the sender.
        responder.release_credit();
        let span = trace::enter_task(trace, F::NAME);
        synchronous::call(|| panics::catch(|| F::call(args))).map_err(|text| {
            if let Some(span) = &span {
                trace::record_panic(span, &text);
            }
            CallFailure::Panicked { text }
        })
    };
    match ran() {
        Ok(output) => {
            responder.reply(output);
            true
        }
        Err(failure) => {
            responder.fail(failure);
            false
        }
    }
}

/// Decodes bytes of a peer; a panic in a type's `Deserialize` counts as the sender's error.
///
/// # Errors
///
/// [`CallFailure::Undecodable`] with the reason.
#[inline(always)]
pub(crate) fn decode<'a, T: DeserializeOwned>(body: impl Into<Encoded<'a>>) -> Result<T, CallFailure> {
    let body = body.into();
    decoded(|| wire::decode(body))
}

/// [`decode`] with attachments that the value takes.
#[inline(always)]
fn decode_taking<T: DeserializeOwned>(
    message: &[u8],
    attachments: Option<&mut Attachments>,
) -> Result<T, CallFailure> {
    decoded(|| wire::decode_taking(message, attachments))
}

#[inline(always)]
fn decoded<T>(decode: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, CallFailure> {
    panics::catch(decode)
        .and_then(|decoded| decoded.map_err(|error| error.to_string()))
        .map_err(|text| CallFailure::Undecodable { text })
}
