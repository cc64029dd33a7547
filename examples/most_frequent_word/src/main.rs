//! The most frequent word of a text, found in sequence, in slices, as tasks and by actors.
//!
//! ```text
//! cargo run --release --example most_frequent_word -- --book FILE --nodes 4
//! ```
//!
//! Every method is timed, and the table compares it with the two that use no cluster. `slices` is the
//! baseline: the same parts and the same merge as tasks and actors, one after another in this process. With
//! list counting, n parts are n times quicker than the whole text even on one core. So only a gain over
//! `slices` is due to the cluster. The time of the actors includes spawning them and sending them their
//! parts; the start of the cluster is reported separately.
//!
//! Exit codes: 0 success, 1 the cluster or a run failed, 2 the options or the text are not usable. A code
//! other than 0 comes with one line on standard error, after any log lines of the library about a worker
//! that ended. Standard output is empty then.

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
        // A reader such as `head` has closed the pipe on purpose.
        Err(err) if err.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|err| Failure::Run(err.into())),
    }
}

/// Failure of the program, by its remedy.
#[derive(Debug)]
enum Failure {
    /// Unusable options or text: exit code 2.
    Input(String),
    /// Failed cluster or run: exit code 1.
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
        // Always one line, even if a file name or a panic text has several.
        line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        f.write_str(&line)
    }
}
