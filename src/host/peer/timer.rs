//! Deadlines of a peer's session: one task for each peer, however many calls have a deadline.

use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::{Peer, PeerState, now};
use crate::background;

/// State of a session's timer task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    NotStarted,
    Idle,
    Until(Instant),
}

impl Peer {
    pub(super) fn arm_timer(self: &Arc<Self>, state: &mut PeerState, deadline: Instant) {
        match std::mem::replace(&mut state.timer, Timer::Until(deadline)) {
            Timer::NotStarted => {
                let (peer, timer) = (Arc::downgrade(self), Arc::clone(&self.timer));
                background::spawn_on(
                    &self.io,
                    self.closing.clone().run_until_cancelled_owned(expire_calls(peer, timer)),
                );
            }
            // The earlier wake-up also arms the later deadline.
            Timer::Until(until) if until <= deadline => state.timer = Timer::Until(until),
            Timer::Idle | Timer::Until(_) => self.timer.notify_one(),
        }
    }

    /// Advances the wake-up to `deadline`, if the timer task has started.
    pub(super) fn hasten_timer(&self, state: &mut PeerState, deadline: Instant) {
        match state.timer {
            Timer::NotStarted => {}
            Timer::Until(until) if until <= deadline => {}
            Timer::Idle | Timer::Until(_) => {
                state.timer = Timer::Until(deadline);
                self.timer.notify_one();
            }
        }
    }

    /// Processes expired deadlines and returns the time of the next check.
    ///
    /// A peer that is down or removed, with no deadline, ends the task.
    ///
    /// A requested wake-up is kept even if its deadline is gone by then. Most ACKs are piggybacked on a
    /// reply before their deadline. Notifying the task of each new deadline would make this thread
    /// contend for the lock at every other call.
    fn expire(&self) -> NextCheck {
        let mut events = Vec::new();
        let mut state = self.lock();
        let now = now();
        state.session.on_timeout(now, &mut events);
        let requested = match state.timer {
            Timer::Until(until) => Some(until).filter(|until| *until > now),
            Timer::NotStarted | Timer::Idle => None,
        };
        let next = state.session.poll_timeout().into_iter().chain(requested).min();
        let due = match next {
            Some(at) => NextCheck::At(at),
            None if state.down.is_some() || state.forgotten => NextCheck::Never,
            None => NextCheck::Later,
        };
        state.timer = match due {
            NextCheck::At(at) => Timer::Until(at),
            NextCheck::Later => Timer::Idle,
            NextCheck::Never => Timer::NotStarted,
        };
        state.notify_writer_if_pending();
        self.deliver_outcomes(state, events);
        due
    }
}

/// Time of the next check of a session's deadlines.
#[derive(Clone, Copy)]
enum NextCheck {
    At(Instant),
    Later,
    Never,
}

/// Timer task of a peer, started with the first deadline. It holds no strong reference, and ends with the
/// peer.
async fn expire_calls(peer: Weak<Peer>, timer: Arc<Notify>) {
    loop {
        let Some(due) = peer.upgrade().map(|peer| peer.expire()) else { return };
        match due {
            NextCheck::At(at) => {
                // An earlier deadline and an expired one both lead to the same check.
                let _ = tokio::time::timeout_at(at.into(), timer.notified()).await;
            }
            NextCheck::Later => timer.notified().await,
            NextCheck::Never => return,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Wakes the task, which finds no peer and ends.
        self.timer.notify_one();
    }
}
