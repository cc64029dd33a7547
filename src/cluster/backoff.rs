//! Back-off between attempts, such as those to find the head.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{REJOIN_BACKOFF_MAX, REJOIN_DELAY_MIN};
use crate::host::random_u64;

/// Pacing of attempts: the interval between two starts doubles up to a limit. Each interval is shortened by a random
/// part of up to half, so that the members of a cluster do not rejoin together.
#[derive(Debug)]
pub(super) struct Backoff {
    delay: Duration,
    delay_max: Duration,
    begun: Instant,
}

impl Backoff {
    /// Back-off between attempts to find the head; the first attempt starts now.
    pub(super) fn new() -> Self {
        Self::between(REJOIN_DELAY_MIN, REJOIN_BACKOFF_MAX)
    }

    /// Back-off with other limits; the first attempt starts now.
    pub(super) fn between(delay: Duration, delay_max: Duration) -> Self {
        Self { delay, delay_max, begun: Instant::now() }
    }

    /// Waits until the next attempt is due; returns immediately if the last one took longer than the interval.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the next attempt due at the same time.
    pub(super) async fn pause(&mut self) {
        let half = self.delay / 2;
        let jitter =
            half.mul_f64(f64::from(u32::try_from(random_u64() >> 32).unwrap_or(0)) / f64::from(u32::MAX));
        // Measured from the start of the last attempt, so a slow attempt counts as part of the pause.
        tokio::time::sleep_until(self.begun + half + jitter).await;
        self.begun = Instant::now();
        self.delay = (2 * self.delay).min(self.delay_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_are_spread_and_a_slow_one_is_followed_immediately() {
        let (mut backoff, mut gaps) = (Backoff::new(), Vec::new());
        for _ in 0..40 {
            let before = Instant::now();
            backoff.pause().await;
            gaps.push(before.elapsed());
        }
        let late = &gaps[20..];
        assert!(
            late.iter().all(|gap| (REJOIN_BACKOFF_MAX / 2..=REJOIN_BACKOFF_MAX).contains(gap)),
            "{late:?}"
        );
        let (shortest, longest) = (late.iter().min().unwrap(), late.iter().max().unwrap());
        assert!(*longest - *shortest > REJOIN_BACKOFF_MAX / 10, "{late:?}");
        tokio::time::advance(REJOIN_BACKOFF_MAX).await;
        let before = Instant::now();
        backoff.pause().await;
        assert!(before.elapsed() < Duration::from_millis(2), "{:?}", before.elapsed());
    }
}
