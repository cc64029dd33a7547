//! Command line, checked before any work.

use std::ffi::OsString;
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Arg, Parser, ValueExt};
use roadshow::words::{Counting, Method};
use roadshow::{Cluster, ClusterBuilder};

/// Maximum number of nodes. Each is an actor and one message for each round; a thousand show that cost.
const NODES_MAX: usize = 1000;

/// Maximum number of workers; each is a process.
const WORKERS_MAX: usize = 256;

/// Maximum number of workers without the option, whatever the number of nodes.
const WORKERS_DEFAULT_MAX: usize = 8;

const NODES_DEFAULT: NonZeroUsize = NonZeroUsize::new(4).expect("it is not zero");

const HELP: &str = "\
Finds the most frequent word of a text in sequence, in slices, as tasks and by actors in other
processes, and compares the times.

Usage: most_frequent_word [OPTIONS]

Options:
      --book <FILE>          The text, in UTF-8 [default: Roadshow's handbook, compiled in]
      --repeat <N>           Repeat the text N times; list counting then takes N times N as long [default: 1]
      --nodes <N>            Parts of the text, and actors that own them [default: 4]
      --workers <W>          Worker processes on this machine [default: as many as nodes, at most 8]
      --address <HOST:PORT>  Run on the cluster with this head [default: ROADSHOW_ADDRESS, else on this machine]
      --counting <COUNTING>  Counting algorithm: the lecture's list (quadratic), a hash table, or both
                             [default: both] [possible values: list, hash, both]
      --method <METHOD>      Method that combines the parts: the lecture's two rounds, the exact merge, both of
                             these, the exact answer with little traffic, or all three
                             [default: both] [possible values: two-round, exact, both, tput, all]
      --json                 Print one JSON object instead of the table
  -h, --help                 Print help

The baseline is `slices`: the same parts and the same merge as tasks and actors, in this process.

Exit codes: 0 success, 1 the cluster or a run failed, 2 the options or the text are not usable.
";

/// Values of `--counting`.
const COUNTINGS: [Choice<Counting>; 3] =
    [("list", &[Counting::List]), ("hash", &[Counting::Hash]), ("both", &[Counting::List, Counting::Hash])];

/// Values of `--method`.
const METHODS: [Choice<Method>; 5] = [
    ("two-round", &[Method::TwoRound]),
    ("exact", &[Method::Exact]),
    ("both", &[Method::TwoRound, Method::Exact]),
    ("tput", &[Method::Tput]),
    ("all", &[Method::TwoRound, Method::Exact, Method::Tput]),
];

/// Value of an option, and what it selects.
type Choice<T> = (&'static str, &'static [T]);

/// Action that the command line requests.
#[derive(Debug)]
pub(crate) enum Request {
    /// Runs the comparison.
    Run(Args),
    /// Prints a text on standard output, such as the help.
    Print(String),
}

/// Options of a comparison.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) book: Option<PathBuf>,
    pub(crate) repeat: NonZeroUsize,
    pub(crate) nodes: NonZeroUsize,
    workers: Option<NonZeroUsize>,
    address: Option<String>,
    pub(crate) countings: &'static [Counting],
    pub(crate) methods: &'static [Method],
    pub(crate) json: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            book: None,
            repeat: NonZeroUsize::MIN,
            nodes: NODES_DEFAULT,
            workers: None,
            address: None,
            countings: &[Counting::List, Counting::Hash],
            methods: &[Method::TwoRound, Method::Exact],
            json: false,
        }
    }
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
}

/// Returns the request, or one line about invalid options.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    read(Parser::from_iter(args)).map_err(|err| format!("{err}; --help lists the options"))
}

fn read(mut parser: Parser) -> Result<Request, lexopt::Error> {
    let mut args = Args::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Request::Print(HELP.to_owned())),
            Arg::Long("book") => args.book = Some(parser.value()?.into()),
            Arg::Long("repeat") => args.repeat = value(&mut parser, "repeat", at_least_one)?,
            Arg::Long("nodes") => args.nodes = value(&mut parser, "nodes", |text| number(text, NODES_MAX))?,
            Arg::Long("workers") => {
                args.workers = Some(value(&mut parser, "workers", |text| number(text, WORKERS_MAX))?);
            }
            Arg::Long("address") => args.address = Some(parser.value()?.string()?),
            Arg::Long("counting") => {
                args.countings = value(&mut parser, "counting", |text| choice(text, &COUNTINGS))?;
            }
            Arg::Long("method") => {
                args.methods = value(&mut parser, "method", |text| choice(text, &METHODS))?;
            }
            Arg::Long("json") => args.json = true,
            other => return Err(other.unexpected()),
        }
    }
    if args.workers.is_some() && args.address.is_some() {
        return Err("--workers is for this machine, and cannot be used with --address".into());
    }
    Ok(Request::Run(args))
}

/// Takes the value of an option.
fn value<T, E: Display>(
    parser: &mut Parser,
    option: &str,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, lexopt::Error> {
    let text = parser.value()?.string()?;
    read(&text).map_err(|err| format!("invalid value '{text}' for --{option}: {err}").into())
}

fn choice<T>(text: &str, choices: &[Choice<T>]) -> Result<&'static [T], String> {
    let chosen = choices.iter().find(|(name, _)| *name == text);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    chosen.map(|(_, values)| *values).ok_or_else(|| format!("give one of {}", names()))
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, &'static str> {
    NonZeroUsize::from_str(text).map_err(|_| "give a whole number of at least 1")
}

fn number(text: &str, max: usize) -> Result<NonZeroUsize, String> {
    let number = at_least_one(text).ok().filter(|number| number.get() <= max);
    number.ok_or_else(|| format!("give a whole number from 1 to {max}"))
}
