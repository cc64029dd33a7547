//! Last message of a closing side.

use super::frame::put_prefix;
use super::reader::{Reader, short};
use super::sink::FrameSink;
use super::{FrameKind, PREFIX_BYTES, WireError};

/// The sender is closing: it sends no call and no tell after this frame, but it may send replies.
///
/// Layout: reason (the rest, at most 256 bytes of UTF-8). A longer reason is cut when the frame
/// is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Reason, for the peer's user.
    pub reason: String,
}

impl Goodbye {
    /// Writes the frame and returns its length in bytes.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        let reason = short(&self.reason);
        let frame_bytes = PREFIX_BYTES + reason.len();
        put_prefix(FrameKind::Goodbye, 0, 0, frame_bytes, out);
        out.put_slice(reason.as_bytes());
        frame_bytes
    }

    pub(super) fn read(reader: Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { reason: reader.text()? })
    }
}
