//! Sizes of the batches that one side processes before the other can run.
//!
//! On different cores both sides run in parallel if each releases early what the other waits for. An
//! actor's replies are therefore sent when half of its queue is handled. On a shared core only one side
//! runs at a time, and each switch costs a context switch with its system calls. Each side then processes
//! all available work, within bounds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::config::{
    BATCH_MESSAGES_MAX, BATCH_MESSAGES_MIN, BATCH_MESSAGES_SAME_CORE, READ_BUDGET_BYTES,
    READ_BUDGET_BYTES_SAME_CORE, SAME_CORE_SAMPLES_MIN,
};

/// Messages on a shared core that consume one unit of tokio's task budget, which has 128 units.
///
/// A budget then lasts as long as a batch.
const MESSAGES_PER_BUDGET: u32 = BATCH_MESSAGES_SAME_CORE as u32 / 128;

/// Batch sizes of one peer, adapted to the cores that both sides run on.
#[derive(Debug, Default)]
pub(super) struct AdaptiveBatching {
    /// The peer runs on this core, as far as samples show.
    shares_core: AtomicBool,
    /// Consecutive samples that found the peer on this core. Only the link's task writes it.
    same_core_samples: AtomicU32,
    /// Approximate number of messages on a shared core; concurrent increments may be lost.
    ///
    /// An exact count would need a locked instruction for each message.
    messages: AtomicU32,
}

impl AdaptiveBatching {
    /// Records a sample of the core that the peer's last packet was processed on.
    ///
    /// A match may be wrong: the last packet can be an ACK, which the peer's kernel may send from this core.
    /// A mismatch is reliable, and applies immediately.
    pub(super) fn sample(&self, shares_core: bool) {
        let samples =
            if shares_core { self.same_core_samples.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        // A single task writes it, so a plain store loses nothing.
        self.same_core_samples.store(samples, Ordering::Relaxed);
        self.shares_core.store(samples >= SAME_CORE_SAMPLES_MIN, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn shares_core(&self) -> bool {
        self.shares_core.load(Ordering::Relaxed)
    }

    /// Number of the `waiting` messages that an actor handles before its replies are sent.
    pub(super) fn batch_size(&self, waiting: usize) -> usize {
        if self.shares_core() {
            BATCH_MESSAGES_SAME_CORE
        } else {
            // Half of the queue: the peer processes those replies while this host handles the rest.
            waiting.div_ceil(2).clamp(BATCH_MESSAGES_MIN, BATCH_MESSAGES_MAX)
        }
    }

    /// Bytes that the link reads before the actors run.
    pub(super) fn read_budget_bytes(&self) -> usize {
        if self.shares_core() { READ_BUDGET_BYTES_SAME_CORE } else { READ_BUDGET_BYTES }
    }

    /// True if a one-way message or a received reply consumes a unit of its task's budget.
    #[inline]
    pub(super) fn consumes_budget(&self) -> bool {
        if !self.shares_core() {
            return true;
        }
        let messages = self.messages.load(Ordering::Relaxed);
        // Not `fetch_add`: a lost increment is harmless, and a locked instruction for each message is
        // not free.
        self.messages.store(messages.wrapping_add(1), Ordering::Relaxed);
        messages.is_multiple_of(MESSAGES_PER_BUDGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> AdaptiveBatching {
        let batching = AdaptiveBatching::default();
        (0..SAME_CORE_SAMPLES_MIN).for_each(|_| batching.sample(true));
        batching
    }

    #[test]
    fn batches_are_half_of_the_queue_within_bounds_or_all_of_it_on_a_shared_core() {
        let apart = [0, 16, 64, 300, 100_000].map(|waiting| AdaptiveBatching::default().batch_size(waiting));
        assert_eq!(apart, [16, 16, 32, 150, 256]);
        assert_eq!([1, 100_000].map(|waiting| shared().batch_size(waiting)), [BATCH_MESSAGES_SAME_CORE; 2]);
        assert_eq!(
            [AdaptiveBatching::default(), shared()].map(|batching| batching.read_budget_bytes()),
            [READ_BUDGET_BYTES, READ_BUDGET_BYTES_SAME_CORE]
        );
    }

    #[test]
    fn a_shared_core_takes_several_samples_and_a_single_one_revokes_it() {
        let batching = AdaptiveBatching::default();
        for sample in [true, true, false, true, true, true] {
            batching.sample(sample);
            assert_eq!(batching.batch_size(64), 32);
        }
        batching.sample(true);
        assert_eq!(batching.batch_size(64), BATCH_MESSAGES_SAME_CORE);
        batching.sample(false);
        assert_eq!(batching.batch_size(64), 32);
    }

    #[test]
    fn on_a_shared_core_a_task_budget_lasts_for_one_batch() {
        let counted = |batching: &AdaptiveBatching| (0..1024).filter(|_| batching.consumes_budget()).count();
        assert_eq!((counted(&AdaptiveBatching::default()), counted(&shared())), (1024, 128));
    }
}
