//! Why a call has no reply, in the words of the host that was called.

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::config::FAILURE_TEXT_CHARS_MAX;

/// Why a call has no reply, in the words of the host that was called.
///
/// [`handler_ran`](Self::handler_ran) tells the failures after which the call may safely be made again from the
/// others. Texts of over [`FAILURE_TEXT_CHARS_MAX`] characters are cut on their way.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallFailure {
    /// The host shuts down; the handler did not run.
    #[error("the host is shutting down")]
    Closing,
    /// The host has no such actor; the handler did not run.
    #[error("the host has no such actor")]
    NoSuchActor,
    /// The actor, or that life of it, has stopped; the handler did not run.
    #[error("the actor has stopped")]
    ActorStopped,
    /// The actor does not handle messages of this type; the handler did not run.
    #[error("actor {actor} does not handle {message}")]
    NotHandled {
        /// The name of the actor's type.
        #[serde(serialize_with = "truncated")]
        actor: String,
        /// The name of the message's type, or its hash.
        #[serde(serialize_with = "truncated")]
        message: String,
    },
    /// The host's executable declares the message differently; the handler did not run.
    #[error("{text}")]
    Mismatch {
        /// The message, and how the two declarations differ.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The message did not decode there; the handler did not run.
    #[error("the message could not be decoded: {text}")]
    Undecodable {
        /// The decoder's words.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The caller's time was up before the handler's turn; the handler did not run.
    #[error("the time was up before the handler's turn")]
    Expired,
    /// The host would not do it; no handler ran.
    #[error("the host refused: {text}")]
    Refused {
        /// The host's words.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The handler ran and panicked.
    #[error("the handler panicked: {text}")]
    Panicked {
        /// What it panicked with.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
    /// The handler ran, and the actor stopped or dropped its reply.
    #[error("the actor stopped, or dropped its reply")]
    NoReply,
    /// The handler ran, and its result is over the limit of a frame.
    #[error("the reply takes {size} bytes and the limit is {limit}")]
    ReplyTooLarge {
        /// What the reply takes.
        size: u64,
        /// What it may take.
        limit: u64,
    },
    /// The handler ran, and its result could not be serialized.
    #[error("the reply could not be serialized: {text}")]
    ReplyUnencodable {
        /// The serializer's words.
        #[serde(serialize_with = "truncated")]
        text: String,
    },
}

impl CallFailure {
    /// Whether the handler ran, so that making the call again may do its work twice.
    #[must_use]
    pub fn handler_ran(&self) -> bool {
        match self {
            Self::Panicked { .. }
            | Self::NoReply
            | Self::ReplyTooLarge { .. }
            | Self::ReplyUnencodable { .. } => true,
            Self::Closing
            | Self::NoSuchActor
            | Self::ActorStopped
            | Self::NotHandled { .. }
            | Self::Mismatch { .. }
            | Self::Undecodable { .. }
            | Self::Expired
            | Self::Refused { .. } => false,
        }
    }

    /// The same failure with its texts cut to `chars` characters each.
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
            | Self::Panicked { text }
            | Self::ReplyUnencodable { text } => cut(text, chars),
            Self::Closing
            | Self::NoSuchActor
            | Self::ActorStopped
            | Self::Expired
            | Self::NoReply
            | Self::ReplyTooLarge { .. } => {}
        }
        self
    }
}

fn cut(text: &mut String, chars: usize) {
    text.truncate(head(text, chars).len());
}

fn truncated<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(head(text, FAILURE_TEXT_CHARS_MAX))
}

/// The first `chars` characters of `text`.
pub(super) fn head(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_to_whole_characters() {
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
    fn failures_tell_whether_the_handler_ran() {
        assert!(CallFailure::NoReply.handler_ran());
        assert!(CallFailure::Panicked { text: String::new() }.handler_ran());
        assert!(!CallFailure::Expired.handler_ran());
        assert!(!CallFailure::Refused { text: String::new() }.handler_ran());
    }
}
