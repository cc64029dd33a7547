//! `roadshow microbenchmark`: figures beside their limits, measured in turns in one run.

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

use figures::{Group, Schedule};
use fixture::{BenchResult, Fixture, Pin};
use report::{BenchmarkReport, Conditions};

pub(crate) use processes::baseline;

/// Number of turns of each contender.
const ROUNDS: u32 = 5;

/// Measures calls, messages, payloads, spawns and tasks, each beside its limit on this machine.
///
/// A limit is what the same machine does without Roadshow: raw frames over TCP between the same two processes, actix
/// within one process, or processes that do nothing. Figure and limit take turns, five each. The table shows the
/// medians of the turns and the ratio of the two medians. On a busy or virtual machine the figures are noisy; the
/// ratios are less so.
#[derive(Debug, clap::Args)]
#[command(after_long_help = FIGURES_HELP)]
pub(crate) struct MicrobenchmarkArgs {
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Measure only the figures whose name contains this text.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = filter)]
    filter: String,
    /// Seconds for each contender of a figure, over all its turns.
    ///
    /// A turn takes longer if its smallest unit of work does, such as the start of one cluster.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
    seconds: Duration,
    /// CPU cores that the processes may run on.
    ///
    /// Waking an idle core can cost several times as much as a call, and without pinning each run places the processes
    /// differently. Compare only runs with the same value.
    #[arg(long, value_enum, default_value_t = Pin::None)]
    pin: Pin,
}

const FIGURES_HELP: &str = "\
Figures, with their limits:
  call_round_trip, .._p99      one call at a time: median and 99th percentile. Limit: a raw frame and
                               its echo, with an event loop on each side; also shown: blocking
                               sockets, and a call to an actix actor on another thread
  calls_in_flight_1, _64, _1024
                               calls per second of one task, with 1, 64 or 1024 in flight.
                               Limit: raw frames of 24 bytes
  callers_64, _1024            calls per second of 64 or 1024 tasks with one call in flight each.
                               Limit: as many raw frames; also shown: as many calls of one task
  one_way, one_way_bursts_of_16
                               messages per second without a reply, until the last is handled; in bursts,
                               the sender yields after 16. Limit: raw frames that the receiver counts
  calls_n_to_n                 four clients, four actors, 64 calls in flight for each
  payload_1kib, _64kib, _1mib  echoed bytes, eight messages in flight; counted in one direction
  word_list                    lists of 26,000 words that are sent to a reader, four in flight.
                               Limit: the same number of raw bytes, and a short confirmation
  spawns                       actors started per second, 1024 in flight. Limit: actix within a process
  actor_memory                 memory that an idle actor adds to its worker.
                               Limit: an actor of actix alone
  tasks, task_latency          functions that run in the worker, 1024 in flight, and one at a time.
                               Limit: calls of the same run
  cluster_start                four workers, until they take work. Limit: four processes that exit immediately
  worker_memory                PSS of an idle worker. Limit: a process of this program with an actix
                               system and two arbiters, which are a worker's threads for user code

Exit codes: 0, 1 if a figure could not be measured, 2 for wrong arguments.";

/// Parses a filter that matches at least one figure.
fn filter(text: &str) -> Result<String, String> {
    match Group::ALL.iter().any(|group| group.matches(text)) {
        true => Ok(text.to_owned()),
        false => Err(format!("no figure has this in its name; the figures are {}", Group::names_listed())),
    }
}

/// Parses a duration above zero, in seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "it must be a number of seconds above zero, such as 0.5".to_owned())
}

pub(crate) async fn run(arguments: &MicrobenchmarkArgs) -> BenchResult<()> {
    let fixture = Fixture::open(arguments.pin)
        .await
        .map_err(|error| format!("cannot start the benchmark's cluster: {error}"))?;
    let schedule = Schedule { rounds: ROUNDS, turn: arguments.seconds / ROUNDS };
    let mut report = BenchmarkReport::new(Conditions {
        pin: arguments.pin.name(),
        cores: fixture.cores(),
        rounds: ROUNDS,
        seconds: arguments.seconds.as_secs_f64(),
    });
    if !arguments.json {
        print(&report.head())?;
    }
    for group in Group::ALL.iter().filter(|group| group.matches(&arguments.filter)) {
        for figure in group.measure(&fixture, &schedule).await.map_err(|error| failed(*group, &*error))? {
            // A group measures several figures together, of which the filter may select one.
            if !figure.name.contains(&arguments.filter) {
                continue;
            }
            if !arguments.json {
                print(&figure.rows())?;
            }
            report.figures.push(figure);
        }
    }
    fixture.close().await?;
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
    format!("cannot measure {name}: {error}; measure it alone with `--filter {name}`, on an idle machine")
}
