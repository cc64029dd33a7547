//! How much one side does before the other has its turn.
//!
//! On cores of their own both sides can work at the same time, if each lets go early of what the other
//! waits for: an actor's answers leave when half of what waits is handled. On one core only one of them
//! works anyway, and each handing over costs a switch of processes and the system calls around it: so
//! each does all that there is, within bounds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::config::{
    BATCH_MESSAGES_MAX, BATCH_MESSAGES_MIN, BATCH_MESSAGES_SAME_CORE, READ_BUDGET_BYTES,
    READ_BUDGET_BYTES_SAME_CORE, SAME_CORE_SAMPLES_MIN,
};

/// On a shared core one message of so many counts for the budget that tokio gives a task for a turn,
/// which is 128 now.
const MESSAGES_PER_BUDGET: u32 = BATCH_MESSAGES_SAME_CORE as u32 / 128;

#[derive(Debug, Default)]
pub(super) struct AdaptiveBatching {
    /// Whether the peer runs on this core, as far as is known.
    shares_core: AtomicBool,
    /// How many looks in a row have said so. Only the task of the link looks.
    same_core_samples: AtomicU32,
    /// Messages on a shared core, about: those at the same time count as one.
    messages: AtomicU32,
}

impl AdaptiveBatching {
    /// Takes what a look at the link says. That the peer is on this core may be wrong, where the last
    /// that came is its kernel's word that something has arrived; that it is not is believed at once.
    pub(super) fn sample(&self, shares_core: bool) {
        let looks =
            if shares_core { self.same_core_samples.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.same_core_samples.store(looks, Ordering::Relaxed);
        self.shares_core.store(looks >= SAME_CORE_SAMPLES_MIN, Ordering::Relaxed);
    }

    #[inline]
    fn shares_core(&self) -> bool {
        self.shares_core.load(Ordering::Relaxed)
    }

    /// How many messages an actor handles of so many that wait.
    pub(super) fn batch_size(&self, waiting: usize) -> usize {
        if self.shares_core() {
            BATCH_MESSAGES_SAME_CORE
        } else {
            waiting.div_ceil(2).clamp(BATCH_MESSAGES_MIN, BATCH_MESSAGES_MAX)
        }
    }

    /// How many bytes the link reads before the actors have their turn.
    pub(super) fn read_budget_bytes(&self) -> usize {
        if self.shares_core() { READ_BUDGET_BYTES_SAME_CORE } else { READ_BUDGET_BYTES }
    }

    /// Whether a message that is told, or an answer that is taken, counts for the budget of its task.
    #[inline]
    pub(super) fn consumes_budget(&self) -> bool {
        if !self.shares_core() {
            return true;
        }
        let messages = self.messages.load(Ordering::Relaxed);
        self.messages.store(messages.wrapping_add(1), Ordering::Relaxed);
        messages.is_multiple_of(MESSAGES_PER_BUDGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> AdaptiveBatching {
        let pace = AdaptiveBatching::default();
        (0..SAME_CORE_SAMPLES_MIN).for_each(|_| pace.sample(true));
        pace
    }

    #[test]
    fn turns_are_halves_within_bounds_or_all_on_a_shared_core() {
        let apart = [0, 16, 64, 300, 100_000].map(|waiting| AdaptiveBatching::default().batch_size(waiting));
        assert_eq!(apart, [16, 16, 32, 150, 256]);
        assert_eq!([1, 100_000].map(|waiting| shared().batch_size(waiting)), [BATCH_MESSAGES_SAME_CORE; 2]);
        assert_eq!(
            [AdaptiveBatching::default(), shared()].map(|pace| pace.read_budget_bytes()),
            [READ_BUDGET_BYTES, READ_BUDGET_BYTES_SAME_CORE]
        );
    }

    #[test]
    fn a_shared_core_is_believed_when_it_was_seen_often_and_no_longer_when_another_was_seen() {
        let pace = AdaptiveBatching::default();
        for look in [true, true, false, true, true, true] {
            pace.sample(look);
            assert_eq!(pace.batch_size(64), 32);
        }
        pace.sample(true);
        assert_eq!(pace.batch_size(64), BATCH_MESSAGES_SAME_CORE);
        pace.sample(false);
        assert_eq!(pace.batch_size(64), 32);
    }

    #[test]
    fn on_a_shared_core_a_budget_lasts_for_as_many_messages_as_a_turn() {
        let counted = |pace: &AdaptiveBatching| (0..1024).filter(|_| pace.consumes_budget()).count();
        assert_eq!((counted(&AdaptiveBatching::default()), counted(&shared())), (1024, 128));
    }
}
