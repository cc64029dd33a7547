//! Outcomes of calls: replies and failures.

use super::body::{Body, Encoded, SHORT_BYTES};
use super::frame::prefix;
use super::reader::Reader;
use super::sink::FrameSink;
use super::{CallFailure, FrameKind, PREFIX_BYTES, WireError, decode, encode};
use crate::id::CallId;

/// Length in bytes of a Reply or Failure frame before its body, prefix included.
pub const REPLY_HEADER_BYTES: usize = PREFIX_BYTES + 8;

/// The reply to a call. Layout: call 8, body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Call that it ends.
    pub call: CallId,
    /// The handler's result.
    pub body: Body,
}

impl Reply {
    /// The length in bytes of the whole frame around `body`.
    #[must_use]
    pub fn frame_bytes(body: Encoded<'_>) -> usize {
        REPLY_HEADER_BYTES + body.len()
    }

    /// Writes the whole frame and returns its length in bytes.
    #[inline]
    pub fn put(call: CallId, body: Encoded<'_>, out: &mut impl FrameSink) -> usize {
        put(FrameKind::Reply, call, body, out)
    }

    pub(super) fn read(mut reader: Reader<'_>, attachments: u16) -> Result<Self, WireError> {
        Ok(Self { call: reader.call()?, body: Body::read(reader, attachments, false)? })
    }
}

/// The error of a call. Layout: call 8, the failure as MessagePack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Call that it ends.
    pub call: CallId,
    /// Reason for the failure.
    pub failure: CallFailure,
}

impl Failure {
    /// Writes the whole frame and returns its length in bytes.
    ///
    /// # Panics
    ///
    /// Never for a failure built by this crate: it contains texts and numbers only.
    pub fn put(call: CallId, failure: &CallFailure, out: &mut impl FrameSink) -> usize {
        encode(failure, usize::MAX, |body| put(FrameKind::Failure, call, body, out))
            .expect("texts and numbers always serialize")
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let call = reader.call()?;
        let malformed = reader.malformed("its body is not a known failure");
        let body = Body::read(reader, 0, false)?;
        // Unlike the body of a message, this type belongs to the protocol: a mistake concerns the
        // whole link.
        let failure = decode(&body).map_err(|_| malformed)?;
        Ok(Self { call, failure })
    }
}

#[inline(always)]
fn put(kind: FrameKind, call: CallId, body: Encoded<'_>, out: &mut impl FrameSink) -> usize {
    let frame_bytes = Reply::frame_bytes(body);
    let mut header = [0; REPLY_HEADER_BYTES];
    let (start, fields) = header.split_at_mut(PREFIX_BYTES);
    start.copy_from_slice(&prefix(kind, 0, body.attachments.len(), frame_bytes));
    fields.copy_from_slice(&call.0.to_be_bytes());
    body.put_after::<_, { REPLY_HEADER_BYTES + SHORT_BYTES }>(&header, out);
    frame_bytes
}
