//! Seeded random numbers for latencies: the same seed gives the same network.

use std::ops::RangeInclusive;
use std::time::Duration;

/// SplitMix64: a counter and a mixing function, 64 bits of state.
///
/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014); the
/// constants are those of its reference implementation. Not for secrets.
#[derive(Debug)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns an independent generator, so that the numbers of one link do not depend on the
    /// others.
    pub(super) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns a duration in `range`, to the nanosecond; the start of the range if it is empty.
    pub(super) fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let span = range.end().saturating_sub(*range.start()).as_nanos();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        // The high half of the product is uniform in 0..=span, except for a bias of at most one in
        // 2^64 / span.
        let drawn = (u128::from(self.next()) * (u128::from(span) + 1)) >> 64;
        *range.start() + Duration::from_nanos(drawn as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_equal_the_reference() {
        let mut numbers = SplitMix64::new(1_234_567);
        let drawn: Vec<_> = (0..3).map(|_| numbers.next()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn durations_cover_exactly_their_range() {
        let mut numbers = SplitMix64::new(1);
        let range = Duration::from_nanos(5)..=Duration::from_nanos(7);
        let mut drawn: Vec<_> = (0..100).map(|_| numbers.duration(&range).as_nanos()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [5, 6, 7]);
        assert_eq!(numbers.duration(&(Duration::MAX..=Duration::MAX)), Duration::MAX);
    }
}
