//! Calls that are made again when a link has lost them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::host::peer::{DisconnectReason, Peer, Retryable};
use crate::host::{NotDelivered, OutcomeUnknown, SendError};
use crate::id::{CallId, HostUid};

/// How often, and how soon, a call is made again that was lost between two hosts.
///
/// A call is lost when the session with the receiver's host ended before the answer came, and the
/// host may be there still. It is made again under its number: the receiver handles it once in
/// the life of the host, and gives a call that it has seen the answer that it had. Whatever the
/// receiver itself says ends the call, and so does its timeout.
///
/// A call that may be made again gives up its place in the order of messages to its actor.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use roadshow::Retry;
///
/// let policy = Retry::times(5).delay(Duration::from_millis(20));
/// assert_ne!(policy, Retry::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    times: u32,
    delay: Duration,
}

impl Retry {
    /// Makes a call up to so many times again.
    #[must_use]
    pub const fn times(times: u32) -> Self {
        Self { times, delay: Duration::from_millis(50) }
    }

    /// Waits so long before the first repetition, and twice as long before each further one.
    #[must_use]
    pub const fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

impl Default for Retry {
    /// Three times, after 50, 100 and 200 milliseconds.
    fn default() -> Self {
        Self::times(3)
    }
}

/// A call that may be made again, and how far it is.
pub(super) struct RetryState {
    policy: Retry,
    attempts: u32,
    /// The number of the call, once it was queued.
    call: Option<(Arc<Peer>, CallId)>,
    /// Whether a handler may have run already.
    unknown: bool,
}

impl RetryState {
    pub(super) fn new(policy: Retry) -> Self {
        Self { policy, attempts: 0, call: None, unknown: false }
    }

    /// What the next attempt is to the session.
    pub(super) fn repeat(&self) -> Retryable {
        self.call.as_ref().map_or(Retryable::First, |(_, call)| Retryable::Again(*call))
    }

    /// An attempt was queued, under this number.
    pub(super) fn queued(&mut self, peer: &Arc<Peer>, call: CallId) {
        self.call.get_or_insert_with(|| (Arc::clone(peer), call));
    }

    /// An attempt has failed. Tells after what time to make another, if at all.
    pub(super) fn next_delay(&mut self, error: &SendError) -> Option<Duration> {
        self.unknown |= error.is_outcome_unknown();
        let (SendError::NotDelivered(NotDelivered::Unreachable { reason, .. })
        | SendError::OutcomeUnknown(OutcomeUnknown::LinkLost { reason, .. })) = error
        else {
            return None;
        };
        if matches!(reason, DisconnectReason::HostDown(_) | DisconnectReason::Shutdown)
            || self.attempts >= self.policy.times
        {
            return None;
        }
        if matches!(reason, DisconnectReason::Forgotten) {
            // One of the two does not know the call any more: made again it could be handled twice.
            if self.unknown {
                return None;
            }
            self.call = None;
        }
        self.attempts += 1;
        Some(self.policy.delay.saturating_mul(1 << (self.attempts - 1).min(16)))
    }

    /// Waits before the next attempt; not for long if nobody is left to whom it could be made.
    pub(super) fn backoff(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<> {
        let peer = self.call.as_ref().map(|(peer, _)| Arc::clone(peer));
        async move {
            let gone = async {
                match &peer {
                    Some(peer) => peer.wait_until_down().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = gone => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// The error of the last attempt, in the light of those before: what an earlier one may have
    /// done the last one does not undo.
    pub(super) fn merge_error(&self, host: HostUid, error: SendError) -> SendError {
        match error {
            SendError::NotDelivered(reason) if self.unknown => match reason {
                NotDelivered::Unreachable { reason, .. } => OutcomeUnknown::LinkLost { host, reason },
                NotDelivered::Expired => OutcomeUnknown::TimedOut,
                other => OutcomeUnknown::Other { text: other.to_string() },
            }
            .into(),
            error => error,
        }
    }
}

impl Drop for RetryState {
    fn drop(&mut self) {
        if let Some((peer, call)) = &self.call {
            peer.end_retries(*call);
        }
    }
}

impl fmt::Debug for RetryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("policy", &self.policy).field("made", &self.attempts).finish()
    }
}
