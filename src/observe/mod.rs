//! What can be seen of a running host: plain data, copied out.

mod chain;
pub(crate) mod log;

use crate::id::HostUid;

pub use chain::Chain;

/// One host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostSnapshot {
    /// The host.
    pub identity: HostUid,
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
    pub identity: HostUid,
    /// Whether a link to it is up.
    pub linked: bool,
    /// How many links to it there have been.
    pub links: u64,
    /// Calls sent to it that have no answer yet.
    pub calls_open: usize,
    /// Calls from it that have no answer yet.
    pub calls_accepted: usize,
    /// Bytes on their way to it: not written, or not acknowledged.
    pub outgoing_bytes: usize,
    /// Those of them that are not written.
    pub unwritten_bytes: usize,
    /// Bytes of messages that wait here for the credit of its actors, or for a link.
    pub parked_bytes: usize,
    /// Bytes of the windows of its actors that messages from here take, as far as is known here.
    pub charged_bytes: u64,
    /// Bytes of the windows of this host's actors that its messages take: accepted, not handled.
    pub accepted_bytes: u64,
    /// Bytes of the windows of this host's actors that are free again, and that it has yet to be
    /// told of.
    pub owed_bytes: u64,
}
