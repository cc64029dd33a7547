//! `roadshow stop`: stops the processes of this user's sessions on this machine, and removes their files.
//!
//! ```text
//! SIGTERM to the daemons -> grace period -> SIGKILL to the daemons that are left
//!   -> 500 ms for workers and drivers, whose control socket to the agent is closed -> SIGKILL to the rest
//!   -> session directory removed
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use crate::cli::values::seconds;
use crate::error::{CliError, CliResult};
use crate::output::Output;
use crate::output::table::count;
use crate::session::{Process, Session, SessionRoot, all_ended, descendants};

/// Time for orphaned workers to exit by themselves: the end of their agent has closed their control socket.
const ORPHAN_EXIT_WAIT: Duration = Duration::from_millis(500);

/// Time for a killed process to exit; one that takes longer is stuck in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Stops your Roadshow processes on this machine, and removes the files of their sessions.
///
/// The head's state directory stays: the next `start --head` continues from it. Processes of other users and on other
/// machines keep running; run the command on each machine.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow stop --force")]
pub(crate) struct StopArgs {
    /// Kill immediately, instead of stopping jobs and daemons gracefully.
    #[arg(long)]
    force: bool,
    /// Seconds for daemons to stop gracefully before they are killed.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    grace_period: Duration,
    /// Stop only the session in this directory.
    #[arg(long, value_name = "DIR")]
    session_dir: Option<PathBuf>,
    /// Keep the log files.
    #[arg(long)]
    keep_logs: bool,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// Options for stopping a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StopOptions {
    /// Time for daemons to stop gracefully; none kills them immediately.
    pub(crate) grace: Option<Duration>,
    pub(crate) keep_logs: bool,
}

/// Result of stopping one session.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stopped {
    session_dir: PathBuf,
    /// Process ids of the daemons.
    daemons: Vec<u32>,
    /// Process ids of workers, drivers and their descendants.
    others: Vec<u32>,
    /// Process ids, of either kind, that had to be killed.
    killed: Vec<u32>,
}

pub(crate) fn run(arguments: &StopArgs, output: &mut Output<'_>) -> CliResult<()> {
    let root = SessionRoot::of_this_user();
    let sessions = match &arguments.session_dir {
        None => {
            root.check()?;
            root.sessions()
        }
        Some(dir) => vec![Session::read(dir).ok_or_else(|| {
            let text = format!("there is no session of yours alone in {}", dir.display());
            match Session::refused(dir) {
                Some(why) => CliError::unknown(format!("{text}: {why}"), open_to_others(dir)),
                None => CliError::unknown(
                    text,
                    "`roadshow stop` without --session-dir stops all sessions of yours",
                ),
            }
        })?],
    };
    let grace = (!arguments.force).then_some(arguments.grace_period);
    let options = StopOptions { grace, keep_logs: arguments.keep_logs };
    let mut stopped = Vec::new();
    for session in sessions {
        stopped.push(stop(&session, options)?);
    }
    root.tidy();
    if arguments.session_dir.is_none() {
        for (dir, why) in root.refused() {
            output.note(&skipped(&dir, &why));
        }
    }
    match arguments.json {
        true => output.json(&stopped),
        false => output.print(&report(&stopped, arguments.session_dir.is_none())),
    }
}

/// Warning about a session that is skipped.
fn skipped(dir: &Path, why: &io::Error) -> String {
    format!("warning: {} is skipped: {why}; {}", dir.display(), open_to_others(dir))
}

/// Next step for a session directory that other users can open.
fn open_to_others(dir: &Path) -> String {
    format!(
        "if you trust its content, run `chmod 700 {}` and stop again; else find out who created it",
        dir.display()
    )
}

/// Stops the processes of a session, and removes its files.
pub(crate) fn stop(session: &Session, options: StopOptions) -> CliResult<Stopped> {
    let daemons: Vec<Process> =
        session.live_processes().into_iter().filter_map(|record| record.open()).collect();
    // Before the daemons end: the kernel then gives their children to init, and the link to the session is lost.
    let mut others = descendants(&daemons);
    let mut killed = Vec::new();
    if let Some(grace) = options.grace {
        for daemon in &daemons {
            daemon.signal(Signal::TERM);
        }
        all_ended(&daemons, grace);
    }
    // A daemon may have started a worker between the first scan and its signal.
    let known: Vec<u32> = others.iter().map(|process| process.pid).collect();
    others.extend(descendants(&daemons).into_iter().filter(|process| !known.contains(&process.pid)));
    kill(&daemons, Duration::ZERO, &mut killed)?;
    kill(&others, ORPHAN_EXIT_WAIT, &mut killed)?;
    session.remove(options.keep_logs).map_err(|error| {
        let text =
            format!("the processes have ended, but {} cannot be removed: {error}", session.dir.display());
        CliError::failed(text, "remove the rest of it by hand")
    })?;
    let pids = |processes: &[Process]| processes.iter().map(|process| process.pid).collect();
    let (daemons, others) = (pids(&daemons), pids(&others));
    Ok(Stopped { session_dir: session.dir.clone(), daemons, others, killed })
}

/// Kills the processes that are alive after the limit, and waits until they have exited.
fn kill(processes: &[Process], limit: Duration, killed: &mut Vec<u32>) -> CliResult<()> {
    for process in all_ended(processes, limit) {
        if process.signal(Signal::KILL) {
            killed.push(process.pid);
        }
    }
    match all_ended(processes, KILL_TIMEOUT)[..] {
        [] => Ok(()),
        [process, ..] => Err(CliError::failed(
            format!("process {} does not end although it was killed", process.pid),
            "it waits for a disk or a network file system; check its state with `ps`",
        )),
    }
}

/// Human-readable result, for all sessions or for the requested one.
fn report(stopped: &[Stopped], of_all: bool) -> String {
    let mut report = String::new();
    let mut all = 0;
    for Stopped { session_dir, daemons, others, killed } in stopped {
        let session = session_dir.file_name().unwrap_or_default().to_string_lossy();
        all += daemons.len() + others.len();
        if daemons.is_empty() {
            report += &format!("Removed the files of {session}.\n");
            continue;
        }
        let killed =
            if killed.is_empty() { String::new() } else { format!("; {} had to be killed", killed.len()) };
        let daemons = count(daemons.len(), "daemon");
        report += &format!("Stopped {session}: {daemons} and {} of their processes{killed}.\n", others.len());
    }
    report
        + &match all {
            _ if !of_all => String::new(),
            0 => "No Roadshow process of yours runs on this machine.\n".to_owned(),
            1 => "Stopped the one Roadshow process.\n".to_owned(),
            all => format!("Stopped all {all} Roadshow processes.\n"),
        }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::session::Role;
    use crate::session::tests::{Scratch, node};

    const SHUTDOWN_GRACE: StopOptions =
        StopOptions { grace: Some(Duration::from_secs(10)), keep_logs: false };

    /// Runs a script in a shell, and returns when the script has written its first byte.
    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    fn session(scratch: &Scratch, daemons: &[(Role, &Child)]) -> Session {
        let dir = scratch.0.join("session");
        std::fs::create_dir(&dir).unwrap();
        let pids: Vec<_> = daemons.iter().map(|(role, child)| (*role, child.id())).collect();
        let session = Session { dir, node: node(1, &pids) };
        session.save().unwrap();
        session
    }

    #[test]
    fn daemons_stop_gracefully_and_nothing_is_left() {
        let scratch = Scratch::new();
        let mut head = shell("trap 'exit 0' TERM; echo; while :; do sleep 0.01; done");
        // A forked shell that has not executed `sleep` yet loses the signal.
        let is_sleep = "until [ \"$(cat /proc/$!/comm)\" = sleep ]; do :; done";
        let script = format!("trap 'kill $!; wait; exit 0' TERM; sleep 1000 & {is_sleep}; echo; wait");
        let mut agent = shell(&script);
        let session = session(&scratch, &[(Role::Head, &head), (Role::Agent, &agent)]);
        let stopped = stop(&session, SHUTDOWN_GRACE).unwrap();
        assert_eq!((&stopped.daemons[..], &stopped.killed[..]), (&[head.id(), agent.id()][..], &[][..]));
        assert!(!stopped.others.is_empty());
        assert!(!session.dir.exists());
        assert!(head.wait().unwrap().success() && agent.wait().unwrap().success());
    }

    #[test]
    fn daemon_that_does_not_stop_in_time_is_killed_with_its_descendants() {
        let scratch = Scratch::new();
        let mut agent = shell("trap '' TERM; sleep 1000 & echo; while :; do sleep 1000; done");
        let session = session(&scratch, &[(Role::Agent, &agent)]);
        let options = StopOptions { grace: Some(Duration::from_millis(10)), keep_logs: false };
        let stopped = stop(&session, options).unwrap();
        assert_eq!(stopped.daemons, [agent.id()]);
        assert!(stopped.killed.len() >= 3 && stopped.killed[0] == agent.id(), "{stopped:?}");
        agent.wait().unwrap();
    }

    #[test]
    fn force_does_not_wait() {
        let scratch = Scratch::new();
        let mut agent = shell("trap 'exit 0' TERM; echo; while :; do sleep 0.01; done");
        let session = session(&scratch, &[(Role::Agent, &agent)]);
        let stopped = stop(&session, StopOptions { grace: None, keep_logs: false }).unwrap();
        assert_eq!(stopped.killed[0], agent.id());
        assert!(!agent.wait().unwrap().success());
    }

    #[test]
    fn process_that_reuses_the_pid_of_a_daemon_is_left_alone() {
        let scratch = Scratch::new();
        let mut innocent = shell("echo; exec sleep 1000");
        let mut session = session(&scratch, &[(Role::Agent, &innocent)]);
        session.node.processes[0].start_ticks -= 1;
        let stopped = stop(&session, SHUTDOWN_GRACE).unwrap();
        assert!(stopped.daemons.is_empty());
        assert_eq!(innocent.try_wait().unwrap(), None);
        innocent.kill().unwrap();
        innocent.wait().unwrap();
    }

    #[test]
    fn report_names_sessions_and_counts_processes() {
        let stopped = |daemons: &[u32], killed: &[u32]| Stopped {
            session_dir: PathBuf::from("home/session_1"),
            daemons: daemons.to_vec(),
            others: Vec::new(),
            killed: killed.to_vec(),
        };
        let expected = "\
Stopped session_1: 2 daemons and 0 of their processes; 1 had to be killed.
Removed the files of session_1.
Stopped all 2 Roadshow processes.
";
        assert_eq!(report(&[stopped(&[1, 2], &[2]), stopped(&[], &[])], true), expected);
        assert_eq!(report(&[stopped(&[], &[])], false), "Removed the files of session_1.\n");
        assert_eq!(report(&[], true), "No Roadshow process of yours runs on this machine.\n");
    }
}
