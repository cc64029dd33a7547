//! Conversion of each kind of handler result into a reply.
//!
//! actix handlers return plain values, `MessageResult`, `ResponseFuture`, `ResponseActFuture`, or any
//! other `MessageResponse`. The generated delivery knows the concrete type. It selects a trait here by the
//! number of references that method lookup has to add or remove, the most specific kind first. The
//! technique is autoref-based specialisation, after David Tolnay.
//!
//! Futures are polled here, so that a panic in them is caught. Other kinds reply through actix's own
//! channel. A response that cannot be wrapped (`AtomicResponse`) fails its call when the channel is
//! dropped.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use actix::dev::MessageResponse;
use actix::fut::{ActorFuture, wrap_future};
use actix::{Actor, Addr, AsyncContext, Context, Handler, MessageResult, ResponseActFuture, ResponseFuture};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tracing::Span;

use super::{ControlMessage, LeaseHolder, RemoteActor, RemoteMessage, Responder, panics};
use crate::observe::trace;
use crate::wire::CallFailure;

/// Selector for the result `R` of actor `A`'s handler for `M`.
#[derive(Debug)]
pub struct ResponseKind<A, M, R>(PhantomData<fn(A, M, R)>);

impl<A, M, R> ResponseKind<A, M, R> {
    /// Creates the selector.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only generated code makes one")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

/// A `MessageResult`, whose value is sent immediately.
pub trait ResultForm<A: Actor, M: RemoteMessage, R> {
    /// Replies with the value.
    fn respond(&self, response: R, responder: &mut Responder<M::Result>, ctx: &mut A::Context);
}

/// A `ResponseActFuture`, polled in the actor's context.
pub trait ActFutureForm<A: Actor, M: RemoteMessage, R> {
    /// Replies with the output of the future.
    fn respond(&self, response: R, responder: &mut Responder<M::Result>, ctx: &mut A::Context);
}

/// A `ResponseFuture`, polled beside the actor as in actix, or within an exclusive one.
pub trait FutureForm<A: Actor, M: RemoteMessage, R> {
    /// Replies with the output of the future.
    fn respond(&self, response: R, responder: &mut Responder<M::Result>, ctx: &mut A::Context);
}

/// The message's result itself, sent immediately.
pub trait ValueForm<A: Actor, M: RemoteMessage, R> {
    /// Replies with the value.
    fn respond(&self, response: R, responder: &mut Responder<M::Result>, ctx: &mut A::Context);
}

/// Any other response type of actix.
pub trait OtherForm<A: Actor, M: RemoteMessage, R> {
    /// Replies when the response does.
    fn respond(&self, response: R, responder: &mut Responder<M::Result>, ctx: &mut A::Context);
}

impl<A, M> ResultForm<A, M, MessageResult<M>> for &&&&ResponseKind<A, M, MessageResult<M>>
where
    A: RemoteActor,
    M: RemoteMessage,
{
    fn respond(
        &self,
        MessageResult(value): MessageResult<M>,
        responder: &mut Responder<M::Result>,
        _ctx: &mut Context<A>,
    ) {
        responder.reply_in_place(value);
    }
}

impl<A, M> ActFutureForm<A, M, ResponseActFuture<A, M::Result>>
    for &&&ResponseKind<A, M, ResponseActFuture<A, M::Result>>
where
    A: RemoteActor,
    M: RemoteMessage,
{
    fn respond(
        &self,
        future: ResponseActFuture<A, M::Result>,
        responder: &mut Responder<M::Result>,
        ctx: &mut Context<A>,
    ) {
        // The future may run for long after the handler returned, and must not hold credit meanwhile.
        responder.release_credit();
        let (responder, span) = (Some(responder.take()), trace::current_span());
        ctx.spawn(ActorFutureResponse { future, responder, span });
    }
}

impl<A, M> FutureForm<A, M, ResponseFuture<M::Result>> for &&ResponseKind<A, M, ResponseFuture<M::Result>>
where
    A: RemoteActor,
    M: RemoteMessage,
{
    fn respond(
        &self,
        future: ResponseFuture<M::Result>,
        responder: &mut Responder<M::Result>,
        ctx: &mut Context<A>,
    ) {
        responder.release_credit();
        let (responder, span) = (Some(responder.take()), trace::current_span());
        let response = SpawnedResponse { future, responder, actor: ctx.address(), span };
        if LeaseHolder::runs_here() {
            // Part of an exclusive actor, so that it ends before the next incarnation begins.
            ctx.spawn(wrap_future::<_, A>(response));
        } else {
            // Outside of the actor's context, so that the actor handles other messages meanwhile.
            actix_rt::spawn(crate::background::inherit(response));
        }
    }
}

impl<A, M> ValueForm<A, M, M::Result> for &ResponseKind<A, M, M::Result>
where
    A: RemoteActor,
    M: RemoteMessage,
{
    fn respond(&self, value: M::Result, responder: &mut Responder<M::Result>, _ctx: &mut Context<A>) {
        responder.reply_in_place(value);
    }
}

impl<A, M, R> OtherForm<A, M, R> for ResponseKind<A, M, R>
where
    A: RemoteActor,
    M: RemoteMessage,
    R: MessageResponse<A, M>,
{
    fn respond(&self, response: R, responder: &mut Responder<M::Result>, ctx: &mut Context<A>) {
        responder.release_credit();
        let (sender, reply) = oneshot::channel();
        if let Err(text) = panics::catch(|| response.handle(ctx, Some(sender))) {
            trace::record_panic(&trace::current_span(), &text);
            responder.take().fail(CallFailure::Panicked { text: text.clone() });
            panics::resume(text);
        }
        let mut waiting = ChannelResponse { reply, responder: Some(responder.take()) };
        // Many responses reply within `handle`, and then need no future.
        if !waiting.is_settled() {
            ctx.spawn(waiting);
        }
    }
}

/// Polls a handler's future and replies; `Err` with the text once it has panicked.
///
/// It is also ready, without a reply, once the caller has cancelled. The future is dropped then.
fn poll_response<T: Serialize + DeserializeOwned>(
    responder: &mut Option<Responder<T>>,
    task: &mut TaskContext<'_>,
    poll: impl FnOnce(&mut TaskContext<'_>) -> Poll<T>,
) -> Poll<Result<(), String>> {
    let pending = responder.as_mut().expect("a future is not polled after it was ready");
    let mut polled = Ok(Poll::Pending);
    // Before the poll: the future of a cancelled call is dropped without running further.
    if !pending.is_cancelled() {
        polled = panics::catch(|| poll(task));
        if let Ok(Poll::Pending) = polled {
            // Registers the waker: a cancellation drops the future without waiting for its next
            // wake-up.
            ready!(pending.poll_cancelled(task));
        }
    }
    let responder = responder.take().expect("it was used above");
    Poll::Ready(match polled {
        Ok(Poll::Ready(value)) => {
            responder.reply(value);
            Ok(())
        }
        Ok(Poll::Pending) => {
            responder.fail(CallFailure::NoReply);
            Ok(())
        }
        Err(text) => {
            responder.fail(CallFailure::Panicked { text: text.clone() });
            Err(text)
        }
    })
}

struct ActorFutureResponse<A: Actor, T> {
    future: ResponseActFuture<A, T>,
    responder: Option<Responder<T>>,
    /// Span of the handler; disabled for most.
    span: Span,
}

impl<A, T> ActorFuture<A> for ActorFutureResponse<A, T>
where
    A: Actor<Context = Context<A>>,
    T: Serialize + DeserializeOwned + 'static,
{
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let this = self.get_mut();
        let poll =
            |task: &mut TaskContext<'_>| this.span.in_scope(|| this.future.as_mut().poll(actor, ctx, task));
        if let Err(text) = ready!(poll_response(&mut this.responder, task, poll)) {
            trace::record_panic(&this.span, &text);
            panics::resume(text);
        }
        Poll::Ready(())
    }
}

struct SpawnedResponse<A: Actor, T> {
    future: ResponseFuture<T>,
    responder: Option<Responder<T>>,
    actor: Addr<A>,
    /// Span of the handler; disabled for most.
    span: Span,
}

impl<A, T> Future for SpawnedResponse<A, T>
where
    A: Handler<ControlMessage> + Actor<Context = Context<A>>,
    T: Serialize + DeserializeOwned + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let poll = |task: &mut TaskContext<'_>| this.span.in_scope(|| this.future.as_mut().poll(task));
        if let Err(text) = ready!(poll_response(&mut this.responder, task, poll)) {
            trace::record_panic(&this.span, &text);
            // The future is not part of the actor, so the panic is forwarded to end it.
            this.actor.do_send(ControlMessage::Panic(text));
        }
        Poll::Ready(())
    }
}

/// Waits in the actor's context for a reply through actix's own channel.
///
/// The context drops it with the actor, also while a panic unwinds, so that the responder knows the
/// panic's text.
struct ChannelResponse<T: Serialize + DeserializeOwned> {
    reply: oneshot::Receiver<T>,
    responder: Option<Responder<T>>,
}

impl<T: Serialize + DeserializeOwned> ChannelResponse<T> {
    /// Forwards the reply if it has arrived, or can no longer arrive; returns false otherwise.
    fn is_settled(&mut self) -> bool {
        match self.reply.try_recv() {
            Ok(value) => {
                if let Some(responder) = self.responder.take() {
                    responder.reply(value);
                }
                true
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Closed) => {
                // The dropped responder reports a missing reply, or the panic that is unwinding.
                drop(self.responder.take());
                true
            }
        }
    }
}

impl<A, T> ActorFuture<A> for ChannelResponse<T>
where
    A: Actor<Context = Context<A>>,
    T: Serialize + DeserializeOwned + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut A, _: &mut Context<A>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let reply = ready!(Pin::new(&mut this.reply).poll(task));
        if let (Ok(value), Some(responder)) = (reply, this.responder.take()) {
            responder.reply(value);
        }
        Poll::Ready(())
    }
}

impl<T: Serialize + DeserializeOwned> Drop for ChannelResponse<T> {
    fn drop(&mut self) {
        // One handler may have both replied and stopped the actor.
        self.is_settled();
    }
}
