//! Frames, and the eight-byte prefix of each.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::body::{Body, LongSlice};
use super::inline::ShortSlice;
use super::reader::Reader;
use super::sink::FrameSink;
use super::{
    Ack, Call, CallHeader, Cancel, Challenge, Chunk, Credit, Failure, FrameCodec, Goodbye, Heartbeat, Hello,
    IncomingBody, Phase, Proof, Refused, Reply, Schemas, Tell, TellHeader, Watermark, Welcome, WireError,
    call, chunk,
};
use crate::id::CallId;

/// Length of a prefix in bytes: the length field, the kind, the flags and the number of
/// attachments.
pub const PREFIX_BYTES: usize = 8;

/// Length of the length field in bytes. The field does not count itself.
pub(super) const LENGTH_BYTES: usize = 4;

/// Frame of the protocol between two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// The initiator's identity and the host that it dials.
    Hello(Box<Hello>),
    /// The acceptor's identity and its proof.
    Challenge(Challenge),
    /// The initiator's proof.
    Proof(Proof),
    /// The link is established.
    Welcome(Welcome),
    /// The link is refused.
    Refused(Refused),
    /// A message with a reply.
    Call(Call),
    /// A message without a reply.
    Tell(Tell),
    /// The reply to a call.
    Reply(Reply),
    /// The error of a call.
    Failure(Failure),
    /// The last message of a closing side.
    Goodbye(Goodbye),
    /// The caller of an open call no longer waits.
    Cancel(Cancel),
    /// Number of received frames.
    Ack(Ack),
    /// Window bytes of an actor that are free again.
    Credit(Credit),
    /// A piece of a large frame.
    Chunk(Chunk),
    /// Lowest call that may be retried.
    Watermark(Watermark),
    /// The sender's type table.
    Schemas(Schemas),
    /// The sender is alive.
    Heartbeat(Heartbeat),
}

impl Frame {
    /// Returns the kind of the frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Hello(_) => FrameKind::Hello,
            Self::Challenge(_) => FrameKind::Challenge,
            Self::Proof(_) => FrameKind::Proof,
            Self::Welcome(_) => FrameKind::Welcome,
            Self::Refused(_) => FrameKind::Refused,
            Self::Call(_) => FrameKind::Call,
            Self::Tell(_) => FrameKind::Tell,
            Self::Reply(_) => FrameKind::Reply,
            Self::Failure(_) => FrameKind::Failure,
            Self::Goodbye(_) => FrameKind::Goodbye,
            Self::Cancel(_) => FrameKind::Cancel,
            Self::Ack(_) => FrameKind::Ack,
            Self::Credit(_) => FrameKind::Credit,
            Self::Chunk(_) => FrameKind::Chunk,
            Self::Watermark(_) => FrameKind::Watermark,
            Self::Schemas(_) => FrameKind::Schemas,
            Self::Heartbeat(_) => FrameKind::Heartbeat,
        }
    }

    /// Writes the frame and returns its length in bytes, prefix included.
    pub fn put(&self, out: &mut impl FrameSink) -> usize {
        match self {
            Self::Hello(hello) => hello.put(out),
            Self::Challenge(challenge) => challenge.put(out),
            Self::Proof(proof) => proof.put(out),
            Self::Welcome(welcome) => welcome.put(out),
            Self::Refused(refused) => refused.put(out),
            Self::Call(call) => call.header().put(call.body.as_message(), out),
            Self::Tell(tell) => tell.header().put(tell.body.as_message(), out),
            Self::Reply(reply) => Reply::put(reply.call, reply.body.as_encoded(), out),
            Self::Failure(failure) => Failure::put(failure.call, &failure.failure, out),
            Self::Goodbye(goodbye) => goodbye.put(out),
            Self::Cancel(cancel) => cancel.put(out),
            Self::Ack(ack) => ack.put(out),
            Self::Credit(credit) => credit.put(out),
            Self::Chunk(chunk) => {
                let frame_bytes = chunk.header().put(chunk.bytes.len(), out);
                out.put_bytes(&chunk.bytes);
                frame_bytes
            }
            Self::Watermark(watermark) => watermark.put(out),
            Self::Schemas(schemas) => Schemas::put(schemas.body.as_encoded(), out),
            Self::Heartbeat(heartbeat) => heartbeat.put(out),
        }
    }

    /// Returns whether the receiver counts the frame. Counted frames that were not received are
    /// sent again on the next link.
    #[must_use]
    pub fn is_sequenced(&self) -> bool {
        !matches!(self, Self::Ack(_) | Self::Heartbeat(_)) && self.kind().phase() == Phase::Established
    }

    /// Decodes a frame from its complete bytes, prefix included, which arrived in chunks.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one valid frame of an established link.
    pub fn parse(bytes: BytesMut, frame_bytes_max: usize) -> Result<Self, WireError> {
        let length = bytes.len();
        let prefix = FrameCodec::established(frame_bytes_max).peek_prefix(&bytes)?;
        // The reassembled bytes must be exactly one frame: bytes after it would be lost silently.
        let Some(prefix) = prefix.filter(|prefix| prefix.frame_bytes == length) else {
            return Err(WireError::Malformed { frame: "nameless", what: "its length field is wrong" });
        };
        let whole = bytes.freeze();
        Self::read(prefix, Some(&whole), &whole[PREFIX_BYTES..])
    }

    /// Decodes the frame with this prefix from its `fields`, which lie in `whole`. Without `whole` all
    /// parts are copied.
    #[inline]
    pub(super) fn read(prefix: Prefix, whole: Option<&Bytes>, fields: &[u8]) -> Result<Self, WireError> {
        let Prefix { kind, flags, attachments, .. } = prefix;
        let reader = Reader::new(kind, whole, fields);
        // Such a kind has no table of lengths, so its fields would be read as one.
        if attachments > 0 && !kind.has_attachments() {
            return Err(reader.malformed("its kind has no attachments"));
        }
        match kind {
            FrameKind::Call => Call::read(reader, flags, attachments).map(Self::Call),
            FrameKind::Tell => Tell::read(reader, flags, attachments).map(Self::Tell),
            FrameKind::Reply => Reply::read(reader, attachments).map(Self::Reply),
            _ => Self::read_rare(reader, kind, flags, attachments),
        }
    }

    /// Dispatches a short call, tell or reply to the visitor, or returns `None` for any other
    /// frame. `kind_word` is the prefix after the length field.
    ///
    /// No enum is built on the way: it would be stored field by field and loaded again in wider
    /// pieces, which stalls the processor.
    #[inline(always)]
    pub(super) fn dispatch_short<F: FrameVisitor>(
        kind_word: u32,
        frame_bytes: usize,
        fields: &[u8],
        frames: &mut F,
    ) -> Option<Result<(), F::Error>> {
        // Flags and attachments are zero in these words. A call with a watermark, a trace context or
        // payloads does not match and takes the general path.
        const CALL: u32 = FrameKind::Call.bare_prefix();
        const TELL: u32 = FrameKind::Tell.bare_prefix();
        const REPLY: u32 = FrameKind::Reply.bare_prefix();
        match kind_word {
            CALL => {
                let (header, body) = fields.split_first_chunk()?;
                Some(frames.call(CallHeader::of(header), frame_bytes, ShortSlice::new(body)?))
            }
            REPLY => {
                let (call, body) = fields.split_first_chunk()?;
                Some(frames.reply(CallId(u64::from_be_bytes(*call)), frame_bytes, ShortSlice::new(body)?))
            }
            TELL => {
                let (header, body) = fields.split_first_chunk()?;
                Some(frames.tell(TellHeader::of(header), frame_bytes, ShortSlice::new(body)?))
            }
            _ => None,
        }
    }

    /// Decodes the frame with this prefix like [`read`](Self::read), and dispatches it to the visitor: a
    /// call, tell or reply in parts. Returns whether it is one of these.
    #[inline]
    pub(super) fn dispatch_copied<F: FrameVisitor>(
        prefix: Prefix,
        whole: Option<&Bytes>,
        fields: &[u8],
        frames: &mut F,
    ) -> Result<bool, F::Error> {
        let Prefix { frame_bytes, kind, flags, attachments } = prefix;
        let mut reader = Reader::new(kind, whole, fields);
        match kind {
            FrameKind::Call => {
                let header = CallHeader::read(&mut reader, flags)?;
                let traced = flags & call::TRACED > 0;
                // A retryable call is mostly short, and is then stored as other short ones.
                if attachments == 0
                    && !traced
                    && let Some(body) = reader.as_short()
                {
                    frames.call(header, frame_bytes, body)?;
                } else {
                    frames.call(header, frame_bytes, Body::read(reader, attachments, traced)?)?;
                }
            }
            FrameKind::Tell => {
                let header = TellHeader::of(&reader.array()?);
                frames.tell(
                    header,
                    frame_bytes,
                    Body::read(reader, attachments, flags & call::TRACED > 0)?,
                )?;
            }
            FrameKind::Reply if attachments == 0 => {
                let call = reader.call()?;
                frames.reply(call, frame_bytes, LongSlice(reader.peek_rest()))?;
            }
            FrameKind::Reply => {
                let call = reader.call()?;
                frames.reply(call, frame_bytes, Body::read(reader, attachments, false)?)?;
            }
            _ => {
                frames.other(Self::read(prefix, whole, fields)?)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decodes the rare kinds, out of line of the hot ones.
    #[cold]
    fn read_rare(
        reader: Reader<'_>,
        kind: FrameKind,
        flags: u8,
        attachments: u16,
    ) -> Result<Self, WireError> {
        match kind {
            FrameKind::Hello => Hello::read(reader).map(|hello| Self::Hello(Box::new(hello))),
            FrameKind::Challenge => Challenge::read(reader).map(Self::Challenge),
            FrameKind::Proof => Proof::read(reader).map(Self::Proof),
            FrameKind::Welcome => Welcome::read(reader).map(Self::Welcome),
            FrameKind::Refused => Refused::read(reader).map(Self::Refused),
            FrameKind::Call => Call::read(reader, flags, attachments).map(Self::Call),
            FrameKind::Tell => Tell::read(reader, flags, attachments).map(Self::Tell),
            FrameKind::Reply => Reply::read(reader, attachments).map(Self::Reply),
            FrameKind::Failure => Failure::read(reader).map(Self::Failure),
            FrameKind::Goodbye => Goodbye::read(reader).map(Self::Goodbye),
            FrameKind::Cancel => Cancel::read(reader).map(Self::Cancel),
            FrameKind::Ack => Ack::read(reader).map(Self::Ack),
            FrameKind::Credit => Credit::read(reader).map(Self::Credit),
            FrameKind::Chunk => Chunk::read(reader, flags).map(Self::Chunk),
            FrameKind::Watermark => Watermark::read(reader).map(Self::Watermark),
            FrameKind::Schemas => Schemas::read(reader, attachments).map(Self::Schemas),
            FrameKind::Heartbeat => Heartbeat::read(reader).map(Self::Heartbeat),
        }
    }
}

/// Visitor of decoded frames.
///
/// Calls, tells and replies of up to 4 KiB are passed in parts, with the length of the whole frame:
/// moving a `Frame` costs as much as decoding it.
pub trait FrameVisitor {
    /// Reason to stop the decoding.
    type Error: From<WireError>;
    /// Visits a call.
    ///
    /// # Errors
    ///
    /// When no further frame is wanted. This holds for all methods.
    fn call(
        &mut self,
        call: CallHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), Self::Error>;
    /// Visits a tell.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    fn tell(
        &mut self,
        tell: TellHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), Self::Error>;
    /// Visits a reply.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    fn reply(&mut self, call: CallId, frame_bytes: usize, body: impl IncomingBody)
    -> Result<(), Self::Error>;
    /// Visits any other frame.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    fn other(&mut self, frame: Frame) -> Result<(), Self::Error>;
}

/// Kind of a frame, as the number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FrameKind {
    /// [`Hello`].
    Hello = 0x01,
    /// [`Challenge`].
    Challenge = 0x02,
    /// [`Proof`].
    Proof = 0x03,
    /// [`Welcome`].
    Welcome = 0x04,
    /// [`Refused`].
    Refused = 0x05,
    /// [`Call`].
    Call = 0x10,
    /// [`Tell`].
    Tell = 0x11,
    /// [`Reply`].
    Reply = 0x12,
    /// [`Failure`].
    Failure = 0x13,
    /// [`Goodbye`].
    Goodbye = 0x14,
    /// [`Cancel`].
    Cancel = 0x15,
    /// [`Ack`].
    Ack = 0x16,
    /// [`Credit`].
    Credit = 0x17,
    /// [`Chunk`].
    Chunk = 0x18,
    /// [`Watermark`].
    Watermark = 0x19,
    /// [`Schemas`].
    Schemas = 0x1a,
    /// [`Heartbeat`].
    Heartbeat = 0x1b,
}

impl FrameKind {
    const ALL: [Self; 17] = [
        Self::Hello,
        Self::Challenge,
        Self::Proof,
        Self::Welcome,
        Self::Refused,
        Self::Call,
        Self::Tell,
        Self::Reply,
        Self::Failure,
        Self::Goodbye,
        Self::Cancel,
        Self::Ack,
        Self::Credit,
        Self::Chunk,
        Self::Watermark,
        Self::Schemas,
        Self::Heartbeat,
    ];

    /// Returns the kind with this number, if there is one.
    #[must_use]
    #[inline]
    pub fn from_number(number: u8) -> Option<Self> {
        *Self::BY_NUMBER.get(usize::from(number))?
    }

    /// Kinds by number, so that decoding is a lookup instead of a comparison chain.
    const BY_NUMBER: [Option<Self>; 32] = {
        let (mut table, mut at) = ([None; 32], 0);
        while at < Self::ALL.len() {
            table[Self::ALL[at] as usize] = Some(Self::ALL[at]);
            at += 1;
        }
        table
    };

    /// Prefix after the length field, of a frame of this kind without flags and attachments.
    pub(super) const fn bare_prefix(self) -> u32 {
        (self as u32) << 24
    }

    /// Returns the phase of a link in which frames of this kind are sent.
    #[must_use]
    #[inline]
    pub fn phase(self) -> Phase {
        if (self as u8) < Self::Call as u8 { Phase::Handshake } else { Phase::Established }
    }

    /// Name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Challenge => "challenge",
            Self::Proof => "proof",
            Self::Welcome => "welcome",
            Self::Refused => "refused",
            Self::Call => "call",
            Self::Tell => "tell",
            Self::Reply => "reply",
            Self::Failure => "failure",
            Self::Goodbye => "goodbye",
            Self::Cancel => "cancel",
            Self::Ack => "ack",
            Self::Credit => "credit",
            Self::Chunk => "chunk",
            Self::Watermark => "watermark",
            Self::Schemas => "schemas",
            Self::Heartbeat => "heartbeat",
        }
    }

    fn has_attachments(self) -> bool {
        matches!(self, Self::Call | Self::Tell | Self::Reply | Self::Schemas)
    }

    /// Flags that frames of this kind may have.
    #[inline]
    pub(super) fn flags(self) -> u8 {
        match self {
            Self::Call => call::CALL_FLAGS,
            Self::Tell => call::TELL_FLAGS,
            Self::Chunk => chunk::FLAGS,
            _ => 0,
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Decoded prefix of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) frame_bytes: usize,
    pub(super) kind: FrameKind,
    pub(super) flags: u8,
    pub(super) attachments: u16,
}

/// Writes the prefix of a frame of `frame_bytes` bytes, prefix included.
///
/// # Panics
///
/// When the frame is over 4 GiB or carries over 65,535 attachments. The encoder of a body limits
/// both.
pub(super) fn put_prefix(
    kind: FrameKind,
    flags: u8,
    attachments: usize,
    frame_bytes: usize,
    out: &mut impl FrameSink,
) {
    out.put_slice(&prefix(kind, flags, attachments, frame_bytes));
}

/// Returns the prefix as bytes, for headers that are written in one piece.
#[inline]
pub(super) fn prefix(
    kind: FrameKind,
    flags: u8,
    attachments: usize,
    frame_bytes: usize,
) -> [u8; PREFIX_BYTES] {
    let length = u32::try_from(frame_bytes - LENGTH_BYTES).expect("a frame is under 4 GiB");
    let attachments = u16::try_from(attachments).expect("attachments are counted when a body is made");
    // Composed in one register and stored once.
    (u64::from(length) << 32
        | u64::from(kind.bare_prefix())
        | u64::from(flags) << 16
        | u64::from(attachments))
    .to_be_bytes()
}
