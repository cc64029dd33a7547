//! Events that a session reports to its host.

use std::time::Instant;

use thiserror::Error;

use super::DisconnectReason;
use crate::id::{CallId, Target, TypeHash};
use crate::wire::{Body, CallFailure, IncomingBody};

/// Event of a session. `T` is the caller's slot of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<T> {
    /// The peer calls a local actor; end the call with `reply` or `fail`.
    Call {
        /// Id that the peer gave the call.
        call: CallId,
        /// The actor.
        target: Target,
        /// The type of the message.
        message: TypeHash,
        /// Time after which the caller no longer waits.
        deadline: Option<Instant>,
        /// The message.
        body: Body,
        /// Bytes of the actor's window that the message occupies.
        charge: CreditCharge,
    },
    /// The peer has cancelled a call that is open here.
    Cancelled {
        /// Id that the peer gave the call.
        call: CallId,
    },
    /// The peer sends a one-way message to a local actor.
    Tell {
        /// The actor.
        target: Target,
        /// The type of the message.
        message: TypeHash,
        /// The message.
        body: Body,
        /// Bytes of the actor's window that the message occupies.
        charge: CreditCharge,
    },
    /// The peer's type table, which differs from the local one.
    Schemas {
        /// The table.
        body: Body,
    },
    /// A local call has its reply.
    Replied {
        /// Slot that the caller gave for the call.
        call_slot: T,
        /// The reply.
        body: Body,
    },
    /// A local call has failed.
    Failed {
        /// Slot that the caller gave for the call.
        call_slot: T,
        /// Reason.
        failure: CallError,
    },
    /// Loss of one-way messages with the session, before they were written.
    DeadLetters {
        /// Number of messages.
        count: u64,
    },
    /// The peer is closing: it sends and accepts no more messages, and will close the link.
    PeerClosing {
        /// Reason that the peer gives.
        reason: String,
    },
}

/// Receiver of a session's events, in their order: a vector, or a sink with a faster path for
/// messages.
pub trait Events<T> {
    /// Receives an [`Event::Call`].
    fn call(
        &mut self,
        call: CallId,
        to: (Target, TypeHash),
        deadline: Option<Instant>,
        body: impl IncomingBody,
        charge: CreditCharge,
    );

    /// Receives an [`Event::Tell`].
    fn tell(&mut self, to: (Target, TypeHash), body: impl IncomingBody, charge: CreditCharge);

    /// Receives any other event.
    fn push(&mut self, event: Event<T>);

    /// Removes a call that is not delivered yet, and returns its charge.
    fn cancel_undelivered(&mut self, call: CallId) -> Option<CreditCharge>;
}

impl<T> Events<T> for Vec<Event<T>> {
    fn call(
        &mut self,
        call: CallId,
        (target, message): (Target, TypeHash),
        deadline: Option<Instant>,
        body: impl IncomingBody,
        charge: CreditCharge,
    ) {
        let body = body.into();
        self.push(Event::Call { call, target, message, deadline, body, charge });
    }

    fn tell(&mut self, (target, message): (Target, TypeHash), body: impl IncomingBody, charge: CreditCharge) {
        let body = body.into();
        self.push(Event::Tell { target, message, body, charge });
    }

    fn push(&mut self, event: Event<T>) {
        self.push(event);
    }

    fn cancel_undelivered(&mut self, withdrawn: CallId) -> Option<CreditCharge> {
        let is_it = |event: &Event<T>| matches!(event, Event::Call { call, .. } if *call == withdrawn);
        // Searched from the back: a call that is cancelled before its delivery arrived in the same
        // read.
        let at = self.iter().rposition(is_it)?;
        // The later events move by one, which is rare: most cancelled calls are delivered already.
        match self.remove(at) {
            Event::Call { charge, .. } => Some(charge),
            _ => None,
        }
    }
}

/// Bytes of an actor's window that a message occupies. Return them exactly once, with
/// [`release_credit`](crate::session::Session::release_credit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditCharge {
    /// The actor.
    pub target: Target,
    /// Bytes of the window, overhead included.
    pub bytes: u64,
    /// Epoch of the session in which the message arrived: after a reset there is no credit to
    /// return.
    pub epoch: u32,
}

/// Reason why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer reports the failure.
    #[error("the call failed: {0}")]
    Remote(CallFailure),
    /// The peer cannot have received the call: a retry is safe.
    #[error("the call was not delivered: {0}")]
    NotDelivered(DisconnectReason),
    /// The peer may have received the call, and its handler may have run.
    #[error("the outcome of the call is unknown: {0}")]
    OutcomeUnknown(DisconnectReason),
    /// The deadline of the call has passed.
    #[error("the call timed out{}", if *.written { "" } else { " before it was sent" })]
    TimedOut {
        /// Set if the peer may receive the whole call: it was in the send buffer, sent or not.
        ///
        /// If not set, the peer receives at most a part of it and never handles it: a retry is safe.
        written: bool,
    },
}

impl CallError {
    /// Returns whether the handler did not run and never will, so that a retry is safe.
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
