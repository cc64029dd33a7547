//! Query to the cluster for the exit cause of an unreachable host.
//!
//! A failed connection says nothing about the host itself. The cluster may know that its process has
//! exited. It is queried when a link is cut, and after each failed attempt that does not end the session,
//! unless a query is running.

use std::sync::{Arc, Weak};

use super::{Peer, PeerState};
use crate::background;
use crate::host::{Host, HostStatus};
use crate::session::DisconnectReason;

impl Peer {
    /// Queries the cluster for the host's exit cause, unless a query is running.
    pub(super) fn query_status(self: &Arc<Self>, state: &mut PeerState) {
        // A peer without a known address reconnects by itself.
        if state.address.is_none() || std::mem::replace(&mut state.status_query_running, true) {
            return;
        }
        // Weak: a query may take long, and must keep neither the peer nor the host.
        let (peer, identity, host) = (Arc::downgrade(self), self.identity, Weak::clone(&self.host));
        background::spawn_on(&self.io, async move {
            let host = host.upgrade().map(|shared| Host { shared });
            let status = match host.as_ref().and_then(Host::placement).zip(host) {
                Some((placement, host)) => placement.host_status(&host, identity).await,
                None => HostStatus::Unknown,
            };
            let Some(peer) = peer.upgrade() else { return };
            // Before the result is used, so that a later failure starts another query.
            peer.lock().status_query_running = false;
            if let HostStatus::Ended(end) = status {
                peer.close(DisconnectReason::HostDown(end.text));
            }
        });
    }
}
