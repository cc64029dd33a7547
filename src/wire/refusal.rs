//! Frame of a refused handshake.

use std::fmt;

use super::frame::put_prefix;
use super::reader::{Reader, short};
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};

/// The acceptor refuses the link, and closes it after this frame.
///
/// Layout: reason 1, text (the rest, at most 256 bytes of UTF-8). A longer text is cut when the
/// frame is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Reason, for the peer's code.
    pub reason: Refusal,
    /// Reason, for the peer's user.
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

/// Reason for refusing a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// 1: the acceptor does not speak the initiator's version of the protocol.
    Version,
    /// 2: the acceptor is another host or another incarnation than the one dialled.
    WrongHost,
    /// 3: the initiator's proof is wrong.
    Secret,
    /// 4: both sides dialled each other, and the other link is kept.
    SimultaneousOpen,
    /// 5: the acceptor has no capacity for another link.
    Busy,
    /// 6: the acceptor is shutting down.
    Closing,
    /// 7: the acceptor does not support the initiator's parameters.
    Malformed,
    /// 8: the acceptor knows a later position of the initiator, or has no link for this heartbeat
    /// link.
    Stale,
    /// 9: the initiator's certificate is not that of its host id.
    Certificate,
    /// A reason unknown to this version.
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

    /// Returns the reason with this number on the wire.
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
            Self::SimultaneousOpen => "simultaneous dials",
            Self::Busy => "busy",
            Self::Closing => "shutting down",
            Self::Malformed => "unacceptable hello",
            Self::Stale => "out of date",
            Self::Certificate => "another certificate",
            Self::Other(number) => return write!(f, "reason {number}"),
        })
    }
}
