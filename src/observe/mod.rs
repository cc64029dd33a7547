//! What can be seen of a running host: plain data, copied out.

pub(crate) mod log;

use crate::id::Identity;

/// One host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostSnapshot {
    /// The host.
    pub identity: Identity,
    /// Actors that can be reached from afar.
    pub actors: usize,
    /// One-way messages that no handler saw, sent by this host or received by it.
    pub dead_letters: u64,
    /// The hosts it knows.
    pub peers: Vec<PeerSnapshot>,
}

/// One peer of a host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// The peer.
    pub identity: Identity,
    /// Whether a link to it is up.
    pub linked: bool,
    /// Calls sent to it that have no answer yet.
    pub calls_open: usize,
    /// Calls from it that have no answer yet.
    pub calls_accepted: usize,
    /// Bytes that wait to be written to it.
    pub outgoing_bytes: usize,
}
