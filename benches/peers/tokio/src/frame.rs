//! Frames, and the buffers that they are written from and read into.
//!
//! ```text
//! length: u32 | call: u32 | kind: u8 | actor: u8 | number: u64 | bytes
//! ```

use std::io::{self, ErrorKind};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Size of a frame without bytes, and without its length.
const HEAD: usize = 14;

/// Size of the length.
const LENGTH: usize = 4;

/// Longest frame that is read.
const FRAME_MAX: usize = 64 << 20;

/// Bytes up to which a copy costs less than an entry of a vectored write.
const COPIED_MAX: usize = 8 << 10;

/// Room for a read.
const READ: usize = 64 << 10;

/// Work that a frame asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Call,
    Count,
    Tell,
    Echo,
    Reply,
    Words,
}

impl Kind {
    fn of(byte: u8) -> io::Result<Self> {
        const ALL: [Kind; 6] = [Kind::Call, Kind::Count, Kind::Tell, Kind::Echo, Kind::Reply, Kind::Words];
        ALL.get(usize::from(byte))
            .copied()
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no such kind"))
    }
}

/// Request or reply.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) call: u32,
    pub(crate) kind: Kind,
    pub(crate) actor: u8,
    pub(crate) number: u64,
    pub(crate) bytes: Bytes,
}

/// Writing half, with a buffer of frames that are not written yet.
pub(crate) struct FrameWriter<W> {
    writer: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer, buffer: BytesMut::with_capacity(READ) }
    }

    /// Appends a frame. Long bytes are written immediately, with all that waits.
    pub(crate) async fn feed(&mut self, frame: Frame) -> io::Result<()> {
        self.buffer.put_u32((HEAD + frame.bytes.len()) as u32);
        self.buffer.put_u32(frame.call);
        self.buffer.put_u8(frame.kind as u8);
        self.buffer.put_u8(frame.actor);
        self.buffer.put_u64(frame.number);
        if frame.bytes.len() <= COPIED_MAX {
            self.buffer.put_slice(&frame.bytes);
            return Ok(());
        }
        self.writer.write_all_buf(&mut (&mut self.buffer).chain(frame.bytes)).await
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all_buf(&mut self.buffer).await?;
        self.buffer.clear();
        // A TLS stream keeps records back until it is flushed.
        self.writer.flush().await
    }
}

/// Reading half.
pub(crate) struct FrameReader<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::with_capacity(READ) }
    }

    /// Reads once. Returns false at the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        // The rest of a long frame is read into one piece of memory.
        let missing = match self.length()? {
            Some(length) => (LENGTH + length).saturating_sub(self.buffer.len()),
            None => 0,
        };
        self.buffer.reserve(missing.max(READ));
        Ok(self.reader.read_buf(&mut self.buffer).await? > 0)
    }

    /// Takes the next frame of what was read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.length()? else { return Ok(None) };
        if self.buffer.len() < LENGTH + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH);
        let (call, kind) = (self.buffer.get_u32(), Kind::of(self.buffer.get_u8())?);
        let (actor, number) = (self.buffer.get_u8(), self.buffer.get_u64());
        let bytes = match length - HEAD {
            0 => Bytes::new(),
            length => self.buffer.split_to(length).freeze(),
        };
        Ok(Some(Frame { call, kind, actor, number, bytes }))
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let Some(length) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(HEAD..=FRAME_MAX).contains(&length) {
            return Err(io::Error::new(ErrorKind::InvalidData, "a frame has an impossible length"));
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_they_were_written() {
        let (near, far) = tokio::io::duplex(1000);
        let (mut writer, mut reader) = (FrameWriter::new(near), FrameReader::new(far));
        let sizes = [0, 5, COPIED_MAX, COPIED_MAX + 1, 300_000, 0];
        let write = async {
            for (call, size) in sizes.into_iter().enumerate() {
                let bytes = vec![call as u8; size].into();
                writer
                    .feed(Frame { call: call as u32, kind: Kind::Echo, actor: 3, number: 9, bytes })
                    .await?;
            }
            writer.flush().await
        };
        let read = async {
            let mut found = Vec::new();
            while found.len() < sizes.len() {
                assert!(reader.fill().await?);
                while let Some(frame) = reader.next()? {
                    assert_eq!((frame.kind, frame.actor, frame.number), (Kind::Echo, 3, 9));
                    assert!(frame.bytes.iter().all(|byte| u32::from(*byte) == frame.call));
                    found.push(frame.bytes.len());
                }
            }
            Ok::<_, io::Error>(found)
        };
        let (written, found) = tokio::join!(write, read);
        written.unwrap();
        assert_eq!(found.unwrap(), sizes);
    }

    #[tokio::test]
    async fn impossible_lengths_are_an_error() {
        let (mut near, far) = tokio::io::duplex(100);
        near.write_all(&[255; 8]).await.unwrap();
        let mut reader = FrameReader::new(far);
        reader.fill().await.unwrap();
        assert!(reader.next().is_err());
    }
}
