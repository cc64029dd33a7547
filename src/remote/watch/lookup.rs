//! Search for the end of an actor, on any host.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::WATCH;
use crate::config::{UNKNOWN_HOST_GRACE, WATCH_RETRY_MAX, WATCH_RETRY_MIN};
use crate::host::{DisconnectReason, Host, HostStatus, NotDelivered, OutcomeUnknown, SendError, Watched};
use crate::remote::call_host;
use crate::spec::{ActorKey, ActorLocation, End, EndReason};

/// Waits for the end of an actor.
pub(super) async fn end_of(here: &Host, actor: ActorLocation) -> End {
    if let Some(number) = actor.target.actor.managed_number()
        && let Some(placement) = here.placement()
    {
        return placement.watch(here, Watched::Actor(ActorKey(number))).await;
    }
    let mut attempts = Attempts::default();
    loop {
        let failed = if actor.host == here.identity() {
            match here.watch_actor(actor.target).await {
                Some(end) => return end,
                // The thread of the actor has ended. The end is known by now.
                None => None,
            }
        } else {
            match call_host(here, actor.host, WATCH, actor.target, None).await {
                Ok(end) => return end,
                Err(error) => Some(error),
            }
        };
        if let Some(error) = failed
            && let Some(end) = attempts.judge(here, actor, &error).await
        {
            return end;
        }
        sleep(attempts.next_delay()).await;
    }
}

/// Meaning of a failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failed {
    /// The host has ended, or will not watch, for the reason in the text.
    ForGood(String),
    /// The host is not known here, and may be as soon as news of it arrives.
    UnknownHost,
    /// No link, or a session that was lost, which says nothing about the actor.
    Unreachable,
    /// Only this session was lost, or the host is about to end.
    ForNow,
}

impl Failed {
    fn of(error: &SendError) -> Self {
        let reason = match error {
            SendError::NotDelivered(NotDelivered::Unreachable { reason, .. })
            | SendError::OutcomeUnknown(OutcomeUnknown::SessionLost { reason, .. }) => reason,
            SendError::NotDelivered(NotDelivered::UnknownHost { .. }) => return Self::UnknownHost,
            SendError::NotDelivered(NotDelivered::Closing | NotDelivered::Full { .. })
            | SendError::OutcomeUnknown(_) => return Self::ForNow,
            SendError::NotDelivered(_) | SendError::Panicked { .. } => {
                return Self::ForGood(error.to_string());
            }
        };
        match reason {
            DisconnectReason::HostDown(text) => Self::ForGood(text.clone()),
            DisconnectReason::Unreachable(_) => Self::Unreachable,
            _ => Self::ForNow,
        }
    }
}

/// Failed attempts of one watch.
#[derive(Debug, Default)]
struct Attempts {
    delay: Duration,
    /// Time since when the host is unknown.
    unknown_since: Option<Instant>,
}

impl Attempts {
    /// End that follows from a failed call, and from what the cluster knows; `None` if the watch goes on.
    async fn judge(&mut self, here: &Host, actor: ActorLocation, error: &SendError) -> Option<End> {
        let failed = Failed::of(error);
        // The next call shows more, and the watches of a host that shuts down must not ask the head all at once.
        if failed == Failed::ForNow && self.delay < WATCH_RETRY_MAX {
            return None;
        }
        let status = match here.placement() {
            Some(placement) => placement.host_status(here, actor.host).await,
            // Nothing will tell more.
            None => match failed {
                Failed::ForNow => HostStatus::Unknown,
                _ => return Some(End::new(EndReason::Unknown, error.to_string())),
            },
        };
        match (status, failed) {
            (HostStatus::Ended(end), _) => Some(end),
            (_, Failed::ForGood(text)) => Some(End::new(EndReason::Unknown, text)),
            (HostStatus::Unknown, Failed::UnknownHost) => {
                let since = *self.unknown_since.get_or_insert_with(Instant::now);
                let is_over = since.elapsed() >= UNKNOWN_HOST_GRACE;
                is_over.then(|| End::new(EndReason::Unknown, error.to_string()))
            }
            (HostStatus::Alive | HostStatus::Unknown, _) => {
                self.unknown_since = None;
                None
            }
        }
    }

    fn next_delay(&mut self) -> Duration {
        let delay = self.delay.max(WATCH_RETRY_MIN);
        self.delay = (2 * delay).min(WATCH_RETRY_MAX);
        delay
    }
}
