//! The frame of a handshake that does not go well.

use std::fmt;

use super::frame::put_prefix;
use super::reader::{Reader, short};
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};

/// The listener does not want the link, and closes it behind this frame.
///
/// Layout: reason 1, text (the rest, at most 256 bytes of UTF-8). A longer text is cut when the
/// frame is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, for the peer's code.
    pub reason: Refusal,
    /// Why, for the peer's user.
    pub text: String,
}

impl Refused {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        let text = short(&self.text);
        let frame_bytes = PREFIX_BYTES + 1 + text.len();
        put_prefix(FrameKind::Refused, 0, 0, frame_bytes, out);
        out.put_u8(self.reason.number());
        out.put_slice(text.as_bytes());
        frame_bytes
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let reason = Refusal::from_number(reader.u8()?);
        Ok(Self { reason, text: reader.text()? })
    }
}

/// Why a listener refuses a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// 1: it does not speak the dialler's version of the protocol.
    Version,
    /// 2: it is another host, or another life of the host, than the one dialled.
    WrongHost,
    /// 3: the dialler's proof does not hold.
    Secret,
    /// 4: both sides dialled each other, and the other link stays.
    SimultaneousOpen,
    /// 5: it has no room for another link now.
    Busy,
    /// 6: it is shutting down.
    Closing,
    /// 7: it cannot accept what the dialler said of itself.
    Malformed,
    /// 8: it knows of a later attempt of the dialler, or has no such link to take the pulse of.
    Stale,
    /// 9: the dialler's certificate is not that of the host that it says it is.
    Certificate,
    /// A reason that this version does not know.
    Other(u8),
}

impl Refusal {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::WrongHost => 2,
            Self::Secret => 3,
            Self::SimultaneousOpen => 4,
            Self::Busy => 5,
            Self::Closing => 6,
            Self::Malformed => 7,
            Self::Stale => 8,
            Self::Certificate => 9,
            Self::Other(number) => number,
        }
    }

    /// The reason with this number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::WrongHost,
            3 => Self::Secret,
            4 => Self::SimultaneousOpen,
            5 => Self::Busy,
            6 => Self::Closing,
            7 => Self::Malformed,
            8 => Self::Stale,
            9 => Self::Certificate,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "another protocol version",
            Self::WrongHost => "another host",
            Self::Secret => "another secret",
            Self::SimultaneousOpen => "the links crossed",
            Self::Busy => "busy",
            Self::Closing => "shutting down",
            Self::Malformed => "unacceptable hello",
            Self::Stale => "out of date",
            Self::Certificate => "another certificate",
            Self::Other(number) => return write!(f, "reason {number}"),
        })
    }
}
