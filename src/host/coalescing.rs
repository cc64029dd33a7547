//! Coalescing of small writes.
//!
//! A link's writer that writes when it is woken writes what one task has queued so far. Senders that
//! yield after a few messages, and callers in tasks of their own, would then cost a system call and a
//! wake-up of the peer for every few messages. The writer therefore gives the tasks that are ready a turn
//! each, and again as long as they keep adding output.
//!
//! On a core of its own the peer could work meanwhile. There the writer waits only while each turn adds
//! several messages, which save more than the wait costs.
//!
//! A turn is one pass of the runtime. Tokio promises none for `yield_now`, and its current-thread
//! runtime, on which links run, has one.
//!
//! A single call at a time would pay a turn in vain on each write, so the writer stops trying where it
//! does not help.

use std::time::Duration;

use tokio::time::Instant;

/// Turns of other tasks before one write.
const TURNS_MAX: u32 = 32;

/// Frames that a turn must add while the peer has a core of its own.
const FRAMES_MIN: u64 = 8;

/// Output that is written without another turn.
///
/// A system call is a small part of the cost of that many bytes, and a peer on another core should have
/// them.
const ENOUGH_BYTES: usize = 16 << 10;

/// Duration of all turns before one write after which the output is written.
///
/// A turn is as long as the handlers that are ready. Output must not wait for many long ones.
const TURNS_TIME_MAX: Duration = Duration::from_micros(100);

/// Maximum number of writes between two attempts.
const SKIPPED_MAX: u32 = 63;

/// [`SKIPPED_MAX`] on a thread whose turns are long.
///
/// An attempt may delay the output by a whole turn there.
const SKIPPED_MAX_IF_SLOW: u32 = 1023;

/// Output that waits for a link's writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingOutput {
    /// Bytes that the kernel has not accepted.
    pub(super) bytes: usize,
    /// Frames that were ever added.
    pub(super) frames: u64,
}

/// Decisions of one link's writer.
#[derive(Debug, Default)]
pub(super) struct Coalescing {
    /// Writes until the next attempt.
    skip: u32,
    /// Value of `skip` after the last attempt; zero while attempts help.
    backoff: u32,
}

impl Coalescing {
    /// Waits while other tasks of the thread keep adding output.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn wait(&mut self, shares_core: bool, pending: impl Fn() -> PendingOutput) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let mut before = pending();
        if before.bytes == 0 || before.bytes >= ENOUGH_BYTES {
            return;
        }
        let frames_min = if shares_core { 1 } else { FRAMES_MIN };
        // Tokio's clock, which stands still in a simulation: both runs of a seed then decide alike.
        let begin = Instant::now();
        let mut helped = false;
        for _ in 0..TURNS_MAX {
            tokio::task::yield_now().await;
            if begin.elapsed() >= TURNS_TIME_MAX {
                // Whether it helped or not: the next attempt may wait for such a turn, too.
                return self.back_off(SKIPPED_MAX_IF_SLOW, false);
            }
            let now = pending();
            let grown = now.frames.saturating_sub(before.frames) >= frames_min;
            helped |= grown;
            if !grown || now.bytes >= ENOUGH_BYTES {
                break;
            }
            before = now;
        }
        self.back_off(SKIPPED_MAX, helped);
    }

    fn back_off(&mut self, skipped_max: u32, helped: bool) {
        self.backoff = if helped { 0 } else { (2 * self.backoff + 1).min(skipped_max) };
        self.skip = self.backoff;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    use super::*;

    /// Output to which each look adds the next number of frames.
    struct Output {
        added: RefCell<VecDeque<u64>>,
        frames: Cell<u64>,
        looks: Cell<usize>,
    }

    const FRAME_BYTES: usize = 64;

    const ENOUGH_FRAMES: u64 = (ENOUGH_BYTES / FRAME_BYTES) as u64;

    impl Output {
        fn new(added: &[u64]) -> Self {
            Self {
                added: RefCell::new(added.iter().copied().collect()),
                frames: Cell::new(0),
                looks: Cell::new(0),
            }
        }

        /// Waits once; returns the number of looks at the output, and the frames that are written.
        async fn wait(&self, coalescing: &mut Coalescing, shares_core: bool) -> (usize, u64) {
            let look = || {
                let added = self.added.borrow_mut().pop_front().unwrap_or_default();
                self.frames.set(self.frames.get() + added);
                self.looks.set(self.looks.get() + 1);
                PendingOutput { bytes: self.frames.get() as usize * FRAME_BYTES, frames: self.frames.get() }
            };
            coalescing.wait(shares_core, look).await;
            (self.looks.get(), self.frames.get())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn output_is_written_when_no_task_adds_to_it_or_when_it_is_enough() {
        let bursts = [
            (vec![1, 1, 1, 0, 1], (4, 3), (2, 2)),
            (vec![1, FRAMES_MIN, FRAMES_MIN - 1, 9], (5, 25), (3, 16)),
            (vec![ENOUGH_FRAMES], (1, ENOUGH_FRAMES), (1, ENOUGH_FRAMES)),
            (vec![1, ENOUGH_FRAMES, 1], (2, ENOUGH_FRAMES + 1), (2, ENOUGH_FRAMES + 1)),
            (vec![7; 1000], (33, 231), (2, 14)),
            (vec![], (1, 0), (1, 0)),
        ];
        for (added, shared, apart) in bursts {
            for (shares_core, expected) in [(true, shared), (false, apart)] {
                let output = Output::new(&added);
                let waited = output.wait(&mut Coalescing::default(), shares_core).await;
                assert_eq!(waited, expected, "{added:?}, {shares_core}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn single_messages_are_rarely_delayed_and_a_burst_ends_the_backoff() {
        let mut coalescing = Coalescing::default();
        let mut attempts = 0;
        for _ in 0..10 * (SKIPPED_MAX + 1) {
            let (looks, _) = Output::new(&[1, 0]).wait(&mut coalescing, true).await;
            attempts += u32::from(looks > 0);
        }
        assert!((10..=16).contains(&attempts), "{attempts} attempts");
        for _ in 0..=SKIPPED_MAX {
            Output::new(&[1, 1, 0]).wait(&mut coalescing, true).await;
        }
        assert_eq!(Output::new(&[1, 1, 0]).wait(&mut coalescing, true).await, (3, 2));
    }

    /// Holds the thread for longer than all turns together may last.
    fn long_turn() {
        let begin = std::time::Instant::now();
        while begin.elapsed() < 2 * TURNS_TIME_MAX {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_long_turn_counts_also_after_one_that_helped() {
        let mut coalescing = Coalescing::default();
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            // The turn that the third look would end is long.
            if looks.get() == 2 {
                long_turn();
            }
            PendingOutput { bytes: FRAME_BYTES, frames: looks.get() }
        };
        coalescing.wait(true, look).await;
        assert_eq!((looks.get(), coalescing.skip), (2, 1));
    }

    #[tokio::test]
    async fn on_a_thread_with_long_turns_output_is_written_after_one() {
        let local = tokio::task::LocalSet::new();
        let task = async move {
            loop {
                long_turn();
                tokio::task::yield_now().await;
            }
        };
        local.spawn_local(task);
        let mut coalescing = Coalescing::default();
        let writer = async {
            let mut looks = Vec::new();
            for _ in 0..200 {
                looks.push(Output::new(&[1, 0]).wait(&mut coalescing, true).await.0);
            }
            looks
        };
        let looks = local.run_until(writer).await;
        assert!(looks.iter().all(|looks| *looks <= 2) && looks.iter().sum::<usize>() < 20, "{looks:?}");
    }
}
