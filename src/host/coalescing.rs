//! Coalescing of small writes.
//!
//! A link's writer that writes when it is woken writes what one task has queued so far. Senders that
//! yield after a few messages, and callers in tasks of their own, would then cost a system call and a
//! wake-up of the peer for every few messages. The writer therefore gives the tasks that are ready a turn
//! each, and again as long as they keep adding output.
//!
//! A turn in vain costs one pass of the runtime, about a microsecond. A single call at a time would pay
//! that on each write, so the writer stops trying where it does not help.

use std::time::Duration;

use tokio::time::Instant;

/// Turns of other tasks before one write.
const TURNS_MAX: u32 = 32;

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
    pub(super) async fn wait(&mut self, pending_bytes: impl Fn() -> usize) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let mut before = pending_bytes();
        if before == 0 || before >= ENOUGH_BYTES {
            return;
        }
        // Tokio's clock, which stands still in a simulation: both runs of a seed then decide alike.
        let begin = Instant::now();
        let mut helped = false;
        for _ in 0..TURNS_MAX {
            tokio::task::yield_now().await;
            if begin.elapsed() >= TURNS_TIME_MAX {
                return self.back_off(SKIPPED_MAX_IF_SLOW, helped);
            }
            let now = pending_bytes();
            if now <= before || now >= ENOUGH_BYTES {
                helped |= now > before;
                break;
            }
            (helped, before) = (true, now);
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
    use std::cell::Cell;

    use super::*;

    /// Output to which each look adds the next number of bytes.
    struct Output {
        added: Cell<Vec<usize>>,
        bytes: Cell<usize>,
        looks: Cell<usize>,
    }

    impl Output {
        fn new(added: &[usize]) -> Self {
            let added = added.iter().rev().copied().collect();
            Self { added: Cell::new(added), bytes: Cell::new(0), looks: Cell::new(0) }
        }

        /// Waits once; returns the number of looks at the output, and the bytes that are written.
        async fn wait(&self, coalescing: &mut Coalescing) -> (usize, usize) {
            self.looks.set(0);
            let look = || {
                let mut added = self.added.take();
                self.bytes.set(self.bytes.get() + added.pop().unwrap_or_default());
                self.added.set(added);
                self.looks.set(self.looks.get() + 1);
                self.bytes.get()
            };
            coalescing.wait(look).await;
            (self.looks.get(), self.bytes.take())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn output_is_written_when_no_task_adds_to_it_or_when_it_is_enough() {
        let mut coalescing = Coalescing::default();
        let bursts = [
            (vec![40, 40, 40, 0, 40], (4, 120)),
            (vec![ENOUGH_BYTES], (1, ENOUGH_BYTES)),
            (vec![40, ENOUGH_BYTES, 40], (2, ENOUGH_BYTES + 40)),
            (vec![1; 1000], (33, 33)),
            (vec![], (1, 0)),
        ];
        for (added, expected) in bursts {
            assert_eq!(Output::new(&added).wait(&mut coalescing).await, expected, "{added:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn single_messages_are_rarely_delayed_and_a_burst_ends_the_backoff() {
        let mut coalescing = Coalescing::default();
        let mut attempts = 0;
        for _ in 0..10 * (SKIPPED_MAX + 1) {
            let (looks, _) = Output::new(&[40, 0]).wait(&mut coalescing).await;
            attempts += u32::from(looks > 0);
        }
        assert!((10..=16).contains(&attempts), "{attempts} attempts");
        for _ in 0..=SKIPPED_MAX {
            Output::new(&[40, 40, 0]).wait(&mut coalescing).await;
        }
        assert_eq!(Output::new(&[40, 40, 0]).wait(&mut coalescing).await, (3, 80));
    }

    #[tokio::test]
    async fn on_a_thread_with_long_turns_output_is_written_after_one() {
        // Holds the thread for longer than all turns together may last.
        let long_turn = || {
            let begin = std::time::Instant::now();
            while begin.elapsed() < 2 * TURNS_TIME_MAX {
                std::hint::spin_loop();
            }
        };
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
                looks.push(Output::new(&[40, 0]).wait(&mut coalescing).await.0);
            }
            looks
        };
        let looks = local.run_until(writer).await;
        assert!(looks.iter().all(|looks| *looks <= 2) && looks.iter().sum::<usize>() < 20, "{looks:?}");
    }
}
