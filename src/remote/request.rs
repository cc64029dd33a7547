//! Request: a call to an actor, from its first poll to its outcome.
//!
//! ```text
//!          queue is full: wait for capacity
//!              ┌──────┐
//!              │      ▼   queued                        reply
//!   new ─────▶ Unsent ─────────────▶ Local │ Remote ───────────▶ Done
//!                ▲  │                         │
//!                │  │ other error             │ link lost: retries left?
//!                │  └───────▶ Done ◀──── no ──┤
//!                └───── back-off delay ── yes ┘
//! ```
//! A request is polled in layers, so that the common case stays short:
//!
//! | function | task |
//! |---|---|
//! | `poll` | a queued remote call without options; everything else goes on below |
//! | `poll_with_options` | starts the timeout, detects a deadlock, ends the request |
//! | `poll_outcome` | repeats attempts as the retry policy allows |
//! | `poll_attempt` | sends if unsent, then waits for the reply |
//! | `poll_unsent` | waits for capacity, and queues the message |

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
use super::managed::{ManagedCall, evidence};
use super::retry::{Retry, RetryState};
use crate::host::Loopback;
use crate::host::blocked::WaitProbe;
use crate::host::peer::{CallHandle, QueuePosition, Retryable, Waiter};
use crate::host::routes::Evidence;
use crate::host::{Deadline, NotDelivered, OutcomeUnknown, SendError};
use crate::registry::{RemoteMessage, synchronous};
use crate::wire::{Body, CallFailure};

/// Call to an actor; awaiting it sends the message and returns the reply.
///
/// Nothing is sent before the first poll. The call waits for capacity if the queue of the host or the
/// actor is full.
///
/// # Errors
///
/// Awaiting it returns a [`SendError`], which says whether the message may be sent again.
///
/// # Cancel safety
///
/// Dropping a request before its first poll sends nothing. Dropping it later cancels the call: a handler
/// that has not started never does, and the future of one that has is dropped. The caller does not learn
/// which of the two applied.
#[must_use = "a request does nothing unless it is awaited"]
pub struct Request<M: RemoteMessage> {
    /// Receiver; `None` for a request that failed before it had one.
    to: Option<Arc<BoundAddress>>,
    /// Options and slow-path state. Boxed, since most requests have none and requests are moved often.
    options: Option<Box<RequestOptions<M>>>,
    state: RequestState<M>,
}

/// Options of a call, and the state that only slow calls have.
struct RequestOptions<M> {
    limit: TimeLimit,
    /// Time at which the present poll has started the time limit.
    started_at: Option<Instant>,
    /// Position in the wait queue of a call that found no capacity.
    position: Option<QueuePosition>,
    /// Back-off until the next attempt.
    backoff: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Message of a queued call that may be retried.
    message: Option<M>,
    /// The session enforces the deadline, as for each call that was queued with one.
    deadline_in_session: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    retry: Option<RetryState>,
    /// Part of a call to a managed actor.
    managed: Option<Box<ManagedCall>>,
    /// Probe for a deadlock within a synchronous handler or task.
    blocked: WaitProbe,
}

/// Time limit of the caller.
#[derive(Clone, Copy, Default)]
enum TimeLimit {
    #[default]
    None,
    /// Duration from the first poll.
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

/// Progress of a request, as wide as a small message: two words for most.
enum RequestState<M: RemoteMessage> {
    /// The message is not queued.
    Unsent(Option<M>),
    /// The message is queued for an actor of this host.
    Local(oneshot::Receiver<Result<M::Result, CallFailure>>),
    /// The call is queued or has ended, which its handle knows.
    Remote(CallHandle),
    /// The encoded message is queued for a managed actor of this host.
    Own(Box<Loopback>),
    Done(Option<Box<NotDelivered>>),
}

/// Source of the reply to a queued call.
pub(super) enum ReplySource<R> {
    Local(oneshot::Receiver<Result<R, CallFailure>>),
    Remote(CallHandle),
    Own(Box<Loopback>),
}

impl<M: RemoteMessage> Request<M> {
    pub(super) fn new(to: Arc<BoundAddress>, message: M) -> Self {
        Self { to: Some(to), options: None, state: RequestState::Unsent(Some(message)) }
    }

    /// Call to a managed actor.
    pub(super) fn managed(to: &Arc<BoundAddress>, message: M) -> Self {
        let options = Box::new(RequestOptions { managed: ManagedCall::new(to), ..RequestOptions::default() });
        let state = RequestState::Unsent(Some(message));
        Self { to: Some(Arc::clone(to)), options: Some(options), state }
    }

    /// Call to the present incarnation of a managed actor, queued immediately.
    pub(super) fn try_managed(to: &Arc<BoundAddress>, message: M) -> Result<Self, TrySendError<M>> {
        let at = match to.route().map(|route| route.present()) {
            Some(Ok(at)) => at,
            Some(Err(reason)) => return Err(TrySendError { message, reason }),
            None => to.location,
        };
        let present = to.at(at);
        let mut slot = Some(message);
        match present.call(&mut slot, None, &mut Retryable::Never, true) {
            Ok(reply) => {
                let mut request =
                    Self::managed(to, slot.take().expect("an encoded message stays in its slot"));
                let RequestState::Unsent(message) = std::mem::replace(&mut request.state, reply.into())
                else {
                    unreachable!("a new request is unsent")
                };
                request.to = Some(present);
                if let Some(options) = &mut request.options {
                    options.message = message;
                }
                Ok(request)
            }
            Err(reason) => {
                let message = slot.take().expect("an encoded message stays in its slot");
                let error = SendError::NotDelivered(*reason);
                if let (Some(evidence), Some(route)) = (evidence(&error), to.route()) {
                    route.report(&to.local_host, at, evidence);
                }
                let SendError::NotDelivered(reason) = error else { unreachable!("made above") };
                Err(TrySendError { message, reason })
            }
        }
    }

    #[inline]
    pub(super) fn sent(to: Arc<BoundAddress>, reply: ReplySource<M::Result>) -> Self {
        Self { to: Some(to), options: None, state: reply.into() }
    }

    pub(super) fn failed(reason: Box<NotDelivered>) -> Self {
        Self { to: None, options: None, state: RequestState::Done(Some(reason)) }
    }

    /// Cancels the call after `timeout`, counted from the first poll.
    ///
    /// The remaining time is sent with the message: a handler that would start later never does. The
    /// receiver counts from the read of the message. A message that was unread while that thread was busy
    /// may therefore be handled late.
    ///
    /// # Errors
    ///
    /// [`NotDelivered::Expired`] if it is certain that no handler ran, otherwise
    /// [`OutcomeUnknown::TimedOut`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// match counter.send(Add(2)).timeout(Duration::from_secs(5)).await {
    ///     Ok(total) => assert_eq!(total, 42),
    ///     Err(error) if error.is_timeout() => println!("no reply in time: {error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.get_or_insert_default().limit = TimeLimit::After(timeout);
        self
    }

    /// Retries the call if it is lost between the hosts; see [`Retry`].
    ///
    /// The policy has no effect on a request from `try_send`, which is queued already, and on a call to
    /// an actor of this host.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// let call = counter.send(Add(2)).retry(Retry::times(5));
    /// assert_eq!(call.timeout(Duration::from_secs(30)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry(mut self, policy: Retry) -> Self {
        if let RequestState::Unsent(_) = self.state {
            self.options.get_or_insert_default().retry = Some(RetryState::new(policy));
        }
        self
    }

    /// Fails the call immediately if its actor restarts, instead of waiting for the next incarnation.
    ///
    /// It has an effect only on calls to actors with a [`Restart`](crate::Restart) policy.
    ///
    /// # Errors
    ///
    /// [`NotDelivered::Restarting`], or the error of the attempt that has found the actor gone.
    pub fn fail_fast(mut self) -> Self {
        if let Some(managed) = self.options.as_mut().and_then(|options| options.managed.as_mut()) {
            managed.fails_fast = true;
        }
        self
    }

    fn poll_unsent(&mut self, task: &mut Context<'_>) -> Poll<Result<(), NotDelivered>> {
        let (RequestState::Unsent(message), Some(to)) = (&mut self.state, &self.to) else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some(options) = &mut self.options {
                ready!(options.poll_waiting(task));
            }
            let (deadline, mut repeat) = match self.options.as_deref_mut() {
                Some(options) => (options.deadline(), options.repeat()),
                None => (None, Retryable::Never),
            };
            let position = self.options.as_deref().and_then(|options| options.position.as_ref());
            let called = match position {
                None => to.call(message, deadline, &mut repeat, false),
                Some(position) => to.call_in_turn(position, message, deadline, &mut repeat),
            };
            match called.map_err(|reason| *reason) {
                Ok(reply) => {
                    let message = message.take();
                    let keeps_message =
                        self.options.as_mut().is_some_and(|options| options.on_queued(to, &reply, repeat));
                    self.state = reply.into();
                    if let Some(options) = self.options.as_mut().filter(|_| keeps_message) {
                        options.message = message;
                    }
                    // Any other message is dropped here, which runs user code, so no lock is held.
                    return Poll::Ready(Ok(()));
                }
                Err(NotDelivered::Full { size, .. }) => {
                    let (peer, target) = (to.peer()?, to.location.target);
                    let waiter = Waiter { frame_bytes: size, is_call: true, spares_queue: false };
                    let enqueue = || peer.enqueue_waiter(target, waiter);
                    self.options.get_or_insert_default().position.get_or_insert_with(enqueue);
                }
                Err(reason) => return Poll::Ready(Err(reason)),
            }
        }
    }

    fn poll_outcome(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, Box<SendError>>> {
        loop {
            ready!(self.poll_located(task))?;
            let error = match self.poll_attempt(task) {
                Poll::Ready(Ok(reply)) => return Poll::Ready(Ok(reply)),
                Poll::Ready(Err(error)) => error,
                Poll::Pending => ready!(self.poll_restarted(task)),
            };
            if self.goes_to_next_incarnation(&error) {
                continue;
            }
            let (Some(options), Some(to)) = (&mut self.options, &self.to) else {
                return Poll::Ready(Err(error));
            };
            let Some(retry) = &mut options.retry else { return Poll::Ready(Err(error)) };
            let Some(delay) = retry.next_delay(&error) else {
                return Poll::Ready(Err(Box::new(retry.merge_error(to.location.host, *error))));
            };
            options.backoff = Some(Box::pin(retry.backoff(delay)));
            options.deadline_in_session = false;
            // An attempt that was not queued still has its message in the state.
            if !matches!(self.state, RequestState::Unsent(_)) {
                self.state = RequestState::Unsent(options.message.take());
            }
        }
    }

    /// Finds the location of a managed actor for an attempt.
    #[inline]
    fn poll_located(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Box<SendError>>> {
        let RequestState::Unsent(_) = self.state else { return Poll::Ready(Ok(())) };
        let Some(options) = &mut self.options else { return Poll::Ready(Ok(())) };
        let Some(managed) = &mut options.managed else { return Poll::Ready(Ok(())) };
        let to = match ready!(managed.poll_located(task)) {
            Ok(to) => to,
            Err(reason) => {
                let error = SendError::from(reason);
                // An earlier attempt may have run.
                return Poll::Ready(Err(Box::new(match (&options.retry, &self.to) {
                    (Some(retry), Some(to)) => retry.merge_error(to.location.host, error),
                    _ => error,
                })));
            }
        };
        if self.to.as_ref().is_none_or(|previous| previous.location != to.location) {
            options.position = None;
            if let Some(retry) = &mut options.retry {
                if !retry.may_relocate() {
                    return Poll::Ready(Err(Box::new(OutcomeUnknown::Restarted.into())));
                }
                retry.on_relocated();
            }
        }
        self.to = Some(to);
        Poll::Ready(Ok(()))
    }

    /// Ends an attempt whose incarnation was replaced, as a restart elsewhere does while its link is silent.
    #[inline]
    fn poll_restarted(&mut self, task: &mut Context<'_>) -> Poll<Box<SendError>> {
        let (Some(options), Some(to)) = (&mut self.options, &self.to) else { return Poll::Pending };
        let Some(managed) = &mut options.managed else { return Poll::Pending };
        let at = to.location;
        ready!(managed.poll_left(at, task));
        Poll::Ready(match self.state {
            // It waits for capacity.
            RequestState::Unsent(_) => Box::new(NotDelivered::ActorStopped.into()),
            _ => {
                self.cancel();
                Box::new(OutcomeUnknown::Restarted.into())
            }
        })
    }

    /// Prepares another attempt at the next incarnation of a managed actor, if that is possible after an error.
    #[inline]
    fn goes_to_next_incarnation(&mut self, error: &SendError) -> bool {
        let (Some(options), Some(to)) = (&mut self.options, &self.to) else { return false };
        let Some(managed) = &mut options.managed else { return false };
        let may_relocate = options.retry.as_ref().is_none_or(RetryState::may_relocate);
        let is_retried = managed.on_error(to.location, error) && may_relocate || {
            let has_evidence = matches!(error, SendError::OutcomeUnknown(OutcomeUnknown::Restarted))
                || evidence(error) == Some(Evidence::Ended);
            has_evidence && options.retry.as_mut().is_some_and(|retry| retry.retry_after_restart(error))
        };
        if is_retried && !matches!(self.state, RequestState::Unsent(_)) {
            options.deadline_in_session = false;
            self.state = RequestState::Unsent(options.message.take());
        }
        is_retried
    }

    #[inline]
    fn poll_attempt(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, Box<SendError>>> {
        if let RequestState::Unsent(_) = self.state {
            ready!(self.poll_unsent(task)).map_err(SendError::from)?;
        }
        match (&mut self.state, &self.to) {
            (RequestState::Remote(open), Some(to)) => {
                let retry = self.options.as_mut().and_then(|options| options.retry.as_mut());
                poll_open(open, to, retry, task)
            }
            (RequestState::Local(reply), _) => {
                // A delivery always replies. A closed channel means that its arbiter has ended.
                let reply = ready!(Pin::new(reply).poll(task)).unwrap_or(Err(CallFailure::NoReply));
                Poll::Ready(reply.map_err(|failure| Box::new(failure.into())))
            }
            (RequestState::Own(reply), Some(to)) => {
                let reply = ready!(Pin::new(&mut **reply).poll(task));
                Poll::Ready(match reply {
                    Ok(mut body) => to.decode(&mut body),
                    Err(failure) => Err(Box::new(failure.into())),
                })
            }
            (RequestState::Done(reason), _) => {
                let reason = reason.take().expect("a request is not polled after it was ready");
                Poll::Ready(Err(Box::new((*reason).into())))
            }
            (RequestState::Unsent(_) | RequestState::Remote(_) | RequestState::Own(_), _) => Poll::Pending,
        }
    }
}

/// Polls an open remote call.
///
/// The error is boxed, so that a small reply is returned in registers.
#[inline]
fn poll_open<R: DeserializeOwned>(
    open: &mut CallHandle,
    to: &BoundAddress,
    retry: Option<&mut RetryState>,
    task: &mut Context<'_>,
) -> Poll<Result<R, Box<SendError>>> {
    let peer = to.peer().map_err(SendError::from)?;
    let failed = |why| Err(SendError::failed(to.location.host, why).into());
    let retried = retry.as_ref().and_then(|retry| retry.call());
    let replied = |body: &mut Body| {
        if let Some(retry) = retry {
            retry.on_replied();
        }
        to.decode(body)
    };
    open.poll(peer, task, retried, replied, failed)
}

impl<M: RemoteMessage> From<ReplySource<M::Result>> for RequestState<M> {
    #[inline]
    fn from(reply: ReplySource<M::Result>) -> Self {
        match reply {
            ReplySource::Local(reply) => Self::Local(reply),
            ReplySource::Remote(open) => Self::Remote(open),
            ReplySource::Own(reply) => Self::Own(reply),
        }
    }
}

impl<M> Default for RequestOptions<M> {
    fn default() -> Self {
        let limit = TimeLimit::default();
        Self {
            limit,
            started_at: None,
            position: None,
            backoff: None,
            message: None,
            deadline_in_session: false,
            sleep: None,
            retry: None,
            managed: None,
            blocked: WaitProbe::default(),
        }
    }
}

impl<M> RequestOptions<M> {
    /// Waits for the back-off and for capacity.
    fn poll_waiting(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if let Some(backoff) = &mut self.backoff {
            ready!(backoff.as_mut().poll(task));
            self.backoff = None;
        }
        match &self.position {
            Some(position) => position.poll_granted(task),
            None => Poll::Ready(()),
        }
    }

    /// Identification of the next attempt for the session's dedup.
    fn repeat(&self) -> Retryable {
        self.retry.as_ref().map_or(Retryable::Never, RetryState::repeat)
    }

    /// Records a queued attempt, which `repeat` identifies; returns true if it may be retried.
    fn on_queued<R>(&mut self, to: &BoundAddress, reply: &ReplySource<R>, repeat: Retryable) -> bool {
        self.position = None;
        let is_managed = self.managed.is_some();
        let ReplySource::Remote(_) = reply else { return is_managed };
        self.deadline_in_session = true;
        let (Some(retry), Some(peer)) = (&mut self.retry, to.known_peer()) else { return is_managed };
        let Retryable::Again(call) = repeat else { return is_managed };
        retry.on_queued(peer, call);
        true
    }

    /// Starts the time limit, on the first poll.
    fn start_timeout(&mut self) {
        self.started_at = None;
        if let TimeLimit::After(timeout) = self.limit {
            let now = tokio::time::Instant::now().into_std();
            self.started_at = Some(now);
            // A time that is too far away to represent is no limit.
            self.limit = now.checked_add(timeout).map_or(TimeLimit::None, TimeLimit::At);
        }
    }

    /// Deadline for an attempt. The first one needs no further read of the clock.
    fn deadline(&mut self) -> Option<Deadline> {
        let at = self.limit.deadline()?;
        Some(self.started_at.take().map_or_else(|| at.into(), |now| Deadline { at, now }))
    }

    /// Enforces the deadline where no session does: on the same host, and while waiting for capacity.
    fn poll_timeout(&mut self, to: &BoundAddress, sent: bool, task: &mut Context<'_>) -> Poll<SendError> {
        let (Some(deadline), false) = (self.limit.deadline(), self.deadline_in_session) else {
            return Poll::Pending;
        };
        // The session has one timer for all of its calls. Here each call needs its own, so it is
        // created only on demand.
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        ready!(sleep.as_mut().poll(task));
        let error = if sent { OutcomeUnknown::TimedOut.into() } else { NotDelivered::Expired.into() };
        Poll::Ready(match &self.retry {
            Some(retry) => retry.merge_error(to.location.host, error),
            None => error,
        })
    }
}

impl<M: RemoteMessage> Future for Request<M> {
    type Output = Result<M::Result, SendError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // All other cases are out of line, which keeps `poll` small enough to be inlined.
        let (RequestState::Remote(open), Some(to), None) = (&mut this.state, &this.to, &this.options) else {
            return this.poll_with_options(task);
        };
        // Fast path: a queued call without options has nothing to do but wait for its reply.
        match poll_open(open, to, None, task) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map_err(|error| {
                to.observe_error(&error);
                *error
            })),
            // The options hold the deadlock probe.
            Poll::Pending if synchronous::running().is_some() => this.poll_with_options(task),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<M: RemoteMessage> Request<M> {
    /// [`poll`](Future::poll) for any state and any options.
    #[inline(never)]
    fn poll_with_options(&mut self, task: &mut Context<'_>) -> Poll<Result<M::Result, SendError>> {
        let this = self;
        if let Some(options) = &mut this.options {
            options.start_timeout();
        }
        let outcome = match this.poll_outcome(task) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending if this.is_deadlock(task) => {
                Err(SendError::deadlock(!matches!(this.state, RequestState::Unsent(_))).into())
            }
            Poll::Pending => {
                let (Some(options), Some(to)) = (&mut this.options, &this.to) else { return Poll::Pending };
                let sent = !matches!(this.state, RequestState::Unsent(_));
                Err(ready!(options.poll_timeout(to, sent, task)).into())
            }
        };
        if let (Err(error), Some(to)) = (&outcome, &this.to) {
            to.observe_error(error);
        }
        this.end();
        Poll::Ready(outcome.map_err(|error| *error))
    }

    /// True if the pending request can never be ready, since its own thread would have to complete it.
    #[inline]
    fn is_deadlock(&mut self, task: &Context<'_>) -> bool {
        let Some(to) = self.to.as_ref().filter(|_| synchronous::running().is_some()) else { return false };
        self.options.get_or_insert_default().blocked.is_deadlock(&to.local_host, task)
    }

    /// Ends the request after its outcome.
    #[inline]
    fn end(&mut self) {
        // A timeout or deadlock may have ended the request while the call is open.
        self.cancel();
        if !matches!(&self.state, RequestState::Remote(_)) {
            self.state = RequestState::Done(None);
        }
        // Ends the retries early: the receiver can then drop its cached reply.
        if self.options.is_some() {
            self.options = None;
        }
    }

    /// Cancels the open call, if any.
    #[inline]
    fn cancel(&mut self) {
        if let (RequestState::Remote(open), Some(to)) = (&mut self.state, &self.to)
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

/// The message is never pinned: it is encoded in position, or moved.
impl<M: RemoteMessage> Unpin for Request<M> {}

impl<M: RemoteMessage> fmt::Debug for Request<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.as_ref().map(|to| to.location);
        f.debug_struct("Request").field("to", &to).field("message", &M::NAME).finish_non_exhaustive()
    }
}

/// Message that could not be queued immediately, returned to the caller.
#[derive(Error)]
#[error("not delivered: {reason}")]
pub struct TrySendError<M> {
    /// The unsent message.
    pub message: M,
    /// Reason why it was not queued.
    pub reason: NotDelivered,
}

impl<M> fmt::Debug for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrySendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}
