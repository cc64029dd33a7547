//! What a peer's session is due to do: one task a peer, however many calls have a deadline.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Peer, State, now};

/// Whether a task sleeps for a session, and until when.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    NotStarted,
    Idle,
    Until(Instant),
}

impl Peer {
    pub(super) fn arm_timer(self: &Arc<Self>, state: &mut State, deadline: Instant) {
        match std::mem::replace(&mut state.timer, Timer::Until(deadline)) {
            Timer::NotStarted => {
                let Some(host) = self.host.upgrade() else { return };
                let ended = host.closing.clone();
                host.io.spawn(expire_calls(Arc::clone(self), ended));
            }
            Timer::Until(until) if until <= deadline => state.timer = Timer::Until(until),
            Timer::Idle | Timer::Until(_) => self.timer.notify_one(),
        }
    }

    /// Does what is due, and says when to look again.
    ///
    /// That is also when it was told to, though nothing may be due then any more: an acknowledgement mostly
    /// travels with the reply, and whoever rings for each one would have this thread in the way of every
    /// other call.
    fn expire(&self) -> Option<Instant> {
        let mut events = Vec::new();
        let mut state = self.lock();
        let now = now();
        state.session.on_timeout(now, &mut events);
        let told = match state.timer {
            Timer::Until(until) => Some(until).filter(|until| *until > now),
            Timer::NotStarted | Timer::Idle => None,
        };
        let next = state.session.poll_timeout().into_iter().chain(told).min();
        state.timer = next.map_or(Timer::Idle, Timer::Until);
        state.ring_if_outgoing();
        self.settle(state, events);
        next
    }
}

/// One task a peer, from the first time on that anything is due.
async fn expire_calls(peer: Arc<Peer>, ended: CancellationToken) {
    loop {
        let next = peer.expire();
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = peer.timer.notified() => {}
            () = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}
