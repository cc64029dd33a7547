//! Rates from counters of successive samples.

use std::collections::BTreeMap;
use std::time::Duration;

/// Minimum time between the two samples of a rate.
///
/// A key refreshes the table at once. A rate over a few milliseconds would be noise, since agents report each
/// second.
const WINDOW_MIN: Duration = Duration::from_millis(500);

/// Rates of the counters in the latest sample.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// Readings of each row, by the name of the counter.
    rows: BTreeMap<String, Vec<(&'static str, Reading)>>,
}

/// Value of a counter, and its rate until then.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Duration,
    value: u64,
    rate: Option<f64>,
}

impl Rates {
    /// Rates before the first sample.
    pub(super) const NONE: Self = Self { rows: BTreeMap::new() };

    /// Replaces the counters by those of a sample that was taken at `now`: rows with their named counters.
    ///
    /// Rows that the sample does not have are forgotten, so the memory is bounded by the sample.
    pub(super) fn update(
        &mut self,
        now: Duration,
        rows: impl Iterator<Item = (String, Vec<(&'static str, u64)>)>,
    ) {
        let before = std::mem::take(&mut self.rows);
        let rows = rows.map(|(row, counters)| {
            let earlier = before.get(&row).map_or(&[][..], Vec::as_slice);
            let readings = counters.into_iter().map(|(name, value)| {
                let earlier = earlier.iter().find(|(of, _)| *of == name).map(|(_, reading)| reading);
                (name, next(earlier, now, value))
            });
            let readings = readings.collect();
            (row, readings)
        });
        self.rows = rows.collect();
    }

    /// Rate of a counter per second; `None` until there are two readings.
    pub(super) fn of(&self, row: &str, counter: &str) -> Option<f64> {
        let mut readings = self.rows.get(row)?.iter();
        readings.find(|(name, _)| *name == counter).and_then(|(_, reading)| reading.rate)
    }
}

fn next(before: Option<&Reading>, now: Duration, value: u64) -> Reading {
    match before {
        // The counted process was replaced: its counter began again.
        Some(before) if value < before.value => Reading { at: now, value, rate: None },
        Some(before) if now.saturating_sub(before.at) < WINDOW_MIN => *before,
        Some(before) => {
            let seconds = (now - before.at).as_secs_f64();
            Reading { at: now, value, rate: Some((value - before.value) as f64 / seconds) }
        }
        None => Reading { at: now, value, rate: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(rates: &mut Rates, ms: u64, value: u64) -> Option<f64> {
        rates.update(Duration::from_millis(ms), [("a".to_owned(), vec![("done", value)])].into_iter());
        rates.of("a", "done")
    }

    #[test]
    fn rate_needs_two_samples_at_a_distance() {
        let mut rates = Rates::NONE;
        assert_eq!(rates.of("a", "done"), None);
        assert_eq!(sampled(&mut rates, 0, 10), None);
        assert_eq!(sampled(&mut rates, 100, 50), None);
        assert_eq!(sampled(&mut rates, 2000, 110), Some(50.0));
        // A sample in between changes nothing, and the next one counts from the last reading.
        assert_eq!(sampled(&mut rates, 2100, 110), Some(50.0));
        assert_eq!(sampled(&mut rates, 3000, 130), Some(20.0));
        assert_eq!(rates.of("b", "done"), None);
    }

    #[test]
    fn counter_that_began_again_has_no_rate() {
        let mut rates = Rates::NONE;
        sampled(&mut rates, 0, 10);
        assert_eq!(sampled(&mut rates, 1000, 3), None);
        assert_eq!(sampled(&mut rates, 2000, 5), Some(2.0));
    }

    #[test]
    fn counters_that_are_gone_are_forgotten() {
        let mut rates = Rates::NONE;
        sampled(&mut rates, 0, 10);
        rates.update(Duration::from_secs(1), std::iter::empty());
        assert_eq!(sampled(&mut rates, 2000, 20), None);
    }
}
