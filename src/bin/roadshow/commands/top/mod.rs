//! `roadshow top`: the cluster live in a terminal.
//!
//! ```text
//! terminal keys, signals --+
//!                          +--> live --Event--> model --Effect--> live --Order--> poller
//! poller --Report----------+             |                                           |
//!                                        +--> view --> terminal          one connection to the head
//! ```
//!
//! `model` and `view` are pure. `live` is the loop around them, `poller` owns the connection, and `terminal` the
//! modes of the terminal.

mod columns;
mod keys;
mod live;
mod model;
mod poller;
mod rates;
mod sample;
mod terminal;
mod view;

use std::time::Duration;

use roadshow::admin;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::output::time::now_ms;
use model::{Event, Model};
use poller::Report;
use sample::View;
use view::Look;

/// Shortest and longest interval between two refreshes.
///
/// Agents report each second, so a shorter interval than the minimum shows nothing new.
const INTERVALS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3600)];

/// Columns of a page that is not for a terminal, unless `COLUMNS` is set.
const PAGE_WIDTH: u16 = 120;

/// Largest accepted value of `COLUMNS`.
const PAGE_WIDTH_MAX: u16 = 1000;

/// Shows the cluster live in a terminal: nodes, jobs, actors, workers and tasks.
///
/// `?` lists the keys. Without a terminal on standard output it prints one page, as with --once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub(crate) struct TopArgs {
    /// Seconds between two refreshes, at least 0.2.
    #[arg(long, value_name = "S", default_value = "1", value_parser = crate::cli::values::seconds,
        allow_negative_numbers = true)]
    interval: Duration,
    /// View to start with.
    #[arg(long, value_enum, value_name = "VIEW", default_value = "nodes")]
    view: View,
    /// Print one page as plain text, and end.
    #[arg(long)]
    once: bool,
    // Declared for its error, which names the command that has it.
    #[arg(long, hide = true)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

const EXAMPLE: &str = "\
Examples:
  roadshow top
  roadshow top --once --view actors

NO_COLOR removes the colours. --once reads COLUMNS, else its page is 120 columns wide.";

impl TopArgs {
    /// Checks the arguments before the cluster is resolved.
    pub(crate) fn check(&self) -> CliResult<()> {
        if self.json {
            return Err(CliError::usage(
                "`top` has no --json",
                "use `roadshow status --json` or `roadshow list --json`",
            ));
        }
        let [shortest, longest] = INTERVALS;
        if self.interval < shortest || self.interval > longest {
            return Err(CliError::usage(
                format!("--interval is {} s", self.interval.as_secs_f64()),
                format!("give {} to {} s", shortest.as_secs_f64(), longest.as_secs()),
            ));
        }
        Ok(())
    }
}

pub(crate) async fn run(
    arguments: &TopArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    // Before the terminal is taken: a wrong token or address is an error line and an exit code.
    let mut head = connector.head().await?;
    let mut model = Model::new(connector.head_address().to_string(), arguments.view);
    if !arguments.once && output.are_terminals[0] {
        return live::run(model, arguments.interval, connector, head).await;
    }
    let sample = sample::take(&mut head, &model.wanted()).await?;
    model.update(Duration::ZERO, now_ms(), Event::Report(Report::Sample(Box::new(sample))));
    output.print(&view::page(&model, Look::PLAIN, page_width(output.are_terminals[0])))
}

fn page_width(is_terminal: bool) -> u16 {
    let width = match is_terminal {
        true => crossterm::terminal::size().ok().map(|(width, _)| width),
        false => std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()),
    };
    width.filter(|width| *width > 0).unwrap_or(PAGE_WIDTH).min(PAGE_WIDTH_MAX)
}

/// List of the head behind a view.
const fn kind(view: View) -> admin::Kind {
    match view {
        View::Nodes => admin::Kind::Nodes,
        View::Jobs => admin::Kind::Jobs,
        View::Actors => admin::Kind::Actors,
        View::Workers => admin::Kind::Workers,
        View::Tasks => admin::Kind::Tasks,
    }
}

#[cfg(test)]
mod tests;
