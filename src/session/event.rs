//! What a session tells the host.

use std::time::Instant;

use thiserror::Error;

use super::DisconnectReason;
use crate::id::{CallId, Target, TypeHash};
use crate::wire::{Body, CallFailure, IncomingBody};

/// What a session tells the host. `T` is what the host gave along with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<T> {
    /// The peer calls an actor here; end it with `reply` or `fail`.
    Call {
        /// The peer's number for it.
        call: CallId,
        /// The actor.
        target: Target,
        /// The type of the message.
        message: TypeHash,
        /// From when on nobody waits for the reply.
        deadline: Option<Instant>,
        /// The message.
        body: Body,
        /// What it takes of the actor's window.
        charge: CreditCharge,
    },
    /// The peer waits no longer for the end of a call of its own that is open here.
    Cancelled {
        /// The peer's number for it.
        call: CallId,
    },
    /// The peer tells an actor here something.
    Tell {
        /// The actor.
        target: Target,
        /// The type of the message.
        message: TypeHash,
        /// The message.
        body: Body,
        /// What it takes of the actor's window.
        charge: CreditCharge,
    },
    /// The peer's table of types, which differs from the one here.
    Schemas {
        /// The table.
        body: Body,
    },
    /// A call made here has its reply.
    Replied {
        /// What was given along with the call.
        call_slot: T,
        /// The reply.
        body: Body,
    },
    /// A call made here will have no reply.
    Failed {
        /// What was given along with the call.
        call_slot: T,
        /// Why.
        failure: CallError,
    },
    /// One-way messages were lost with the session, unwritten.
    DeadLetters {
        /// How many.
        count: u64,
    },
    /// The peer leaves: it takes and sends no more messages, and closes the link soon.
    PeerClosing {
        /// The peer's words.
        reason: String,
    },
}

/// Where a session puts what frames ask for, in their order: a vector of events, or whoever has a
/// shorter way for the messages among them.
pub trait Events<T> {
    /// Takes an [`Event::Call`].
    fn call(
        &mut self,
        call: CallId,
        to: (Target, TypeHash),
        deadline: Option<Instant>,
        body: impl IncomingBody,
        claim: CreditCharge,
    );

    /// Takes an [`Event::Tell`].
    fn tell(&mut self, to: (Target, TypeHash), body: impl IncomingBody, claim: CreditCharge);

    /// Takes any other event.
    fn push(&mut self, event: Event<T>);

    /// Drops a call that it has and nobody has seen; gives its claim.
    fn cancel_undelivered(&mut self, call: CallId) -> Option<CreditCharge>;
}

impl<T> Events<T> for Vec<Event<T>> {
    fn call(
        &mut self,
        call: CallId,
        (target, message): (Target, TypeHash),
        deadline: Option<Instant>,
        body: impl IncomingBody,
        claim: CreditCharge,
    ) {
        let body = body.into();
        self.push(Event::Call { call, target, message, deadline, body, charge: claim });
    }

    fn tell(&mut self, (target, message): (Target, TypeHash), body: impl IncomingBody, claim: CreditCharge) {
        let body = body.into();
        self.push(Event::Tell { target, message, body, charge: claim });
    }

    fn push(&mut self, event: Event<T>) {
        self.push(event);
    }

    fn cancel_undelivered(&mut self, withdrawn: CallId) -> Option<CreditCharge> {
        let is_it = |event: &Event<T>| matches!(event, Event::Call { call, .. } if *call == withdrawn);
        let at = self.iter().rposition(is_it)?;
        match self.remove(at) {
            Event::Call { charge: claim, .. } => Some(claim),
            _ => None,
        }
    }
}

/// What a message takes of its actor's window; to be given back with
/// [`release_credit`](crate::session::Session::release_credit), once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditCharge {
    /// The actor.
    pub target: Target,
    /// Bytes of the window.
    pub bytes: u64,
    /// The life of the session: one that was reset since has nothing to give back.
    pub epoch: u32,
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer says so.
    #[error("the call failed: {0}")]
    Remote(CallFailure),
    /// The peer cannot have read the call: it is safe to make it again.
    #[error("the call was not delivered: {0}")]
    NotDelivered(DisconnectReason),
    /// The peer may have read the call, and its handler may have run.
    #[error("the outcome of the call is unknown: {0}")]
    OutcomeUnknown(DisconnectReason),
    /// The caller's time is up.
    #[error("the call timed out{}", if *.written { "" } else { " before it was sent" })]
    TimedOut {
        /// Whether the call was written, or may be yet.
        ///
        /// If not, the peer will never see it: it is safe to make it again.
        written: bool,
    },
}

impl CallError {
    /// Whether the handler certainly did not run and will not, so that calling again is safe.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Remote(failure) => !failure.handler_ran(),
            Self::NotDelivered(_) => true,
            Self::OutcomeUnknown(_) => false,
            Self::TimedOut { written } => !written,
        }
    }
}
