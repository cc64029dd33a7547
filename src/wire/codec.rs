//! A stream of bytes as a stream of frames.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::frame::{LENGTH_BYTES, Prefix};
use super::{Frame, FrameKind, FrameVisitor, MAGIC, PREFIX_BYTES, Phase, WireError};
use crate::config::HANDSHAKE_FRAME_BYTES_MAX;

/// Cuts a stream into frames, for one of the two phases of a link.
///
/// Both codecs may be used on one buffer, one behind the other: neither reads past its frame.
#[derive(Clone, Debug)]
pub struct FrameCodec {
    phase: Phase,
    frame_bytes_max: usize,
}

impl FrameCodec {
    /// For a peer that has not proved itself: handshake frames only, and short ones.
    #[must_use]
    pub fn handshake() -> Self {
        Self { phase: Phase::Handshake, frame_bytes_max: HANDSHAKE_FRAME_BYTES_MAX }
    }

    /// For a peer that has: all the other frames, up to `frame_bytes_max` bytes each.
    #[must_use]
    pub fn established(frame_bytes_max: usize) -> Self {
        Self { phase: Phase::Established, frame_bytes_max }
    }

    /// The length of the first frame of `bytes` if its prefix has come and is in order.
    ///
    /// Every byte that has come is judged, so that a stranger is known by the first wrong one.
    pub(super) fn peek_prefix(&self, bytes: &[u8]) -> Result<Option<Prefix>, WireError> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let frame_bytes = u64::from(u32::from_be_bytes(*length)) + LENGTH_BYTES as u64;
        if frame_bytes > self.frame_bytes_max as u64 {
            return Err(WireError::TooLong { length: frame_bytes, limit: self.frame_bytes_max });
        }
        let frame_bytes = frame_bytes as usize;
        if frame_bytes < PREFIX_BYTES {
            return Err(malformed("it is shorter than the header of a frame"));
        }
        let Some((&kind, rest)) = rest.split_first() else {
            return Ok(None);
        };
        let kind = FrameKind::from_number(kind).ok_or(malformed("its kind is not known"))?;
        if kind.phase() != self.phase {
            return Err(WireError::Unexpected { kind, phase: self.phase });
        }
        let Some((&flags, rest)) = rest.split_first() else {
            return Ok(None);
        };
        if flags & !kind.flags() != 0 {
            return Err(WireError::Malformed { frame: kind.name(), what: "its flags are not known" });
        }
        let Some((attachments, fields)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        // What is behind the frame is not its magic, even if the frame is too short for one.
        let fields = &fields[..fields.len().min(frame_bytes - PREFIX_BYTES)];
        if kind == FrameKind::Hello && fields.iter().zip(MAGIC).any(|(have, want)| *have != want) {
            return Err(WireError::NotRoadshow);
        }
        Ok(Some(Prefix { frame_bytes, kind, flags, attachments: u16::from_be_bytes(*attachments) }))
    }
}

/// Up to this length a frame is copied, whatever it is: acknowledgements and credit come between messages.
const SHORT_BYTES: usize = 32;

/// Many frames at once, without a count of handles for each.
impl FrameCodec {
    /// Takes all whole frames from the beginning of `stream` and hands them over.
    ///
    /// Those of few bytes are read where they lie. From the first longer one on, all are cut off together and
    /// read as parts of that. Gives how many bytes the messages and replies among the former had, and the
    /// latter as a whole.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`] if bytes are no frame that is allowed now; and those of `frames`, which gets no
    /// further frame then.
    pub fn drain<F: FrameVisitor>(
        &self,
        stream: &mut BytesMut,
        frames: &mut F,
    ) -> Result<(usize, Bytes), F::Error> {
        let ShortFrames { bytes, messages } = self.decode_short_frames(stream, frames)?;
        stream.advance(bytes);
        let whole = self.split_whole(stream);
        let mut rest = &whole[..];
        while let Some(start) = rest.first_chunk::<LENGTH_BYTES>() {
            let (frame, behind) = rest.split_at(u32::from_be_bytes(*start) as usize + LENGTH_BYTES);
            frames.other(self.decode_frame(&whole, frame)?)?;
            rest = &behind[self.decode_short_frames(behind, frames)?.bytes..];
        }
        // What is left is no whole frame, and may not be able to become one.
        self.peek_prefix(stream)?;
        Ok((messages, whole))
    }

    /// Cuts off what whole frames `stream` begins with, as far as their lengths tell.
    fn split_whole(&self, stream: &mut BytesMut) -> Bytes {
        let mut end = 0;
        while let Some(length) = stream[end..].first_chunk::<LENGTH_BYTES>() {
            let frame_bytes = u32::from_be_bytes(*length) as usize + LENGTH_BYTES;
            if frame_bytes > stream.len() - end {
                break;
            }
            end += frame_bytes;
        }
        // To cut off nothing would cost a handle.
        if end == 0 { Bytes::new() } else { stream.split_to(end).freeze() }
    }

    /// The length of the frame that `bytes` begin with, if that much has come.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`]: no frame that is allowed now begins like this.
    pub fn frame_bytes(&self, bytes: &[u8]) -> Result<Option<usize>, WireError> {
        Ok(self.peek_prefix(bytes)?.map(|prefix| prefix.frame_bytes))
    }

    /// Hands over the frames of few bytes that `bytes` begin with: up to a longer frame, or one that has not
    /// come whole.
    #[inline(never)]
    fn decode_short_frames<F: FrameVisitor>(
        &self,
        bytes: &[u8],
        frames: &mut F,
    ) -> Result<ShortFrames, F::Error> {
        let (mut rest, mut others) = (bytes, 0);
        while self.phase == Phase::Established
            && let Some(prefix) = rest.first_chunk()
        {
            // All that is to be said of most prefixes is that they are as expected.
            let prefix = u64::from_be_bytes(*prefix);
            let frame_bytes = (prefix >> 32) as usize + LENGTH_BYTES;
            if frame_bytes <= self.frame_bytes_max
                && let Some((frame, behind)) = rest.split_at_checked(frame_bytes)
                && let Some(fields) = frame.get(PREFIX_BYTES..)
            {
                match Frame::dispatch_short(prefix as u32, frame_bytes, fields, frames) {
                    Some(handed_over) => handed_over?,
                    None if frame_bytes <= SHORT_BYTES => {
                        frames.other(self.read_short(frame)?)?;
                        others += frame_bytes;
                    }
                    None => break,
                }
                rest = behind;
            } else {
                break;
            }
        }
        let bytes = bytes.len() - rest.len();
        Ok(ShortFrames { bytes, messages: bytes - others })
    }

    #[inline(never)]
    fn read_short(&self, frame: &[u8]) -> Result<Frame, WireError> {
        let whole = Bytes::copy_from_slice(frame);
        self.decode_frame(&whole, &whole)
    }

    /// Reads a frame that lies in `whole`.
    fn decode_frame(&self, whole: &Bytes, frame: &[u8]) -> Result<Frame, WireError> {
        match self.peek_prefix(frame)? {
            Some(prefix) => Frame::read(prefix, whole, &frame[PREFIX_BYTES..]),
            None => Err(malformed("it is shorter than the header of a frame")),
        }
    }
}

/// How many bytes frames of few bytes had, and how many of them those that are messages or replies.
struct ShortFrames {
    bytes: usize,
    messages: usize,
}

#[cold]
fn malformed(what: &'static str) -> WireError {
    WireError::Malformed { frame: "nameless", what }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = WireError;

    fn decode(&mut self, stream: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        let Some(prefix) = self.peek_prefix(stream)? else {
            return Ok(None);
        };
        if stream.len() < prefix.frame_bytes {
            stream.reserve(prefix.frame_bytes - stream.len());
            return Ok(None);
        }
        let frame = stream.split_to(prefix.frame_bytes).freeze();
        Frame::read(prefix, &frame, &frame[PREFIX_BYTES..]).map(Some)
    }

    fn decode_eof(&mut self, stream: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        match self.decode(stream)? {
            None if !stream.is_empty() => Err(WireError::Truncated { have: stream.len() }),
            frame => Ok(frame),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = WireError;

    fn encode(&mut self, frame: Frame, stream: &mut BytesMut) -> Result<(), WireError> {
        let kind = frame.kind();
        if kind.phase() != self.phase {
            return Err(WireError::Unexpected { kind, phase: self.phase });
        }
        let before = stream.len();
        let frame_bytes = frame.put(stream);
        if frame_bytes > self.frame_bytes_max {
            stream.truncate(before);
            return Err(WireError::TooLong { length: frame_bytes as u64, limit: self.frame_bytes_max });
        }
        Ok(())
    }
}
