//! Taking leave of a peer: open calls end, queued bytes leave, and a goodbye is said.

use std::sync::Arc;

use super::{Link, Peer};
impl Peer {
    /// Takes no further messages; open calls may end.
    pub(in crate::host) fn drain(self: &Arc<Self>, reason: &str) {
        let mut state = self.lock();
        state.session.drain(reason);
        if matches!(state.link, Link::Up(_)) {
            self.kick(&mut state);
        }
    }

    /// Waits until no call is open and nothing is unwritten.
    pub(in crate::host) async fn drained(&self) {
        self.until(|state| state.is_down() || state.session.is_drained()).await;
    }

    /// Says goodbye, if there is a link, and waits until that is written.
    pub(in crate::host) async fn say_goodbye(self: &Arc<Self>, reason: &str) {
        {
            let mut state = self.lock();
            if !matches!(state.link, Link::Up(_)) {
                return;
            }
            state.session.finish(reason);
            self.kick(&mut state);
        }
        self.until(|state| state.is_down() || state.session.unwritten_bytes() == 0).await;
    }
}
