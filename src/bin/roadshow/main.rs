//! The command `roadshow`.

mod microbenchmark;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Actix actors and plain functions on every machine of a cluster.
#[derive(Debug, Parser)]
#[command(name = "roadshow", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Microbenchmark(microbenchmark::Arguments),
}

#[roadshow::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Microbenchmark(arguments) => microbenchmark::run(&arguments).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
