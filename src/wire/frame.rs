//! One unit of the stream, and the eight bytes that begin each.

use std::fmt;

use bytes::Bytes;

use super::reader::Reader;
use super::sink::{Fields, FrameSink};
use super::{
    Call, Cancel, Challenge, Failure, Goodbye, Hello, Phase, Proof, Refused, Reply, Tell, Welcome, WireError,
};

/// What the length field, the kind, the flags and the count of attachments take.
pub const PREFIX_BYTES: usize = 8;

/// The bytes of the length field, which does not count itself.
pub(super) const LENGTH_BYTES: usize = 4;

/// One unit of what two hosts say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// The side that dialled says who it is and whom it wants.
    Hello(Hello),
    /// The side that listens proves who it is.
    Challenge(Challenge),
    /// The side that dialled proves who it is.
    Proof(Proof),
    /// The link is established.
    Welcome(Welcome),
    /// The link will not be.
    Refused(Refused),
    /// A message that wants a reply.
    Call(Call),
    /// A message that wants none.
    Tell(Tell),
    /// The reply to a call.
    Reply(Reply),
    /// Why a call has no reply.
    Failure(Failure),
    /// No more messages will come from this side.
    Goodbye(Goodbye),
    /// Nobody waits for the answer of a call any more.
    Cancel(Cancel),
}

impl Frame {
    /// Which of the kinds it is.
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
            Self::Call(call) => call.header().put(call.body.as_encoded(), out),
            Self::Tell(tell) => tell.header().put(tell.body.as_encoded(), out),
            Self::Reply(reply) => Reply::put(reply.call, reply.body.as_encoded(), out),
            Self::Failure(failure) => Failure::put(failure.call, &failure.failure, out),
            Self::Goodbye(goodbye) => goodbye.put(out),
            Self::Cancel(cancel) => cancel.put(out),
        }
    }

    /// Reads the frame of `kind` whose bytes behind the prefix are `fields`.
    pub(super) fn read(kind: FrameKind, attachments: u16, fields: Bytes) -> Result<Self, WireError> {
        let reader = Reader::new(kind, fields);
        if attachments > 0 && !kind.has_attachments() {
            return Err(reader.malformed("its kind has no attachments"));
        }
        match kind {
            FrameKind::Hello => Hello::read(reader).map(Self::Hello),
            FrameKind::Challenge => Challenge::read(reader).map(Self::Challenge),
            FrameKind::Proof => Proof::read(reader).map(Self::Proof),
            FrameKind::Welcome => Welcome::read(reader).map(Self::Welcome),
            FrameKind::Refused => Refused::read(reader).map(Self::Refused),
            FrameKind::Call => Call::read(reader, attachments).map(Self::Call),
            FrameKind::Tell => Tell::read(reader, attachments).map(Self::Tell),
            FrameKind::Reply => Reply::read(reader, attachments).map(Self::Reply),
            FrameKind::Failure => Failure::read(reader).map(Self::Failure),
            FrameKind::Goodbye => Goodbye::read(reader).map(Self::Goodbye),
            FrameKind::Cancel => Cancel::read(reader).map(Self::Cancel),
        }
    }
}

/// The number that says on the wire what a frame is.
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
}

impl FrameKind {
    const ALL: [Self; 11] = [
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
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The phase of a link in which frames of this kind are sent.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            Self::Hello | Self::Challenge | Self::Proof | Self::Welcome | Self::Refused => Phase::Handshake,
            Self::Call | Self::Tell | Self::Reply | Self::Failure | Self::Goodbye | Self::Cancel => {
                Phase::Established
            }
        }
    }

    /// Its name in texts.
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
        }
    }

    fn has_attachments(self) -> bool {
        matches!(self, Self::Call | Self::Tell | Self::Reply)
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes the prefix of a frame of `frame_bytes` in all, prefix included.
///
/// # Panics
///
/// When the frame is over 4 GiB or carries over 65,535 attachments: whoever makes a body keeps
/// it far under both.
pub(super) fn put_prefix(kind: FrameKind, attachments: usize, frame_bytes: usize, out: &mut impl FrameSink) {
    let length = u32::try_from(frame_bytes - LENGTH_BYTES).expect("a frame is under 4 GiB");
    let attachments = u16::try_from(attachments).expect("attachments are counted when a body is made");
    out.put_u32(length);
    out.put_u8(kind as u8);
    out.put_u8(0);
    out.put_u16(attachments);
}
