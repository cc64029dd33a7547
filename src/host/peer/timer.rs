//! What a peer's session is due to do: one task a peer, however many calls have a deadline.

use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::Notify;

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
                let (peer, timer) = (Arc::downgrade(self), Arc::clone(&self.timer));
                self.io.spawn(self.closing.clone().run_until_cancelled_owned(expire_calls(peer, timer)));
            }
            Timer::Until(until) if until <= deadline => state.timer = Timer::Until(until),
            Timer::Idle | Timer::Until(_) => self.timer.notify_one(),
        }
    }

    /// Looks earlier than it was going to, if the task of the timer was started.
    pub(super) fn hasten_timer(&self, state: &mut State, deadline: Instant) {
        match state.timer {
            Timer::NotStarted => {}
            Timer::Until(until) if until <= deadline => {}
            Timer::Idle | Timer::Until(_) => {
                state.timer = Timer::Until(deadline);
                self.timer.notify_one();
            }
        }
    }

    /// Does what is due, and says when to look again. With a peer that is gone, or forgotten, and nothing due,
    /// there is nothing to look for: then the task is to end.
    ///
    /// That is also when it was told to, though nothing may be due then any more: an acknowledgement mostly
    /// travels with the reply, and whoever rings for each one would have this thread in the way of every
    /// other call.
    fn expire(&self) -> Due {
        let mut events = Vec::new();
        let mut state = self.lock();
        let now = now();
        state.session.on_timeout(now, &mut events);
        let told = match state.timer {
            Timer::Until(until) => Some(until).filter(|until| *until > now),
            Timer::NotStarted | Timer::Idle => None,
        };
        let next = state.session.poll_timeout().into_iter().chain(told).min();
        let due = match next {
            Some(at) => Due::At(at),
            None if state.down.is_some() || state.forgotten => Due::Never,
            None => Due::Later,
        };
        state.timer = match due {
            Due::At(at) => Timer::Until(at),
            Due::Later => Timer::Idle,
            Due::Never => Timer::NotStarted,
        };
        state.notify_writer_if_pending();
        self.deliver_outcomes(state, events);
        due
    }
}

/// When a session is to be looked after next.
#[derive(Clone, Copy)]
enum Due {
    At(Instant),
    Later,
    Never,
}

/// One task a peer, from the first time on that anything is due. It does not keep the peer, and ends with it.
async fn expire_calls(peer: Weak<Peer>, timer: Arc<Notify>) {
    loop {
        let Some(due) = peer.upgrade().map(|peer| peer.expire()) else { return };
        match due {
            Due::At(at) => {
                // It is looked after in either case.
                let _ = tokio::time::timeout_at(at.into(), timer.notified()).await;
            }
            Due::Later => timer.notified().await,
            Due::Never => return,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.timer.notify_one();
    }
}
