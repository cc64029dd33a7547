//! Messages to actors: calls, which have a reply, and tells, which have none.

use super::body::{Body, MessageBody, SHORT_BYTES};
use super::frame::prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};
use crate::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};

/// Length of a target in bytes: actor id and incarnation.
pub(super) const TARGET_BYTES: usize = 12;

/// Flag of a call that may be retried, and therefore carries a low watermark.
const RETRYABLE: u8 = 1;

/// Flag of a call or a tell whose body starts with a trace context.
pub(super) const TRACED: u8 = 2;

/// Flags that a call may have.
pub(super) const CALL_FLAGS: u8 = RETRYABLE | TRACED;

/// Flags that a tell may have.
pub(super) const TELL_FLAGS: u8 = TRACED;

/// Length in bytes of the low watermark of a retryable call.
const WATERMARK_BYTES: usize = 8;

/// Length in bytes of a Call frame before its body, prefix included; 8 more with a low watermark.
pub const CALL_HEADER_BYTES: usize = PREFIX_BYTES + 8 + TARGET_BYTES + 8 + 4;

/// Length in bytes of a Tell frame before its body, prefix included.
pub const TELL_HEADER_BYTES: usize = PREFIX_BYTES + TARGET_BYTES + 8;

/// Message with a reply.
///
/// Layout: call 8, actor 8, actor incarnation 4, message 8, timeout 4, low watermark 8 if flag 1 is
/// set, body. With flag 2 the body starts with a trace context of 25 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Id that the caller gave the call.
    pub call: CallId,
    /// Actor that handles the message.
    pub target: Target,
    /// The type of the message.
    pub message: TypeHash,
    /// Time in milliseconds until the caller stops waiting; 0 for no deadline.
    pub timeout_ms: u32,
    /// In a retryable call: the lowest call of the sender that may be retried.
    pub low_watermark: Option<CallId>,
    /// The message.
    pub body: Body,
}

impl Call {
    /// Returns the fields without the body.
    #[must_use]
    pub fn header(&self) -> CallHeader {
        CallHeader {
            call: self.call,
            target: self.target,
            message: self.message,
            timeout_ms: self.timeout_ms,
            low_watermark: self.low_watermark,
        }
    }

    /// The length in bytes of the whole frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.header().frame_bytes(self.body.as_message())
    }

    pub(super) fn read(mut reader: Reader<'_>, flags: u8, attachments: u16) -> Result<Self, WireError> {
        let CallHeader { call, target, message, timeout_ms, low_watermark } =
            CallHeader::read(&mut reader, flags)?;
        let body = Body::read(reader, attachments, flags & TRACED > 0)?;
        Ok(Self { call, target, message, timeout_ms, low_watermark, body })
    }
}

/// Fields of a [`Call`] without its body, to write a body that is encoded elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHeader {
    /// See [`Call::call`].
    pub call: CallId,
    /// See [`Call::target`].
    pub target: Target,
    /// See [`Call::message`].
    pub message: TypeHash,
    /// See [`Call::timeout_ms`].
    pub timeout_ms: u32,
    /// See [`Call::low_watermark`].
    pub low_watermark: Option<CallId>,
}

impl CallHeader {
    /// Reads the fields of a call with these flags.
    #[inline(always)]
    pub(super) fn read(reader: &mut Reader<'_>, flags: u8) -> Result<Self, WireError> {
        let header = Self::of(&reader.array()?);
        // Optional, as most calls are never retried: it would add eight bytes to each.
        let low_watermark = if flags & RETRYABLE > 0 { Some(reader.call()?) } else { None };
        Ok(Self { low_watermark, ..header })
    }

    /// Decodes the fields of a call without a low watermark.
    #[inline(always)]
    pub(super) fn of(fields: &[u8; CALL_HEADER_BYTES - PREFIX_BYTES]) -> Self {
        Self {
            call: CallId(u64::from_be_bytes(part(fields, 0))),
            target: target_at(fields, 8),
            message: TypeHash(u64::from_be_bytes(part(fields, 8 + TARGET_BYTES))),
            timeout_ms: u32::from_be_bytes(part(fields, 16 + TARGET_BYTES)),
            low_watermark: None,
        }
    }

    /// The length in bytes of the whole frame around `body`.
    #[must_use]
    pub fn frame_bytes<'a>(&self, body: impl Into<MessageBody<'a>>) -> usize {
        let body = body.into();
        let watermark_bytes = if self.low_watermark.is_some() { WATERMARK_BYTES } else { 0 };
        CALL_HEADER_BYTES + watermark_bytes + body.len()
    }

    /// Writes the whole frame and returns its length in bytes.
    #[inline]
    pub fn put<'a>(&self, body: impl Into<MessageBody<'a>>, out: &mut impl FrameSink) -> usize {
        let body = body.into();
        let frame_bytes = self.frame_bytes(body);
        let flags = if self.low_watermark.is_some() { RETRYABLE } else { 0 } | traced(body);
        // One write: the header is most of a small call.
        let mut header = [0; CALL_HEADER_BYTES];
        set(&mut header, 0, prefix(FrameKind::Call, flags, body.encoded.attachments.len(), frame_bytes));
        set(&mut header, PREFIX_BYTES, self.call.0.to_be_bytes());
        set_target(&mut header, PREFIX_BYTES + 8, self.target);
        set(&mut header, PREFIX_BYTES + 8 + TARGET_BYTES, self.message.0.to_be_bytes());
        set(&mut header, PREFIX_BYTES + 16 + TARGET_BYTES, self.timeout_ms.to_be_bytes());
        match self.low_watermark {
            None => body.put_after::<_, { CALL_HEADER_BYTES + SHORT_BYTES }>(&header, out),
            Some(watermark) => {
                out.put_slice(&header);
                out.put_u64(watermark.0);
                body.put(out);
            }
        }
        frame_bytes
    }
}

/// Message without a reply.
///
/// Layout: actor 8, actor incarnation 4, message 8, body. With flag 2 the body starts with a trace context of
/// 25 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// Actor that handles the message.
    pub target: Target,
    /// The type of the message.
    pub message: TypeHash,
    /// The message.
    pub body: Body,
}

impl Tell {
    /// Returns the fields without the body.
    #[must_use]
    pub fn header(&self) -> TellHeader {
        TellHeader { target: self.target, message: self.message }
    }

    /// The length in bytes of the whole frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        TellHeader::frame_bytes(self.body.as_message())
    }

    pub(super) fn read(mut reader: Reader<'_>, flags: u8, attachments: u16) -> Result<Self, WireError> {
        let TellHeader { target, message } = TellHeader::of(&reader.array()?);
        Ok(Self { target, message, body: Body::read(reader, attachments, flags & TRACED > 0)? })
    }
}

/// Fields of a [`Tell`] without its body, to write a body that is encoded elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TellHeader {
    /// See [`Tell::target`].
    pub target: Target,
    /// See [`Tell::message`].
    pub message: TypeHash,
}

impl TellHeader {
    /// Decodes the fields of a tell.
    #[inline(always)]
    pub(super) fn of(fields: &[u8; TELL_HEADER_BYTES - PREFIX_BYTES]) -> Self {
        Self {
            target: target_at(fields, 0),
            message: TypeHash(u64::from_be_bytes(part(fields, TARGET_BYTES))),
        }
    }

    /// The length in bytes of the whole frame around `body`.
    #[must_use]
    pub fn frame_bytes<'a>(body: impl Into<MessageBody<'a>>) -> usize {
        let body = body.into();
        TELL_HEADER_BYTES + body.len()
    }

    /// Writes the whole frame and returns its length in bytes.
    #[inline]
    pub fn put<'a>(&self, body: impl Into<MessageBody<'a>>, out: &mut impl FrameSink) -> usize {
        let body = body.into();
        let frame_bytes = Self::frame_bytes(body);
        let mut header = [0; TELL_HEADER_BYTES];
        set(
            &mut header,
            0,
            prefix(FrameKind::Tell, traced(body), body.encoded.attachments.len(), frame_bytes),
        );
        set_target(&mut header, PREFIX_BYTES, self.target);
        set(&mut header, PREFIX_BYTES + TARGET_BYTES, self.message.0.to_be_bytes());
        body.put_after::<_, { TELL_HEADER_BYTES + SHORT_BYTES }>(&header, out);
        frame_bytes
    }
}

/// Flag of a frame with this body.
#[inline]
fn traced(body: MessageBody<'_>) -> u8 {
    if body.trace.is_some() { TRACED } else { 0 }
}

/// Returns the `N` bytes of a header at `at`.
#[inline]
fn part<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&header[at..at + N]);
    part
}

#[inline]
fn target_at(header: &[u8], at: usize) -> Target {
    Target {
        actor: ActorId(u64::from_be_bytes(part(header, at))),
        incarnation: ActorIncarnation(u32::from_be_bytes(part(header, at + 8))),
    }
}

#[inline]
fn set<const N: usize>(header: &mut [u8], at: usize, bytes: [u8; N]) {
    header[at..at + N].copy_from_slice(&bytes);
}

#[inline]
fn set_target(header: &mut [u8], at: usize, target: Target) {
    set(header, at, target.actor.0.to_be_bytes());
    set(header, at + 8, target.incarnation.0.to_be_bytes());
}

pub(super) fn put_target(target: Target, out: &mut impl FrameSink) {
    out.put_u64(target.actor.0);
    out.put_u32(target.incarnation.0);
}

pub(super) fn read_target(reader: &mut Reader<'_>) -> Result<Target, WireError> {
    Ok(Target { actor: ActorId(reader.u64()?), incarnation: ActorIncarnation(reader.u32()?) })
}
