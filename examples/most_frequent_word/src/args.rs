//! Command line, checked before any work.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};
use roadshow::words::{Counting, Method};
use roadshow::{Cluster, ClusterBuilder};

/// Maximum number of nodes. Each is an actor and one message for each round; a thousand show that cost.
const NODES_MAX: usize = 1000;

/// Maximum number of workers; each is a process.
const WORKERS_MAX: usize = 256;

/// Maximum number of workers without the option, whatever the number of nodes.
const WORKERS_DEFAULT_MAX: usize = 8;

/// Action that the command line requests.
#[derive(Debug)]
pub(crate) enum Request {
    /// Runs the comparison.
    Run(Args),
    /// Prints a text on standard output, such as the help.
    Print(String),
}

/// Finds the most frequent word of a text in sequence, in slices, as tasks and by actors in other
/// processes, and compares the times.
#[derive(Debug, Parser)]
#[command(
    name = "most_frequent_word",
    after_help = "The baseline is `slices`: the same parts and the same merge as tasks and actors, in \
                  this process.\n\n\
                  Exit codes: 0 success, 1 the cluster or a run failed, 2 the options or the text are \
                  not usable."
)]
pub(crate) struct Args {
    /// The text, in UTF-8 [default: Roadshow's handbook, compiled in]
    #[arg(long, value_name = "FILE")]
    pub(crate) book: Option<PathBuf>,

    /// Repeat the text N times; list counting then takes N times N as long
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one)]
    pub(crate) repeat: NonZeroUsize,

    /// Parts of the text, and actors that own them
    #[arg(long, value_name = "N", default_value = "4", value_parser = nodes)]
    pub(crate) nodes: NonZeroUsize,

    /// Worker processes on this machine [default: as many as nodes, at most 8]
    #[arg(long, value_name = "W", value_parser = workers)]
    workers: Option<NonZeroUsize>,

    /// Run on the cluster with this head [default: ROADSHOW_ADDRESS, else on this machine]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "workers")]
    address: Option<String>,

    /// Counting algorithm: the lecture's list (quadratic), a hash table, or both
    #[arg(long, value_enum, default_value_t = CountingChoice::Both)]
    counting: CountingChoice,

    /// Method that combines the parts: the lecture's two rounds, the exact merge, both of these, the exact
    /// answer with little traffic, or all three
    #[arg(long, value_enum, default_value_t = MethodChoice::Both)]
    method: MethodChoice,

    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// Returns the cluster to run on. A number of workers without an address means this machine.
    pub(crate) fn cluster(&self) -> ClusterBuilder {
        let default = self.nodes.get().min(WORKERS_DEFAULT_MAX);
        let builder = Cluster::builder().workers(self.workers.map_or(default, NonZeroUsize::get));
        match &self.address {
            Some(address) => builder.address(address),
            None if self.workers.is_some() => builder.local(),
            None => builder,
        }
    }

    pub(crate) fn countings(&self) -> &'static [Counting] {
        match self.counting {
            CountingChoice::List => &[Counting::List],
            CountingChoice::Hash => &[Counting::Hash],
            CountingChoice::Both => &[Counting::List, Counting::Hash],
        }
    }

    pub(crate) fn methods(&self) -> &'static [Method] {
        match self.method {
            MethodChoice::TwoRound => &[Method::TwoRound],
            MethodChoice::Exact => &[Method::Exact],
            MethodChoice::Both => &[Method::TwoRound, Method::Exact],
            MethodChoice::Tput => &[Method::Tput],
            MethodChoice::All => &[Method::TwoRound, Method::Exact, Method::Tput],
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CountingChoice {
    List,
    Hash,
    Both,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodChoice {
    TwoRound,
    Exact,
    Both,
    Tput,
    All,
}

/// Returns the request, or one line about invalid options.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let err = match Args::try_parse_from(args) {
        Ok(args) => return Ok(Request::Run(args)),
        Err(err) => err,
    };
    let text = err.to_string();
    // Help is no error: it goes to standard output, with the exit code 0.
    if err.kind() == ErrorKind::DisplayHelp {
        return Ok(Request::Print(text));
    }
    // The first paragraph has the error; usage and hints belong to the help.
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let paragraph: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    Err(format!("{}; --help lists the options", paragraph.join(" ")))
}

fn nodes(text: &str) -> Result<NonZeroUsize, String> {
    number(text, NODES_MAX)
}

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    number(text, WORKERS_MAX)
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    NonZeroUsize::from_str(text).map_err(|_| "give a whole number of at least 1".to_owned())
}

fn number(text: &str, max: usize) -> Result<NonZeroUsize, String> {
    let number = at_least_one(text).ok().filter(|number| number.get() <= max);
    number.ok_or_else(|| format!("give a whole number from 1 to {max}"))
}
