//! Failures of calls, as the called host reports them.

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::config::FAILURE_TEXT_CHARS_MAX;

/// Failure of a call, as the called host reports it.
///
/// A call may safely be retried after a failure for which [`handler_ran`](Self::handler_ran) is
/// `false`. Texts are cut to [`FAILURE_TEXT_CHARS_MAX`] characters when they are sent.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallFailure {
    /// The host is shutting down; the handler did not run.
    #[error("the host is shutting down")]
    Closing,
    /// The host does not have the actor; the handler did not run.
    #[error("the host has no such actor")]
    NoSuchActor,
    /// The actor, or this incarnation of it, has stopped; the handler did not run.
    #[error("the actor has stopped")]
    ActorStopped,
    /// The actor does not handle messages of the type; the handler did not run.
    #[error("actor {actor} does not handle {message}")]
    NotHandled {
        /// Name of the actor's type.
        #[serde(serialize_with = "truncated")]
        actor: String,
        /// Name of the message type, or its hash.
        #[serde(serialize_with = "truncated")]
        message: String,
    },
    /// The host's executable declares the message differently; the handler did not run.
    #[error("{text}")]
    Mismatch {
        /// Name of the message, and the difference between the declarations.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The message could not be decoded; the handler did not run.
    #[error("the message could not be decoded: {text}")]
    Undecodable {
        /// Text of the decoder.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The deadline passed before the handler's turn; the handler did not run.
    #[error("the deadline passed before the handler's turn")]
    Expired,
    /// The host refused the call; no handler ran.
    #[error("the host refused: {text}")]
    Refused {
        /// Reason that the host gives.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The host has too little memory left for new work; nothing ran.
    #[error("{text}")]
    LowMemory {
        /// Memory in use, and what to do.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The handler ran and panicked.
    #[error("the handler panicked: {text}")]
    Panicked {
        /// Text of the panic.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The handler ran, but the actor stopped or dropped the reply.
    #[error("the actor stopped, or dropped its reply")]
    NoReply,
    /// The handler ran, but the actor's incarnation ended before what it did was stored for certain.
    #[error("the actor's incarnation ended before it replied")]
    IncarnationEnded,
    /// The handler ran, but its result is over the frame limit.
    #[error("the reply takes {size} bytes and the limit is {limit}")]
    ReplyTooLarge {
        /// Length of the reply in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The handler ran, but its result could not be serialized.
    #[error("the reply could not be serialized: {text}")]
    ReplyUnencodable {
        /// Text of the serializer.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
}

impl CallFailure {
    /// Returns whether the handler ran, so that a retry may execute the call twice.
    #[must_use]
    pub fn handler_ran(&self) -> bool {
        match self {
            Self::Panicked { .. }
            | Self::NoReply
            | Self::IncarnationEnded
            | Self::ReplyTooLarge { .. }
            | Self::ReplyUnencodable { .. } => true,
            Self::Closing
            | Self::NoSuchActor
            | Self::ActorStopped
            | Self::NotHandled { .. }
            | Self::Mismatch { .. }
            | Self::Undecodable { .. }
            | Self::Expired
            | Self::Refused { .. }
            | Self::LowMemory { .. } => false,
        }
    }

    /// Returns the failure with its texts cut to `chars` characters each.
    #[must_use]
    pub fn truncated_to(mut self, chars: usize) -> Self {
        match &mut self {
            Self::NotHandled { actor, message } => {
                cut(actor, chars);
                cut(message, chars);
            }
            Self::Mismatch { text }
            | Self::Undecodable { text }
            | Self::Refused { text }
            | Self::LowMemory { text }
            | Self::Panicked { text }
            | Self::ReplyUnencodable { text } => cut(text, chars),
            Self::Closing
            | Self::NoSuchActor
            | Self::ActorStopped
            | Self::Expired
            | Self::NoReply
            | Self::IncarnationEnded
            | Self::ReplyTooLarge { .. } => {}
        }
        self
    }
}

fn cut(text: &mut String, chars: usize) {
    text.truncate(head(text, chars).len());
}

fn truncated<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    // Cut when it is sent, not when it is made: a failure that stays local keeps its whole text.
    serializer.serialize_str(head(text, FAILURE_TEXT_CHARS_MAX))
}

/// Returns the first `chars` characters of `text`.
pub(super) fn head(text: &str, chars: usize) -> &str {
    // Characters instead of bytes, so that the cut never splits one.
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_truncated_between_characters() {
        let long = "ä".repeat(FAILURE_TEXT_CHARS_MAX + 1);
        let packed = rmp_serde::to_vec_named(&CallFailure::Panicked { text: long }).unwrap();
        let CallFailure::Panicked { text } = rmp_serde::from_slice(&packed).unwrap() else {
            panic!("a panic stays one");
        };
        assert_eq!(text, "ä".repeat(FAILURE_TEXT_CHARS_MAX));

        let failure = CallFailure::NotHandled { actor: "Node".into(), message: "Most".into() };
        let cut = CallFailure::NotHandled { actor: "No".into(), message: "Mo".into() };
        assert_eq!(failure.truncated_to(2), cut);
    }

    #[test]
    fn failures_report_whether_the_handler_ran() {
        assert!(CallFailure::NoReply.handler_ran());
        assert!(CallFailure::IncarnationEnded.handler_ran());
        assert!(CallFailure::Panicked { text: String::new() }.handler_ran());
        assert!(!CallFailure::Expired.handler_ran());
        assert!(!CallFailure::Refused { text: String::new() }.handler_ran());
        assert!(!CallFailure::LowMemory { text: String::new() }.handler_ran());
    }
}
