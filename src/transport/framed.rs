//! Bytes in, frames out: the codec over one large read buffer.

use std::io;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::Decoder;

use crate::config;
use crate::wire::{Frame, FrameCodec, WireError};

/// Reads frames from one direction of a link.
///
/// Payloads of the frames are slices of the read buffer. Every frame that is already in the
/// buffer can be had without waiting ([`FrameReader::buffered`]), so that a caller takes its
/// locks once for all frames of one read.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    codec: FrameCodec,
    buffer: BytesMut,
    /// Whole frames, which come before the buffer.
    whole: Bytes,
    read_bytes: usize,
}

/// Why no further frame can be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer sent what is no frame.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The link broke.
    #[error("{0}")]
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
            whole: Bytes::new(),
            read_bytes,
        }
    }

    /// A reader for a proven peer, that takes up with what an earlier reader of the link had left.
    pub fn established(reader: R, frame_bytes_max: usize, buffer: BytesMut) -> Self {
        let codec = FrameCodec::established(frame_bytes_max);
        let read_bytes = config::READ_BYTES.min(frame_bytes_max);
        Self { reader, codec, buffer, whole: Bytes::new(), read_bytes }
    }

    /// What the bytes are read from.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The next frame that has arrived whole; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError::Wire`] if the bytes are no frame that is allowed now.
    pub fn buffered(&mut self) -> Result<Option<Frame>, ReadError> {
        if self.whole.is_empty() {
            self.whole = self.codec.split_whole(&mut self.buffer);
            if self.whole.is_empty() {
                // It says what is wrong with the first bytes of a frame, and makes room for the rest.
                return Ok(self.codec.decode(&mut self.buffer)?);
            }
        }
        Ok(self.codec.next(&mut self.whole)?)
    }

    /// Gives every frame that has arrived whole to `take`.
    ///
    /// # Errors
    ///
    /// As [`FrameReader::buffered`], and those of `take`, which gets no further frame then.
    #[inline]
    pub fn drain<E: From<ReadError>>(
        &mut self,
        mut take: impl FnMut(Frame) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(frame) = self.buffered()? {
            take(frame)?;
            loop {
                match self.codec.next(&mut self.whole) {
                    Ok(Some(frame)) => take(frame)?,
                    Ok(None) => break,
                    Err(error) => return Err(ReadError::from(error).into()),
                }
            }
        }
        Ok(())
    }

    /// Waits until more bytes have arrived.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] at the end of the stream, [`ReadError::Io`] if the link broke.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no byte.
    pub async fn fill(&mut self) -> Result<(), ReadError> {
        self.buffer.reserve(self.read_bytes);
        match self.reader.read_buf(&mut self.buffer).await? {
            0 => Err(ReadError::Closed),
            _ => Ok(()),
        }
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
        let mut left = BytesMut::from(self.whole);
        left.unsplit(self.buffer);
        (self.reader, left)
    }
}
