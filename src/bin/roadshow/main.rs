//! The command `roadshow`: one module a subcommand.

mod cli;
mod commands;
mod daemon;
mod error;
mod exit;
mod output;
mod session;
#[cfg(test)]
mod test_cluster;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use error::CliResult;
use output::CliOutput;

/// Runs and operates clusters for Roadshow programs: actix actors and functions in other processes.
///
/// `roadshow start --head` starts a cluster and prints the command with which other machines join it. Any
/// Roadshow program runs on the whole cluster when ROADSHOW_ADDRESS names its head.
#[derive(Debug, Parser)]
#[command(name = "roadshow", version, arg_required_else_help = true, after_long_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Boxed: it has many more options than the others, and every variant is as large as the largest.
    Start(Box<commands::start::StartArgs>),
    Stop(commands::stop::StopArgs),
    Status(commands::status::StatusArgs),
    Top(commands::top::TopArgs),
    List(commands::list::ListArgs),
    Get(commands::get::GetArgs),
    Summary(commands::summary::SummaryArgs),
    Logs(commands::logs::LogsArgs),
    Job(commands::job::JobArgs),
    Report(commands::report::ReportArgs),
    Timeline(commands::timeline::TimelineArgs),
    Kill(commands::kill::KillArgs),
    Drain(commands::drain::DrainArgs),
    Dashboard(commands::dashboard::DashboardArgs),
    HealthCheck(commands::health_check::HealthCheckArgs),
    Microbenchmark(commands::microbenchmark::MicrobenchmarkArgs),
    /// Baseline process for the benchmark: an actix system and two arbiters, until its standard input closes.
    #[command(hide = true)]
    Bare,
    /// Head daemon; started by `start --head`.
    #[command(hide = true)]
    InternalHead,
    /// Agent daemon; started by `start`.
    #[command(hide = true)]
    InternalAgent,
}

#[roadshow::main]
async fn main() -> ExitCode {
    // `parse` would exit with codes and texts of its own.
    let arguments = match Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return cli::clap_error::end(&error, &Cli::command()),
    };
    match arguments.command {
        Command::InternalHead => daemon::head().await,
        Command::InternalAgent => daemon::agent().await,
        command => end(run(command).await),
    }
}

async fn run(command: Command) -> CliResult<()> {
    // Asked once: both streams keep their kind for the life of the command.
    let are_terminals = [io::stdout().is_terminal(), io::stderr().is_terminal()];
    let output = &mut CliOutput { out: &mut io::stdout(), err: &mut io::stderr(), are_terminals };
    match command {
        Command::Start(arguments) => commands::start::run(&arguments, output).await,
        Command::Stop(arguments) => commands::stop::run(&arguments, output),
        Command::Status(arguments) => {
            commands::status::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Top(arguments) => {
            arguments.check()?;
            commands::top::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::List(arguments) => {
            // Before the cluster is resolved: a wrong filter is an error even without a cluster.
            arguments.check()?;
            commands::list::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Get(arguments) => {
            commands::get::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Summary(arguments) => {
            commands::summary::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Logs(arguments) => {
            commands::logs::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Job(arguments) => {
            commands::job::run(&arguments, &arguments.cluster_args().target()?, output).await
        }
        Command::Report(arguments) => {
            commands::report::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Timeline(arguments) => {
            commands::timeline::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Kill(arguments) => {
            commands::kill::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Drain(arguments) => {
            commands::drain::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Dashboard(arguments) => {
            commands::dashboard::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::HealthCheck(arguments) => {
            commands::health_check::run(&arguments, &arguments.cluster_args.target()?, output).await
        }
        Command::Microbenchmark(arguments) => Ok(commands::microbenchmark::run(&arguments).await?),
        Command::Bare => Ok(commands::microbenchmark::baseline()?),
        // `main` runs the daemons itself: they end with their own exit code and not with a `CliError`.
        Command::InternalHead | Command::InternalAgent => Ok(()),
    }
}

fn end(outcome: CliResult<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            let text = failure.to_string();
            // An exit without a message, as after a closed pipe.
            if !text.is_empty() {
                eprintln!("error: {text}");
            }
            ExitCode::from(failure.code)
        }
    }
}
