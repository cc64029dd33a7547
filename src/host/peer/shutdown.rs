//! Taking leave of a peer: open calls end, queued bytes arrive, and a goodbye is said.

use std::sync::Arc;

use super::{ActiveLink, Link, Peer};

impl Peer {
    /// Takes no further messages; open calls may end.
    pub(in crate::host) fn drain(self: &Arc<Self>, reason: &str) {
        let mut state = self.lock();
        state.session.drain(reason);
        if matches!(state.link, Link::Up(_)) {
            self.request_write(&mut state);
        }
        self.serve_and_unlock(state);
    }

    /// Waits until no call is open and nothing is unwritten, also over the next link if this one breaks.
    pub(in crate::host) async fn drained(&self) {
        self.wait_until(|state| state.is_over() || state.session.is_drained()).await;
    }

    /// Says goodbye, if there is a link, and waits until the peer has all that was said.
    ///
    /// A connection that is closed earlier may take along what lies between the two kernels. That the
    /// peer has closed it says as much: it does so when it has the goodbye.
    pub(in crate::host) async fn send_goodbye(self: &Arc<Self>, reason: &str) {
        {
            let mut state = self.lock();
            if !matches!(state.link, Link::Up(_)) {
                return;
            }
            state.session.finish(reason);
            self.request_write(&mut state);
            self.serve_and_unlock(state);
        }
        self.wait_until(|state| !matches!(state.link, Link::Up(_)) || state.session.is_closed()).await;
    }

    /// Waits until everything is written on this link: the peer leaves, and is to know what has come.
    pub(in crate::host) async fn written(&self, up: &ActiveLink) {
        self.wait_until(|state| {
            !state.is_current_link(up)
                || !state.session.has_outgoing() && state.session.unwritten_bytes() == 0
        })
        .await;
    }
}
