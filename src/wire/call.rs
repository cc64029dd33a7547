//! Messages to actors: calls, which want a reply, and tells, which want none.

use super::body::{Body, Encoded};
use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError};
use crate::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};

/// Target: actor and incarnation.
const TARGET_BYTES: usize = 12;

/// What a call frame takes before its body, prefix included.
pub const CALL_HEADER_BYTES: usize = PREFIX_BYTES + 8 + TARGET_BYTES + 8 + 4;

/// What a tell frame takes before its body, prefix included.
pub const TELL_HEADER_BYTES: usize = PREFIX_BYTES + TARGET_BYTES + 8;

/// A message that wants a reply.
///
/// Layout: call 8, actor 8, actor incarnation 4, message 8, timeout 4, body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The caller's number for it.
    pub call: CallId,
    /// The actor that is to handle it.
    pub target: Target,
    /// The type of the message.
    pub message: TypeHash,
    /// How long the caller still waits, in milliseconds; 0 for as long as it takes.
    pub timeout_ms: u32,
    /// The message.
    pub body: Body,
}

impl Call {
    /// Everything but the body.
    #[must_use]
    pub fn header(&self) -> CallHeader {
        CallHeader {
            call: self.call,
            target: self.target,
            message: self.message,
            timeout_ms: self.timeout_ms,
        }
    }

    pub(super) fn read(mut reader: Reader, attachments: u16) -> Result<Self, WireError> {
        Ok(Self {
            call: reader.call()?,
            target: read_target(&mut reader)?,
            message: TypeHash(reader.u64()?),
            timeout_ms: reader.u32()?,
            body: Body::read(reader, attachments)?,
        })
    }
}

/// Everything of a [`Call`] but its body, for writing one that is encoded elsewhere.
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
}

impl CallHeader {
    /// The length in bytes of the whole frame around `body`.
    #[must_use]
    pub fn frame_bytes(body: Encoded<'_>) -> usize {
        CALL_HEADER_BYTES + body.len()
    }

    /// Writes the whole frame and returns its length in bytes.
    pub fn put(&self, body: Encoded<'_>, out: &mut impl FrameSink) -> usize {
        let frame_bytes = Self::frame_bytes(body);
        put_prefix(FrameKind::Call, body.attachments.len(), frame_bytes, out);
        out.put_u64(self.call.0);
        put_target(self.target, out);
        out.put_u64(self.message.0);
        out.put_u32(self.timeout_ms);
        body.put(out);
        frame_bytes
    }
}

/// A message that wants no reply.
///
/// Layout: actor 8, actor incarnation 4, message 8, body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// The actor that is to handle it.
    pub target: Target,
    /// The type of the message.
    pub message: TypeHash,
    /// The message.
    pub body: Body,
}

impl Tell {
    /// Everything but the body.
    #[must_use]
    pub fn header(&self) -> TellHeader {
        TellHeader { target: self.target, message: self.message }
    }

    pub(super) fn read(mut reader: Reader, attachments: u16) -> Result<Self, WireError> {
        Ok(Self {
            target: read_target(&mut reader)?,
            message: TypeHash(reader.u64()?),
            body: Body::read(reader, attachments)?,
        })
    }
}

/// Everything of a [`Tell`] but its body, for writing one that is encoded elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TellHeader {
    /// See [`Tell::target`].
    pub target: Target,
    /// See [`Tell::message`].
    pub message: TypeHash,
}

impl TellHeader {
    /// The length in bytes of the whole frame around `body`.
    #[must_use]
    pub fn frame_bytes(body: Encoded<'_>) -> usize {
        TELL_HEADER_BYTES + body.len()
    }

    /// Writes the whole frame and returns its length in bytes.
    pub fn put(&self, body: Encoded<'_>, out: &mut impl FrameSink) -> usize {
        let frame_bytes = Self::frame_bytes(body);
        put_prefix(FrameKind::Tell, body.attachments.len(), frame_bytes, out);
        put_target(self.target, out);
        out.put_u64(self.message.0);
        body.put(out);
        frame_bytes
    }
}

fn put_target(target: Target, out: &mut impl FrameSink) {
    out.put_u64(target.actor.0);
    out.put_u32(target.incarnation.0);
}

fn read_target(reader: &mut Reader) -> Result<Target, WireError> {
    Ok(Target { actor: ActorId(reader.u64()?), incarnation: ActorIncarnation(reader.u32()?) })
}
