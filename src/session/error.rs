//! What goes wrong before a link, on a link, and on the way to one.

use thiserror::Error;

use crate::id::{CallId, HostUid, Target};
use crate::wire::{FrameKind, Refusal, WireError};

/// Why a handshake ended without a link.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer took too long.
    #[error("the peer did not finish the handshake in time")]
    TimedOut,
    /// The peer does not want the link.
    #[error("the peer refused the link ({reason}): {text}")]
    Refused {
        /// Why, for code.
        reason: Refusal,
        /// Why, in the peer's words.
        text: String,
        /// Whether the peer had proved itself: if not, this is no evidence about the host dialled.
        proven: bool,
    },
    /// The peer does not know the cluster's secret.
    #[error("the peer does not know the secret of this cluster")]
    WrongSecret,
    /// Another host, or another life of it, than the one wanted.
    #[error("host {wanted} was wanted, and here is {here}")]
    WrongHost {
        /// Whom the dialler wants.
        wanted: HostUid,
        /// Who listens.
        here: HostUid,
    },
    /// The peer claims to be this very host: something sends back what is sent.
    #[error("the peer claims to be this very host")]
    ReflectedChallenge,
    /// The peer speaks another version of the protocol.
    #[error(
        "the peer speaks version {theirs} of the protocol and this host version {ours}; run the same release on both"
    )]
    Version {
        /// The peer's.
        theirs: u16,
        /// This build's.
        ours: u16,
    },
    /// The peer accepts only frames that are too short to fail a call with.
    #[error("the peer accepts frames of {theirs} bytes at most, and {least} are the least")]
    FrameLimit {
        /// The peer's limit.
        theirs: u64,
        /// The least limit there may be.
        least: usize,
    },
    /// The peer's actors take so little at once that messages would never reach them.
    #[error("the peer's actors take {theirs} bytes at most, and {least} are the least")]
    Window {
        /// The peer's window.
        theirs: u64,
        /// The least window there may be.
        least: usize,
    },
    /// A frame that has no place at this point of the handshake.
    #[error("a {kind} frame has no place at this point of the handshake")]
    Unexpected {
        /// What came.
        kind: FrameKind,
    },
    /// The peer's bytes are no frames, or the stream failed.
    #[error("the handshake was cut off")]
    Wire(#[from] WireError),
}

/// Why a session does not take a message. The message is the caller's still.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Too much waits to be written, or for the actor; try again when the session has room.
    #[error("{waiting} bytes wait and the limit is {limit}; wait for room")]
    Full {
        /// The frame, in bytes.
        size: usize,
        /// The bytes that wait.
        waiting: usize,
        /// How many may wait.
        limit: usize,
    },
    /// The frame is over the limit of this side or the peer's; it will never be taken.
    #[error("the message makes a frame of {size} bytes and the limit is {limit}; send it in parts")]
    TooLarge {
        /// The whole frame in bytes.
        size: usize,
        /// How many it may have.
        limit: usize,
    },
    /// This side or the peer leaves.
    #[error("the link is closing")]
    Closing,
    /// The call was made before, and one of the two sides has forgotten it since: made again it could be
    /// handled twice.
    #[error("one of the two hosts has forgotten the call")]
    Forgotten,
}

/// How a peer broke the protocol. The link it came over is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A call under the number of one that is open.
    #[error("call {call} came twice")]
    CallTwice {
        /// The number.
        call: CallId,
    },
    /// A frame that has no place on a link, or not in chunks.
    #[error("a {kind} frame came where none may come")]
    UnexpectedFrame {
        /// What came.
        kind: FrameKind,
    },
    /// An acknowledgement of what was not sent, or less than the one before.
    #[error("the peer says that it has {received} frames, and that cannot be")]
    Ack {
        /// How many it says.
        received: u64,
    },
    /// A message beyond what its actor takes.
    #[error("a message came for actor {} without credit", target.actor)]
    NoCredit {
        /// The actor.
        target: Target,
    },
    /// Credit for what was never sent.
    #[error("the peer gives {bytes} bytes of credit for actor {} back, and never had them", target.actor)]
    Credit {
        /// The actor.
        target: Target,
        /// How many.
        bytes: u64,
    },
    /// A chunk that does not fit its frame.
    #[error("a chunk is wrong: {what}")]
    Chunk {
        /// In which way.
        what: &'static str,
    },
    /// The chunks of a frame make up none.
    #[error("a frame that came in chunks is none: {0}")]
    Wire(String),
    /// A message after the frame that promises that none comes.
    #[error("a {kind} frame came after the goodbye")]
    AfterGoodbye {
        /// What came.
        kind: FrameKind,
    },
    /// A frame while the session has no link: its driver is to blame.
    #[error("a {kind} frame came without a link")]
    Detached {
        /// What came.
        kind: FrameKind,
    },
}

impl From<WireError> for SessionError {
    fn from(error: WireError) -> Self {
        Self::Wire(error.to_string())
    }
}
