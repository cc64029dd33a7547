//! Pieces of large frames.

use bytes::Bytes;

use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};

/// Flag of the first chunk of a frame, which carries the frame's length.
const FIRST: u8 = 1;
/// Flag of the last chunk of a frame.
const LAST: u8 = 2;
/// Flag of a frame whose rest is not sent.
const ABANDONED: u8 = 4;

/// Flags that a chunk may have.
pub(super) const FLAGS: u8 = FIRST | LAST | ABANDONED;

/// Length in bytes of the fields before a first chunk's data, prefix included; 4 less for later
/// chunks.
pub const CHUNK_HEADER_BYTES: usize = PREFIX_BYTES + 8 + LENGTH_BYTES;

/// Length in bytes of the field with the frame's length.
const LENGTH_BYTES: usize = 4;

/// Piece of a frame that is too long to send in one piece.
///
/// The chunks of one frame arrive in order. Chunks of other frames, and other frames, may arrive
/// between them. Together they form a whole frame, prefix included.
///
/// Layout: message 8, length 4 if flag 1 is set, the rest are bytes of the frame. Flags: 1 for the
/// first chunk of a frame, 2 for the last, 4 for a frame that is abandoned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Number of the chunked frame among those of the sender, counted from 1.
    pub message: u64,
    /// In the first chunk: length of the whole frame in bytes.
    pub first: Option<u32>,
    /// Set in the last chunk.
    pub last: bool,
    /// Set if the rest of the frame is not sent.
    pub abandoned: bool,
    /// Bytes of the frame.
    pub bytes: Bytes,
}

impl Chunk {
    /// Returns the fields without the data.
    #[must_use]
    pub fn header(&self) -> ChunkHeader {
        ChunkHeader { message: self.message, first: self.first, last: self.last, abandoned: self.abandoned }
    }

    pub(super) fn read(mut reader: Reader<'_>, flags: u8) -> Result<Self, WireError> {
        let message = reader.u64()?;
        let first = if flags & FIRST > 0 { Some(reader.u32()?) } else { None };
        let (last, abandoned) = (flags & LAST > 0, flags & ABANDONED > 0);
        // The receiver could not decide whether the frame is complete.
        if last && abandoned {
            return Err(reader.malformed("it is the last one of an abandoned frame"));
        }
        Ok(Self { message, first, last, abandoned, bytes: reader.rest() })
    }
}

/// Fields of a [`Chunk`] without its data, to write data that lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// See [`Chunk::message`].
    pub message: u64,
    /// See [`Chunk::first`].
    pub first: Option<u32>,
    /// See [`Chunk::last`].
    pub last: bool,
    /// See [`Chunk::abandoned`].
    pub abandoned: bool,
}

impl ChunkHeader {
    /// Writes the fields before `count` bytes of data, which the caller writes next. Returns the
    /// length of the whole frame in bytes.
    pub fn put(&self, count: usize, out: &mut impl FrameSink) -> usize {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags =
            flag(self.first.is_some(), FIRST) | flag(self.last, LAST) | flag(self.abandoned, ABANDONED);
        let length_bytes = if self.first.is_some() { LENGTH_BYTES } else { 0 };
        let frame_bytes = CHUNK_HEADER_BYTES - LENGTH_BYTES + length_bytes + count;
        put_prefix(FrameKind::Chunk, flags, 0, frame_bytes, out);
        out.put_u64(self.message);
        if let Some(length) = self.first {
            out.put_u32(length);
        }
        frame_bytes
    }
}
