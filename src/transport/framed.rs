//! Frame reader of a link, with one large read buffer.

use std::io;

use bytes::{BufMut, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::Decoder;

use super::large_frame_pool::{LARGE_BYTES, LargeFramePool, PEEK_BYTES};
use crate::config;
use crate::wire::{Frame, FrameCodec, FrameVisitor, WireError};

/// Reader of the frames of one direction of a link.
///
/// Payloads of longer frames are slices of the read buffer. All frames already in the buffer are available without
/// waiting ([`FrameReader::drain`]), so a caller takes its locks once for all frames of one read.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    codec: FrameCodec,
    buffer: BytesMut,
    read_bytes: usize,
    large: LargeFramePool,
    /// Set if the last frame was large: the next one may be, too.
    expect_large: bool,
}

/// Reason why no further frame can be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer sent an invalid frame.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The link failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed the link.
    #[error("the peer closed the link")]
    Closed,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Creates a reader for an unauthenticated peer: small frames, small reads.
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

    /// Creates a reader for an authenticated peer, which continues with the bytes left by an
    /// earlier reader.
    pub fn established(reader: R, frame_bytes_max: usize, buffer: BytesMut) -> Self {
        let codec = FrameCodec::established(frame_bytes_max);
        // A peer with a small frame limit needs no larger buffer.
        let read_bytes = config::READ_BYTES.min(frame_bytes_max);
        Self { reader, codec, buffer, read_bytes, large: LargeFramePool::default(), expect_large: false }
    }

    /// Returns the source of the bytes.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Returns the source of the bytes, to write to it.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Returns the next complete frame; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError::Wire`] if the bytes are no valid frame.
    pub fn buffered(&mut self) -> Result<Option<Frame>, ReadError> {
        Ok(self.codec.decode(&mut self.buffer)?)
    }

    /// Dispatches every complete frame in the buffer.
    ///
    /// # Errors
    ///
    /// As [`FrameReader::buffered`], and the errors of `frames`, which receives no further frame
    /// then.
    pub fn drain<F: FrameVisitor<Error: From<ReadError>>>(&mut self, frames: &mut F) -> Result<(), F::Error> {
        let (messages, whole) = self.codec.drain(&mut self.buffer, frames)?;
        if messages == 0
            // A read that consists of exactly one large frame: another one probably follows, as in
            // a transfer.
            && whole.len() >= LARGE_BYTES
            && matches!(self.codec.frame_bytes(&whole), Ok(Some(bytes)) if bytes == whole.len())
        {
            self.large.keep(whole);
            self.expect_large = true;
        } else if messages + whole.len() > 0 || self.buffer.is_empty() {
            // An ACK before a partly received frame changes nothing: that frame may be large.
            self.expect_large = false;
            self.large.clear();
        }
        Ok(())
    }

    /// Waits until more bytes have arrived. Returns their number.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] at the end of the stream, [`ReadError::Io`] if the link failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no bytes.
    pub async fn fill(&mut self) -> Result<usize, ReadError> {
        debug_assert!(self.buffer.len() < self.codec.frame_bytes(&self.buffer)?.unwrap_or(usize::MAX));
        let read = match self.codec.frame_bytes(&self.buffer)? {
            // A large frame is read to its end and no further, so that its buffer contains nothing
            // else.
            Some(frame_bytes) if frame_bytes >= LARGE_BYTES => {
                if self.buffer.capacity() < frame_bytes {
                    // In a buffer of its own, so that its payloads keep nothing else alive. The
                    // bytes read so far are copied once.
                    let begun = std::mem::replace(&mut self.buffer, self.large.take(frame_bytes));
                    self.buffer.extend_from_slice(&begun);
                }
                let missing = frame_bytes - self.buffer.len();
                self.reader.read_buf(&mut (&mut self.buffer).limit(missing)).await?
            }
            None if self.expect_large => {
                // A short read shows the length of the next frame. Its rest is then read into its
                // own memory, without a copy.
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
    /// Dropping the future loses no bytes and no frames.
    pub async fn next(&mut self) -> Result<Frame, ReadError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Returns the source, and the bytes read that belong to no frame yet.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.reader, self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CallId, Target, TypeHash};
    use crate::wire::{Ack, Body, CallHeader, IncomingBody, Tell, TellHeader};

    /// Counts the frames that are not short.
    struct Counted(usize);

    impl FrameVisitor for Counted {
        type Error = ReadError;

        fn call(&mut self, _: CallHeader, _: usize, _: impl IncomingBody) -> Result<(), ReadError> {
            Ok(())
        }

        fn tell(&mut self, _: TellHeader, _: usize, _: impl IncomingBody) -> Result<(), ReadError> {
            Ok(())
        }

        fn reply(&mut self, _: CallId, _: usize, _: impl IncomingBody) -> Result<(), ReadError> {
            Ok(())
        }

        fn other(&mut self, _: Frame) -> Result<(), ReadError> {
            self.0 += 1;
            Ok(())
        }
    }

    /// Reads a tell of 100 KiB, `between`, and the same again. Returns for each read whether the
    /// pool kept the memory of the last large frame.
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

    /// Keeps the payloads of all tells.
    #[derive(Default)]
    struct Kept(Vec<crate::wire::Attachments>);

    impl FrameVisitor for Kept {
        type Error = ReadError;

        fn call(&mut self, _: CallHeader, _: usize, _: impl IncomingBody) -> Result<(), ReadError> {
            Ok(())
        }

        fn tell(&mut self, _: TellHeader, _: usize, body: impl IncomingBody) -> Result<(), ReadError> {
            self.0.push(body.into().attachments);
            Ok(())
        }

        fn reply(&mut self, _: CallId, _: usize, _: impl IncomingBody) -> Result<(), ReadError> {
            Ok(())
        }

        fn other(&mut self, _: Frame) -> Result<(), ReadError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn read_buffer_is_reused_while_short_payloads_are_kept() {
        let (mut stream, payload) = (BytesMut::new(), bytes::Bytes::from(vec![7; 1000]));
        let body = Body { message: vec![0].into(), attachments: payload.clone().into(), trace: None };
        let tell = Frame::Tell(Tell { target: Target::HOST, message: TypeHash(1), body });
        for _ in 0..4000 {
            tell.put(&mut stream);
        }
        let mut frames = FrameReader::established(&stream[..], 1 << 20, BytesMut::new());
        let (mut kept, mut places) = (Kept::default(), std::collections::BTreeSet::new());
        let mut reads = 0;
        while frames.fill().await.is_ok() {
            reads += 1;
            places.insert(frames.buffer.as_ptr());
            frames.drain(&mut kept).unwrap();
        }
        assert!(kept.0.len() == 4000 && kept.0.iter().all(|attachments| **attachments == [payload.clone()]));
        // The first buffers have no room for a read behind a part of a frame, so they grow.
        assert!(reads >= 30 && places.len() <= 4, "{} buffers for {reads} reads", places.len());
    }

    #[tokio::test]
    async fn memory_of_large_frames_is_kept_until_another_frame_arrives() {
        let mut ack = BytesMut::new();
        Ack { received: 1 }.put(&mut ack);
        let mut tell = BytesMut::new();
        let body = Body { message: vec![0].into(), ..Body::empty() };
        Frame::Tell(Tell { target: Target::HOST, message: TypeHash(1), body }).put(&mut tell);
        // The first frame is read in two pieces. An ACK arrives with the beginning of the second one, and
        // once alone.
        assert_eq!(kept_between(&[]).await, [false, true, true, true]);
        assert_eq!(kept_between(&ack).await, [false, true, true, true, false]);
        assert_eq!(kept_between(&tell).await, [false, true, false, true, false]);
    }
}
