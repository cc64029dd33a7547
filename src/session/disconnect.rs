//! Why a link, or the session over it, is gone.

use thiserror::Error;

/// Why a link or a session is gone, or never came to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The peer closed the connection without a word.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(String),
    /// The peer said that it leaves.
    #[error("the peer left: {reason}")]
    PeerClosed {
        /// The peer's words.
        reason: String,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// No connection could be made.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The host has ended.
    #[error("the host is gone: {0}; spawn its actors again")]
    HostDown(String),
    /// This host shuts down.
    #[error("this host is shutting down")]
    Shutdown,
    /// The peer has dropped the session, and what was open in it.
    #[error("the peer has given the session up, and what was open in it")]
    Reset,
    /// One of the two hosts has forgotten the other, which was away, with what was open between them.
    #[error(
        "one of the two hosts has forgotten the other while it was away, and what was open between them; \
         send again if doing it twice does no harm"
    )]
    Forgotten,
    /// Nothing was heard of the peer for too long.
    #[error("nothing was heard of the peer for {after:?}")]
    HeartbeatTimeout {
        /// For how long.
        after: std::time::Duration,
    },
    /// The certificate that the peer has shown for this link has ended.
    #[error("the peer's certificate has expired; the next link shows another")]
    CertificateExpired,
    /// Another link to the same peer stands in for it.
    #[error("another link took its place")]
    Superseded,
}
