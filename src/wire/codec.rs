//! Framing: a byte stream as a sequence of frames.
//!
//! Three decoders read the established phase. `decode_fast` handles calls, tells and replies of few
//! bytes where they lie in the buffer. `decode_copied` handles other frames of up to 4 KiB, and copies
//! their parts. `decode_general` handles every frame, and so does [`Decoder::decode`]. They must agree on
//! every stream, valid or not: the property test `drained_frames_equal_decoded_frames` compares them.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::frame::{LENGTH_BYTES, Prefix};
use super::inline::COPY_MAX;
use super::{Frame, FrameKind, FrameVisitor, MAGIC, PREFIX_BYTES, Phase, WireError};
use crate::config::HANDSHAKE_FRAME_BYTES_MAX;

/// Codec of the frames of one of the two phases of a link.
///
/// Two codecs may use one buffer in turn: neither reads past the end of its frame.
#[derive(Clone, Debug)]
pub struct FrameCodec {
    phase: Phase,
    frame_bytes_max: usize,
}

impl FrameCodec {
    /// Codec for an unauthenticated peer: handshake frames only, of at most 512 bytes.
    #[must_use]
    pub fn handshake() -> Self {
        Self { phase: Phase::Handshake, frame_bytes_max: HANDSHAKE_FRAME_BYTES_MAX }
    }

    /// Codec for an authenticated peer: all other frames, of at most `frame_bytes_max` bytes each.
    #[must_use]
    pub fn established(frame_bytes_max: usize) -> Self {
        Self { phase: Phase::Established, frame_bytes_max }
    }

    /// Returns the prefix of the first frame of `bytes`, if it is complete and valid.
    ///
    /// Every byte received is checked, so that a stranger is detected by its first wrong byte.
    pub(super) fn peek_prefix(&self, bytes: &[u8]) -> Result<Option<Prefix>, WireError> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let frame_bytes = u64::from(u32::from_be_bytes(*length)) + LENGTH_BYTES as u64;
        // Compared before a byte is stored. Most bytes of other protocols fail here: `GET ` read as
        // a length is over a billion.
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
        let kind = FrameKind::from_number(kind).ok_or(malformed("its kind is unknown"))?;
        // Only authenticated peers reach the decoders of bodies.
        if kind.phase() != self.phase {
            return Err(WireError::Unexpected { kind, phase: self.phase });
        }
        let Some((&flags, rest)) = rest.split_first() else {
            return Ok(None);
        };
        // A flag may change the layout of the fields, so an unknown one cannot be ignored.
        if flags & !kind.flags() != 0 {
            return Err(WireError::Malformed { frame: kind.name(), what: "its flags are unknown" });
        }
        let Some((attachments, fields)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        // A truncated Hello is followed by bytes of another frame, which are no magic.
        let fields = &fields[..fields.len().min(frame_bytes - PREFIX_BYTES)];
        if kind == FrameKind::Hello && fields.iter().zip(MAGIC).any(|(have, want)| *have != want) {
            return Err(WireError::NotRoadshow);
        }
        Ok(Some(Prefix { frame_bytes, kind, flags, attachments: u16::from_be_bytes(*attachments) }))
    }
}

/// Longest frame whose parts are always copied. A read buffer whose frames are all copied is used again
/// for the next read; a slice of it would keep its 64 KiB alive, and the next read would allocate.
const COPIED_FRAME_BYTES_MAX: usize = COPY_MAX;

/// Decoding of many frames from one buffer, without a reference count for each.
impl FrameCodec {
    /// Removes all complete frames from the beginning of `stream`, and dispatches them to `frames`.
    ///
    /// Frames of up to 4 KiB are decoded where they lie, and their parts are copied. From the first
    /// long frame on, the rest is frozen as one buffer, and the long bodies are slices of it. Returns the
    /// number of bytes of the leading messages and replies, and that buffer.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`] for invalid bytes, and the error of `frames`, which then receives no
    /// further frame.
    pub fn drain<F: FrameVisitor>(
        &self,
        stream: &mut BytesMut,
        frames: &mut F,
    ) -> Result<(usize, Bytes), F::Error> {
        let ShortFrames { bytes, messages } = self.decode_fast(stream, frames)?;
        // The long frames are decoded from one frozen buffer: one atomic count for all, instead of
        // one each.
        stream.advance(bytes);
        let whole = self.split_whole(stream);
        let mut rest = &whole[..];
        while let Some(start) = rest.first_chunk::<LENGTH_BYTES>() {
            let (frame, behind) = rest.split_at(u32::from_be_bytes(*start) as usize + LENGTH_BYTES);
            frames.other(self.decode_general(&whole, frame)?)?;
            // After a long frame the fast decoders continue with the next ones.
            rest = &behind[self.decode_fast(behind, frames)?.bytes..];
        }
        // The remaining bytes are an incomplete frame, which may be invalid already.
        self.peek_prefix(stream)?;
        Ok((messages, whole))
    }

    /// Splits off the complete frames at the beginning of `stream`, by their length fields alone.
    fn split_whole(&self, stream: &mut BytesMut) -> Bytes {
        let mut end = 0;
        while let Some(length) = stream[end..].first_chunk::<LENGTH_BYTES>() {
            let frame_bytes = u32::from_be_bytes(*length) as usize + LENGTH_BYTES;
            if frame_bytes > stream.len() - end {
                break;
            }
            end += frame_bytes;
        }
        // Splitting off an empty buffer would still allocate its shared handle.
        if end == 0 { Bytes::new() } else { stream.split_to(end).freeze() }
    }

    /// Returns the length of the first frame of `bytes`, if its length field is complete.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`]: no valid frame starts like this.
    pub fn frame_bytes(&self, bytes: &[u8]) -> Result<Option<usize>, WireError> {
        Ok(self.peek_prefix(bytes)?.map(|prefix| prefix.frame_bytes))
    }

    /// Dispatches the frames of up to 4 KiB at the beginning of `bytes`, until a long or an incomplete
    /// frame.
    #[inline(never)]
    fn decode_fast<F: FrameVisitor>(&self, bytes: &[u8], frames: &mut F) -> Result<ShortFrames, F::Error> {
        let (mut rest, mut others) = (bytes, 0);
        while self.phase == Phase::Established
            && let Some(prefix) = rest.first_chunk()
        {
            // One comparison with the three expected prefixes stands for all checks of
            // `peek_prefix`: any other frame takes the general path.
            let prefix = u64::from_be_bytes(*prefix);
            let frame_bytes = (prefix >> 32) as usize + LENGTH_BYTES;
            if frame_bytes <= self.frame_bytes_max
                && let Some((frame, behind)) = rest.split_at_checked(frame_bytes)
                && let Some(fields) = frame.get(PREFIX_BYTES..)
            {
                match Frame::dispatch_short(prefix as u32, frame_bytes, fields, frames) {
                    Some(handed_over) => handed_over?,
                    None if frame_bytes <= COPIED_FRAME_BYTES_MAX => {
                        if !self.decode_copied(frame, frames)? {
                            others += frame_bytes;
                        }
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

    /// Dispatches a frame, whose parts are copied. Returns whether it is a message or a reply.
    #[inline(never)]
    fn decode_copied<F: FrameVisitor>(&self, frame: &[u8], frames: &mut F) -> Result<bool, F::Error> {
        let prefix = self.whole_prefix(frame)?;
        if prefix.attachments <= 1 {
            return Frame::dispatch_copied(prefix, None, &frame[PREFIX_BYTES..], frames);
        }
        // Several payloads share one copy, instead of an allocation each.
        let whole = Bytes::copy_from_slice(frame);
        Frame::dispatch_copied(prefix, Some(&whole), &whole[PREFIX_BYTES..], frames)
    }

    /// Decodes a frame that lies in `whole`.
    fn decode_general(&self, whole: &Bytes, frame: &[u8]) -> Result<Frame, WireError> {
        Frame::read(self.whole_prefix(frame)?, Some(whole), &frame[PREFIX_BYTES..])
    }

    /// Returns the prefix of a frame whose bytes are all there.
    fn whole_prefix(&self, frame: &[u8]) -> Result<Prefix, WireError> {
        self.peek_prefix(frame)?.ok_or(malformed("it is shorter than the header of a frame"))
    }
}

/// Number of bytes of the frames decoded in place, in total and of the messages and replies.
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
        // Reserved only after the length was checked against the limit.
        if stream.len() < prefix.frame_bytes {
            stream.reserve(prefix.frame_bytes - stream.len());
            return Ok(None);
        }
        let frame = stream.split_to(prefix.frame_bytes).freeze();
        Frame::read(prefix, Some(&frame), &frame[PREFIX_BYTES..]).map(Some)
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
        // Encoded first and taken back if too long: the length of a body is not known before.
        let frame_bytes = frame.put(stream);
        if frame_bytes > self.frame_bytes_max {
            stream.truncate(before);
            return Err(WireError::TooLong { length: frame_bytes as u64, limit: self.frame_bytes_max });
        }
        Ok(())
    }
}
