//! A call under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::address::BoundAddress;
use super::retry::{Retry, RetryState};
use crate::host::blocked::Waiting;
use crate::host::peer::{OpenCall, Place, Retryable, Waiter};
use crate::host::{NotDelivered, OutcomeUnknown, SendError, deadline_in};
use crate::registry::{RemoteMessage, synchronous};
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
    /// None for one that failed before anybody was asked.
    to: Option<Arc<BoundAddress>>,
    /// What most requests have not: those that are under way are moved often.
    terms: Option<Box<RequestOptions<M>>>,
    state: State<M>,
}

/// On what terms a call is made, and how far that is.
struct RequestOptions<M> {
    limit: TimeLimit,
    /// Where a call that is not queued waits for room.
    place: Option<Place>,
    /// The time until the next attempt.
    rest: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The message of a call under way that may be made again.
    message: Option<M>,
    /// Whether the session keeps the deadline: it does for calls that it was given with one.
    deadline_in_session: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    retry: Option<RetryState>,
    /// What is known of waiting within a synchronous handler or task.
    blocked: Waiting,
}

/// How long the caller waits.
#[derive(Clone, Copy, Default)]
enum TimeLimit {
    #[default]
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

/// As wide as a small message: two words for most.
enum State<M: RemoteMessage> {
    /// Not queued.
    Unsent(Option<M>),
    /// Queued, for an actor of this host.
    Local(oneshot::Receiver<Result<M::Result, CallFailure>>),
    /// Queued, or over, which the call knows itself.
    Remote(OpenCall),
    Done(Option<Box<NotDelivered>>),
}

/// Where the answer of a queued call comes from.
pub(super) enum Answer<R> {
    Local(oneshot::Receiver<Result<R, CallFailure>>),
    Remote(OpenCall),
}

impl<M: RemoteMessage> Request<M> {
    pub(super) fn new(to: Arc<BoundAddress>, message: M) -> Self {
        Self { to: Some(to), terms: None, state: State::Unsent(Some(message)) }
    }

    #[inline]
    pub(super) fn sent(to: Arc<BoundAddress>, answer: Answer<M::Result>) -> Self {
        Self { to: Some(to), terms: None, state: answer.into() }
    }

    pub(super) fn failed(reason: Box<NotDelivered>) -> Self {
        Self { to: None, terms: None, state: State::Done(Some(reason)) }
    }

    /// Gives up after `timeout`, counted from the first poll.
    ///
    /// The time left travels with the message: a handler that comes to it later never begins. The
    /// receiver counts from when it reads the message, so what lay unread while that thread computed
    /// may still be handled.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.terms.get_or_insert_default().limit = TimeLimit::After(timeout);
        self
    }

    /// Makes the call again if it is lost between the hosts; see [`Retry`].
    ///
    /// It has no effect on a request from `try_send`, which is under way already, and on a call to
    /// an actor of this very host.
    pub fn retry(mut self, policy: Retry) -> Self {
        if let State::Unsent(_) = self.state {
            self.terms.get_or_insert_default().retry = Some(RetryState::new(policy));
        }
        self
    }

    fn poll_unsent(&mut self, task: &mut Context<'_>) -> Poll<Result<(), NotDelivered>> {
        let (State::Unsent(message), Some(to)) = (&mut self.state, &self.to) else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some(terms) = &mut self.terms {
                ready!(terms.poll_waiting(task));
            }
            let (deadline, mut repeat) = match self.terms.as_deref() {
                Some(terms) => (terms.limit.deadline(), terms.repeat()),
                None => (None, Retryable::Never),
            };
            let place = self.terms.as_deref().and_then(|terms| terms.place.as_ref());
            let called = match place {
                None => to.call(message, deadline, &mut repeat, false),
                Some(place) => to.call_in_turn(place, message, deadline, &mut repeat),
            };
            match called.map_err(|reason| *reason) {
                Ok(answer) => {
                    let message = message.take();
                    let kept = self.terms.as_mut().is_some_and(|terms| terms.queued(to, &answer, repeat));
                    self.state = answer.into();
                    if let Some(terms) = self.terms.as_mut().filter(|_| kept) {
                        terms.message = message;
                    }
                    // Dropped otherwise, which runs user code; nothing is locked here.
                    return Poll::Ready(Ok(()));
                }
                Err(NotDelivered::Full { size, .. }) => {
                    let (peer, target) = (to.peer()?, to.location.target);
                    let waiter = Waiter { frame_bytes: size, is_call: true, spares_queue: false };
                    let lined_up = || peer.line_up(target, waiter);
                    self.terms.get_or_insert_default().place.get_or_insert_with(lined_up);
                }
                Err(reason) => return Poll::Ready(Err(reason)),
            }
        }
    }

    fn poll_outcome(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, Box<SendError>>> {
        loop {
            let error = match ready!(self.poll_attempt(task)) {
                Ok(answer) => return Poll::Ready(Ok(answer)),
                Err(error) => error,
            };
            let (Some(terms), Some(to)) = (&mut self.terms, &self.to) else { return Poll::Ready(Err(error)) };
            let Some(retrying) = &mut terms.retry else { return Poll::Ready(Err(error)) };
            let Some(delay) = retrying.next_delay(&error) else {
                return Poll::Ready(Err(Box::new(retrying.merge_error(to.location.host, *error))));
            };
            terms.rest = Some(Box::pin(retrying.backoff(delay)));
            terms.deadline_in_session = false;
            // One that was not queued has its message still.
            if !matches!(self.state, State::Unsent(_)) {
                self.state = State::Unsent(terms.message.take());
            }
        }
    }

    #[inline]
    fn poll_attempt(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, Box<SendError>>> {
        if let State::Unsent(_) = self.state {
            ready!(self.poll_unsent(task)).map_err(SendError::from)?;
        }
        match (&mut self.state, &self.to) {
            (State::Remote(open), Some(to)) => poll_open(open, to, task),
            (State::Local(answer), _) => {
                // A delivery always answers; without a word its arbiter has ended.
                let answer = ready!(Pin::new(answer).poll(task)).unwrap_or(Err(CallFailure::NoReply));
                Poll::Ready(answer.map_err(|failure| Box::new(failure.into())))
            }
            (State::Done(reason), _) => {
                let reason = reason.take().expect("a request is not polled after it was ready");
                Poll::Ready(Err(Box::new((*reason).into())))
            }
            (State::Unsent(_) | State::Remote(_), _) => Poll::Pending,
        }
    }
}

/// The outcome of a call that is under way. An error is behind a pointer, so that a small answer is never
/// written to memory on its way.
#[inline]
fn poll_open<R: DeserializeOwned>(
    open: &mut OpenCall,
    to: &BoundAddress,
    task: &mut Context<'_>,
) -> Poll<Result<R, Box<SendError>>> {
    let peer = to.peer().map_err(SendError::from)?;
    let failed = |why| Err(SendError::failed(to.location.host, why).into());
    open.poll(peer, task, |body| to.decode(body), failed)
}

impl<M: RemoteMessage> From<Answer<M::Result>> for State<M> {
    #[inline]
    fn from(answer: Answer<M::Result>) -> Self {
        match answer {
            Answer::Local(answer) => Self::Local(answer),
            Answer::Remote(open) => Self::Remote(open),
        }
    }
}

impl<M> Default for RequestOptions<M> {
    fn default() -> Self {
        let limit = TimeLimit::default();
        Self {
            limit,
            place: None,
            rest: None,
            message: None,
            deadline_in_session: false,
            sleep: None,
            retry: None,
            blocked: Waiting::default(),
        }
    }
}

impl<M> RequestOptions<M> {
    /// Waits for what the call waits for before it is queued.
    fn poll_waiting(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(task));
            self.rest = None;
        }
        match &self.place {
            Some(place) => place.poll_turn(task),
            None => Poll::Ready(()),
        }
    }

    /// What the next attempt is to the session.
    fn repeat(&self) -> Retryable {
        self.retry.as_ref().map_or(Retryable::Never, RetryState::repeat)
    }

    /// An attempt was queued; `repeat` is what the next one is to the session. Says whether there may be one.
    fn queued<R>(&mut self, to: &BoundAddress, answer: &Answer<R>, repeat: Retryable) -> bool {
        self.place = None;
        let Answer::Remote(_) = answer else { return false };
        self.deadline_in_session = true;
        let (Some(retrying), Some(peer)) = (&mut self.retry, to.known_peer()) else { return false };
        let Retryable::Again(call) = repeat else { return false };
        retrying.queued(peer, call);
        true
    }

    /// Notes when a limit ends that begins now.
    fn start_timeout(&mut self) {
        if let TimeLimit::After(timeout) = self.limit {
            self.limit = deadline_in(timeout).map_or(TimeLimit::None, TimeLimit::At);
        }
    }

    /// Keeps the deadline where no session does: on the same host, and while waiting for room.
    fn poll_timeout(&mut self, to: &BoundAddress, sent: bool, task: &mut Context<'_>) -> Poll<SendError> {
        let (Some(deadline), false) = (self.limit.deadline(), self.deadline_in_session) else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        ready!(sleep.as_mut().poll(task));
        let error = if sent { OutcomeUnknown::TimedOut.into() } else { NotDelivered::Expired.into() };
        Poll::Ready(match &self.retry {
            Some(retrying) => retrying.merge_error(to.location.host, error),
            None => error,
        })
    }
}

impl<M: RemoteMessage> Future for Request<M> {
    type Output = Result<M::Result, SendError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (State::Remote(open), Some(to), None) = (&mut this.state, &this.to, &this.terms) else {
            return this.poll_with_options(task);
        };
        // It is under way, and nothing is to be seen to but its end.
        match poll_open(open, to, task) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map_err(|error| {
                to.observe_error(&error);
                *error
            })),
            // Its terms know how long it waits there.
            Poll::Pending if synchronous::running().is_some() => this.poll_with_options(task),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<M: RemoteMessage> Request<M> {
    /// As `poll`, whatever its state and its terms.
    #[inline(never)]
    fn poll_with_options(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, SendError>> {
        let this = self;
        if let Some(terms) = &mut this.terms {
            terms.start_timeout();
        }
        let outcome = match this.poll_outcome(task) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending if this.is_deadlock(task) => {
                Err(SendError::deadlock(!matches!(this.state, State::Unsent(_))).into())
            }
            Poll::Pending => {
                let (Some(terms), Some(to)) = (&mut this.terms, &this.to) else { return Poll::Pending };
                let sent = !matches!(this.state, State::Unsent(_));
                Err(ready!(terms.poll_timeout(to, sent, task)).into())
            }
        };
        if let (Err(error), Some(to)) = (&outcome, &this.to) {
            to.observe_error(error);
        }
        this.end();
        Poll::Ready(outcome.map_err(|error| *error))
    }

    /// Whether the request, which is not ready, never will be, since its thread waits for it.
    #[inline]
    fn is_deadlock(&mut self, task: &Context<'_>) -> bool {
        let Some(to) = self.to.as_ref().filter(|_| synchronous::running().is_some()) else { return false };
        self.terms.get_or_insert_default().blocked.is_deadlock(&to.local_host, task)
    }

    /// The outcome is there.
    #[inline]
    fn end(&mut self) {
        self.cancel();
        if !matches!(&self.state, State::Remote(_)) {
            self.state = State::Done(None);
        }
        if self.terms.is_some() {
            self.terms = None;
        }
    }

    /// Nobody waits for the answer any more.
    #[inline]
    fn cancel(&mut self) {
        if let (State::Remote(open), Some(to)) = (&mut self.state, &self.to)
            && !open.has_ended()
            && let Some(peer) = to.known_peer()
        {
            open.cancel(peer);
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
        let to = self.to.as_ref().map(|to| to.location);
        f.debug_struct("Request").field("to", &to).field("message", &M::NAME).finish_non_exhaustive()
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
