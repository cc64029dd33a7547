//! What a caller learns when a message did not do its work.
//!
//! The first question of every caller is whether it may send the message again, so that is how the
//! errors are parted: [`NotDelivered`] (no handler saw it: safe), [`OutcomeUnknown`] (a handler may
//! have run), and a panic's text (a handler ran and failed).

use thiserror::Error;

use crate::id::HostUid;
use crate::session::{CallError, DisconnectReason, Rejected};
use crate::wire::{CallFailure, EncodeError};

/// Why a call has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No handler saw the message: sending it again is safe.
    #[error("not delivered: {0}")]
    NotDelivered(NotDelivered),
    /// A handler may have run, and its answer did not arrive.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(OutcomeUnknown),
    /// The handler ran and panicked; its actor has stopped.
    #[error("the handler panicked: {text}")]
    Panicked {
        /// The panic's text and place.
        text: String,
    },
}

// The reason is part of the text, and no source beside it.
impl From<NotDelivered> for SendError {
    fn from(reason: NotDelivered) -> Self {
        Self::NotDelivered(reason)
    }
}

impl From<OutcomeUnknown> for SendError {
    fn from(reason: OutcomeUnknown) -> Self {
        Self::OutcomeUnknown(reason)
    }
}

impl SendError {
    /// That the caller waits on the thread that has to see to the end of the wait.
    #[cold]
    pub(crate) fn deadlock(sent: bool) -> Self {
        if sent { OutcomeUnknown::Deadlock.into() } else { NotDelivered::Deadlock.into() }
    }

    /// Whether no handler saw the message, so that sending it again is safe.
    #[must_use]
    pub fn is_not_delivered(&self) -> bool {
        matches!(self, Self::NotDelivered(_))
    }

    /// Whether a handler may have run without the caller having its answer.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }

    /// Whether the caller's own timeout ended the call.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::NotDelivered(NotDelivered::Expired) | Self::OutcomeUnknown(OutcomeUnknown::TimedOut)
        )
    }
}

/// No handler saw the message: sending it again is safe.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotDelivered {
    /// The address was decoded outside of a cluster's messages.
    #[error("the address is bound to no cluster; bind it with `cluster.bind(address)`")]
    Unbound,
    /// The address names a host that is no member of this cluster.
    #[error(
        "host {host} is no member of this cluster; the address is of another cluster or of an earlier run"
    )]
    UnknownHost {
        /// The host.
        host: HostUid,
    },
    /// The address is of an earlier life of the host.
    #[error(
        "host {host} has restarted since the address was made, or its clock was set back; ask for a new address"
    )]
    StaleHost {
        /// The host in the life that the address means.
        host: HostUid,
    },
    /// The host cannot be reached.
    #[error("host {host} cannot be reached: {reason}")]
    Unreachable {
        /// The host.
        host: HostUid,
        /// Why.
        reason: DisconnectReason,
    },
    /// Too much waits already: to be written to the host, or for the actor to handle what it has.
    #[error(
        "{waiting} bytes wait for the host or the actor, and the limit is {limit}; use `tell` or `send`, \
         which wait for room, or raise `Limits::outgoing_bytes_max` or `Limits::send_queue_bytes_max`"
    )]
    Full {
        /// The message's frame, in bytes.
        size: usize,
        /// Bytes that wait.
        waiting: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The mailbox of the actor, which lives on this very host, is full.
    #[error("the actor's mailbox is full; use `send`, or send later")]
    MailboxFull,
    /// The message is larger than a frame may be.
    #[error(
        "the message has {size} bytes and the limit is {limit}; \
         send it in parts, or raise `Limits::frame_bytes_max` on both sides"
    )]
    TooLarge {
        /// The message, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The message cannot be encoded.
    #[error("the message cannot be encoded: {text}")]
    Unencodable {
        /// The serializer's words.
        text: String,
    },
    /// This host, or the receiving one, is shutting down.
    #[error("the host is shutting down")]
    Closing,
    /// The host never had such an actor.
    #[error("the host has no such actor; the address is of another run")]
    NoSuchActor,
    /// The actor has stopped.
    #[error("the actor has stopped; spawn another")]
    ActorStopped,
    /// The actor does not list the message.
    #[error(
        "{actor} does not take {message}; list it in `#[remote(handles(..))]` and build both sides from one source"
    )]
    NotHandled {
        /// The actor's type.
        actor: String,
        /// The message's type.
        message: String,
    },
    /// The two executables declare the message differently.
    #[error("{text}; build both sides from one source")]
    Mismatch {
        /// The message, and the lines of its declaration that differ.
        text: String,
    },
    /// The receiver could not decode the message.
    #[error("the receiver cannot decode the message: {text}; build both sides from one source")]
    Undecodable {
        /// The deserializer's words.
        text: String,
    },
    /// The thread that waits is the one that would have to see to the end of the wait.
    #[error(
        "a synchronous handler or task waits for room on the very thread that has to make it; return a future \
         from the handler (`ResponseFuture`), or run the task on a thread of its own \
         (`#[roadshow::task(parallel = n)]`)"
    )]
    Deadlock,
    /// The caller's timeout passed before a handler began.
    #[error("the timeout passed before the handler began")]
    Expired,
    /// The receiver declined, in its own words.
    #[error("{text}")]
    Refused {
        /// The receiver's words.
        text: String,
    },
}

/// A handler may have run, and its answer did not arrive.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutcomeUnknown {
    /// The caller's timeout passed.
    #[error("no answer within the timeout")]
    TimedOut,
    /// The thread that waits is the one that would have to read the answer.
    #[error(
        "a synchronous handler or task waits for the answer on the very thread that has to read it; return a \
         future from the handler (`ResponseFuture`), or run the task on a thread of its own \
         (`#[roadshow::task(parallel = n)]`)"
    )]
    Deadlock,
    /// The session ended, or the host died, after the message was written.
    #[error("host {host} left before it answered: {reason}")]
    LinkLost {
        /// The host.
        host: HostUid,
        /// Why.
        reason: DisconnectReason,
    },
    /// The handler began, and the actor stopped or dropped the answer.
    ///
    /// Or the answer was given, and is no longer kept for the call that came again.
    #[error("the actor stopped, or dropped the answer, after the handler began")]
    NoReply,
    /// The handler ran; its answer is larger than a frame may be.
    #[error(
        "the handler ran, but its answer has {size} bytes and the limit is {limit}; raise `Limits::frame_bytes_max` on both sides"
    )]
    ReplyTooLarge {
        /// The answer, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The handler ran; its answer cannot be encoded.
    #[error("the handler ran, but its answer cannot be encoded: {text}")]
    ReplyUnencodable {
        /// The serializer's words.
        text: String,
    },
    /// The handler ran; its answer cannot be decoded here.
    #[error("the handler ran, but its answer cannot be decoded: {text}; build both sides from one source")]
    ReplyUndecodable {
        /// The deserializer's words.
        text: String,
    },
    /// An earlier attempt of a retried call may have run, and the last one was refused.
    #[error("an earlier attempt may have done its work, and the last one failed: {text}")]
    Other {
        /// The receiver's words.
        text: String,
    },
}

impl NotDelivered {
    /// A message that the session would not queue.
    pub(crate) fn from_rejection(host: HostUid, rejected: Rejected) -> Self {
        match rejected {
            Rejected::Forgotten => Self::Unreachable { host, reason: DisconnectReason::Forgotten },
            Rejected::Full { size, waiting, limit } => Self::Full { size, waiting, limit },
            Rejected::TooLarge { size, limit } => Self::TooLarge { size, limit },
            Rejected::Closing => Self::Closing,
        }
    }
}

impl From<EncodeError> for NotDelivered {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge { size, limit } => Self::TooLarge { size, limit },
            other => Self::Unencodable { text: other.to_string() },
        }
    }
}

impl SendError {
    /// A call that the session ended; `host` is the one it went to.
    pub(crate) fn failed(host: HostUid, failed: CallError) -> Self {
        match failed {
            CallError::Remote(failure) => failure.into(),
            CallError::NotDelivered(DisconnectReason::Shutdown) => NotDelivered::Closing.into(),
            CallError::NotDelivered(reason) => NotDelivered::Unreachable { host, reason }.into(),
            CallError::OutcomeUnknown(reason) => OutcomeUnknown::LinkLost { host, reason }.into(),
            CallError::TimedOut { written: false } => NotDelivered::Expired.into(),
            CallError::TimedOut { written: true } => OutcomeUnknown::TimedOut.into(),
        }
    }
}

impl From<CallFailure> for SendError {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Closing => NotDelivered::Closing.into(),
            CallFailure::NoSuchActor => NotDelivered::NoSuchActor.into(),
            CallFailure::ActorStopped => NotDelivered::ActorStopped.into(),
            CallFailure::NotHandled { actor, message } => NotDelivered::NotHandled { actor, message }.into(),
            CallFailure::Mismatch { text } => NotDelivered::Mismatch { text }.into(),
            CallFailure::Undecodable { text } => NotDelivered::Undecodable { text }.into(),
            CallFailure::Expired => NotDelivered::Expired.into(),
            CallFailure::Refused { text } => NotDelivered::Refused { text }.into(),
            CallFailure::Panicked { text } => Self::Panicked { text },
            CallFailure::NoReply => OutcomeUnknown::NoReply.into(),
            CallFailure::ReplyTooLarge { size, limit } => {
                OutcomeUnknown::ReplyTooLarge { size, limit }.into()
            }
            CallFailure::ReplyUnencodable { text } => OutcomeUnknown::ReplyUnencodable { text }.into(),
        }
    }
}
