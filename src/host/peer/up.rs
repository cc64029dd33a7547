//! A link that is up, and the duty to serve it.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Peer;
use crate::id::LinkId;
use crate::lock::Mutex;

/// A link that is up.
#[derive(Debug)]
pub(crate) struct ActiveLink {
    pub(super) id: LinkId,
    pub(super) dialed: bool,
    /// Rung when there is something to write.
    pub(crate) writable: Notify,
    /// Cancelled when the link shall end, or has ended.
    pub(crate) closed: CancellationToken,
    /// When the peer was last known to live.
    last_heard: Mutex<tokio::time::Instant>,
    /// Ends the pulse that the peer has for this link.
    heartbeat: Mutex<CancellationToken>,
}

impl ActiveLink {
    pub(super) fn new(id: LinkId, dialed: bool, closed: CancellationToken) -> Self {
        let heard = Mutex::new(tokio::time::Instant::now());
        Self { id, dialed, writable: Notify::new(), closed, last_heard: heard, heartbeat: Mutex::default() }
    }

    /// Another pulse begins, and the one before ends; gives what ends the new one.
    pub(in crate::host) fn replace_heartbeat(&self) -> CancellationToken {
        let ended = self.closed.child_token();
        let before = std::mem::replace(&mut *self.heartbeat.lock(), ended.clone());
        before.cancel();
        ended
    }

    pub(in crate::host) fn id(&self) -> LinkId {
        self.id
    }

    /// When the peer was last known to live.
    pub(in crate::host) fn heard(&self) -> tokio::time::Instant {
        *self.last_heard.lock()
    }

    /// The peer was known to live then.
    pub(in crate::host) fn touch(&self, at: tokio::time::Instant) {
        let mut heard = self.last_heard.lock();
        *heard = at.max(*heard);
    }
}

/// The duty to serve a link that is up. Dropped by whoever has it, for whatever reason, it takes the
/// link down: a link that nobody serves must not look as if messages could leave by it.
#[derive(Debug)]
pub(crate) struct LinkGuard {
    pub(crate) peer: Arc<Peer>,
    pub(crate) up: Arc<ActiveLink>,
}
