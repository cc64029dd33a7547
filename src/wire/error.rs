//! What can be wrong with bytes, and with values on their way to and from bytes.

use std::{fmt, io};

use thiserror::Error;

use super::FrameKind;
use super::failure::head;
use crate::config::FAILURE_TEXT_CHARS_MAX;

/// Why the bytes of a stream are no frames that may stand where they stand.
///
/// None of these heals: after one of them the stream has no known frame boundary any more,
/// and the link it came from is to be closed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The peer announces a frame over the limit, or does not speak in frames at all.
    #[error(
        "a frame of {length} bytes is over the limit of {limit}; check that the peer is a roadshow host with the same limits"
    )]
    TooLong {
        /// The whole frame in bytes, header included, as announced.
        length: u64,
        /// The most that is accepted, header included.
        limit: usize,
    },
    /// The peer's first frame does not begin with [`MAGIC`](super::MAGIC).
    #[error("the peer does not speak the roadshow protocol; check its address and port")]
    NotRoadshow,
    /// A frame that has no place in this phase of the link.
    #[error("a {kind} frame has no place in the {phase} phase of a link")]
    Unexpected {
        /// What came.
        kind: FrameKind,
        /// When it came.
        phase: Phase,
    },
    /// Bytes that break the layout of their frame.
    #[error("a {frame} frame is malformed: {what}")]
    Malformed {
        /// The frame, as far as it is known.
        frame: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The stream ends inside a frame.
    #[error("the stream ends {have} bytes into a frame")]
    Truncated {
        /// How many bytes of the frame came.
        have: usize,
    },
    /// The stream itself failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
}

impl WireError {
    /// Whether the peer is to blame, and not the stream under it.
    #[must_use]
    pub fn is_peer_fault(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::Truncated { .. })
    }
}

/// The two phases of a link, each with its own kinds of frames and its own length limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The peer has not proved yet who it is.
    Handshake,
    /// The peer has proved who it is.
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

/// Why a value did not become a body. The value's owner is to blame, and nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The body is over the limit that the caller gave.
    #[error(
        "the encoded message takes {size} bytes and the limit is {limit}; send it in parts or raise the limit"
    )]
    TooLarge {
        /// What the whole body takes.
        size: usize,
        /// What it may take.
        limit: usize,
    },
    /// More payloads than a frame can count.
    #[error("the message carries {count} payloads and the limit is {limit}; join the small ones")]
    TooManyAttachments {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The value has more values within values than a receiver would decode.
    #[error("the message nests over {limit} levels deep; send it flat, as a list of parts with indices, say")]
    TooDeep {
        /// Levels that it may have.
        limit: usize,
    },
    /// The value's own `Serialize` failed; the text is the serializer's.
    #[error("the message cannot be serialized: {0}")]
    Serialize(String),
}

/// Why a body did not become a value of the type asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The MessagePack part does not fit the type; the text is the deserializer's.
    ///
    /// It has 4,096 characters at most. A payload that the body does not carry is reported here too.
    #[error("the message does not fit its type: {0}")]
    Deserialize(String),
    /// The MessagePack part has more values within values than are decoded.
    #[error("the message nests over {limit} levels deep")]
    TooDeep {
        /// Levels that it may have.
        limit: usize,
    },
    /// The value is complete, and bytes are left over.
    #[error("the message does not fit its type: bytes are left over behind the value")]
    TrailingBytes,
}

impl serde::de::Error for DecodeError {
    /// A text may quote what the peer sent: it is cut as the texts of failures are.
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        let mut text = text.to_string();
        text.truncate(head(&text, FAILURE_TEXT_CHARS_MAX).len());
        text.shrink_to_fit();
        Self::Deserialize(text)
    }
}
