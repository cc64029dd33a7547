//! A piece of a frame that is too long to go out at once.

use bytes::Bytes;

use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};

/// The first chunk of its frame, which says how long that is.
const FIRST: u8 = 1;
/// The last chunk of its frame.
const LAST: u8 = 2;
/// The rest of the frame will not come.
const ABANDONED: u8 = 4;

/// The flags that a chunk may have.
pub(super) const FLAGS: u8 = FIRST | LAST | ABANDONED;

/// What a chunk takes before its bytes, prefix included; all but the first of a frame take 4 less.
pub const CHUNK_HEADER_BYTES: usize = PREFIX_BYTES + 8 + LENGTH_BYTES;

/// The length of the whole frame.
const LENGTH_BYTES: usize = 4;

/// A piece of a frame that is too long to go out at once.
///
/// The pieces of one frame come in order; those of several frames, and other frames, may come
/// between them. Together they are a whole frame, with its prefix.
///
/// Layout: message 8, length 4 if flag 1 is set, the rest are bytes of the frame. Flags: 1 for the
/// first chunk of a frame, 2 for the last, 4 for a frame that is given up and not to be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which of the sender's frames in chunks it belongs to.
    pub message: u64,
    /// In the first chunk: the length of the whole frame in bytes.
    pub first: Option<u32>,
    /// Whether it is the last chunk.
    pub last: bool,
    /// Whether the rest of the frame will not come.
    pub abandoned: bool,
    /// Bytes of the frame.
    pub bytes: Bytes,
}

impl Chunk {
    /// Everything but the bytes.
    #[must_use]
    pub fn header(&self) -> ChunkHeader {
        ChunkHeader { message: self.message, first: self.first, last: self.last, abandoned: self.abandoned }
    }

    pub(super) fn read(mut reader: Reader<'_>, flags: u8) -> Result<Self, WireError> {
        let message = reader.u64()?;
        let first = if flags & FIRST > 0 { Some(reader.u32()?) } else { None };
        let (last, abandoned) = (flags & LAST > 0, flags & ABANDONED > 0);
        if last && abandoned {
            return Err(reader.malformed("it is the last one, and its frame is given up"));
        }
        Ok(Self { message, first, last, abandoned, bytes: reader.rest() })
    }
}

/// Everything of a [`Chunk`] but its bytes, for writing one whose bytes lie elsewhere.
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
    /// Writes what comes before the `count` bytes, which are to follow; returns the length in bytes
    /// of the whole frame.
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
