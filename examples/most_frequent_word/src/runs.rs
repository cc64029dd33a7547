//! Runs of the comparison, in the order of the table.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::time::Instant;

use roadshow::prelude::*;
use roadshow::words::{
    Coordinator, Counting, Method, Restarts, Solve, Traffic, WordCount, sequential, slices, tasks,
};

use crate::args::Args;
use crate::report::{ClusterReport, Place, Report, Run, TextReport, TrafficReport, WorkerReport};
use crate::text::Text;

/// Returns to the start of a terminal's line, and clears it.
const CLEAR_LINE: &str = "\r\x1b[K";

/// Runs all requested combinations, and stops the cluster.
pub(crate) async fn run_all(args: &Args, text: &Text) -> Result<Report, Box<dyn Error>> {
    let plan = plan(args);
    let mut progress = Progress::new(plan.len());

    progress.show("starting the cluster");
    let start = Instant::now();
    let cluster = args.cluster().start().await?;
    let start_seconds = start.elapsed().as_secs_f64();
    let workers = cluster.workers().into_iter().map(WorkerReport::from).collect();

    let bench =
        Bench { args, text, coordinator: Coordinator::new(cluster.handle()).start(), cluster: &cluster };
    let mut runs = Vec::with_capacity(plan.len());
    for planned in plan {
        progress.show(&planned.to_string());
        runs.push(bench.run(planned).await?);
        progress.advance();
    }
    let workers_lost = cluster.workers().iter().filter(|worker| worker.ended.is_some()).count();
    let restarts = bench.coordinator.send(Restarts).await?;
    cluster.shutdown().await?;

    Ok(Report {
        text: TextReport { source: text.source.clone(), words: text.words.len(), distinct: text.distinct },
        cluster: ClusterReport { nodes: args.nodes.get(), workers, start_seconds },
        runs,
        restarts,
        workers_lost,
        traffic: args.methods.contains(&Method::Tput).then(|| traffic(args, text)),
        driver_pid: std::process::id(),
    })
}

/// Measures the traffic of the two exact methods separately, so that no run takes longer for it.
fn traffic(args: &Args, text: &Text) -> TrafficReport {
    let tput = Traffic::of_tput(&text.words, args.nodes, NonZeroUsize::MIN);
    let exact = Traffic::of_exact(&text.words, args.nodes);
    TrafficReport { tput: tput.into(), exact: exact.into() }
}

/// Row of the table before its run. Without a method it is the whole text in sequence.
#[derive(Clone, Copy, Debug)]
struct Planned {
    place: Place,
    counting: Counting,
    method: Option<Method>,
}

fn plan(args: &Args) -> Vec<Planned> {
    let mut plan = Vec::new();
    for &counting in args.countings {
        plan.push(Planned { place: Place::Sequential, counting, method: None });
        for place in [Place::Slices, Place::Tasks, Place::Actors] {
            for &method in args.methods {
                plan.push(Planned { place, counting, method: Some(method) });
            }
        }
    }
    plan
}

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, counting, method } = self;
        write!(f, "{}, {}, {}", place.name(), Run::counting_name(*counting), Run::method_name(*method))
    }
}

/// Shared parts of the runs.
#[derive(Debug)]
struct Bench<'a> {
    args: &'a Args,
    text: &'a Text,
    cluster: &'a Cluster,
    coordinator: Addr<Coordinator>,
}

impl Bench<'_> {
    async fn run(&self, planned: Planned) -> Result<Run, Box<dyn Error>> {
        let start = Instant::now();
        let answer = self.answer(planned).await?;
        let seconds = start.elapsed().as_secs_f64();
        let WordCount { word, count, .. } = answer.ok_or("a text with words gave no answer")?;
        let Planned { place, counting, method } = planned;
        Ok(Run { place, counting, method, word, count, seconds })
    }

    async fn answer(&self, planned: Planned) -> Result<Option<WordCount>, Box<dyn Error>> {
        let (words, nodes, counting) = (&self.text.words, self.args.nodes, planned.counting);
        let Some(method) = planned.method else { return Ok(sequential(words, counting)) };
        match planned.place {
            Place::Sequential => Ok(sequential(words, counting)),
            Place::Slices => Ok(slices(words, nodes, counting, method)),
            Place::Tasks => Ok(tasks(self.cluster, words, nodes, counting, method).await?),
            Place::Actors => {
                let solve = Solve { words: words.clone(), nodes, counting, method };
                Ok(self.coordinator.send(solve).await??)
            }
        }
    }
}

/// Line on standard error with the present run, if that is a terminal.
#[derive(Debug)]
struct Progress {
    done: usize,
    runs: usize,
    visible: bool,
}

impl Progress {
    fn new(runs: usize) -> Self {
        Self { done: 0, runs, visible: io::stderr().is_terminal() }
    }

    fn show(&self, text: &str) {
        if self.visible {
            eprint!("{CLEAR_LINE}{}/{} {text}", self.done, self.runs);
        }
    }

    fn advance(&mut self) {
        self.done += 1;
    }
}

impl Drop for Progress {
    /// Clears the line whatever the outcome, so that the table or the error has the terminal for itself.
    fn drop(&mut self) {
        if self.visible {
            eprint!("{CLEAR_LINE}");
        }
    }
}
