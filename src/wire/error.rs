//! Errors of decoding and encoding, split by blame.

use std::{fmt, io};

use thiserror::Error;

use super::FrameKind;
use super::failure::head;
use crate::config::FAILURE_TEXT_CHARS_MAX;

/// Reason why bytes are no valid frame at their position.
///
/// No such error is recoverable: the stream has lost its frame boundaries. Close the link.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The peer announces a frame over the limit, or does not speak the protocol.
    #[error(
        "a frame of {length} bytes is over the limit of {limit}; check that the peer is a roadshow host with the same limits"
    )]
    TooLong {
        /// Announced length of the whole frame in bytes, prefix included.
        length: u64,
        /// Limit in bytes, prefix included.
        limit: usize,
    },
    /// The peer's first frame does not begin with [`MAGIC`](super::MAGIC).
    #[error("the peer does not speak the roadshow protocol; check its address and port")]
    NotRoadshow,
    /// A frame of a kind that this phase of the link does not allow.
    #[error("a {kind} frame is not allowed in the {phase} phase of a link")]
    Unexpected {
        /// Kind of the frame.
        kind: FrameKind,
        /// Phase of the link.
        phase: Phase,
    },
    /// Bytes that violate the layout of their frame.
    #[error("a {frame} frame is malformed: {what}")]
    Malformed {
        /// Name of the frame, if it is known.
        frame: &'static str,
        /// Mistake in the frame.
        what: &'static str,
    },
    /// The stream ends inside a frame.
    #[error("the stream ends {have} bytes into a frame")]
    Truncated {
        /// Bytes of the incomplete frame.
        have: usize,
    },
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
}

impl WireError {
    /// Returns whether the peer is to blame, and not the stream.
    #[must_use]
    pub fn is_peer_fault(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::Truncated { .. })
    }
}

/// Phase of a link. Each has its own frame kinds and its own length limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The peer is not authenticated yet.
    Handshake,
    /// The peer is authenticated.
    Established,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "handshake",
            Self::Established => "established",
        })
    }
}

/// Reason why a value could not be encoded. Nothing was sent; the caller is to blame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The body is over the caller's limit.
    #[error(
        "the encoded message takes {size} bytes and the limit is {limit}; send it in parts or raise the limit"
    )]
    TooLarge {
        /// Length of the whole body in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The message has more payloads than a frame can count.
    #[error("the message carries {count} payloads and the limit is {limit}; join the small ones")]
    TooManyAttachments {
        /// Number of payloads.
        count: usize,
        /// Largest number of payloads.
        limit: usize,
    },
    /// The value nests deeper than a receiver would decode.
    #[error("the message nests over {limit} levels deep; send it flat, as a list of parts with indices, say")]
    TooDeep {
        /// Largest number of levels.
        limit: usize,
    },
    /// The value's own `Serialize` failed, with this text.
    #[error("the message cannot be serialized: {0}")]
    Serialize(String),
}

/// Reason why a body could not be decoded as the requested type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The MessagePack part does not match the type; the text is the deserializer's.
    ///
    /// The text has at most 4,096 characters. A reference to a missing payload is reported here,
    /// too.
    #[error("the message does not match its type: {0}")]
    Deserialize(String),
    /// The MessagePack part nests too deep.
    #[error("the message nests over {limit} levels deep")]
    TooDeep {
        /// Largest number of levels.
        limit: usize,
    },
    /// Bytes follow after the complete value.
    #[error("the message does not match its type: bytes follow after the value")]
    TrailingBytes,
}

impl serde::de::Error for DecodeError {
    /// Cuts the text, which may quote the peer, as the texts of failures are cut.
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        let mut text = text.to_string();
        text.truncate(head(&text, FAILURE_TEXT_CHARS_MAX).len());
        text.shrink_to_fit();
        Self::Deserialize(text)
    }
}
