//! Calls of a host to its own services and managed actors, made by actors that run on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use tokio::sync::oneshot;

use super::HostShared;
use crate::config::BATCH_MESSAGES_MAX;
use crate::id::{CallId, HostUid};
use crate::lock::Mutex;
use crate::observe::log;
use crate::registry::{Inbound, PackedCharge, ReplyPath};
use crate::wire::{Body, CallFailure, Encoded, MessageBody};

type LoopbackReply = Result<Body, CallFailure>;

/// Reply to a call that a host made to itself.
#[derive(Debug)]
pub(crate) struct Loopback(oneshot::Receiver<LoopbackReply>);

impl Loopback {
    pub(super) fn new(
        host: HostUid,
        body_bytes_max: usize,
        deadline: Option<Instant>,
        body: MessageBody<'_>,
    ) -> (Inbound, Self) {
        let (sender, reply) = oneshot::channel();
        let caller = Arc::new(LocalReplyPath { host, body_bytes_max, sender: Mutex::new(Some(sender)) });
        // Each reply path serves a single call, so the id is arbitrary.
        let trace = body.trace.map(|trace| Box::new(*trace));
        let body = Body { trace, ..owned(body.encoded) };
        (Inbound::new(caller, Some(CallId(0)), deadline, body, None), Self(reply))
    }
}

impl Future for Loopback {
    type Output = LoopbackReply;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<LoopbackReply> {
        let reply = ready!(Pin::new(&mut self.0).poll(task));
        // Without a reply, the executor has dropped the call.
        Poll::Ready(reply.unwrap_or(Err(CallFailure::Closing)))
    }
}

struct LocalReplyPath {
    host: HostUid,
    body_bytes_max: usize,
    sender: Mutex<Option<oneshot::Sender<LoopbackReply>>>,
}

impl LocalReplyPath {
    fn send(&self, reply: LoopbackReply) {
        let sender = self.sender.lock().take();
        if let Some(sender) = sender {
            // The caller may have cancelled.
            drop(sender.send(reply));
        }
    }
}

impl ReplyPath for LocalReplyPath {
    fn host(&self) -> HostUid {
        self.host
    }

    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    fn batch_size(&self, _waiting: usize) -> usize {
        BATCH_MESSAGES_MAX
    }

    fn reply(&self, _call: CallId, body: Encoded<'_>, _charge: Option<&PackedCharge>) {
        self.send(Ok(owned(body)));
    }

    fn fail(&self, _call: CallId, failure: &CallFailure, _charge: Option<PackedCharge>) {
        self.send(Err(failure.clone()));
    }

    /// The caller has dropped its end.
    fn is_cancelled(&self, _call: CallId) -> bool {
        self.sender.lock().as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn wake_when_cancelled(&self, _call: CallId, waker: &Waker) -> bool {
        let mut sender = self.sender.lock();
        let closed = sender.as_mut().map(|sender| sender.poll_closed(&mut Context::from_waker(waker)));
        closed.is_some_and(|closed| closed.is_pending())
    }

    fn release_credit(&self, _charge: PackedCharge) {}

    fn dead_letter(&self, _why: &CallFailure) {}
}

pub(super) fn owned(body: Encoded<'_>) -> Body {
    Body { message: body.message.into(), attachments: body.attachments.into(), trace: None }
}

/// Reply path of one-way messages from a host to itself: nothing is encoded, nothing is answered.
impl ReplyPath for HostShared {
    fn host(&self) -> HostUid {
        self.identity
    }

    fn body_bytes_max(&self) -> usize {
        self.limits.frame_bytes_max
    }

    fn batch_size(&self, _waiting: usize) -> usize {
        BATCH_MESSAGES_MAX
    }

    fn reply(&self, _call: CallId, _body: Encoded<'_>, _charge: Option<&PackedCharge>) {}

    fn fail(&self, _call: CallId, _failure: &CallFailure, _charge: Option<PackedCharge>) {}

    fn is_cancelled(&self, _call: CallId) -> bool {
        false
    }

    fn wake_when_cancelled(&self, _call: CallId, _waker: &Waker) -> bool {
        false
    }

    fn release_credit(&self, _charge: PackedCharge) {}

    fn dead_letter(&self, why: &CallFailure) {
        log::debug!(?why, "a one-way message was not delivered");
        self.count_dead_letters(1);
    }
}
