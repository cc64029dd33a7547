//! Reasons for the loss of a link or a session.

use thiserror::Error;

/// Reason why a link or a session ended, or was never established.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The peer closed the connection without a goodbye.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(String),
    /// The peer closed the session gracefully.
    #[error("the peer closed the session: {reason}")]
    PeerClosed {
        /// Reason that the peer gives.
        reason: String,
    },
    /// The peer violated the protocol.
    #[error("the peer violated the protocol: {0}")]
    Protocol(String),
    /// No connection could be established.
    #[error("cannot connect to the peer: {0}")]
    Unreachable(String),
    /// The process of the peer has ended.
    #[error("the host is down: {0}; spawn its actors again")]
    HostDown(String),
    /// This host is shutting down.
    #[error("this host is shutting down")]
    Shutdown,
    /// The peer has reset the session, and dropped what was open in it.
    #[error("the peer has reset the session and dropped its open calls")]
    Reset,
    /// Either host has forgotten the other after a long absence, and what was open between
    /// them.
    #[error(
        "one of the two hosts forgot the other during a long absence, with all open calls; \
         send again if running it twice does no harm"
    )]
    Forgotten,
    /// The peer was silent on the link and on its heartbeat connection.
    #[error("the peer sent no heartbeat for {after:?}")]
    HeartbeatTimeout {
        /// Configured heartbeat timeout, which the silence has reached.
        after: std::time::Duration,
    },
    /// The certificate that the peer presented for this link has expired.
    #[error("the peer's certificate has expired; the next link shows another")]
    CertificateExpired,
    /// Another link to the same peer replaced this one.
    #[error("another link replaced it")]
    Superseded,
}
