//! Busy polling: a link's reader checks for input for a short time before its thread sleeps.
//!
//! A core that sleeps takes tens of microseconds to wake up, several times the work of a small call. While
//! messages follow each other faster than that, the thread stays awake: it passes through its runtime,
//! which also runs its other tasks, until there is input. The gain is largest with few messages in flight,
//! where each side would otherwise sleep while the other works.
//!
//! A reader whose input does not arrive soon polls ever less often, so an idle or an overloaded machine
//! loses little time to it. Input that keeps arriving soon keeps the core awake: a link with a message
//! each 80 µs takes a whole core on either side. The passes do not yield the core to other threads
//! (`sched_yield`), which would give away a whole time slice.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Maximum number of waits between two attempts.
const SKIPPED_MAX: u32 = 63;

/// Decisions of one link's reader.
#[derive(Debug)]
pub(super) struct BusyPoll {
    /// Time after which the thread may sleep; zero if it may do so immediately.
    limit: Duration,
    /// Waits until the next attempt.
    skip: u32,
    /// Value of `skip` after the last attempt.
    ///
    /// Input within half of the limit halves it, later input adds one, and none within the limit doubles
    /// it. So polling goes on only where a sleep would cost more than the wait.
    backoff: u32,
}

impl BusyPoll {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit: if has_one_core_of_several() { Duration::ZERO } else { limit }, skip: 0, backoff: 0 }
    }

    /// Waits for the output of `input`. With `permitted` the thread stays awake for a short time.
    ///
    /// # Cancel safety
    ///
    /// That of `input`.
    pub(super) async fn wait<F: Future>(&mut self, permitted: bool, input: F) -> F::Output {
        if !permitted || self.limit.is_zero() {
            return input.await;
        }
        let mut input = pin!(input);
        if let Poll::Ready(output) = poll_once(input.as_mut()).await {
            return output;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return input.await;
        }
        // Not tokio's clock, which may stand still.
        let begin = Instant::now();
        loop {
            // Back through the runtime, which checks its sockets without sleeping.
            tokio::task::yield_now().await;
            let elapsed = begin.elapsed();
            if let Poll::Ready(output) = poll_once(input.as_mut()).await {
                self.backoff = if elapsed < self.limit / 2 { self.backoff / 2 } else { self.backoff + 1 };
                self.backoff = self.backoff.min(SKIPPED_MAX);
                self.skip = self.backoff;
                return output;
            }
            if elapsed >= self.limit {
                break;
            }
        }
        self.backoff = (2 * self.backoff + 1).min(SKIPPED_MAX);
        self.skip = self.backoff;
        input.await
    }
}

/// Returns whether this process may use the time of one core while it may run on several.
///
/// Such a quota of a control group is used up by polling. A process that is pinned to one core is not
/// meant, since its peer may run on another.
fn has_one_core_of_several() -> bool {
    #[cfg(target_os = "linux")]
    let cores = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    #[cfg(not(target_os = "linux"))]
    let cores = 1;
    cores > 1 && std::thread::available_parallelism().is_ok_and(|usable| usable.get() == 1)
}

/// Polls a future a single time.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|task| Poll::Ready(future.as_mut().poll(task))).await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn busy_poll(limit: Duration) -> BusyPoll {
        BusyPoll { limit, skip: 0, backoff: 0 }
    }

    /// Input that is ready at a number of polls, and never wakes its task.
    ///
    /// A reader that sleeps would wait for it for ever.
    fn silent(polls: u32) -> impl Future<Output = ()> {
        let mut left = polls;
        poll_fn(move |_| {
            left -= 1;
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Waits for input that arrives after the limit. Returns the number of polls.
    async fn late(busy_poll: &mut BusyPoll, permitted: bool) -> u32 {
        let (begin, limit, mut polls) = (Instant::now(), busy_poll.limit, 0);
        let arrived = move || begin.elapsed() > 2 * limit;
        let input = poll_fn(|task| {
            polls += 1;
            if arrived() {
                return Poll::Ready(());
            }
            let waker = task.waker().clone();
            tokio::spawn(async move {
                while !arrived() {
                    tokio::task::yield_now().await;
                }
                waker.wake();
            });
            Poll::Pending
        });
        busy_poll.wait(permitted, input).await;
        polls
    }

    #[tokio::test]
    async fn input_is_found_without_a_wake_up_while_the_reader_polls() {
        let mut busy_poll = busy_poll(LONG);
        for polls in [1, 2, 1000] {
            busy_poll.wait(true, silent(polls)).await;
        }
        assert_eq!((busy_poll.skip, busy_poll.backoff), (0, 0));
    }

    #[tokio::test]
    async fn other_tasks_run_while_the_reader_polls() {
        let done = Rc::new(Cell::new(false));
        let local = tokio::task::LocalSet::new();
        let other = Rc::clone(&done);
        local.spawn_local(async move { other.set(true) });
        let input = poll_fn(|_| if done.get() { Poll::Ready(()) } else { Poll::Pending });
        local.run_until(async { busy_poll(LONG).wait(true, input).await }).await;
    }

    #[tokio::test]
    async fn a_reader_whose_input_is_late_polls_ever_less_often() {
        let mut busy_poll = busy_poll(Duration::from_micros(100));
        let mut waits_with_polling = 0;
        for _ in 0..20 {
            waits_with_polling += u32::from(busy_poll.skip == 0);
            late(&mut busy_poll, true).await;
        }
        // At the waits 1, 3, 7 and 15.
        assert_eq!(waits_with_polling, 4);
        (busy_poll.skip, busy_poll.limit) = (0, LONG);
        busy_poll.wait(true, silent(10)).await;
        assert_eq!((busy_poll.skip, busy_poll.backoff), (7, 7), "halved");
    }

    #[tokio::test]
    async fn input_in_the_second_half_of_the_limit_slowly_ends_the_polling() {
        let limit = Duration::from_millis(200);
        let mut busy_poll = busy_poll(limit);
        for expected in [1, 2] {
            (busy_poll.skip, busy_poll.limit) = (0, limit);
            let begin = Instant::now();
            let input =
                poll_fn(|_| if begin.elapsed() > limit * 3 / 4 { Poll::Ready(()) } else { Poll::Pending });
            busy_poll.wait(true, input).await;
            // On a loaded machine the input may have come after the limit.
            assert!(busy_poll.backoff >= expected);
        }
    }

    #[tokio::test]
    async fn without_a_permit_the_thread_sleeps_immediately() {
        for (permitted, limit) in [(false, Duration::from_millis(1)), (true, Duration::ZERO)] {
            assert!(late(&mut busy_poll(limit), permitted).await <= 2);
        }
    }
}
