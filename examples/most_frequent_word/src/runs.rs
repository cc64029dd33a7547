//! Runs of the comparison, in the order of the table.

use std::error::Error;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use roadshow::prelude::*;
use roadshow::words::{
    Coordinator, Counting, Method, Restarts, Solve, Traffic, WordCount, sequential, slices, tasks,
};

use crate::args::Args;
use crate::report::{ClusterReport, Place, Report, Run, TextReport, TrafficReport, WorkerReport};
use crate::text::Text;

/// Refresh interval of the progress bar while a run computes.
const TICK: Duration = Duration::from_millis(100);

/// Runs all requested combinations, and stops the cluster.
pub(crate) async fn run_all(args: &Args, text: &Text) -> Result<Report, Box<dyn Error>> {
    let plan = plan(args);
    let bar = Bar::new(plan.len());

    bar.show("starting the cluster");
    let start = Instant::now();
    let cluster = args.cluster().start().await?;
    let start_seconds = start.elapsed().as_secs_f64();
    let workers = cluster.workers().into_iter().map(WorkerReport::from).collect();

    let bench =
        Bench { args, text, coordinator: Coordinator::new(cluster.handle()).start(), cluster: &cluster };
    let mut runs = Vec::with_capacity(plan.len());
    for planned in plan {
        bar.show(&planned.to_string());
        runs.push(bench.run(planned).await?);
        bar.advance();
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
        traffic: args.methods().contains(&Method::Tput).then(|| traffic(args, text)),
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
    for &counting in args.countings() {
        plan.push(Planned { place: Place::Sequential, counting, method: None });
        for place in [Place::Slices, Place::Tasks, Place::Actors] {
            for &method in args.methods() {
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

/// Progress bar on standard error, if that is a terminal.
#[derive(Debug)]
struct Bar(ProgressBar);

impl Bar {
    fn new(runs: usize) -> Self {
        let bar = ProgressBar::new(runs as u64);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len} {msg} {elapsed}") {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            // The tick thread takes time from the runs, so it runs only for a visible bar.
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    fn show(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    fn advance(&self) {
        self.0.inc(1);
    }
}

impl Drop for Bar {
    /// Clears the bar whatever the outcome, so that the table or the error has the terminal for itself.
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
