//! A call under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::address::Address;
use super::retry::{Retry, Retrying};
use crate::host::peer::{OpenCall, Repeat};
use crate::host::{NotDelivered, OutcomeUnknown, SendError, deadline_in};
use crate::registry::RemoteMessage;
use crate::wire::CallFailure;

/// A call; awaiting it sends the message and gives the answer.
///
/// Nothing is sent before the first poll. It waits for room where too much waits for the host or
/// the actor already.
///
/// # Cancel safety
///
/// Dropping a request before it was polled sends nothing. Dropping it later cancels the call:
/// a handler that has not begun there never does, and the future of one that has is dropped. Whether
/// it had begun is not known then.
#[must_use = "a request does nothing unless it is awaited"]
pub struct Request<M: RemoteMessage> {
    to: Address,
    /// Until it is queued; until it ends if it may be made again.
    message: Option<M>,
    limit: TimeLimit,
    /// Whether the session keeps the deadline: it does for calls that it was given with one.
    kept: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    retrying: Option<Box<Retrying>>,
    state: State<M>,
}

/// How long the caller waits.
#[derive(Clone, Copy)]
enum TimeLimit {
    None,
    /// So long, from the first poll on.
    After(Duration),
    At(Instant),
}

impl TimeLimit {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::At(deadline) => Some(deadline),
            Self::None | Self::After(_) => None,
        }
    }
}

enum State<M: RemoteMessage> {
    /// Not queued; with what it waits for: room, or the time of the next attempt.
    Unsent(Option<Pin<Box<dyn Future<Output = ()> + Send>>>),
    /// Queued; or over, which a remote call knows itself.
    Sent(Answer<M::Result>),
    Ended(Option<Box<NotDelivered>>),
}

/// Where the answer of a queued call comes from.
pub(super) enum Answer<R> {
    Local(oneshot::Receiver<Result<R, CallFailure>>),
    Remote(OpenCall),
}

impl<M: RemoteMessage> Request<M> {
    pub(super) fn new(to: Address, message: M) -> Self {
        Self::with(to, Some(message), State::Unsent(None))
    }

    pub(super) fn sent(to: Address, answer: Answer<M::Result>) -> Self {
        Self::with(to, None, State::Sent(answer))
    }

    pub(super) fn failed(to: Address, reason: NotDelivered) -> Self {
        Self::with(to, None, State::Ended(Some(Box::new(reason))))
    }

    #[inline]
    fn with(to: Address, message: Option<M>, state: State<M>) -> Self {
        Self { to, message, limit: TimeLimit::None, kept: false, sleep: None, retrying: None, state }
    }

    /// Gives up after `timeout`, counted from the first poll.
    ///
    /// The time left travels with the message: a handler that comes to it later never begins. The
    /// receiver counts from when it reads the message, so what lay unread while that thread computed
    /// may still be handled.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit = TimeLimit::After(timeout);
        self
    }

    /// Makes the call again if it is lost between the hosts; see [`Retry`].
    ///
    /// It has no effect on a request from `try_send`, which is under way already, and on a call to
    /// an actor of this very host.
    pub fn retry(mut self, policy: Retry) -> Self {
        if let State::Unsent(_) = self.state {
            self.retrying = Some(Box::new(Retrying::new(policy)));
        }
        self
    }

    fn poll_unsent(&mut self, task: &mut Context<'_>) -> Poll<Result<(), NotDelivered>> {
        let State::Unsent(waiting) = &mut self.state else { return Poll::Ready(Ok(())) };
        loop {
            if let Some(wait) = waiting {
                ready!(wait.as_mut().poll(task));
                *waiting = None;
            }
            let repeat = self.retrying.as_deref().map_or(Repeat::Never, Retrying::repeat);
            match self.to.call(&mut self.message, self.limit.deadline(), repeat, false) {
                Ok(answer) => {
                    self.kept = matches!(answer, Answer::Remote(_));
                    let made = match &answer {
                        Answer::Remote(open) => Some(open.call()),
                        Answer::Local(_) => None,
                    };
                    self.state = State::Sent(answer);
                    match (&mut self.retrying, made) {
                        (Some(retrying), Some(call)) => retrying.queued(self.to.peer()?, call),
                        // Dropping a message runs user code; nothing is locked here.
                        _ => self.message = None,
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(NotDelivered::Full { size, .. }) => {
                    let (peer, target) = (Arc::clone(self.to.peer()?), self.to.place.target);
                    *waiting = Some(Box::pin(async move { peer.room(target, size).await }));
                }
                Err(reason) => return Poll::Ready(Err(reason)),
            }
        }
    }

    fn poll_outcome(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, SendError>> {
        loop {
            let error = match ready!(self.poll_attempt(task)) {
                Ok(answer) => return Poll::Ready(Ok(answer)),
                Err(error) => error,
            };
            let Some(retrying) = &mut self.retrying else { return Poll::Ready(Err(error)) };
            let Some(delay) = retrying.again_after(&error) else {
                return Poll::Ready(Err(retrying.conclude(self.to.place.host, error)));
            };
            self.kept = false;
            self.state = State::Unsent(Some(Box::pin(retrying.rest(delay))));
        }
    }

    fn poll_attempt(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, SendError>> {
        if let State::Unsent(_) = self.state {
            ready!(self.poll_unsent(task))?;
        }
        match &mut self.state {
            State::Sent(Answer::Remote(open)) => {
                Poll::Ready(match ready!(open.poll(self.to.peer()?, task)) {
                    Ok(body) => self.to.decode(&body),
                    Err(failed) => Err(SendError::failed(self.to.place.host, failed)),
                })
            }
            State::Sent(Answer::Local(answer)) => {
                // A delivery always answers; without a word its arbiter has ended.
                let answer = ready!(Pin::new(answer).poll(task)).unwrap_or(Err(CallFailure::NoReply));
                Poll::Ready(answer.map_err(SendError::from))
            }
            State::Ended(reason) => {
                let reason = reason.take().expect("a request is not polled after it was ready");
                Poll::Ready(Err((*reason).into()))
            }
            State::Unsent(_) => Poll::Pending,
        }
    }

    /// Keeps the deadline where no session does: on the same host, and while waiting for room.
    fn poll_timeout(&mut self, task: &mut Context<'_>) -> Poll<SendError> {
        let (Some(deadline), false) = (self.limit.deadline(), self.kept) else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        ready!(sleep.as_mut().poll(task));
        let error = match self.state {
            State::Unsent(_) => NotDelivered::Expired.into(),
            State::Sent(_) | State::Ended(_) => OutcomeUnknown::TimedOut.into(),
        };
        Poll::Ready(match &self.retrying {
            Some(retrying) => retrying.conclude(self.to.place.host, error),
            None => error,
        })
    }
}

impl<M: RemoteMessage> Future for Request<M> {
    type Output = Result<M::Result, SendError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let TimeLimit::After(timeout) = this.limit {
            this.limit = deadline_in(timeout).map_or(TimeLimit::None, TimeLimit::At);
        }
        let outcome = match this.poll_outcome(task) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(ready!(this.poll_timeout(task))),
        };
        if let Err(error) = &outcome {
            this.to.learn(error);
        }
        this.end();
        Poll::Ready(outcome)
    }
}

impl<M: RemoteMessage> Request<M> {
    /// The outcome is there.
    #[inline]
    fn end(&mut self) {
        self.cancel();
        if !matches!(&self.state, State::Sent(Answer::Remote(_))) {
            self.state = State::Ended(None);
        }
        if self.retrying.is_some() {
            self.retrying = None;
        }
        if self.message.is_some() {
            self.message = None;
        }
    }

    /// Nobody waits for the answer any more.
    #[inline]
    fn cancel(&mut self) {
        if let State::Sent(Answer::Remote(open)) = &mut self.state
            && !open.has_ended()
            && let Ok(peer) = self.to.peer()
        {
            open.abandon(peer);
        }
    }
}

impl<M: RemoteMessage> Drop for Request<M> {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The message is never pinned: it is encoded, or moved, where it lies.
impl<M: RemoteMessage> Unpin for Request<M> {}

impl<M: RemoteMessage> fmt::Debug for Request<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("to", &self.to).field("message", &M::NAME).finish_non_exhaustive()
    }
}

/// A message that could not be queued at once, given back.
#[derive(Error)]
#[error("not delivered: {reason}")]
pub struct TrySendError<M> {
    /// The message.
    pub message: M,
    /// Why.
    pub reason: NotDelivered,
}

impl<M> fmt::Debug for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrySendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}
