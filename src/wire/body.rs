//! Body of a frame: one MessagePack value, the attachments beside it, and the trace context of its sender.

use bytes::Bytes;

use super::inline::{InlineBytes, SHORT_WORDS, ShortBytes, ShortSlice, ShortWords};
use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{Attachments, WireError};
use crate::id::TraceContext;

/// Bytes of an attachment's entry in the table of lengths, which precedes the MessagePack part.
const TABLE_ENTRY_BYTES: usize = 4;

/// Length of a short body, padded to words.
pub(super) const SHORT_BYTES: usize = 8 * SHORT_WORDS;

/// Received body. Its payloads, and a long MessagePack part, are slices of the read buffer, or copies
/// if the frame was short.
///
/// [`decode`](super::decode) turns it into a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The value as MessagePack.
    pub message: InlineBytes,
    /// Payloads that the value refers to by index.
    pub attachments: Attachments,
    /// Trace context of the sender. Boxed, since few messages have one and bodies are moved often.
    pub trace: Option<Box<TraceContext>>,
}

impl Body {
    /// Creates a body without any bytes, from which no type decodes.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Length on the wire in bytes, with the trace context and the table of attachments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_message().len()
    }

    /// Returns whether the body has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Borrows the body for writing.
    #[must_use]
    pub fn as_encoded(&self) -> Encoded<'_> {
        Encoded { message: &self.message, attachments: &self.attachments }
    }

    /// Borrows the body of a call or a tell for writing, with its trace context.
    #[must_use]
    pub fn as_message(&self) -> MessageBody<'_> {
        MessageBody { encoded: self.as_encoded(), trace: self.trace.as_deref() }
    }

    /// Reads the body of a frame with this number of attachments, and with a trace context if it is `traced`.
    #[inline]
    pub(super) fn read(reader: Reader<'_>, attachments: u16, traced: bool) -> Result<Self, WireError> {
        if traced {
            return Self::read_traced(reader, attachments);
        }
        if attachments > 0 {
            return Self::read_with_attachments(reader, attachments);
        }
        Ok(Self { message: reader.rest_inline(), ..Self::default() })
    }

    #[cold]
    fn read_traced(mut reader: Reader<'_>, attachments: u16) -> Result<Self, WireError> {
        let Some(trace) = TraceContext::decode(&reader.array()?) else {
            return Err(reader.malformed("its trace context has an id of zero"));
        };
        Ok(Self { trace: Some(trace.into()), ..Self::read(reader, attachments, false)? })
    }

    fn read_with_attachments(mut reader: Reader<'_>, attachments: u16) -> Result<Self, WireError> {
        let count = usize::from(attachments);
        let (table, _) = reader.peek(count * TABLE_ENTRY_BYTES)?.as_chunks();
        // No allocation yet: the peer announces the lengths, and they are checked against the frame
        // first.
        let lengths = table.iter().map(|length| u32::from_be_bytes(*length) as usize);
        let total = lengths.clone().fold(0, usize::saturating_add);
        // The length of the MessagePack part is not encoded: it is what the attachments leave.
        let Some(message) = reader.remaining().checked_sub(total) else {
            return Err(reader.malformed("its attachments are longer than the frame"));
        };
        let message = reader.take_inline(message)?;
        let attachments = match count {
            1 => reader.take(total)?.into(),
            _ => lengths.map(|length| reader.take(length)).collect::<Result<Vec<_>, _>>()?.into(),
        };
        Ok(Self { message, attachments, trace: None })
    }
}

/// Body in the form in which it is received: owned, or a slice that is not copied yet.
pub trait IncomingBody: Into<Body> {
    /// Returns a copy of the bytes, if the whole body is short.
    fn as_short(&self) -> Option<ShortWords>;

    /// Returns the bytes of a longer body without payloads, if they are not copied yet.
    #[inline(always)]
    fn as_uncopied(&self) -> Option<&[u8]> {
        None
    }
}

/// Borrowed body of any length without payloads. It is copied where it is stored.
#[derive(Clone, Copy, Debug)]
pub struct LongSlice<'a>(pub(super) &'a [u8]);

impl IncomingBody for LongSlice<'_> {
    #[inline(always)]
    fn as_short(&self) -> Option<ShortWords> {
        None
    }

    #[inline(always)]
    fn as_uncopied(&self) -> Option<&[u8]> {
        Some(self.0)
    }
}

impl From<LongSlice<'_>> for Body {
    fn from(LongSlice(message): LongSlice<'_>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}

/// Converts the whole of a body without payloads.
impl From<Box<[u8]>> for Body {
    fn from(message: Box<[u8]>) -> Self {
        Self { message: Bytes::from(message).into(), ..Self::default() }
    }
}

impl IncomingBody for Body {
    #[inline(always)]
    fn as_short(&self) -> Option<ShortWords> {
        None
    }
}

impl IncomingBody for ShortSlice<'_> {
    #[inline(always)]
    fn as_short(&self) -> Option<ShortWords> {
        Some((*self).into())
    }
}

/// Converts the whole of a body without payloads.
impl From<ShortSlice<'_>> for Body {
    #[inline(always)]
    fn from(bytes: ShortSlice<'_>) -> Self {
        ShortWords::from(bytes).into()
    }
}

/// Converts the whole of a body without payloads.
impl From<ShortBytes> for Body {
    fn from(bytes: ShortBytes) -> Self {
        Self { message: bytes.into(), ..Self::default() }
    }
}

/// Converts the whole of a body without payloads.
impl From<ShortWords> for Body {
    #[inline(always)]
    fn from(bytes: ShortWords) -> Self {
        Self { message: bytes.into(), ..Self::default() }
    }
}

/// Encoded body, borrowed from the buffer of [`encode`](super::encode) or from a received frame.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// The value as MessagePack.
    pub message: &'a [u8],
    /// Payloads that the value refers to by index.
    pub attachments: &'a [Bytes],
}

/// Encoded body of a call or a tell, with the trace context of its sender.
///
/// It is a type of its own, since replies have no context: their path is spared the branches and the larger copies.
#[derive(Clone, Copy, Debug)]
pub struct MessageBody<'a> {
    /// The body.
    pub encoded: Encoded<'a>,
    /// Trace context of the sender.
    pub trace: Option<&'a TraceContext>,
}

impl<'a> From<Encoded<'a>> for MessageBody<'a> {
    #[inline]
    fn from(encoded: Encoded<'a>) -> Self {
        Self { encoded, trace: None }
    }
}

impl MessageBody<'_> {
    /// Length on the wire in bytes, with the trace context and the table of attachments.
    #[must_use]
    pub fn len(&self) -> usize {
        let trace_bytes = if self.trace.is_some() { TraceContext::ENCODED_BYTES } else { 0 };
        trace_bytes + self.encoded.len()
    }

    /// Returns whether the body has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Encoded::put_after`].
    #[inline(always)]
    pub(super) fn put_after<const N: usize, const M: usize>(
        &self,
        header: &[u8; N],
        out: &mut impl FrameSink,
    ) {
        if self.trace.is_none() {
            return self.encoded.put_after::<N, M>(header, out);
        }
        out.put_slice(header);
        self.put(out);
    }

    #[inline(always)]
    pub(super) fn put(&self, out: &mut impl FrameSink) {
        if let Some(trace) = self.trace {
            out.put_slice(&trace.encode());
        }
        self.encoded.put(out);
    }
}

impl<'a> From<&'a Body> for Encoded<'a> {
    #[inline]
    fn from(body: &'a Body) -> Self {
        body.as_encoded()
    }
}

impl<'a> Encoded<'a> {
    /// Creates a body without payloads.
    #[must_use]
    pub const fn of(message: &'a [u8]) -> Self {
        Self { message, attachments: &[] }
    }

    /// Length on the wire in bytes, the table of attachments included.
    #[must_use]
    pub fn len(&self) -> usize {
        size(self.message.len(), self.attachments)
    }

    /// Returns whether the body has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the body after a header of `N` bytes; `M` must be `N + SHORT_BYTES`.
    ///
    /// A short body is written together with the header, as one copy of a length known at compile
    /// time.
    #[inline(always)]
    pub(super) fn put_after<const N: usize, const M: usize>(
        &self,
        header: &[u8; N],
        out: &mut impl FrameSink,
    ) {
        const { assert!(M == N + SHORT_BYTES) };
        if self.attachments.is_empty()
            && let Some(short) = ShortSlice::new(self.message)
        {
            let mut start = [0; M];
            start[..N].copy_from_slice(header);
            start[N..].copy_from_slice(short.padded().as_flattened());
            return out.put_padded(&start, N + self.message.len());
        }
        out.put_slice(header);
        self.put(out);
    }

    #[inline(always)]
    pub(super) fn put(&self, out: &mut impl FrameSink) {
        match self.attachments {
            [] => out.put_slice(self.message),
            [payload] => self.put_with_payload(payload, out),
            _ => self.put_with_table(out),
        }
    }

    /// Writes a body with one payload. What precedes the payload is mostly short, and then one write of
    /// a length known at compile time.
    #[inline]
    fn put_with_payload(&self, payload: &Bytes, out: &mut impl FrameSink) {
        let Some(message) = ShortSlice::new(self.message) else { return self.put_with_table(out) };
        let mut start = [0; TABLE_ENTRY_BYTES + SHORT_BYTES];
        start[..TABLE_ENTRY_BYTES].copy_from_slice(&(payload.len() as u32).to_be_bytes());
        start[TABLE_ENTRY_BYTES..].copy_from_slice(message.padded().as_flattened());
        out.put_padded(&start, TABLE_ENTRY_BYTES + self.message.len());
        out.put_bytes(payload);
    }

    fn put_with_table(&self, out: &mut impl FrameSink) {
        for attachment in self.attachments {
            out.put_u32(attachment.len() as u32);
        }
        out.put_slice(self.message);
        for attachment in self.attachments {
            out.put_bytes(attachment);
        }
    }
}

/// Length on the wire of a MessagePack part of `message` bytes with these attachments.
pub(super) fn size(message: usize, attachments: &[Bytes]) -> usize {
    message + attachments.iter().map(|attachment| TABLE_ENTRY_BYTES + attachment.len()).sum::<usize>()
}
