//! Results of the runs, as a table or as JSON.

use std::fmt;
use std::net::SocketAddr;

use roadshow::WorkerInfo;
use roadshow::words::{Counting, Method, Traffic};
use serde::{Serialize, Serializer};

/// Complete output of the program.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) text: TextReport,
    pub(crate) cluster: ClusterReport,
    pub(crate) runs: Vec<Run>,
    /// Number of Nodes that were spawned again, since their workers had ended.
    pub(crate) restarts: u64,
    /// Number of workers that ended.
    pub(crate) workers_lost: usize,
    /// Present only for methods that are about traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traffic: Option<TrafficReport>,
    pub(crate) driver_pid: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct TextReport {
    pub(crate) source: String,
    pub(crate) words: usize,
    pub(crate) distinct: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct ClusterReport {
    pub(crate) nodes: usize,
    pub(crate) workers: Vec<WorkerReport>,
    pub(crate) start_seconds: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct WorkerReport {
    pid: u32,
    address: SocketAddr,
}

impl From<WorkerInfo> for WorkerReport {
    fn from(worker: WorkerInfo) -> Self {
        Self { pid: worker.pid, address: worker.address }
    }
}

/// Total answers of all parts.
#[derive(Debug, Serialize)]
pub(crate) struct TrafficReport {
    pub(crate) tput: Sent,
    pub(crate) exact: Sent,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sent {
    tallies: u64,
    bytes: u64,
}

impl From<Traffic> for Sent {
    fn from(Traffic { tallies, bytes }: Traffic) -> Self {
        Self { tallies, bytes }
    }
}

impl fmt::Display for TrafficReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tput, exact } = self;
        let share = 100.0 * tput.bytes as f64 / exact.bytes as f64;
        write!(
            f,
            "The nodes answered tput with {} tallies in {} bytes, and exact with {} in {}: {share:.2} % \
             of the bytes.",
            tput.tallies, tput.bytes, exact.tallies, exact.bytes
        )
    }
}

/// A run and its time.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    #[serde(rename = "name")]
    pub(crate) place: Place,
    #[serde(serialize_with = "counting_text")]
    pub(crate) counting: Counting,
    #[serde(serialize_with = "method_text")]
    pub(crate) method: Option<Method>,
    pub(crate) word: String,
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

/// Place of the counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    Sequential,
    Slices,
    Tasks,
    Actors,
}

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Slices => "slices",
            Self::Tasks => "tasks",
            Self::Actors => "actors",
        }
    }
}

impl Run {
    pub(crate) fn counting_name(counting: Counting) -> &'static str {
        match counting {
            Counting::List => "list",
            Counting::Hash => "hash",
        }
    }

    pub(crate) fn method_name(method: Option<Method>) -> &'static str {
        match method {
            None => "whole",
            Some(Method::TwoRound) => "two-round",
            Some(Method::Exact) => "exact",
            Some(Method::Tput) => "tput",
        }
    }

    fn answer(&self) -> String {
        format!("{} ({})", self.word, self.count)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn counting_text<S: Serializer>(counting: &Counting, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(Run::counting_name(*counting))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn method_text<S: Serializer>(method: &Option<Method>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(Run::method_name(*method))
}

impl Report {
    pub(crate) fn to_json(&self) -> String {
        let json = serde_json::to_string(self).expect("a report has no keys but strings");
        format!("{json}\n")
    }

    /// Returns the speed-up of a run over the one with the same counting that `with` selects.
    fn speed_up(&self, run: &Run, with: impl Fn(&Run) -> bool) -> String {
        let base = self.runs.iter().find(|base| base.counting == run.counting && with(base));
        base.map_or_else(|| "-".to_owned(), |base| times(base.seconds / run.seconds))
    }

    fn row(&self, run: &Run) -> [String; 7] {
        [
            run.place.name().to_owned(),
            Run::counting_name(run.counting).to_owned(),
            Run::method_name(run.method).to_owned(),
            run.answer(),
            format!("{:.4}", run.seconds),
            self.speed_up(run, |base| base.place == Place::Sequential),
            self.speed_up(run, |base| base.place == Place::Slices && base.method == run.method),
        ]
    }

    /// Returns a sentence if workers ended.
    fn losses(&self) -> Option<String> {
        let Self { workers_lost, restarts, .. } = self;
        (*workers_lost > 0).then(|| {
            format!(
                "{workers_lost} worker processes ended meanwhile, and {restarts} nodes were spawned again: the \
                 answers hold, but the times include it."
            )
        })
    }

    /// Returns a sentence if two rounds found a wrong word.
    fn disagreement(&self) -> Option<String> {
        let two_round = self.runs.iter().find(|run| run.method == Some(Method::TwoRound))?;
        let exact = self.runs.iter().find(|run| run.method != Some(Method::TwoRound))?;
        let answers = |run: &Run| (run.word.clone(), run.count);
        (answers(two_round) != answers(exact)).then(|| {
            format!(
                "The methods disagree: two-round says {}, but the answer is {}, a word that won \
                 in no part of the text and so was no candidate.",
                two_round.answer(),
                exact.answer()
            )
        })
    }
}

/// Formats a ratio with two significant digits.
fn times(ratio: f64) -> String {
    if ratio < 0.095 {
        format!("{ratio:.3}x")
    } else if ratio < 0.95 {
        format!("{ratio:.2}x")
    } else {
        format!("{ratio:.1}x")
    }
}

/// Columns; numbers are right-aligned.
const HEADINGS: [(&str, Align); 7] = [
    ("who", Align::Left),
    ("counting", Align::Left),
    ("method", Align::Left),
    ("answer", Align::Left),
    ("seconds", Align::Right),
    ("vs sequential", Align::Right),
    ("vs slices", Align::Right),
];

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, cluster, .. } = self;
        writeln!(f, "{}: {} words, {} different", text.source, text.words, text.distinct)?;
        let (nodes, workers) = (cluster.nodes, cluster.workers.len());
        writeln!(
            f,
            "{nodes} nodes, {workers} worker processes, started in {:.3} s\n",
            cluster.start_seconds
        )?;

        let headings = HEADINGS.map(|(heading, _)| heading.to_owned());
        let rows: Vec<_> =
            std::iter::once(headings).chain(self.runs.iter().map(|run| self.row(run))).collect();
        let widths: [usize; 7] = std::array::from_fn(|column| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        });
        for row in &rows {
            let cells = row.iter().zip(widths).zip(HEADINGS);
            let cells = cells.map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{cell:width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  "))?;
        }
        let traffic = self.traffic.as_ref().map(ToString::to_string);
        for sentence in traffic.into_iter().chain(self.disagreement()).chain(self.losses()) {
            writeln!(f, "\n{sentence}")?;
        }
        Ok(())
    }
}
