//! Results of all rounds, and their medians.

use std::collections::BTreeMap;

use peers_harness::Load;
use serde_json::Value;

use crate::peers::Peer;
use crate::process::Pin;

/// Row and table: a peer under a pinning.
pub(crate) type Row = (&'static str, Pin);

/// Lines of the clients.
#[derive(Default)]
pub(crate) struct Figures {
    idle: BTreeMap<Row, Vec<Value>>,
    loads: BTreeMap<(Row, Load), Vec<Value>>,
    failures: Vec<String>,
}

/// Value of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Median of the rounds.
    Value(f64),
    /// The peer cannot do the load, or did not run it.
    None,
    /// The load failed in a round.
    Failed,
}

impl Figures {
    /// Keeps the session's line: memory before any load.
    pub(crate) fn idle(&mut self, peer: &Peer, pin: &Pin, line: Value) {
        self.idle.entry((peer.name, *pin)).or_default().push(line);
    }

    /// Keeps the line of a load.
    pub(crate) fn add(&mut self, peer: &Peer, pin: &Pin, load: Load, line: Value) {
        if let Some(error) = line.get("error").and_then(Value::as_str) {
            return self.fail(peer, pin, load, error);
        }
        self.loads.entry(((peer.name, *pin), load)).or_default().push(line);
    }

    /// Keeps a failure.
    pub(crate) fn fail(&mut self, peer: &Peer, pin: &Pin, load: Load, error: &str) {
        self.failures.push(format!("{}, {}, {}: {error}", peer.name, pin.name(), load.name()));
        let line = serde_json::json!({ "error": error });
        self.loads.entry(((peer.name, *pin), load)).or_default().push(line);
    }

    /// Failures of all rounds.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.clone()
    }

    /// Median of one key of a load's lines.
    pub(crate) fn load(&self, row: Row, load: Load, key: &str) -> Cell {
        self.loads.get(&(row, load)).map_or(Cell::None, |lines| cell(lines, key))
    }

    /// Median of one key of the sessions' lines.
    pub(crate) fn before(&self, row: Row, key: &str) -> Cell {
        self.idle.get(&row).map_or(Cell::None, |lines| cell(lines, key))
    }

    /// Lines of a load in all rounds.
    pub(crate) fn rounds(&self, row: Row, load: Load) -> &[Value] {
        self.loads.get(&(row, load)).map_or(&[], Vec::as_slice)
    }

    /// Cores that other programs used while the loads ran: the median, and the greatest value.
    pub(crate) fn others(&self) -> Option<(f64, f64)> {
        let lines = self.loads.values().flatten();
        let mut cores: Vec<f64> = lines.filter_map(|line| line.get("other_cores")?.as_f64()).collect();
        let middle = median(&mut cores)?;
        Some((middle, *cores.last()?))
    }
}

fn cell(lines: &[Value], key: &str) -> Cell {
    if lines.iter().any(|line| line.get("error").is_some()) {
        return Cell::Failed;
    }
    let mut values: Vec<f64> = lines.iter().filter_map(|line| line.get(key)?.as_f64()).collect();
    median(&mut values).map_or(Cell::None, Cell::Value)
}

/// Middle value, or the mean of the two middle ones. It sorts the values.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let middle = *values.get(half)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[half - 1], middle) } else { middle })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::peers;

    #[test]
    fn cells_are_medians_and_a_failure_is_not_hidden() {
        let (peer, pin) = (peers::find("tokio").unwrap(), Pin::of(&[0])[0]);
        let mut figures = Figures::default();
        for rate in [3.0, 9.0, 1.0] {
            figures.add(peer, &pin, Load::Words, json!({ "rate": rate, "other_cores": rate / 10.0 }));
        }
        let row = (peer.name, pin);
        assert_eq!(figures.load(row, Load::Words, "rate"), Cell::Value(3.0));
        assert_eq!(figures.load(row, Load::Words, "p50_us"), Cell::None);
        assert_eq!(figures.load(row, Load::Calls64, "rate"), Cell::None);
        assert_eq!(figures.others(), Some((0.3, 0.9)));

        figures.add(peer, &pin, Load::Words, json!({ "error": "a wrong count" }));
        assert_eq!(figures.load(row, Load::Words, "rate"), Cell::Failed);
        assert_eq!(figures.failures(), ["tokio, one-core, words: a wrong count"]);
    }

    #[test]
    fn unsupported_loads_are_no_failure() {
        let (peer, pin) = (peers::find("tokio").unwrap(), Pin::of(&[0])[0]);
        let mut figures = Figures::default();
        figures.add(peer, &pin, Load::Retry1024, json!({ "unsupported": true }));
        assert_eq!(figures.load((peer.name, pin), Load::Retry1024, "rate"), Cell::None);
        assert!(figures.failures().is_empty());
    }
}
