//! The command `roadshow`: one module a subcommand.

mod clock;
mod daemons;
mod drain;
mod exit;
mod failure;
mod find;
mod get;
#[cfg(test)]
mod given;
mod health_check;
mod job;
mod kill;
mod list;
mod logs;
mod microbenchmark;
mod output;
mod reach;
mod rows;
mod session;
mod start;
mod status;
mod stop;
mod summary;
mod table;
mod token;
mod usage;
mod values;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::CliResult;
use output::Output;

/// Runs and operates clusters for Roadshow programs: actix actors and plain functions in other processes.
///
/// One machine starts the cluster, others join it with the command that this prints, and any program
/// made with Roadshow runs on all of them when ROADSHOW_ADDRESS names the cluster.
#[derive(Debug, Parser)]
#[command(name = "roadshow", version, arg_required_else_help = true, after_long_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(Box<start::Arguments>),
    Stop(stop::Arguments),
    Status(status::Arguments),
    List(list::Arguments),
    Get(get::Arguments),
    Summary(summary::Arguments),
    Logs(logs::Arguments),
    Job(job::Arguments),
    Kill(kill::Arguments),
    Drain(drain::Arguments),
    HealthCheck(health_check::Arguments),
    Microbenchmark(microbenchmark::Arguments),
    /// A process to compare a worker with: an actix system and two arbiters, until its input ends.
    #[command(hide = true)]
    Bare,
    /// The head's process; `start --head` starts it.
    #[command(hide = true)]
    InternalHead,
    /// The agent's process; `start` starts it.
    #[command(hide = true)]
    InternalAgent,
}

#[roadshow::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage::end(&error, &Arguments::command()),
    };
    match arguments.command {
        Command::InternalHead => daemons::head().await,
        Command::InternalAgent => daemons::agent().await,
        command => end(run(command).await),
    }
}

async fn run(command: Command) -> CliResult<()> {
    let are_terminals = [io::stdout().is_terminal(), io::stderr().is_terminal()];
    let output = &mut Output { out: &mut io::stdout(), err: &mut io::stderr(), are_terminals };
    match command {
        Command::Start(arguments) => start::run(&arguments, output).await,
        Command::Stop(arguments) => stop::run(&arguments, output),
        Command::Status(arguments) => status::run(&arguments, &arguments.reach.target()?, output).await,
        Command::List(arguments) => {
            arguments.check()?;
            list::run(&arguments, &arguments.reach.target()?, output).await
        }
        Command::Get(arguments) => get::run(&arguments, &arguments.reach.target()?, output).await,
        Command::Summary(arguments) => summary::run(&arguments, &arguments.reach.target()?, output).await,
        Command::Logs(arguments) => logs::run(&arguments, &arguments.reach.target()?, output).await,
        Command::Job(arguments) => job::run(&arguments, &arguments.reach().target()?, output).await,
        Command::Kill(arguments) => kill::run(&arguments, &arguments.reach.target()?, output).await,
        Command::Drain(arguments) => drain::run(&arguments, &arguments.reach.target()?, output).await,
        Command::HealthCheck(arguments) => {
            health_check::run(&arguments, &arguments.reach.target()?, output).await
        }
        Command::Microbenchmark(arguments) => Ok(microbenchmark::run(&arguments).await?),
        Command::Bare => Ok(microbenchmark::baseline()?),
        // These have been answered for themselves.
        Command::InternalHead | Command::InternalAgent => Ok(()),
    }
}

fn end(outcome: CliResult<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                eprintln!("error: {text}");
            }
            ExitCode::from(failure.code)
        }
    }
}
