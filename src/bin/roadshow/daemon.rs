//! The daemons' own side of a start: hidden subcommands that read their options from the standard input
//! and answer with one line on the standard output.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use roadshow::daemon::{AgentOptions, DaemonError, HeadOptions, run_agent, run_head};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit;
use crate::session::{Role, Session, SessionRoot, lock_shared};

/// The longest options: labels and resources of a command line.
const OPTIONS_BYTES_MAX: u64 = 4 << 20;

/// What a daemon says once, when it is ready or will not be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DaemonStatus<R> {
    Ready(R),
    Failed {
        /// What the command that started it is to end with.
        code: u8,
        why: String,
    },
}

/// `roadshow internal-head`.
pub(crate) async fn head() -> ExitCode {
    let mut answered = false;
    let outcome = match options::<HeadOptions>(Role::Head) {
        Ok(options) => {
            let _locks = keep_from_cleaners(&options.session_dir);
            run_head(options, |ready| answer(&DaemonStatus::Ready(ready), &mut answered)).await
        }
        Err(error) => Err(error),
    };
    end(outcome, answered)
}

/// `roadshow internal-agent`.
pub(crate) async fn agent() -> ExitCode {
    let mut answered = false;
    let outcome = match options::<AgentOptions>(Role::Agent) {
        Ok(options) => {
            let _locks = keep_from_cleaners(&options.session_dir);
            let session = Session::read(&options.session_dir).filter(|_| !options.is_head());
            let outcome =
                run_agent(options, |ready| answer(&DaemonStatus::Ready(ready), &mut answered)).await;
            // Another life of it is given a token again.
            if let (Ok(()), Some(session)) = (&outcome, session)
                && let Err(error) = session.clean_secrets()
            {
                eprintln!("error: {} cannot be tidied up: {error}; remove it", session.dir.display());
            }
            outcome
        }
        Err(error) => Err(error),
    };
    end(outcome, answered)
}

/// Keeps programs that remove old temporary files from the session, as long as this process runs.
fn keep_from_cleaners(session_dir: &Path) -> Vec<File> {
    let home = SessionRoot::of_this_user().lock_shared().ok();
    let session = lock_shared(session_dir);
    let session = session.inspect_err(|error| {
        eprintln!("warning: {} cannot be locked, and may be cleaned up: {error}", session_dir.display());
    });
    home.into_iter().chain(session).collect()
}

/// Leaves the terminal and its session, and reads what to be.
fn options<O: DeserializeOwned>(role: Role) -> Result<O, DaemonError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| DaemonError::Failed(format!("{what}: {error}"));
    close_inherited();
    // Fails for a process that leads a group already, which is not in anybody's way.
    let _ = rustix::process::setsid();
    // For those who look at the process table; without it the name is that of the link, "exe".
    let _ = std::fs::write("/proc/self/comm", format!("roadshow-{}", role.name()));
    let mut json = Vec::new();
    let read = io::stdin().take(OPTIONS_BYTES_MAX).read_to_end(&mut json);
    read.map_err(|error| failed("cannot read the options", &error))?;
    let null = File::open("/dev/null").map_err(|error| failed("cannot open /dev/null", &error))?;
    rustix::stdio::dup2_stdin(null).map_err(|error| failed("cannot close the standard input", &error))?;
    serde_json::from_slice(&json).map_err(|error| {
        failed("this is for `roadshow start`, which says what to be; the options are not understood", &error)
    })
}

/// The first descriptor behind those of the standard streams.
const BEHIND_STDERR: i32 = 3;

/// Closes files that the caller of the command has left open: jobs would have them, too. Files that this process has
/// opened are close-on-exec.
fn close_inherited() {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd >= BEHIND_STDERR && outlives_exec(*fd)) {
        // It fails only for one that is closed.
        let _ = nix::unistd::close(fd);
    }
}

/// Whether programs that this process starts have the file, as the kernel says; no for one that is not open.
fn outlives_exec(fd: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlags::CLOEXEC.bits() == 0)
}

/// Tells who has started it, and has nothing more to do with them.
fn answer<R: Serialize>(answer: &DaemonStatus<R>, answered: &mut bool) {
    *answered = true;
    let line = serde_json::to_string(answer).unwrap_or_default();
    let told = writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush());
    // What is written from now on belongs into the log.
    let turned = rustix::stdio::dup2_stdout(io::stderr());
    if told.is_err() || turned.is_err() {
        // Nobody knows of a daemon whose start was broken off.
        eprintln!("error: whoever has started this process is gone; start it again");
        std::process::exit(exit::FAILED.into());
    }
}

fn end(outcome: Result<(), DaemonError>, answered: bool) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::from(exit::OK) };
    let code = match &error {
        DaemonError::Refused(_) => exit::REFUSED,
        DaemonError::Unreachable(_) => exit::UNREACHABLE,
        _ => exit::FAILED,
    };
    match answered {
        true => eprintln!("error: {error}"),
        false => answer::<()>(&DaemonStatus::Failed { code, why: error.to_string() }, &mut true),
    }
    ExitCode::from(code)
}
