//! Runs the same loads over all peers, in turns, and prints a table for each pinning.
//!
//! ```text
//! benches/peers/run [--seconds S] [--rounds R] [--peers a,b] [--loads x,y] [--pin one-core|two-cores]
//!                   [--words FILE] [--json]
//! ```
//!
//! | file | task |
//! |---|---|
//! | `args` | checks the arguments |
//! | `peers` | lists the peers, and the loads that each cannot do |
//! | `process` | starts, pins and ends processes |
//! | `session` | runs one client with its servers |
//! | `figures` | keeps all results, and takes medians |
//! | `report` | prints tables or JSON |

mod args;
mod figures;
mod peers;
mod process;
mod report;
mod session;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use args::Args;
use figures::Figures;
use peers::Peer;

fn main() -> ExitCode {
    match run() {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            failed.iter().for_each(|failure| eprintln!("failed: {failure}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the loads that failed.
fn run() -> Result<Vec<String>> {
    let args = Args::from_env()?;
    build(&args.peers)?;
    let programs = programs()?;
    let mut figures = Figures::default();
    for round in 1..=args.rounds {
        for pin in &args.pins {
            // Peers take turns, so that a busy moment of the machine does not fall on one of them in all rounds.
            for peer in &args.peers {
                eprintln!("round {round} of {}, {}: {}", args.rounds, pin.name(), peer.name);
                session::run(&programs, peer, pin, &args, &mut figures);
            }
        }
    }
    print!("{}", if args.json { report::json(&args, &figures)? } else { report::markdown(&args, &figures)? });
    Ok(figures.failures())
}

/// Workspace of the peers.
fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Builds the peers that take part, with Cargo's default release profile.
///
/// Each is built alone: in one build the peers would share the features of their dependencies.
fn build(peers: &[&Peer]) -> Result<()> {
    let mut packages: Vec<_> = peers.iter().map(|peer| peer.package).collect();
    packages.dedup();
    for package in packages {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--release", "--locked", "--quiet", "--package", package])
            .current_dir(workspace());
        let status = cargo.status().context("failed to start cargo")?;
        ensure!(status.success(), "{package} does not compile; the errors of cargo are above");
    }
    Ok(())
}

/// Folder of the binaries: this one's.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("the runner has no folder")?.to_owned())
}
