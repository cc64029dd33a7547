//! Errors that a caller gets when a message was not handled successfully.
//!
//! Callers mainly need to know whether they may send the message again, so the errors are split by that:
//! [`NotDelivered`] (no handler ran: safe), [`OutcomeUnknown`] (a handler may have run), and a panic's
//! text (a handler ran and failed).

use thiserror::Error;

use crate::id::HostUid;
use crate::session::{CallError, DisconnectReason, Rejected};
use crate::wire::{CallFailure, EncodeError};

/// Reason why a call has no reply.
///
/// # Examples
///
/// ```
#[doc = include_str!("../remote/counter_example.txt")]
/// # let counter = cluster.spawn::<Counter>(40).await?;
/// match counter.send(Add(2)).await {
///     Ok(total) => assert_eq!(total, 42),
///     Err(error) if error.is_not_delivered() => println!("safe to send again: {error}"),
///     Err(error) if error.is_outcome_unknown() => println!("the handler may have run: {error}"),
///     Err(error) => println!("the actor has stopped: {error}"),
/// }
/// # cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No handler ran: sending the message again is safe.
    #[error("not delivered: {0}")]
    NotDelivered(NotDelivered),
    /// A handler may have run, and its reply did not arrive.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(OutcomeUnknown),
    /// The handler ran and panicked; its actor has stopped.
    #[error("the handler panicked: {text}")]
    Panicked {
        /// Text and source location of the panic.
        text: String,
    },
}

// The reason is part of the text, so it is not also a `source`, which would print it twice.
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
    /// Deadlock of a caller on the thread that has to end its wait.
    #[cold]
    pub(crate) fn deadlock(sent: bool) -> Self {
        if sent { OutcomeUnknown::Deadlock.into() } else { NotDelivered::Deadlock.into() }
    }

    /// True if no handler ran, so that sending the message again is safe.
    #[must_use]
    pub fn is_not_delivered(&self) -> bool {
        matches!(self, Self::NotDelivered(_))
    }

    /// True if a handler may have run and the caller has no reply.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }

    /// True if the caller's own timeout ended the call.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::NotDelivered(NotDelivered::Expired) | Self::OutcomeUnknown(OutcomeUnknown::TimedOut)
        )
    }
}

/// No handler ran: sending the message again is safe.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotDelivered {
    /// The address was decoded outside of a cluster's messages.
    #[error("the address is bound to no cluster; bind it with `cluster.bind(address)`")]
    Unbound,
    /// The address refers to a host that is not a member of this cluster.
    #[error(
        "host {host} is not a member of this cluster; the address is from another cluster or from an earlier run"
    )]
    UnknownHost {
        /// Host of the address.
        host: HostUid,
    },
    /// The address refers to an earlier incarnation of the host.
    #[error(
        "host {host} has restarted since the address was created, or its clock was set back; get a new address"
    )]
    StaleHost {
        /// Host and incarnation of the address.
        host: HostUid,
    },
    /// The host cannot be reached.
    #[error("host {host} cannot be reached: {reason}")]
    Unreachable {
        /// Host of the address.
        host: HostUid,
        /// Reason of the disconnect.
        reason: DisconnectReason,
    },
    /// The send queue of the host or of the actor is full.
    #[error(
        "{waiting} bytes are queued for the host or the actor, and the limit is {limit}; use `tell` or `send`, \
         which wait for capacity, or raise `Limits::outgoing_bytes_max` or `Limits::send_queue_bytes_max`"
    )]
    Full {
        /// Size of the message's frame, in bytes.
        size: usize,
        /// Queued bytes.
        waiting: usize,
        /// Limit, in bytes.
        limit: usize,
    },
    /// The mailbox of an actor on this host is full.
    #[error("the actor's mailbox is full; use `send`, or send later")]
    MailboxFull,
    /// The message is larger than the longest frame.
    #[error(
        "the message has {size} bytes and the limit is {limit}; \
         send it in parts, or raise `Limits::frame_bytes_max` on both sides"
    )]
    TooLarge {
        /// Size of the message, in bytes.
        size: usize,
        /// Limit, in bytes.
        limit: usize,
    },
    /// The message cannot be encoded.
    #[error("the message cannot be encoded: {text}")]
    Unencodable {
        /// Error text of the serializer.
        text: String,
    },
    /// This host, or the receiving one, is shutting down.
    #[error("the host is shutting down")]
    Closing,
    /// The host never had such an actor.
    #[error("the host has no such actor; the address is from another run")]
    NoSuchActor,
    /// The actor has stopped.
    #[error("the actor has stopped; spawn another")]
    ActorStopped,
    /// The actor restarts, and the sender does not wait for it.
    #[error("the actor restarts; use `send` or `tell`, which wait for it, or send later")]
    Restarting,
    /// The actor, which was restarted after failures, has ended for good.
    #[error("the actor has ended: {text}; spawn another")]
    ActorEnded {
        /// Explanation of the end.
        text: String,
    },
    /// The actor does not list the message.
    #[error(
        "{actor} does not handle {message}; list it in `#[remote(handles(..))]` and build both sides from one source"
    )]
    NotHandled {
        /// Type of the actor.
        actor: String,
        /// Type of the message.
        message: String,
    },
    /// The two executables declare the message differently.
    #[error("{text}; build both sides from one source")]
    Mismatch {
        /// Name of the message, and the differences between the declarations.
        text: String,
    },
    /// The receiver could not decode the message.
    #[error("the receiver cannot decode the message: {text}; build both sides from one source")]
    Undecodable {
        /// Error text of the deserializer.
        text: String,
    },
    /// The waiting thread is the one that would have to end the wait.
    #[error(
        "a synchronous handler or task waits for capacity on the very thread that has to free it; return a future \
         from the handler (`ResponseFuture`), or run the task on a thread of its own \
         (`#[roadshow::task(parallel = n)]`)"
    )]
    Deadlock,
    /// The caller's timeout passed before a handler started.
    #[error("the timeout passed before the handler started")]
    Expired,
    /// The worker has too little memory left for a new actor or task.
    #[error("{text}")]
    LowMemory {
        /// Memory in use, its limit, the worker, and what to do.
        text: String,
    },
    /// The receiver refused the message, with its own text.
    #[error("{text}")]
    Refused {
        /// Text from the receiver.
        text: String,
    },
}

/// A handler may have run, and its reply did not arrive.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutcomeUnknown {
    /// The caller's timeout passed.
    #[error("no reply within the timeout")]
    TimedOut,
    /// The waiting thread is the one that would have to read the reply.
    #[error(
        "a synchronous handler or task waits for the reply on the very thread that has to read it; return a \
         future from the handler (`ResponseFuture`), or run the task on a thread of its own \
         (`#[roadshow::task(parallel = n)]`)"
    )]
    Deadlock,
    /// The session ended, or the host died, after the message was written.
    ///
    /// A broken link alone loses nothing.
    #[error("host {host} ended before it replied: {reason}")]
    SessionLost {
        /// Host of the receiver.
        host: HostUid,
        /// Reason of the disconnect.
        reason: DisconnectReason,
    },
    /// The handler started, and the actor stopped or dropped the reply.
    ///
    /// Also the outcome of a retried call whose reply was evicted from the dedup cache.
    #[error("the actor stopped, or dropped the reply, after the handler began")]
    NoReply,
    /// The actor was restarted while the call was open, and the handler may have run in the earlier incarnation.
    #[error("the actor was restarted before it replied")]
    Restarted,
    /// The handler ran; its reply is larger than the longest frame.
    #[error(
        "the handler ran, but its reply has {size} bytes and the limit is {limit}; raise `Limits::frame_bytes_max` on both sides"
    )]
    ReplyTooLarge {
        /// Size of the reply, in bytes.
        size: u64,
        /// Limit, in bytes.
        limit: u64,
    },
    /// The handler ran; its reply cannot be encoded.
    #[error("the handler ran, but its reply cannot be encoded: {text}")]
    ReplyUnencodable {
        /// Error text of the serializer.
        text: String,
    },
    /// The handler ran; its reply cannot be decoded here.
    #[error("the handler ran, but its reply cannot be decoded: {text}; build both sides from one source")]
    ReplyUndecodable {
        /// Error text of the deserializer.
        text: String,
    },
    /// An earlier attempt of a retried call may have run, and the last one was refused.
    #[error("an earlier attempt may have run, and the last one failed: {text}")]
    Other {
        /// Text from the receiver.
        text: String,
    },
}

impl NotDelivered {
    /// Error of a message that the session did not queue.
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

impl OutcomeUnknown {
    /// True if the other host has ended, or has dropped the session.
    pub(crate) fn is_by_other_host(&self) -> bool {
        matches!(self, Self::SessionLost { reason, .. } if *reason != DisconnectReason::Shutdown)
    }
}

impl SendError {
    /// Error of a call to `host` that the session has ended.
    pub(crate) fn failed(host: HostUid, failed: CallError) -> Self {
        match failed {
            CallError::Remote(failure) => failure.into(),
            // This host shuts down, which is not a failure of the peer.
            CallError::NotDelivered(DisconnectReason::Shutdown) => NotDelivered::Closing.into(),
            CallError::NotDelivered(reason) => NotDelivered::Unreachable { host, reason }.into(),
            CallError::OutcomeUnknown(reason) => OutcomeUnknown::SessionLost { host, reason }.into(),
            // Unwritten, so no handler can have started.
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
            CallFailure::LowMemory { text } => NotDelivered::LowMemory { text }.into(),
            CallFailure::Panicked { text } => Self::Panicked { text },
            CallFailure::NoReply => OutcomeUnknown::NoReply.into(),
            CallFailure::IncarnationEnded => OutcomeUnknown::Restarted.into(),
            CallFailure::ReplyTooLarge { size, limit } => {
                OutcomeUnknown::ReplyTooLarge { size, limit }.into()
            }
            CallFailure::ReplyUnencodable { text } => OutcomeUnknown::ReplyUnencodable { text }.into(),
        }
    }
}
