//! What the cluster knows of a host that cannot be reached.
//!
//! That nobody gets there says nothing about the host. Who keeps account of it may know that it has ended,
//! and is asked, again with each attempt that comes to nothing.

use std::sync::{Arc, Weak};

use super::{Peer, State};
use crate::host::Host;
use crate::session::DisconnectReason;

impl Peer {
    /// Has the cluster asked how the host has ended, if it has; it is asked one thing at a time.
    pub(super) fn query_status(self: &Arc<Self>, state: &mut State) {
        // Who listens nowhere that is known has come by itself, and comes again by itself.
        if state.address.is_none() || std::mem::replace(&mut state.status_query_running, true) {
            return;
        }
        let (peer, identity, host) = (Arc::downgrade(self), self.identity, Weak::clone(&self.host));
        self.io.spawn(async move {
            let host = host.upgrade().map(|shared| Host { shared });
            let end = match host.as_ref().and_then(Host::placement).zip(host) {
                Some((placement, host)) => placement.host_exit_cause(&host, identity).await,
                None => None,
            };
            let Some(peer) = peer.upgrade() else { return };
            peer.lock().status_query_running = false;
            if let Some(cause) = end {
                peer.close(DisconnectReason::HostDown(cause));
            }
        });
    }
}
