//! Link that is up, and the guard of the task that drives it.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Peer;
use crate::id::LinkId;
use crate::lock::Mutex;

/// Link that is up.
#[derive(Debug)]
pub(crate) struct ActiveLink {
    pub(super) id: LinkId,
    pub(super) dialed: bool,
    /// Notified when there are bytes to write.
    pub(crate) writable: Notify,
    /// Cancelled to end the link, and when it has ended.
    pub(crate) closed: CancellationToken,
    /// Time of the last sign of life from the peer.
    last_heard: Mutex<tokio::time::Instant>,
    /// Ends the peer's current heartbeat connection for this link.
    heartbeat: Mutex<CancellationToken>,
}

impl ActiveLink {
    pub(super) fn new(id: LinkId, dialed: bool, closed: CancellationToken) -> Self {
        let heard = Mutex::new(tokio::time::Instant::now());
        Self { id, dialed, writable: Notify::new(), closed, last_heard: heard, heartbeat: Mutex::default() }
    }

    /// Ends the previous heartbeat connection; returns the token that ends the new one.
    ///
    /// A reconnecting peer opens a new one while the old one still looks alive, so the newest is kept.
    pub(in crate::host) fn replace_heartbeat(&self) -> CancellationToken {
        let ended = self.closed.child_token();
        let before = std::mem::replace(&mut *self.heartbeat.lock(), ended.clone());
        before.cancel();
        ended
    }

    pub(in crate::host) fn id(&self) -> LinkId {
        self.id
    }

    /// Time of the last sign of life from the peer.
    pub(in crate::host) fn heard(&self) -> tokio::time::Instant {
        *self.last_heard.lock()
    }

    /// Records a sign of life from the peer.
    pub(in crate::host) fn touch(&self, at: tokio::time::Instant) {
        let mut heard = self.last_heard.lock();
        // The link's task and the heartbeat task report concurrently, so times may arrive out of
        // order.
        *heard = at.max(*heard);
    }
}

/// Ownership of a link that is up. Dropping it takes the link down.
///
/// Without a task that drives it, a link would accept messages and never send them.
#[derive(Debug)]
pub(crate) struct LinkGuard {
    pub(crate) peer: Arc<Peer>,
    pub(crate) up: Arc<ActiveLink>,
}
