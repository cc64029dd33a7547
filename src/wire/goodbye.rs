//! The last message of a side that leaves.

use super::frame::put_prefix;
use super::reader::{Reader, short};
use super::sink::FrameSink;
use super::{FrameKind, PREFIX_BYTES, WireError};

/// The sender leaves: no call and no tell comes behind this frame, but answers may.
///
/// Layout: reason (the rest, at most 256 bytes of UTF-8). A longer reason is cut when the frame
/// is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Why, for the peer's user.
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
