//! Messages to managed actors, whose addresses outlive incarnations.
//!
//! ```text
//!   poll_located ---- location ----> attempt ---- reply ---------------------------------> done
//!      ^    '-- ended --> error         |
//!      |                                |--- not delivered, evidence that it has ended --.
//!      |                                |--- outcome unknown: the caller decides         |
//!      '--------------------------------+------------------------------------------------'
//! ```
//! The sender keeps the message until its outcome, so that a message that no handler has seen can go to the next
//! incarnation. Messages to an actor of the same host are encoded, too: they must not be lost with its mailbox.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::address::BoundAddress;
use crate::config::LAST_REPLIES_TIMEOUT;
use crate::host::peer::DisconnectReason;
use crate::host::routes::{Evidence, Route, RouteState};
use crate::host::{NotDelivered, OutcomeUnknown, SendError};
use crate::id::ActorIncarnation;
use crate::spec::ActorLocation;

/// Evidence in an error about the incarnation that a message was sent to.
pub(super) fn evidence(error: &SendError) -> Option<Evidence> {
    match error {
        SendError::Panicked { .. } => Some(Evidence::Ended),
        SendError::NotDelivered(reason) => evidence_of(reason),
        SendError::OutcomeUnknown(OutcomeUnknown::SessionLost { reason, .. }) => {
            Some(evidence_of_session(reason))
        }
        SendError::OutcomeUnknown(_) => None,
    }
}

/// [`evidence`] of an undelivered message.
pub(super) fn evidence_of(reason: &NotDelivered) -> Option<Evidence> {
    match reason {
        NotDelivered::ActorStopped | NotDelivered::NoSuchActor | NotDelivered::StaleHost { .. } => {
            Some(Evidence::Ended)
        }
        NotDelivered::UnknownHost { .. } | NotDelivered::Closing => Some(Evidence::Unreachable),
        NotDelivered::Unreachable { reason, .. } => Some(evidence_of_session(reason)),
        _ => None,
    }
}

fn evidence_of_session(reason: &DisconnectReason) -> Evidence {
    match reason {
        DisconnectReason::HostDown(_) => Evidence::Ended,
        _ => Evidence::Unreachable,
    }
}

/// Waits for the location of a managed actor.
pub(super) async fn located(route: Arc<Route>) -> Result<ActorLocation, NotDelivered> {
    route
        .wait_for(|state| match state {
            RouteState::At(at) => Some(Ok(*at)),
            RouteState::Ended(end) => Some(Err(NotDelivered::ActorEnded { text: end.text.clone() })),
            RouteState::Searching => None,
        })
        .await
}

/// Waits until the actor is known to live in a later incarnation, or to have ended, and its last replies have had time
/// to arrive: the news come over another connection, and may overtake them.
async fn left(route: Arc<Route>, incarnation: ActorIncarnation) {
    let has_left = |state: &RouteState| match state {
        RouteState::At(at) => at.target.incarnation > incarnation,
        RouteState::Ended(_) => true,
        RouteState::Searching => false,
    };
    route.wait_for(|state| has_left(state).then_some(())).await;
    tokio::time::sleep(LAST_REPLIES_TIMEOUT).await;
}

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// State of a call to a managed actor, beside that of any call.
pub(super) struct ManagedCall {
    /// Address as the caller has it.
    origin: Arc<BoundAddress>,
    route: Arc<Route>,
    pub(super) fails_fast: bool,
    locating: Option<Waiting<Result<ActorLocation, NotDelivered>>>,
    /// Waits until the actor has left this incarnation.
    leaving: Option<(ActorIncarnation, Waiting<()>)>,
}

impl ManagedCall {
    /// Call to a managed actor; `None` for any other address.
    pub(super) fn new(origin: &Arc<BoundAddress>) -> Option<Box<Self>> {
        let route = Arc::clone(origin.route()?);
        let origin = Arc::clone(origin);
        Some(Box::new(Self { origin, route, fails_fast: false, locating: None, leaving: None }))
    }

    /// Address for the next attempt.
    pub(super) fn poll_located(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Arc<BoundAddress>, NotDelivered>> {
        if self.locating.is_none() {
            match self.route.state() {
                RouteState::At(at) => return Poll::Ready(Ok(self.origin.at(at))),
                RouteState::Searching if self.fails_fast => {
                    return Poll::Ready(Err(NotDelivered::Restarting));
                }
                RouteState::Searching | RouteState::Ended(_) => {}
            }
        }
        let locating = self.locating.get_or_insert_with(|| Box::pin(located(Arc::clone(&self.route))));
        let at = ready!(locating.as_mut().poll(task));
        self.locating = None;
        Poll::Ready(at.map(|at| self.origin.at(at)))
    }

    /// Ready once the incarnation of the present attempt is known to be replaced, whatever its link does.
    pub(super) fn poll_left(&mut self, at: ActorLocation, task: &mut Context<'_>) -> Poll<()> {
        let incarnation = at.target.incarnation;
        if self.leaving.as_ref().is_some_and(|(of, _)| *of != incarnation) {
            self.leaving = None;
        }
        let new = || (incarnation, Box::pin(left(Arc::clone(&self.route), incarnation)) as _);
        let (_, leaving) = self.leaving.get_or_insert_with(new);
        leaving.as_mut().poll(task)
    }

    /// Takes note of a failed attempt; true if the message can go to the next incarnation.
    pub(super) fn on_error(&mut self, at: ActorLocation, error: &SendError) -> bool {
        self.leaving = None;
        let here = &self.origin.local_host;
        let Some(evidence) = evidence(error).filter(|_| !here.is_closing()) else { return false };
        self.route.report(&self.origin.local_host, at, evidence);
        error.is_not_delivered() && !self.fails_fast
    }
}
