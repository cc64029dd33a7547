//! Cancellation of calls.

use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};
use crate::id::CallId;

/// The caller no longer waits: the call need not be started, or completed.
///
/// Layout: call (8 bytes). After this frame the receiver sends no outcome of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Id that the sender gave the call.
    pub call: CallId,
}

impl Cancel {
    /// Writes the frame and returns its length in bytes.
    pub fn put(self, out: &mut impl FrameSink) -> usize {
        let frame_bytes = PREFIX_BYTES + size_of::<u64>();
        put_prefix(FrameKind::Cancel, 0, 0, frame_bytes, out);
        out.put_u64(self.call.0);
        frame_bytes
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let call = reader.call()?;
        reader.finish()?;
        Ok(Self { call })
    }
}
