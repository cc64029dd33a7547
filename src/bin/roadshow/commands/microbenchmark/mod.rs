//! `roadshow microbenchmark`: every figure beside its limit, measured in turns in one run.

mod actors;
mod bulk;
mod calls;
mod echo;
mod figures;
mod fixture;
mod measure;
mod processes;
mod report;
mod workload;

use std::io::{self, Write};
use std::time::Duration;

use figures::{Group, Plan};
use fixture::{Fixture, Outcome, Pin};
use report::{Conditions, Report};

pub(crate) use processes::baseline;

/// How many turns each side of a figure has.
const ROUNDS: u32 = 5;

/// Measures calls, messages, payloads, spawns and tasks, each beside its limit on this machine.
///
/// The limit is what the same machine does in the same minute without Roadshow: the echo of raw
/// frames over TCP between the same two processes, actix within one process, processes that do
/// nothing. Figure and limit take turns, five each, and what is shown is the median of a side's turns
/// and the ratio of the two medians. The figures of a machine with other work on it, or of a virtual
/// one, are noisy; the ratios are less so.
#[derive(Debug, clap::Args)]
#[command(after_long_help = FIGURES_HELP)]
pub(crate) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Only the figures that have this in their name.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = filter)]
    filter: String,
    /// How long each side of a figure is measured, over all its turns.
    ///
    /// A turn that takes longer to do its least, such as starting a cluster once, takes longer.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
    seconds: Duration,
    /// Which cores the processes may run on.
    ///
    /// To wake an idle core can cost several times what a call costs, and where the system puts a
    /// process changes from run to run: two runs can only be compared with the same pin.
    #[arg(long, value_enum, default_value_t = Pin::None)]
    pin: Pin,
}

const FIGURES_HELP: &str = "\
Figures, with their limits:
  call_round_trip, .._p99      one call at a time: median and 99th percentile. Limit: a raw frame and
                               its echo, by an event loop on each side; beside it by sockets that
                               block, and a call to an actix actor on another thread
  calls_in_flight_1, _64, _1024
                               calls a second with so many under way. Limit: raw frames of 24 bytes
  one_way                      messages a second without an answer, until the last is handled.
                               Limit: raw frames that are counted where they arrive
  calls_n_to_n                 four clients, four actors, 64 calls under way for each
  payload_1kib, _64kib, _1mib  bytes that are echoed, eight messages under way; counted one way
  word_list                    lists of 26,000 words that are sent to a reader, four under way.
                               Limit: as many raw bytes, and a short confirmation
  spawns                       actors started a second, 1024 under way. Limit: actix, within a process
  actor_memory                 what an idle actor adds to the memory that its worker has written.
                               Limit: one of actix alone
  tasks, task_latency          functions that run in the worker, 1024 under way, and one at a time.
                               Limit: calls of the same run
  cluster_start                four workers, until they take work. Limit: four processes that end at once
  worker_memory                PSS of an idle worker. Limit: a process of this program with an actix
                               system and two arbiters, which are a worker's threads for user code

Exit codes: 0, 1 if a figure could not be measured, 2 for wrong arguments.";

/// A filter that leaves something to measure.
fn filter(text: &str) -> Result<String, String> {
    match Group::ALL.iter().any(|group| group.matches(text)) {
        true => Ok(text.to_owned()),
        false => Err(format!("no figure has this in its name; the names are {}", Group::names_listed())),
    }
}

/// A time that can be measured.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "it must be a number of seconds above zero, such as 0.5".to_owned())
}

pub(crate) async fn run(arguments: &Arguments) -> Outcome<()> {
    let lab = Fixture::open(arguments.pin).await.map_err(|error| format!("cannot prepare: {error}"))?;
    let plan = Plan { rounds: ROUNDS, turn: arguments.seconds / ROUNDS };
    let mut report = Report::new(Conditions {
        pin: arguments.pin.name(),
        cores: lab.cores(),
        rounds: ROUNDS,
        seconds: arguments.seconds.as_secs_f64(),
    });
    if !arguments.json {
        print(&report.head())?;
    }
    for group in Group::ALL.iter().filter(|group| group.matches(&arguments.filter)) {
        for figure in group.measure(&lab, &plan).await.map_err(|error| failed(*group, &*error))? {
            if !figure.name.contains(&arguments.filter) {
                continue;
            }
            if !arguments.json {
                print(&figure.rows())?;
            }
            report.figures.push(figure);
        }
    }
    lab.close().await?;
    if arguments.json {
        print(&format!("{}\n", report.json()?))?;
    }
    Ok(())
}

fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(|error| format!("cannot write the figures to the standard output: {error}"))
}

fn failed(group: Group, error: &dyn std::error::Error) -> String {
    let name = group.names()[0];
    format!("cannot measure {name}: {error}; measure it alone with `--filter {name}`, on a machine at rest")
}
