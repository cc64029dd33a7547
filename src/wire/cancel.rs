//! A caller that waits no longer.

use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};
use crate::id::CallId;

/// Nobody waits for the answer of a call any more: the call need not begin, or go on.
///
/// Layout: call (8 bytes). The receiver owes the call no answer from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// The call, as its sender numbered it.
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
