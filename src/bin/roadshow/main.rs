//! The command `roadshow`: one module a subcommand.

mod microbenchmark;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What the operating system is told when a command could not do its work.
///
/// Success is 0. Arguments that make no sense end the program with 2, before it does anything.
const FAILED: u8 = 1;

/// Actix actors and plain functions that run in other processes.
#[derive(Debug, Parser)]
#[command(name = "roadshow", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Microbenchmark(microbenchmark::Arguments),
    /// A process to compare a worker with: an actix system and two arbiters, until its input ends.
    #[command(hide = true)]
    Bare,
}

#[roadshow::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Microbenchmark(arguments) => microbenchmark::run(&arguments).await,
        Command::Bare => microbenchmark::bare(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the text of a panic elsewhere was.
            eprintln!("error: {}", error.to_string().replace('\n', " "));
            ExitCode::from(FAILED)
        }
    }
}
