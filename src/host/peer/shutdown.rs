//! Graceful close of a peer: open calls end, queued bytes are written, and a goodbye follows.

use std::sync::Arc;

use super::{ActiveLink, LinkState, Peer};

impl Peer {
    /// Accepts no further messages; open calls may end.
    pub(in crate::host) fn drain(self: &Arc<Self>, reason: &str) {
        let mut state = self.lock();
        state.session.drain(reason);
        // Not without a link: the request would open one just to announce the drain.
        if matches!(state.link, LinkState::Up(_)) {
            self.request_write(&mut state);
        }
        self.serve_and_unlock(state);
    }

    /// Waits until no call is open and nothing is unwritten, on the next link if this one is lost.
    pub(in crate::host) async fn drained(&self) {
        self.wait_until(|state| state.is_over() || state.session.is_drained()).await;
    }

    /// Sends a goodbye, if there is a link, and waits until the peer has received everything.
    ///
    /// Closing the connection earlier may discard bytes between the two kernels. The peer closes its side
    /// after the goodbye, which confirms the receipt.
    pub(in crate::host) async fn send_goodbye(self: &Arc<Self>, reason: &str) {
        {
            let mut state = self.lock();
            if !matches!(state.link, LinkState::Up(_)) {
                return;
            }
            state.session.finish(reason);
            self.request_write(&mut state);
            self.serve_and_unlock(state);
        }
        self.wait_until(|state| !matches!(state.link, LinkState::Up(_)) || state.session.is_closed()).await;
    }

    /// Waits until everything is written on this link, so that a closing peer gets the last
    /// acknowledgement.
    pub(in crate::host) async fn written(&self, up: &ActiveLink) {
        self.wait_until(|state| {
            !state.is_current_link(up)
                || !state.session.has_outgoing() && state.session.unwritten_bytes() == 0
        })
        .await;
    }
}
