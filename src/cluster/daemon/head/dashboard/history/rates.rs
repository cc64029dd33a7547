//! Rates of counters that processes report from time to time.

use std::collections::HashMap;
use std::hash::Hash;

/// Last reports of counters, by the entity that counts.
#[derive(Debug)]
pub(in crate::cluster::daemon::head::dashboard) struct Rates<K> {
    known: HashMap<K, Counter>,
    on_decrease: Decrease,
    on_first: First,
    /// Time of the first report of all.
    began_ms: Option<u64>,
    /// Time of the latest round of reports.
    round_ms: u64,
}

/// Time after the first report in which the processes of a restarted head's cluster rejoin.
const SETTLE_MS: u64 = 15_000;

/// Meaning of the first report of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster::daemon::head::dashboard) enum First {
    /// The counter has counted before, for an unknown time.
    Baseline,
    /// The counter began at zero since the round before, except while a cluster rejoins.
    FromZero,
}

/// Meaning of a report that is smaller than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster::daemon::head::dashboard) enum Decrease {
    /// The process has started again, and counted from zero.
    Restart,
    /// The counter is a sum, of which a part is no longer listed.
    Forgotten,
}

#[derive(Debug)]
struct Counter {
    value: f64,
    at_ms: u64,
    per_s: Option<f64>,
    is_current: bool,
}

/// Change of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::cluster::daemon::head::dashboard) struct Change {
    /// Rate between the last two reports; `None` before the second.
    pub(in crate::cluster::daemon::head::dashboard) per_s: Option<f64>,
    /// Increase since the report before.
    pub(in crate::cluster::daemon::head::dashboard) increase: f64,
}

impl<K: Hash + Eq> Rates<K> {
    pub(in crate::cluster::daemon::head::dashboard) fn new(on_first: First, on_decrease: Decrease) -> Self {
        Self { known: HashMap::new(), on_decrease, on_first, began_ms: None, round_ms: 0 }
    }

    /// Takes a report of a counter that was made at a time. The same report again keeps the rate.
    pub(in crate::cluster::daemon::head::dashboard) fn report(
        &mut self,
        key: K,
        value: f64,
        at_ms: u64,
    ) -> Change {
        let on_decrease = self.on_decrease;
        let Some(known) = self.known.get_mut(&key) else {
            // By the head's clock alone: those of other machines may differ by an hour.
            let is_settled = |began_ms| self.round_ms.saturating_sub(began_ms) >= SETTLE_MS;
            let is_new = self.on_first == First::FromZero && self.began_ms.is_some_and(is_settled);
            let (increase, since_ms) =
                if is_new { (value, at_ms.saturating_sub(self.round_ms)) } else { (0.0, 0) };
            let per_s = (since_ms > 0).then(|| increase * 1000.0 / since_ms as f64);
            self.known.insert(key, Counter { value, at_ms, per_s, is_current: true });
            return Change { per_s, increase };
        };
        known.is_current = true;
        if at_ms <= known.at_ms {
            return Change { per_s: known.per_s, increase: 0.0 };
        }
        let increase = match value >= known.value {
            true => value - known.value,
            false if on_decrease == Decrease::Restart => value,
            false => 0.0,
        };
        known.per_s = Some(increase * 1000.0 / (at_ms - known.at_ms) as f64);
        (known.value, known.at_ms) = (value, at_ms);
        Change { per_s: known.per_s, increase }
    }

    /// Ends a round of reports at a time: forgets counters without a report in it.
    pub(in crate::cluster::daemon::head::dashboard) fn end_round(&mut self, time_ms: u64) {
        self.round_ms = time_ms;
        self.began_ms.get_or_insert(time_ms);
        self.known.retain(|_, counter| std::mem::take(&mut counter.is_current));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_between_two_reports_and_stays_until_the_next() {
        let mut rates = Rates::new(First::Baseline, Decrease::Restart);
        assert_eq!(rates.report("a", 100.0, 1_000), Change { per_s: None, increase: 0.0 });
        assert_eq!(rates.report("a", 110.0, 3_000), Change { per_s: Some(5.0), increase: 10.0 });
        assert_eq!(rates.report("a", 110.0, 3_000), Change { per_s: Some(5.0), increase: 0.0 });
        assert_eq!(rates.report("a", 110.0, 4_000), Change { per_s: Some(0.0), increase: 0.0 });
    }

    #[test]
    fn smaller_report_is_a_restart_or_a_part_that_was_forgotten() {
        for (on_decrease, increase) in [(Decrease::Restart, 4.0), (Decrease::Forgotten, 0.0)] {
            let mut rates = Rates::new(First::Baseline, on_decrease);
            rates.report("a", 100.0, 1_000);
            let change = rates.report("a", 4.0, 2_000);
            assert_eq!(change, Change { per_s: Some(increase), increase }, "{on_decrease:?}");
        }
    }

    #[test]
    fn counter_without_a_report_is_forgotten() {
        let mut rates = Rates::new(First::Baseline, Decrease::Restart);
        rates.report("a", 1.0, 1_000);
        rates.end_round(1_000);
        rates.end_round(1_500);
        assert_eq!(rates.report("a", 5.0, 2_000).per_s, None);
    }

    #[test]
    fn clocks_of_other_machines_do_not_decide_what_is_new() {
        for skew_ms in [0, 3_600_000] {
            let mut rates = Rates::new(First::FromZero, Decrease::Forgotten);
            rates.report("first", 100.0, 4_000_000 - skew_ms);
            rates.end_round(4_000_000);
            assert_eq!(rates.report("rejoined", 50.0, 4_002_000).increase, 0.0, "{skew_ms}");
            assert_eq!(rates.report("wrong clock", 50.0, u64::MAX).increase, 0.0);
        }
    }

    #[test]
    fn counter_that_appears_later_counts_from_zero_but_not_while_a_cluster_rejoins() {
        let mut rates = Rates::new(First::FromZero, Decrease::Forgotten);
        assert_eq!(rates.report("old", 100.0, 1_000).increase, 0.0);
        rates.end_round(1_000);
        assert_eq!(rates.report("rejoined", 50.0, 3_000).increase, 0.0);
        rates.end_round(1_000 + SETTLE_MS);
        let change = rates.report("new", 50.0, 3_000 + SETTLE_MS);
        assert_eq!(change, Change { per_s: Some(25.0), increase: 50.0 });
    }
}
