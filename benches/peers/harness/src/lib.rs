//! Loads, clocks and output that all peers share.
//!
//! A peer is a binary with two modes. The runner starts each in a process of its own:
//!
//! ```text
//! peer-x server [--variant V]
//! peer-x client --servers ADDR,.. --pids PID,.. --loads NAME,.. --seconds S [--variant V] [--words FILE]
//! ```
//!
//! The server prints `READY ADDR`. The client prints a JSON object a line: one for the session, and one for each
//! load. A peer implements [`Peer`] and [`Client`]; a method that it leaves out is a load that it cannot do.

mod args;
mod client;
mod load;
mod loads;
mod measure;
pub mod proc;
mod words;

pub use args::{Args, Runtime};
pub use client::{Client, Peer, Unsupported, free_port, ready, unsupported};
pub use load::Load;
pub use loads::REPLY_BYTE;

use std::time::Duration;

use anyhow::Result;

use args::Mode;
use measure::Bench;

/// Actors of each server.
pub const ACTORS: usize = 8;

/// Time in which a client has to reach its servers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a peer on tokio, with the runtime that the arguments name.
///
/// # Errors
///
/// Malformed arguments, and whatever ends the session.
pub fn main<P: Peer>() -> Result<()> {
    let args = Args::from_env()?;
    let mut builder = match args.runtime {
        Runtime::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        Runtime::Workers(_) => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Runtime::Workers(Some(workers)) = args.runtime {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()?.block_on(run::<P>(args))
}

/// Runs a peer on the runtime of the caller.
///
/// # Errors
///
/// Whatever ends the session. A load that fails does not: its line has the error.
pub async fn run<P: Peer>(args: Args) -> Result<()> {
    // Otherwise a runner that is killed would leave processes behind that take the cores of the next run.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    match args.mode {
        Mode::Server => P::serve(args).await,
        Mode::Client => {
            let client = tokio::time::timeout(CONNECT_TIMEOUT, P::connect(&args))
                .await
                .map_err(|_| anyhow::anyhow!("no connection within {CONNECT_TIMEOUT:?}"))??;
            let bench = Bench::new(args, &client)?;
            // A wake-up of the future that `block_on` polls differs from one of a task, as in a program.
            tokio::spawn(async move { loads::run(&bench, client).await }).await??;
            // Some frameworks never end their threads. All figures are printed.
            std::process::exit(0)
        }
    }
}
