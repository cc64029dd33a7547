//! Daemon side of a start: hidden subcommands that read options from standard input and report once.
//!
//! The report is one line of JSON on standard output. Afterwards standard output is redirected into the log.

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

/// Maximum size of the options in bytes; labels and resources of a command line fit well.
const OPTIONS_BYTES_MAX: u64 = 4 << 20;

/// Report of a daemon to `roadshow start`: sent once, when it is ready or cannot start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DaemonStatus<R> {
    Ready(R),
    Failed {
        /// Exit code for the command that started the daemon.
        code: u8,
        why: String,
    },
}

/// Runs `roadshow internal-head`.
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

/// Runs `roadshow internal-agent`.
pub(crate) async fn agent() -> ExitCode {
    let mut answered = false;
    let outcome = match options::<AgentOptions>(Role::Agent) {
        Ok(options) => {
            let _locks = keep_from_cleaners(&options.session_dir);
            let session = Session::read(&options.session_dir).filter(|_| !options.is_head());
            let outcome =
                run_agent(options, |ready| answer(&DaemonStatus::Ready(ready), &mut answered)).await;
            // A stopped node keeps no token on disk: the next start brings its own.
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

/// Locks the session against programs that remove old temporary files, while this process runs.
fn keep_from_cleaners(session_dir: &Path) -> Vec<File> {
    let root = SessionRoot::of_this_user().lock_shared().ok();
    let session = lock_shared(session_dir);
    let session = session.inspect_err(|error| {
        eprintln!("warning: {} cannot be locked, and may be cleaned up: {error}", session_dir.display());
    });
    root.into_iter().chain(session).collect()
}

/// Detaches from the terminal and reads the options from standard input.
fn options<O: DeserializeOwned>(role: Role) -> Result<O, DaemonError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| DaemonError::Failed(format!("{what}: {error}"));
    // First of all, so that no file opened below can be mistaken for an inherited one.
    close_inherited();
    // Fails only for a process group leader, which is detached from the caller's group already.
    let _ = rustix::process::setsid();
    // The kernel takes the name from the executable's link, so `ps` would show "exe".
    let _ = std::fs::write("/proc/self/comm", format!("roadshow-{}", role.name()));
    let mut json = Vec::new();
    let read = io::stdin().take(OPTIONS_BYTES_MAX).read_to_end(&mut json);
    read.map_err(|error| failed("cannot read the options", &error))?;
    let null = File::open("/dev/null").map_err(|error| failed("cannot open /dev/null", &error))?;
    rustix::stdio::dup2_stdin(null).map_err(|error| failed("cannot close the standard input", &error))?;
    serde_json::from_slice(&json)
        .map_err(|error| failed("cannot read the options; start this process by `roadshow start`", &error))
}

/// First file descriptor after the standard streams.
const BEHIND_STDERR: i32 = 3;

/// Closes files that were inherited from the caller of the command.
///
/// Daemons live for days, and their jobs would inherit the files as well. Files that this process has opened
/// are close-on-exec.
fn close_inherited() {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd >= BEHIND_STDERR && outlives_exec(*fd)) {
        // It fails only with EBADF: the descriptor of the directory that was being read is closed by now.
        let _ = nix::unistd::close(fd);
    }
}

/// Reports if programs started by this process inherit the descriptor; false for a closed one.
fn outlives_exec(fd: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlags::CLOEXEC.bits() == 0)
}

/// Reports to the process that started this one, then redirects standard output into the log.
fn answer<R: Serialize>(answer: &DaemonStatus<R>, answered: &mut bool) {
    *answered = true;
    let line = serde_json::to_string(answer).unwrap_or_default();
    let written = writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush());
    // The pipe stays open otherwise, and a script that reads `roadshow start` to its end never finishes.
    let redirected = rustix::stdio::dup2_stdout(io::stderr());
    if written.is_err() || redirected.is_err() {
        // The session file does not list a daemon whose start was interrupted, so `stop` cannot find it.
        eprintln!("error: cannot report to the command that started this process; run it again");
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
