//! The most frequent word of a text, found in sequence, in slices, as tasks and by actors.
//!
//! ```text
//! cargo run --release --example most_frequent_word -- --book FILE --nodes 4
//! ```
//!
//! Every way is timed, and the table compares it with the two that use no cluster. `slices` is the
//! control: the same parts and the same merge as tasks and actors, one after another in this
//! process. With list counting, n parts are n times quicker than the whole on one core already, so
//! only what is quicker than `slices` is owed to the cluster. The time of the actors includes that
//! of spawning them and of sending them their parts; starting the cluster is told apart.
//!
//! Exit codes: 0 done, 1 the cluster or a run failed, 2 the options or the text are not usable.
//! With a code other than 0 there is one line on standard error that says why, behind what the library
//! may have logged there of a worker that ended. Nothing was printed on standard output then.

mod args;
mod report;
mod runs;
mod text;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use roadshow::observe::Chain;

use crate::args::Request;
use crate::text::Text;

#[roadshow::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code()
        }
    }
}

async fn run() -> Result<(), Failure> {
    let args = match args::parse(std::env::args_os()).map_err(Failure::Input)? {
        Request::Run(args) => args,
        Request::Print(text) => return print(&text),
    };
    let text = Text::read(&args).map_err(|err| Failure::Input(err.to_string()))?;
    let report = runs::run_all(&args, &text).await.map_err(Failure::Run)?;
    print(&if args.json { report.to_json() } else { report.to_string() })
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader such as `head` has seen enough.
        Err(err) if err.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|err| Failure::Run(err.into())),
    }
}

/// Why there is no result, sorted by who can change it.
#[derive(Debug)]
enum Failure {
    /// The options or the text: exit code 2.
    Input(String),
    /// The cluster or a run: exit code 1.
    Run(Box<dyn Error>),
}

impl Failure {
    fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Run(_) => 1,
            Self::Input(_) => 2,
        })
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut line = match self {
            Self::Input(text) => text.clone(),
            Self::Run(err) => Chain(err.as_ref()).to_string(),
        };
        // One line, whatever a file name or a panic's text has in it.
        line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        f.write_str(&line)
    }
}
