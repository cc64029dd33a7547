//! Errors of handshakes and sessions, split by blame.

use thiserror::Error;

use crate::id::{CallId, HostUid, Target};
use crate::wire::{FrameKind, Refusal, WireError};

/// Reason why a handshake ended without a link.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer exceeded the handshake timeout.
    #[error("the peer did not finish the handshake in time")]
    TimedOut,
    /// The peer refused the link.
    #[error("the peer refused the link ({reason}): {text}")]
    Refused {
        /// Reason, for code.
        reason: Refusal,
        /// Reason, in the peer's words.
        text: String,
        /// Set if the peer had authenticated itself: if not, this is no evidence about the host
        /// dialled.
        proven: bool,
    },
    /// The peer's proof is wrong: it has another secret, or none.
    #[error("the peer does not know the secret of this cluster")]
    WrongSecret,
    /// The listener is another host, or another incarnation, than the one dialled.
    #[error("dialled host {wanted} and reached host {here}")]
    WrongHost {
        /// Host that the initiator dialled.
        wanted: HostUid,
        /// Host that listens.
        here: HostUid,
    },
    /// The peer claims this host's own identity: something reflects the frames.
    #[error("the peer claims this host's own identity")]
    ReflectedChallenge,
    /// The peer speaks another version of the protocol.
    #[error(
        "the peer speaks version {theirs} of the protocol and this host version {ours}; run the same release on both"
    )]
    Version {
        /// Version of the peer.
        theirs: u16,
        /// Version of this build.
        ours: u16,
    },
    /// The peer's frame limit is too small for the frame of a failure.
    #[error("the peer accepts frames of at most {theirs} bytes, and at least {least} are needed")]
    FrameLimit {
        /// Limit of the peer, in bytes.
        theirs: u64,
        /// Smallest accepted limit, in bytes.
        least: usize,
    },
    /// The peer's window is too small: large messages would never be sent.
    #[error("the peer's window has {theirs} bytes, and at least {least} are needed")]
    Window {
        /// Window of the peer, in bytes.
        theirs: u64,
        /// Smallest accepted window, in bytes.
        least: usize,
    },
    /// The peer sent a frame that this state of the handshake does not allow.
    #[error("unexpected {kind} frame during the handshake")]
    Unexpected {
        /// Kind of the frame.
        kind: FrameKind,
    },
    /// The peer's bytes are no valid frames, or the stream failed.
    #[error("the handshake was interrupted")]
    Wire(#[from] WireError),
}

/// Reason why a session rejects a message. The caller keeps the message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A budget has no capacity; wait for it, then try again.
    #[error("{waiting} bytes are queued and the limit is {limit}; wait for capacity")]
    Full {
        /// Length of the frame in bytes.
        size: usize,
        /// Bytes that occupy the budget.
        waiting: usize,
        /// Limit of the budget in bytes.
        limit: usize,
    },
    /// The frame is over the limit of this side or of the peer, and will never be accepted.
    #[error("the message makes a frame of {size} bytes and the limit is {limit}; send it in parts")]
    TooLarge {
        /// Length of the frame in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// This side or the peer is closing.
    #[error("the link is closing")]
    Closing,
    /// Either side has forgotten an earlier attempt of the call: a retry could run its
    /// handler twice.
    #[error("one of the two hosts has forgotten the call")]
    Forgotten,
}

/// Protocol violation by the peer. Close the link that it arrived on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A call has the id of an open call.
    #[error("received call {call} twice")]
    CallTwice {
        /// Id of the call.
        call: CallId,
    },
    /// A frame of a kind that is not allowed on a link, or not in chunks.
    #[error("unexpected {kind} frame")]
    UnexpectedFrame {
        /// Kind of the frame.
        kind: FrameKind,
    },
    /// An ACK of frames that were never sent, or of fewer than before.
    #[error("the peer acknowledged {received} frames, which is impossible")]
    Ack {
        /// Frames that the peer acknowledges.
        received: u64,
    },
    /// A message exceeds the window of its actor.
    #[error("received a message for actor {} without credit", target.actor)]
    NoCredit {
        /// The actor.
        target: Target,
    },
    /// A Credit frame returns bytes that were never charged.
    #[error("the peer returned {bytes} bytes of credit for actor {} that were never charged", target.actor)]
    Credit {
        /// The actor.
        target: Target,
        /// Bytes that the peer returns.
        bytes: u64,
    },
    /// A chunk does not fit its frame.
    #[error("invalid chunk: {what}")]
    Chunk {
        /// Mistake in the chunk.
        what: &'static str,
    },
    /// The chunks of a frame do not form a valid frame.
    #[error("the chunks form no valid frame: {0}")]
    Wire(String),
    /// A message after the goodbye, which excludes further ones.
    #[error("received a {kind} frame after the goodbye")]
    AfterGoodbye {
        /// Kind of the frame.
        kind: FrameKind,
    },
    /// A frame while no link is attached: a mistake of the caller.
    #[error("received a {kind} frame without a link")]
    Detached {
        /// Kind of the frame.
        kind: FrameKind,
    },
}

impl From<WireError> for SessionError {
    fn from(error: WireError) -> Self {
        // As text: the session's error is `Clone` and `Eq`, which an `io::Error` inside is not.
        Self::Wire(error.to_string())
    }
}
