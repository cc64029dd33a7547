//! What the cluster knows of a host that cannot be reached.
//!
//! That nobody gets there says nothing about the host. Who keeps account of it may know that it has ended,
//! and is asked, again with each attempt that comes to nothing.

use std::sync::{Arc, Weak};

use super::{Peer, State};
use crate::host::Host;
use crate::session::LinkLoss;

impl Peer {
    /// Has the cluster asked how the host has ended, if it has; it is asked one thing at a time.
    pub(super) fn inquire(self: &Arc<Self>, state: &mut State) {
        // Who listens nowhere that is known has come by itself, and comes again by itself.
        if state.address.is_none() || std::mem::replace(&mut state.inquiring, true) {
            return;
        }
        let (peer, identity, host) = (Arc::downgrade(self), self.identity, Weak::clone(&self.host));
        self.io.spawn(async move {
            let host = host.upgrade().map(|shared| Host { shared });
            let end = match host.as_ref().and_then(Host::placement).zip(host) {
                Some((placement, host)) => placement.end_of(&host, identity).await,
                None => None,
            };
            let Some(peer) = peer.upgrade() else { return };
            peer.lock().inquiring = false;
            if let Some(cause) = end {
                peer.close(LinkLoss::HostDown(cause));
            }
        });
    }
}
