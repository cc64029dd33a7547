//! Runs the same loads over all peers, in turns, and prints a table for each pinning.
//!
//! ```text
//! benches/peers/run --peers roadshow,tokio --loads calls-64
//! ```
//!
//! | file | task |
//! |---|---|
//! | `args` | checks the arguments |
//! | `peers` | lists the peers, and the loads that each cannot do |
//! | `programs` | builds the peers, and finds the binaries |
//! | `process` | starts, pins and ends processes |
//! | `session` | runs one client with its servers |
//! | `figures` | keeps all results, and takes medians |
//! | `report` | prints tables or JSON |

mod args;
mod figures;
mod peers;
mod process;
mod programs;
mod report;
mod session;

use std::process::ExitCode;

use anyhow::Result;

use args::Args;
use figures::Figures;
use peers::Servers;

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
    if std::env::args().any(|argument| argument == "--help") {
        print!("{}", args::USAGE);
        return Ok(Vec::new());
    }
    let mut args = Args::from_env()?;
    if programs::own_address().is_none() {
        // Hosts use TLS only between addresses that are not loopback.
        eprintln!("this machine has no address except loopback: peers with a node are left out");
        args.peers.retain(|peer| peer.servers != Servers::OfNode);
    }
    let programs = programs::folder()?;
    programs::build(&args.peers, &programs)?;
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
