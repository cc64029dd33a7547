//! Snapshots of a running host: plain data, copied out; trace contexts of messages; the histogram and the recorder
//! that processes keep times in.

mod chain;
mod lane;
pub(crate) mod log;
mod span_recorder;
mod time_histogram;
pub mod trace;

use crate::id::HostUid;

pub use chain::Chain;
#[cfg(test)]
pub(crate) use lane::Lane;
pub(crate) use span_recorder::{RecordedSpan, SPANS, Work};
pub(crate) use time_histogram::{Percentiles, TimeHistogram};

/// Snapshot of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostSnapshot {
    /// Id and incarnation of the host.
    pub identity: HostUid,
    /// Number of live remote actors.
    pub actors: usize,
    /// Number of watches of these actors, of all hosts.
    pub watches: usize,
    /// Number of one-way messages that reached no handler, sent or received by this host.
    pub dead_letters: u64,
    /// Bytes and messages over all links so far.
    pub traffic: Traffic,
    /// Snapshots of the known peers.
    pub peers: Vec<PeerSnapshot>,
}

/// Bytes and messages that a host has exchanged with all peers, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes written to links, without those that TLS and TCP add.
    pub sent_bytes: u64,
    /// Bytes read from links, without those that TLS and TCP add.
    pub received_bytes: u64,
    /// Calls and one-way messages sent; replies are not counted.
    pub messages_sent: u64,
    /// Calls and one-way messages received; replies are not counted.
    pub messages_received: u64,
}

/// Snapshot of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// Id and incarnation of the peer.
    pub identity: HostUid,
    /// A link to the peer is up.
    pub linked: bool,
    /// Number of links so far.
    pub links: u64,
    /// Number of calls to the peer without a reply.
    pub calls_open: usize,
    /// Number of calls from the peer without a reply.
    pub calls_accepted: usize,
    /// Bytes in flight to the peer: unwritten or unacknowledged.
    pub outgoing_bytes: usize,
    /// Unwritten part of [`outgoing_bytes`](Self::outgoing_bytes).
    pub unwritten_bytes: usize,
    /// Bytes queued here for the credit of the peer's actors, or for a link.
    pub send_queue_bytes: usize,
    /// Bytes that messages from here are charged to the windows of the peer's actors, as far as known.
    pub charged_bytes: u64,
    /// Bytes that the peer's messages are charged to the windows of this host's actors: accepted, not
    /// handled.
    pub accepted_bytes: u64,
    /// Bytes of released credit that have not been reported to the peer.
    pub owed_bytes: u64,
}
