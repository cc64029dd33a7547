//! Results of a benchmark, as a table or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::fixture::BenchResult;
use super::measure::median;

/// Figures of a run, and its conditions.
#[derive(Debug, Serialize)]
pub(super) struct BenchmarkReport {
    #[serde(flatten)]
    conditions: Conditions,
    pub(super) figures: Vec<Figure>,
}

/// Conditions of a run.
#[derive(Debug, Serialize)]
pub(super) struct Conditions {
    pub(super) pin: &'static str,
    /// CPU cores that the processes may use.
    pub(super) cores: Vec<usize>,
    pub(super) rounds: u32,
    pub(super) seconds: f64,
}

/// Direction in which a figure improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Lower,
    Higher,
}

/// Figure beside its limit.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    unit: &'static str,
    better: Better,
    roadshow: f64,
    limit: f64,
    limit_name: &'static str,
    /// `roadshow` divided by `limit`, in either direction of improvement.
    ratio: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Other>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_s_per_million: Option<Cpu>,
}

/// Further contender for comparison.
#[derive(Debug, Serialize)]
struct Other {
    name: &'static str,
    value: f64,
    ratio: f64,
}

/// CPU time in seconds per million operations.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cpu {
    pub(super) driver: f64,
    pub(super) worker: f64,
}

/// Contender of a figure, with the value of each turn.
#[derive(Debug)]
pub(super) struct Contender {
    name: &'static str,
    turns: Vec<f64>,
}

impl Contender {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, turns: Vec::new() }
    }

    pub(super) fn push(&mut self, value: f64) {
        self.turns.push(value);
    }

    fn median(&self) -> BenchResult<f64> {
        let median = median(self.turns.clone());
        if median.is_finite() && median > 0.0 {
            return Ok(median);
        }
        Err(format!("{} measured {median}, which is not positive; give more --seconds", self.name).into())
    }
}

impl Figure {
    pub(super) fn new(
        (name, unit, better): (&'static str, &'static str, Better),
        roadshow: &Contender,
        limit: &Contender,
    ) -> BenchResult<Self> {
        let (ours, limits) = (roadshow.median()?, limit.median()?);
        Ok(Self {
            name,
            unit,
            better,
            roadshow: ours,
            limit: limits,
            limit_name: limit.name,
            ratio: ours / limits,
            others: Vec::new(),
            cpu_s_per_million: None,
        })
    }

    pub(super) fn beside(mut self, other: &Contender) -> BenchResult<Self> {
        let value = other.median()?;
        self.others.push(Other { name: other.name, value, ratio: self.roadshow / value });
        Ok(self)
    }

    /// Adds the median CPU time of each process over the turns.
    pub(super) fn with_cpu(mut self, turns: &[Cpu]) -> Self {
        let of = |part: fn(&Cpu) -> f64| median(turns.iter().map(part).collect());
        self.cpu_s_per_million = Some(Cpu { driver: of(|cpu| cpu.driver), worker: of(|cpu| cpu.worker) });
        self
    }

    /// Lines of this figure in the table.
    pub(super) fn rows(&self) -> String {
        let better = match self.better {
            Better::Lower => "lower",
            Better::Higher => "higher",
        };
        let mut rows = format!(
            "{:<20} {:<6} {:<6} {:>12} {:>12} {:>7.2}  {}",
            self.name,
            self.unit,
            better,
            grouped(self.roadshow),
            grouped(self.limit),
            self.ratio,
            self.limit_name
        );
        if let Some(Cpu { driver, worker }) = self.cpu_s_per_million {
            // Writing to a string cannot fail.
            let _ = write!(rows, "; CPU s per million: driver {driver:.2}, worker {worker:.2}");
        }
        rows.push('\n');
        for Other { name, value, ratio } in &self.others {
            let _ = writeln!(
                rows,
                "{:<20} {:<6} {:<6} {:>12} {:>12} {ratio:>7.2}  {name}",
                "",
                "",
                "",
                "",
                grouped(*value)
            );
        }
        rows
    }
}

impl BenchmarkReport {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self { conditions, figures: Vec::new() }
    }

    /// Conditions and column headers above the table.
    pub(super) fn head(&self) -> String {
        let Conditions { pin, cores, rounds, seconds } = &self.conditions;
        let cores = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        format!(
            "pin {pin} (cores {cores}); {rounds} turns each, {seconds} s in total, medians; \
             ratio = roadshow / limit\n\n\
             {:<20} {:<6} {:<6} {:>12} {:>12} {:>7}  limit's name\n",
            "figure", "unit", "better", "roadshow", "limit", "ratio"
        )
    }

    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// Formats a number with at least three significant digits, and commas between thousands.
fn grouped(value: f64) -> String {
    if value < 1000.0 {
        let decimals = if value < 10.0 { 2 } else { 1 };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &'static str, turns: &[f64]) -> Contender {
        Contender { name, turns: turns.to_vec() }
    }

    #[test]
    fn figure_has_the_ratio_of_its_medians() {
        let (ours, limit) = (side("roadshow", &[9.0, 3.0, 1.0]), side("raw", &[2.0, 2.0, 50.0]));
        let figure = Figure::new(("x", "us", Better::Lower), &ours, &limit).unwrap();
        let figure = figure.beside(&side("other", &[6.0])).unwrap();
        assert_eq!((figure.roadshow, figure.limit, figure.ratio), (3.0, 2.0, 1.5));
        assert_eq!(figure.others[0].ratio, 0.5);
    }

    #[test]
    fn contender_without_a_measurement_gives_no_figure() {
        let (ours, nothing) = (side("roadshow", &[1.0]), side("raw", &[]));
        assert!(Figure::new(("x", "us", Better::Lower), &ours, &nothing).is_err());
        assert!(Figure::new(("x", "us", Better::Lower), &side("roadshow", &[0.0]), &ours).is_err());
    }

    #[test]
    fn thousands_are_separated() {
        let shown = [0.5, 12.34, 999.0, 1234.4, 1_234_567.0].map(grouped);
        assert_eq!(shown, ["0.50", "12.3", "999.0", "1,234", "1,234,567"]);
    }
}
