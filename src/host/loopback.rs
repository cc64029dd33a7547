//! A host that calls itself: its own services, asked by an actor that runs on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use tokio::sync::oneshot;

use super::Shared;
use crate::config::BATCH_MESSAGES_MAX;
use crate::id::{CallId, HostUid};
use crate::lock::Mutex;
use crate::observe::log;
use crate::registry::{CreditCharge, Inbound, ReplyPath};
use crate::wire::{Body, CallFailure, Encoded};

type Answer = Result<Body, CallFailure>;

/// The answer of a call that a host made to itself.
#[derive(Debug)]
pub(crate) struct Loopback(oneshot::Receiver<Answer>);

impl Loopback {
    pub(super) fn new(
        host: HostUid,
        body_bytes_max: usize,
        deadline: Option<Instant>,
        body: Encoded<'_>,
    ) -> (Inbound, Self) {
        let (reply, answer) = oneshot::channel();
        let caller = Arc::new(LocalReplyPath { host, body_bytes_max, reply: Mutex::new(Some(reply)) });
        (Inbound::new(caller, Some(CallId(0)), deadline, owned(body), None), Self(answer))
    }
}

impl Future for Loopback {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Answer> {
        let answer = ready!(Pin::new(&mut self.0).poll(task));
        Poll::Ready(answer.unwrap_or(Err(CallFailure::Closing)))
    }
}

struct LocalReplyPath {
    host: HostUid,
    body_bytes_max: usize,
    reply: Mutex<Option<oneshot::Sender<Answer>>>,
}

impl LocalReplyPath {
    fn answer(&self, answer: Answer) {
        let reply = self.reply.lock().take();
        if let Some(reply) = reply {
            // A caller that no longer waits needs no answer.
            drop(reply.send(answer));
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

    fn reply(&self, _call: CallId, body: Encoded<'_>, _claim: Option<&CreditCharge>) {
        self.answer(Ok(owned(body)));
    }

    fn fail(&self, _call: CallId, failure: &CallFailure, _claim: Option<CreditCharge>) {
        self.answer(Err(failure.clone()));
    }

    fn is_cancelled(&self, _call: CallId) -> bool {
        false
    }

    fn wake_when_cancelled(&self, _call: CallId, _waker: &Waker) -> bool {
        false
    }

    fn release_credit(&self, _claim: CreditCharge) {}

    fn dead_letter(&self, _why: &CallFailure) {}
}

fn owned(body: Encoded<'_>) -> Body {
    Body { message: body.message.into(), attachments: body.attachments.into() }
}

/// A host as the origin of one-way messages to itself: nothing is encoded, nothing is answered.
impl ReplyPath for Shared {
    fn host(&self) -> HostUid {
        self.identity
    }

    fn body_bytes_max(&self) -> usize {
        self.limits.frame_bytes_max
    }

    fn batch_size(&self, _waiting: usize) -> usize {
        BATCH_MESSAGES_MAX
    }

    fn reply(&self, _call: CallId, _body: Encoded<'_>, _claim: Option<&CreditCharge>) {}

    fn fail(&self, _call: CallId, _failure: &CallFailure, _claim: Option<CreditCharge>) {}

    fn is_cancelled(&self, _call: CallId) -> bool {
        false
    }

    fn wake_when_cancelled(&self, _call: CallId, _waker: &Waker) -> bool {
        false
    }

    fn release_credit(&self, _claim: CreditCharge) {}

    fn dead_letter(&self, why: &CallFailure) {
        log::debug!(?why, "a one-way message was not delivered");
        self.count_dead_letters(1);
    }
}
