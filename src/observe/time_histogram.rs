//! Histogram of times with a fixed number of buckets on a logarithmic scale.

use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Number of buckets in each doubling of the time.
const BUCKETS_PER_DOUBLING: u32 = 4;

/// Number of doublings above 4 µs: the last bucket ends at 67 s.
const DOUBLINGS: u32 = 24;

/// Number of buckets: one for each microsecond up to 4 µs, then [`BUCKETS_PER_DOUBLING`] in each doubling.
const BUCKETS: usize = (BUCKETS_PER_DOUBLING * (DOUBLINGS + 1)) as usize;

/// Number of times at which all counts are halved.
///
/// It fits in a bucket of 16 bits. An older time loses half of its weight with every 4096 newer ones, so the
/// percentiles follow a program that changes.
const WEIGHT_MAX: u16 = 8192;

/// Histogram of times, from a microsecond to 67 s.
///
/// ```text
///   bucket   0   1   2   3   4   5   6   7   8    9    10   11   12 ..
///   up to    1   2   3   4   5   6   7   8   10   12   14   16   20 µs ..
/// ```
/// A percentile is the upper end of its bucket, at most 25 % above the exact value. Recording takes no lock
/// and some nanoseconds. Concurrent threads may lose a few counts at a halving.
pub(crate) struct TimeHistogram {
    buckets: [AtomicU16; BUCKETS],
    weight: AtomicU16,
}

/// Percentiles of recorded times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

impl TimeHistogram {
    pub(crate) const fn new() -> Self {
        Self { buckets: [const { AtomicU16::new(0) }; BUCKETS], weight: AtomicU16::new(0) }
    }

    /// Counts a time.
    pub(crate) fn record(&self, time: Duration) {
        self.buckets[bucket_of(time)].fetch_add(1, Ordering::Relaxed);
        // Relaxed: the counts are statistics, and guard no memory.
        if self.weight.fetch_add(1, Ordering::Relaxed) >= WEIGHT_MAX {
            self.halve();
        }
    }

    #[cold]
    fn halve(&self) {
        let mut weight = 0;
        for bucket in &self.buckets {
            let half = bucket.load(Ordering::Relaxed) / 2;
            bucket.store(half, Ordering::Relaxed);
            weight += half;
        }
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Median and 99th percentile; `None` before the first time.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let counts = self.buckets.each_ref().map(|bucket| u32::from(bucket.load(Ordering::Relaxed)));
        let total: u32 = counts.iter().sum();
        let percentile = |percent: u32| {
            // Nearest rank: the smallest time that this share of all times does not exceed.
            let rank = (total * percent).div_ceil(100).max(1);
            let mut below = 0;
            let bucket = counts.iter().position(|count| {
                below += count;
                below >= rank
            });
            bucket.map(end_us)
        };
        Some(Percentiles { p50_us: percentile(50)?, p99_us: percentile(99)? })
    }
}

/// Bucket of a time.
fn bucket_of(time: Duration) -> usize {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if us < u64::from(BUCKETS_PER_DOUBLING) {
        return us as usize;
    }
    // The highest bit selects the doubling, and the next two bits the quarter of it.
    let doubling = us.ilog2();
    let quarter = (us >> (doubling - 2)) & 3;
    // Fits: the doubling is below 64.
    ((doubling - 1) as usize * BUCKETS_PER_DOUBLING as usize + quarter as usize).min(BUCKETS - 1)
}

/// Upper end of a bucket, in microseconds.
fn end_us(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    let per_doubling = u64::from(BUCKETS_PER_DOUBLING);
    if next <= per_doubling {
        return next;
    }
    let (doubling, quarter) = (next / per_doubling, next % per_doubling);
    (per_doubling + quarter) << (doubling - 1)
}

impl Default for TimeHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TimeHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeHistogram").field("percentiles", &self.percentiles()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_below_the_end_of_its_bucket_by_a_quarter_at_most() {
        let times = (0..200_000).chain([1 << 20, (1 << 20) - 1, 67_000_000, 60_123_456]);
        for us in times {
            let end = end_us(bucket_of(Duration::from_micros(us)));
            assert!(us < end, "{us} µs in a bucket up to {end} µs");
            assert!(us < 4 || end * 4 <= us * 5 + 5, "{us} µs in a bucket up to {end} µs");
        }
        assert_eq!(bucket_of(Duration::from_secs(3600)), BUCKETS - 1);
        assert_eq!(end_us(BUCKETS - 1), 1 << 26);
    }

    #[test]
    fn percentiles_are_those_of_the_recorded_times() {
        let histogram = TimeHistogram::new();
        assert_eq!(histogram.percentiles(), None);
        (0..98).for_each(|_| histogram.record(Duration::from_nanos(300)));
        assert_eq!(histogram.percentiles(), Some(Percentiles { p50_us: 1, p99_us: 1 }));
        (0..2).for_each(|_| histogram.record(Duration::from_millis(10)));
        assert_eq!(histogram.percentiles(), Some(Percentiles { p50_us: 1, p99_us: 10_240 }));
    }

    #[test]
    fn older_times_lose_weight() {
        let histogram = TimeHistogram::new();
        (0..8000).for_each(|_| histogram.record(Duration::from_millis(10)));
        (0..100_000).for_each(|_| histogram.record(Duration::from_micros(5)));
        assert_eq!(histogram.percentiles(), Some(Percentiles { p50_us: 6, p99_us: 6 }));
        assert!(histogram.weight.load(Ordering::Relaxed) <= WEIGHT_MAX + 1);
    }
}
