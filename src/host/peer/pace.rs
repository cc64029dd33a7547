//! How much one side does before the other has its turn.
//!
//! On cores of their own both sides can work at the same time, if each lets go early of what the other
//! waits for: an actor's answers leave when half of what waits is handled. On one core only one of them
//! works anyway, and each handing over costs a switch of processes and the system calls around it: so
//! each does all that there is, within bounds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::config::{TURN_MESSAGES_MAX, TURN_MESSAGES_MIN, TURN_MESSAGES_SHARED};
use crate::id::CallId;

/// The budget that tokio gives a task for a turn.
const BUDGET: u32 = 128;

/// Of so many calls on a shared core one counts for that budget.
const CALLS_PER_BUDGET: u64 = TURN_MESSAGES_SHARED as u64 / BUDGET as u64;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether the peer ran on this core when it was looked last.
    shares_core: AtomicBool,
    /// One-way messages since a sender last gave way, about: who counts at the same time counts as one.
    tells: AtomicU32,
}

impl Pace {
    pub(super) fn set(&self, shares_core: bool) {
        self.shares_core.store(shares_core, Ordering::Relaxed);
    }

    #[inline]
    fn shares_core(&self) -> bool {
        self.shares_core.load(Ordering::Relaxed)
    }

    /// Counts a one-way message whose sender can wait; says whether the sender gives way before it.
    #[inline]
    pub(super) fn tell_gives_way(&self) -> bool {
        let most = if self.shares_core() { TURN_MESSAGES_SHARED as u32 } else { BUDGET };
        let tells = self.tells.load(Ordering::Relaxed);
        let over = tells >= most;
        self.tells.store(if over { 1 } else { tells + 1 }, Ordering::Relaxed);
        over
    }

    /// How many messages an actor handles of so many that wait.
    pub(super) fn turn(&self, waiting: usize) -> usize {
        if self.shares_core() {
            TURN_MESSAGES_SHARED
        } else {
            waiting.div_ceil(2).clamp(TURN_MESSAGES_MIN, TURN_MESSAGES_MAX)
        }
    }

    /// Whether a caller that has the answer of this call goes on only within the budget of its task.
    #[inline]
    pub(super) fn counts(&self, call: CallId) -> bool {
        !self.shares_core() || call.0.is_multiple_of(CALLS_PER_BUDGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_halves_within_bounds_or_all_on_a_shared_core() {
        let pace = Pace::default();
        let apart = [0, 16, 64, 300, 100_000].map(|waiting| pace.turn(waiting));
        assert_eq!(apart, [16, 16, 32, 150, 256]);
        assert!((1..100).all(|call| pace.counts(CallId(call))));
        pace.set(true);
        assert_eq!([1, 100_000].map(|waiting| pace.turn(waiting)), [TURN_MESSAGES_SHARED; 2]);
        assert_eq!((1..=1024).filter(|call| pace.counts(CallId(*call))).count(), 128);
        pace.set(false);
        assert_eq!(pace.turn(64), 32);
        let given_way = |pace: &Pace| (0..1025).filter(|_| pace.tell_gives_way()).count();
        assert_eq!(given_way(&pace), 8);
        pace.set(true);
        assert_eq!(given_way(&pace), 1);
    }
}
