//! Runs the simulation of hosts and links over many seeds: `cargo run --release --example simulate --
//! --seeds 1000`. With `--cluster` it is the simulation of whole clusters.
//!
//! Each seed is run twice, and both logs have to be equal. After each run the process has as many threads
//! and descriptors as before. The first seed that violates a guarantee ends the program with exit code 1
//! and the end of its log.

#[path = "../tests/sim/cluster/mod.rs"]
mod cluster;
#[path = "../tests/sim/world/mod.rs"]
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use roadshow::internals::config::InjectedBug;
use world::Script;

/// Number of log lines shown of a run that violates a guarantee.
const TAIL_LINES: usize = 30;

/// Simulates hosts and links, or clusters, under seeded faults.
#[derive(Debug, Parser)]
struct Args {
    /// Simulate clusters: a head, agents, workers and drivers
    #[arg(long)]
    cluster: bool,
    /// Let a cluster of five nodes be idle for this number of hours, print how long that takes, and exit
    #[arg(long)]
    idle_hours: Option<u64>,
    /// Number of seeds to try
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// First seed [default: random]
    #[arg(long)]
    first: Option<u64>,
    /// Bug to inject, which the simulation has to find
    #[arg(long)]
    plant: Option<Bug>,
    /// Print the names of the bugs that can be injected into hosts, or into clusters, and exit
    #[arg(long)]
    list_bugs: bool,
    /// Try all seeds, even after one that violates a guarantee
    #[arg(long)]
    keep_going: bool,
    /// Print the whole log of each run, and the log events of the library
    #[arg(long)]
    log: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bug {
    EarlyAck,
    LostCredit,
    ResendAfterClose,
    LostGeneration,
    OvertakingStop,
    ForgottenActors,
    LostWorkerEnd,
    StaleHeartbeat,
    LostTermination,
    OrphanedChildren,
    StaleIncarnation,
    UnflushedStart,
    ForgottenKill,
    IgnoredLease,
}

impl Bug {
    /// True for a bug of clusters, which only their simulation can find.
    fn is_of_clusters(self) -> bool {
        matches!(
            self,
            Self::ForgottenActors
                | Self::LostWorkerEnd
                | Self::StaleHeartbeat
                | Self::LostTermination
                | Self::OrphanedChildren
                | Self::StaleIncarnation
                | Self::UnflushedStart
                | Self::ForgottenKill
                | Self::IgnoredLease
        )
    }
}

impl From<Bug> for InjectedBug {
    fn from(bug: Bug) -> Self {
        match bug {
            Bug::EarlyAck => Self::EarlyAck,
            Bug::LostCredit => Self::LostCredit,
            Bug::ResendAfterClose => Self::ResendAfterClose,
            Bug::LostGeneration => Self::LostGeneration,
            Bug::OvertakingStop => Self::OvertakingStop,
            Bug::ForgottenActors => Self::ForgottenActors,
            Bug::LostWorkerEnd => Self::LostWorkerEnd,
            Bug::StaleHeartbeat => Self::StaleHeartbeat,
            Bug::LostTermination => Self::LostTermination,
            Bug::OrphanedChildren => Self::OrphanedChildren,
            Bug::StaleIncarnation => Self::StaleIncarnation,
            Bug::UnflushedStart => Self::UnflushedStart,
            Bug::ForgottenKill => Self::ForgottenKill,
            Bug::IgnoredLease => Self::IgnoredLease,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list_bugs {
        let bugs = Bug::value_variants().iter().filter(|bug| bug.is_of_clusters() == args.cluster);
        let names = bugs.filter_map(ValueEnum::to_possible_value);
        names.for_each(|name| println!("{}", name.get_name()));
        return ExitCode::SUCCESS;
    }
    if let Some(hours) = args.idle_hours {
        let since = Instant::now();
        let outcome = cluster::idle(Duration::from_secs(hours * 3_600));
        println!("{hours} hours of an idle cluster in {:.1?}", since.elapsed());
        return if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // A random start, so that repeated runs cover new seeds. The seed of a failure is printed.
    let first = args.first.unwrap_or_else(|| fastrand::u64(..1 << 40));
    if args.log {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .with_ansi(false)
            .init();
    }
    let since = Instant::now();
    let (mut events, mut broken) = (0, 0);
    // The first run starts lazy parts that stay, such as the logger.
    let _ = run(first, &args);
    let before = open();
    for seed in first..first + args.seeds {
        let tried = try_seed(seed, &args).and_then(|logged| match open() {
            now if now == before => Ok(logged),
            now => Err(format!("leaves {now:?} threads and descriptors; {before:?} before the run")),
        });
        match tried {
            Ok(logged) => events += logged,
            Err(violation) => {
                eprintln!("seed {seed} {violation}");
                broken += 1;
                if !args.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    let (seeds, took) = (args.seeds, since.elapsed());
    if broken > 0 {
        eprintln!("{broken} of {seeds} seeds from {first} on violate guarantees");
        return ExitCode::FAILURE;
    }
    println!("{seeds} seeds from {first} on, {events} events, {took:.1?}: no violation");
    ExitCode::SUCCESS
}

/// Counts the threads and the descriptors of this process, if the system can tell.
fn open() -> [usize; 2] {
    ["/proc/self/task", "/proc/self/fd"].map(|list| std::fs::read_dir(list).map_or(0, Iterator::count))
}

/// Log and violations of one run.
fn run(seed: u64, args: &Args) -> [Vec<String>; 2] {
    let bug = args.plant.map(InjectedBug::from);
    if args.cluster {
        let script = cluster::Script::of(seed);
        let outcome = cluster::run(match bug {
            None => script,
            Some(bug) => script.with_bug(bug),
        });
        return [outcome.log, outcome.violations];
    }
    let script = Script::of(seed);
    let outcome = world::run(match bug {
        None => script,
        Some(bug) => script.with_bug(bug),
    });
    [outcome.log, outcome.violations]
}

/// Runs a seed twice; returns the number of logged events, or the violation.
fn try_seed(seed: u64, args: &Args) -> Result<usize, String> {
    // Both runs must log the same events, or a failing seed could not be reproduced.
    let ([log, violations], [again, _]) = (run(seed, args), run(seed, args));
    if args.log {
        log.iter().for_each(|line| println!("{line}"));
    }
    if violations.is_empty() {
        return match log == again {
            true => Ok(log.len()),
            false => Err(format!("gives two different logs: {:?}", first_difference(&log, &again))),
        };
    }
    log.iter().rev().take(TAIL_LINES).rev().for_each(|line| eprintln!("{line}"));
    Err(format!("violates guarantees: {violations:#?}"))
}

/// First lines of two logs that differ.
fn first_difference<'a>(log: &'a [String], again: &'a [String]) -> [Option<&'a str>; 2] {
    let equal = log.iter().zip(again).take_while(|(one, other)| one == other).count();
    [log, again].map(|lines| lines.get(equal).map(String::as_str))
}
