//! Frames that maintain a session: acknowledgement, credit, watermark, schemas, heartbeat.

use super::body::{Body, Encoded};
use super::frame::put_prefix;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{FrameKind, PREFIX_BYTES, WireError, call};
use crate::id::{CallId, Target};

/// Number of sequenced frames that the sender has received, on all links of the session.
///
/// Layout: received 8. An Ack is not sequenced itself: it would have to be acknowledged in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Number of received frames.
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

/// Window bytes of an actor that are free again, since its messages were handled.
///
/// Layout: actor 8, actor incarnation 4, bytes 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Actor of the sender's host.
    pub target: Target,
    /// Bytes of the window.
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

/// Lowest call of the sender that may be retried: the receiver may forget the outcomes of all
/// below.
///
/// Layout: call 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Lowest call that may be retried.
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

/// Type table of the sender, sent when its digest differs from the receiver's. Layout: body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schemas {
    /// The type table.
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
        // Never chunked, whatever its length, so that it arrives before the messages that it
        // describes.
        put_prefix(FrameKind::Schemas, 0, body.attachments.len(), frame_bytes, out);
        body.put(out);
        frame_bytes
    }

    pub(super) fn read(reader: Reader<'_>, attachments: u16) -> Result<Self, WireError> {
        Ok(Self { body: Body::read(reader, attachments, false)? })
    }
}

/// Sign of life of the sender, on a link with [`Purpose::Heartbeat`](super::Purpose::Heartbeat).
///
/// The acceptor answers each with another. No fields; not sequenced.
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
