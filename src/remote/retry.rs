//! Retries of calls that were lost with a session.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::host::peer::{DisconnectReason, Peer, Retryable};
use crate::host::{NotDelivered, OutcomeUnknown, SendError};
use crate::id::{CallId, HostUid};

/// Policy of retries for a call that was lost between two hosts.
///
/// A call is lost if the session with the receiver's host ended before the reply arrived, and the host
/// may still be up. A retry has the same call id. The receiver handles the id once in the host's
/// lifetime, and answers a duplicate with the earlier reply. Any failure from the receiver itself ends
/// the call, and so does its timeout.
///
/// A retried call is not ordered with other messages to its actor.
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
    across_restarts: bool,
}

impl Retry {
    /// Retries a call up to `times` times.
    #[must_use]
    pub const fn times(times: u32) -> Self {
        Self { times, delay: Duration::from_millis(50), across_restarts: false }
    }

    /// Also retries a call whose outcome is unknown because its actor, which is [restarted](crate::Restart), ended.
    ///
    /// The next incarnation knows nothing of the earlier one, so the message may be handled a second time. It is for
    /// messages of which that does no harm.
    #[must_use]
    pub const fn across_restarts(self) -> Self {
        Self { across_restarts: true, ..self }
    }

    /// Sets the delay before the first retry, which doubles with each further one.
    #[must_use]
    pub const fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

impl Default for Retry {
    /// Three retries, after 50, 100 and 200 milliseconds.
    fn default() -> Self {
        Self::times(3)
    }
}

/// State of a call that may be retried.
pub(super) struct RetryState {
    policy: Retry,
    attempts: u32,
    /// Peer and id of the call, once it was queued.
    call: Option<(Arc<Peer>, CallId)>,
    /// A handler may have run already.
    unknown: bool,
}

impl RetryState {
    pub(super) fn new(policy: Retry) -> Self {
        Self { policy, attempts: 0, call: None, unknown: false }
    }

    /// Identification of the next attempt for the session's dedup.
    pub(super) fn repeat(&self) -> Retryable {
        self.call.as_ref().map_or(Retryable::First, |(_, call)| Retryable::Again(*call))
    }

    /// Records that the first attempt was queued under this id.
    pub(super) fn on_queued(&mut self, peer: &Arc<Peer>, call: CallId) {
        self.call.get_or_insert_with(|| (Arc::clone(peer), call));
    }

    /// Id of the call whose retries are not ended.
    pub(super) fn call(&self) -> Option<CallId> {
        self.call.as_ref().map(|(_, call)| *call)
    }

    /// Records that the call has its reply, which has ended the retries.
    pub(super) fn on_replied(&mut self) {
        self.call = None;
    }

    /// Delay before a retry after `error`; `None` if there is no further attempt.
    pub(super) fn next_delay(&mut self, error: &SendError) -> Option<Duration> {
        self.unknown |= error.is_outcome_unknown();
        let (SendError::NotDelivered(NotDelivered::Unreachable { reason, .. })
        | SendError::OutcomeUnknown(OutcomeUnknown::SessionLost { reason, .. })) = error
        else {
            return None;
        };
        // The actor ended with its host, and a closing host sends nothing more.
        if matches!(reason, DisconnectReason::HostDown(_) | DisconnectReason::Shutdown)
            || self.attempts >= self.policy.times
        {
            return None;
        }
        if matches!(reason, DisconnectReason::Forgotten) {
            // One side has dropped its dedup cache, so a retry could run the handler a second time.
            if self.unknown {
                return None;
            }
            // The next attempt is a new call, which the receiver cannot know.
            self.call = None;
        }
        self.attempts += 1;
        // The shift is bounded, since `attempts` may be any number.
        Some(self.policy.delay.saturating_mul(1 << (self.attempts - 1).min(16)))
    }

    /// Counts a retry at the next incarnation of a managed actor; false if the policy does not allow it.
    pub(super) fn retry_after_restart(&mut self, error: &SendError) -> bool {
        if !error.is_outcome_unknown() || !self.policy.across_restarts || self.attempts >= self.policy.times {
            return false;
        }
        self.attempts += 1;
        self.unknown = true;
        true
    }

    /// Checks whether the call may go to the next incarnation: no attempt may have run, or the policy allows two.
    pub(super) fn may_relocate(&self) -> bool {
        !self.unknown || self.policy.across_restarts
    }

    /// Prepares for an attempt at another host, where the call is a new one.
    pub(super) fn on_relocated(&mut self) {
        if let Some((peer, call)) = self.call.take() {
            peer.end_retries(call);
        }
    }

    /// Waits before the next attempt, or until the peer is down for good, when waiting is pointless.
    pub(super) fn backoff(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<> {
        let peer = self.call.as_ref().map(|(peer, _)| Arc::clone(peer));
        async move {
            let down = async {
                match &peer {
                    Some(peer) => peer.wait_until_down().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = down => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Merges the last error with earlier attempts: a handler that may have run before makes the outcome
    /// unknown.
    pub(super) fn merge_error(&self, host: HostUid, error: SendError) -> SendError {
        match error {
            SendError::NotDelivered(reason) if self.unknown => match reason {
                NotDelivered::Unreachable { reason, .. } => OutcomeUnknown::SessionLost { host, reason },
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
            // Releases the cached reply at the receiver.
            peer.end_retries(*call);
        }
    }
}

impl fmt::Debug for RetryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryState").field("policy", &self.policy).field("attempts", &self.attempts).finish()
    }
}
