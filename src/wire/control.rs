//! The frames by which two hosts keep a link and its session: what has come, and what may come.

use super::body::{Body, Encoded};
use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError, call};
use crate::id::{CallId, Target};

/// The sender has received so many numbered frames, of all links of the session.
///
/// Layout: received 8. This frame has no number itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// How many.
    pub received: u64,
}

impl Ack {
    /// Writes the frame and returns its length in bytes.
    pub fn put(self, out: &mut impl FrameSink) -> usize {
        put_number(FrameKind::Ack, self.received, out)
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let received = reader.u64()?;
        reader.finish()?;
        Ok(Self { received })
    }
}

/// Messages to an actor have been handled, and what they took of its window is free again.
///
/// Layout: actor 8, actor incarnation 4, bytes 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The actor, of the sender's host.
    pub target: Target,
    /// How many bytes of the window.
    pub bytes: u64,
}

impl Credit {
    /// Writes the frame and returns its length in bytes.
    pub fn put(self, out: &mut impl FrameSink) -> usize {
        let frame_bytes = PREFIX_BYTES + call::TARGET_BYTES + 8;
        put_prefix(FrameKind::Credit, 0, 0, frame_bytes, out);
        call::put_target(self.target, out);
        out.put_u64(self.bytes);
        frame_bytes
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let credit = Self { target: call::read_target(&mut reader)?, bytes: reader.u64()? };
        reader.finish()?;
        Ok(credit)
    }
}

/// No call of the sender below this one will be made again: what is remembered of them may go.
///
/// Layout: call 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The lowest call that may come again.
    pub call: CallId,
}

impl Watermark {
    /// Writes the frame and returns its length in bytes.
    pub fn put(self, out: &mut impl FrameSink) -> usize {
        put_number(FrameKind::Watermark, self.call.0, out)
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let call = reader.call()?;
        reader.finish()?;
        Ok(Self { call })
    }
}

/// The sender's table of types, when its digest is not the receiver's. Layout: body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schemas {
    /// The table.
    pub body: Body,
}

impl Schemas {
    /// The length in bytes of the whole frame around `body`.
    #[must_use]
    pub fn frame_bytes(body: Encoded<'_>) -> usize {
        PREFIX_BYTES + body.len()
    }

    /// Writes the whole frame and returns its length in bytes.
    pub fn put(body: Encoded<'_>, out: &mut impl FrameSink) -> usize {
        let frame_bytes = Self::frame_bytes(body);
        put_prefix(FrameKind::Schemas, 0, body.attachments.len(), frame_bytes, out);
        body.put(out);
        frame_bytes
    }

    pub(super) fn read(reader: Reader<'_>, attachments: u16) -> Result<Self, WireError> {
        Ok(Self { body: Body::read(reader, attachments)? })
    }
}

/// On a link whose [`Purpose`](super::Purpose) is a pulse: the sender lives. The listener answers
/// each with another. No fields, and no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat;

impl Heartbeat {
    /// Writes the frame and returns its length in bytes.
    pub fn put(self, out: &mut impl FrameSink) -> usize {
        put_prefix(FrameKind::Heartbeat, 0, 0, PREFIX_BYTES, out);
        PREFIX_BYTES
    }

    pub(super) fn read(reader: Reader<'_>) -> Result<Self, WireError> {
        reader.finish()?;
        Ok(Self)
    }
}

fn put_number(kind: FrameKind, number: u64, out: &mut impl FrameSink) -> usize {
    let frame_bytes = PREFIX_BYTES + size_of::<u64>();
    put_prefix(kind, 0, 0, frame_bytes, out);
    out.put_u64(number);
    frame_bytes
}
