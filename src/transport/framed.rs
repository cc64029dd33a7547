//! Bytes in, frames out: the codec over one large read buffer.

use std::io;

use bytes::{BufMut, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::Decoder;

use super::large_frame_pool::{LARGE_BYTES, LargeFramePool, PEEK_BYTES};
use crate::config;
use crate::wire::{Frame, FrameCodec, FrameVisitor, WireError};

/// Reads frames from one direction of a link.
///
/// Payloads of the frames are slices of the read buffer. Every frame that is already in the
/// buffer can be had without waiting ([`FrameReader::drain`]), so that a caller takes its
/// locks once for all frames of one read.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    codec: FrameCodec,
    buffer: BytesMut,
    read_bytes: usize,
    large: LargeFramePool,
    /// Whether the last frame was a large one: then the next may be, too.
    expect_large: bool,
}

/// Why no further frame can be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer sent what is no frame.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The link broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed the link.
    #[error("the peer closed the link")]
    Closed,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader for a peer that has not proved itself: small frames, small reads.
    pub fn handshake(reader: R) -> Self {
        let read_bytes = config::HANDSHAKE_FRAME_BYTES_MAX;
        Self {
            reader,
            codec: FrameCodec::handshake(),
            buffer: BytesMut::new(),
            read_bytes,
            large: LargeFramePool::default(),
            expect_large: false,
        }
    }

    /// A reader for a proven peer, that takes up with what an earlier reader of the link had left.
    pub fn established(reader: R, frame_bytes_max: usize, buffer: BytesMut) -> Self {
        let codec = FrameCodec::established(frame_bytes_max);
        let read_bytes = config::READ_BYTES.min(frame_bytes_max);
        Self { reader, codec, buffer, read_bytes, large: LargeFramePool::default(), expect_large: false }
    }

    /// What the bytes are read from.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// What the bytes are read from, to write to it.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The next frame that has arrived whole; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError::Wire`] if the bytes are no frame that is allowed now.
    pub fn buffered(&mut self) -> Result<Option<Frame>, ReadError> {
        Ok(self.codec.decode(&mut self.buffer)?)
    }

    /// Hands over every frame that has arrived whole.
    ///
    /// # Errors
    ///
    /// As [`FrameReader::buffered`], and those of `frames`, which gets no further frame then.
    pub fn drain<F: FrameVisitor<Error: From<ReadError>>>(&mut self, frames: &mut F) -> Result<(), F::Error> {
        let (messages, whole) = self.codec.drain(&mut self.buffer, frames)?;
        if messages == 0
            && whole.len() >= LARGE_BYTES
            && matches!(self.codec.frame_bytes(&whole), Ok(Some(bytes)) if bytes == whole.len())
        {
            self.large.keep(whole);
            self.expect_large = true;
        } else if messages + whole.len() > 0 || self.buffer.is_empty() {
            // An acknowledgement changes nothing if something has begun behind it: it may be a large frame.
            self.expect_large = false;
            self.large.clear();
        }
        Ok(())
    }

    /// Waits until more bytes have arrived; gives how many.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] at the end of the stream, [`ReadError::Io`] if the link broke.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no byte.
    pub async fn fill(&mut self) -> Result<usize, ReadError> {
        debug_assert!(self.buffer.len() < self.codec.frame_bytes(&self.buffer)?.unwrap_or(usize::MAX));
        let read = match self.codec.frame_bytes(&self.buffer)? {
            // A large frame is read to its end and no further: its memory is its own.
            Some(frame_bytes) if frame_bytes >= LARGE_BYTES => {
                if self.buffer.capacity() < frame_bytes {
                    let begun = std::mem::replace(&mut self.buffer, self.large.take(frame_bytes));
                    self.buffer.extend_from_slice(&begun);
                }
                let missing = frame_bytes - self.buffer.len();
                self.reader.read_buf(&mut (&mut self.buffer).limit(missing)).await?
            }
            None if self.expect_large => {
                self.buffer.reserve(PEEK_BYTES);
                self.reader.read_buf(&mut (&mut self.buffer).limit(PEEK_BYTES)).await?
            }
            _ => {
                self.buffer.reserve(self.read_bytes);
                self.reader.read_buf(&mut self.buffer).await?
            }
        };
        if read == 0 { Err(ReadError::Closed) } else { Ok(read) }
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    ///
    /// As [`FrameReader::buffered`] and [`FrameReader::fill`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no byte and no frame.
    pub async fn next(&mut self) -> Result<Frame, ReadError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The link's direction and the bytes read from it that no frame has taken.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.reader, self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CallId, Target, TypeHash};
    use crate::wire::{Ack, Body, CallHeader, ShortSlice, Tell, TellHeader};

    /// Counts the frames that are not of few bytes.
    struct Counted(usize);

    impl FrameVisitor for Counted {
        type Error = ReadError;

        fn call(&mut self, _: CallHeader, _: usize, _: ShortSlice<'_>) -> Result<(), ReadError> {
            Ok(())
        }

        fn tell(&mut self, _: TellHeader, _: usize, _: ShortSlice<'_>) -> Result<(), ReadError> {
            Ok(())
        }

        fn reply(&mut self, _: CallId, _: usize, _: ShortSlice<'_>) -> Result<(), ReadError> {
            Ok(())
        }

        fn other(&mut self, _: Frame) -> Result<(), ReadError> {
            self.0 += 1;
            Ok(())
        }
    }

    /// Reads a tell of a 100 KiB, what `between` has, and another; gives whether the memory of the last large
    /// frame was kept after each read.
    async fn kept_between(between: &[u8]) -> Vec<bool> {
        let body = Body { message: vec![0; 100 << 10].into(), ..Body::empty() };
        let mut large = BytesMut::new();
        Frame::Tell(Tell { target: Target::HOST, message: TypeHash(1), body }).put(&mut large);
        let stream = [&large[..], between, &large[..], between].concat();
        let mut frames = FrameReader::established(&stream[..], 1 << 20, BytesMut::new());
        let (mut seen, mut kept) = (Counted(0), Vec::new());
        while frames.fill().await.is_ok() {
            frames.drain(&mut seen).unwrap();
            kept.push(frames.expect_large);
        }
        assert!(seen.0 >= 2 && frames.buffer.is_empty(), "{} frames", seen.0);
        kept
    }

    #[tokio::test]
    async fn memory_of_large_frames_is_kept_until_something_else_comes() {
        let mut ack = BytesMut::new();
        Ack { received: 1 }.put(&mut ack);
        let mut tell = BytesMut::new();
        let body = Body { message: vec![0].into(), ..Body::empty() };
        Frame::Tell(Tell { target: Target::HOST, message: TypeHash(1), body }).put(&mut tell);
        // The first is read in two pieces. An acknowledgement comes with the beginning of the second, and
        // once by itself.
        assert_eq!(kept_between(&[]).await, [false, true, true, true]);
        assert_eq!(kept_between(&ack).await, [false, true, true, true, false]);
        assert_eq!(kept_between(&tell).await, [false, true, false, true, false]);
    }
}
