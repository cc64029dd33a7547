//! `roadshow stop`: ends what this user's sessions run on this machine, and removes what they leave.

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

/// How long the processes that daemons have left get to end by themselves: they have lost their lifelines.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// How long a process that was killed may take to be gone. One that does not is stuck in the kernel.
const KILLED: Duration = Duration::from_secs(5);

/// Ends the Roadshow processes of yours on this machine, and removes their sessions' files.
///
/// The head's state directory stays: `start --head` goes on from it. Other users' processes and those of
/// other machines are left alone; run it on each.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow stop --force")]
pub(crate) struct Arguments {
    /// Kill at once, rather than let jobs and daemons end in order.
    #[arg(long)]
    force: bool,
    /// How long daemons may take to end in order before they are killed.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    grace_period: Duration,
    /// Only the session in this directory.
    #[arg(long, value_name = "DIR")]
    session_dir: Option<PathBuf>,
    /// Leave the logs where they are.
    #[arg(long)]
    keep_logs: bool,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// How a session is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StopOptions {
    /// How long its daemons have; none at all if they are to be killed.
    pub(crate) grace: Option<Duration>,
    pub(crate) keep_logs: bool,
}

/// What was ended.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stopped {
    session_dir: PathBuf,
    /// Its daemons.
    daemons: Vec<u32>,
    /// What the daemons ran: workers, drivers, and what those have started.
    others: Vec<u32>,
    /// Those of them that had to be killed.
    killed: Vec<u32>,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output<'_>) -> CliResult<()> {
    let home = SessionRoot::of_this_user();
    let sessions = match &arguments.session_dir {
        None => {
            home.check()?;
            home.sessions()
        }
        Some(dir) => vec![Session::read(dir).ok_or_else(|| {
            let text = format!("there is no session of yours alone in {}", dir.display());
            match Session::refused(dir) {
                Some(why) => CliError::unknown(format!("{text}: {why}"), open_to_others(dir)),
                None => {
                    CliError::unknown(text, "`roadshow stop` without --session-dir ends all that there are")
                }
            }
        })?],
    };
    let grace = (!arguments.force).then_some(arguments.grace_period);
    let manner = StopOptions { grace, keep_logs: arguments.keep_logs };
    let mut stopped = Vec::new();
    for session in sessions {
        stopped.push(stop(&session, manner)?);
    }
    home.tidy();
    if arguments.session_dir.is_none() {
        for (dir, why) in home.refused() {
            output.note(&skipped(&dir, &why));
        }
    }
    match arguments.json {
        true => output.json(&stopped),
        false => output.print(&report(&stopped, arguments.session_dir.is_none())),
    }
}

/// What is said about a session that is left alone.
fn skipped(dir: &Path, why: &io::Error) -> String {
    format!("warning: {} is skipped: {why}; {}", dir.display(), open_to_others(dir))
}

/// What to do about a session's directory that others can open.
fn open_to_others(dir: &Path) -> String {
    format!(
        "if you trust what is in it, run `chmod 700 {}` and stop it again; else see who has made it",
        dir.display()
    )
}

/// Ends a session's processes, and removes its files.
pub(crate) fn stop(session: &Session, manner: StopOptions) -> CliResult<Stopped> {
    let daemons: Vec<Process> =
        session.live_processes().into_iter().filter_map(|record| record.open()).collect();
    // Before the daemons end: afterwards nobody knows whose they were.
    let mut others = descendants(&daemons);
    let mut killed = Vec::new();
    if let Some(grace) = manner.grace {
        for daemon in &daemons {
            daemon.signal(Signal::TERM);
        }
        all_ended(&daemons, grace);
    }
    // What has started meanwhile.
    let known: Vec<u32> = others.iter().map(|process| process.pid).collect();
    others.extend(descendants(&daemons).into_iter().filter(|process| !known.contains(&process.pid)));
    kill(&daemons, Duration::ZERO, &mut killed)?;
    kill(&others, LEFT_BEHIND, &mut killed)?;
    session.remove(manner.keep_logs).map_err(|error| {
        let text =
            format!("the processes have ended, but {} cannot be removed: {error}", session.dir.display());
        CliError::failed(text, "then remove what is left of it by hand")
    })?;
    let pids = |processes: &[Process]| processes.iter().map(|process| process.pid).collect();
    let (daemons, others) = (pids(&daemons), pids(&others));
    Ok(Stopped { session_dir: session.dir.clone(), daemons, others, killed })
}

/// Kills those that have not ended in time, and waits until they are gone.
fn kill(processes: &[Process], limit: Duration, killed: &mut Vec<u32>) -> CliResult<()> {
    for process in all_ended(processes, limit) {
        if process.signal(Signal::KILL) {
            killed.push(process.pid);
        }
    }
    match all_ended(processes, KILLED)[..] {
        [] => Ok(()),
        [process, ..] => Err(CliError::failed(
            format!("process {} does not end although it was killed", process.pid),
            "it waits for a disk or a network file system; look at its state with `ps`",
        )),
    }
}

/// What was ended; of all sessions, or of the one that was asked for.
fn report(stopped: &[Stopped], of_all: bool) -> String {
    let mut report = String::new();
    let mut all = 0;
    for Stopped { session_dir, daemons, others, killed } in stopped {
        let session = session_dir.file_name().unwrap_or_default().to_string_lossy();
        all += daemons.len() + others.len();
        if daemons.is_empty() {
            report += &format!("Removed what {session} had left.\n");
            continue;
        }
        let killed =
            if killed.is_empty() { String::new() } else { format!("; {} had to be killed", killed.len()) };
        let daemons = count(daemons.len(), "daemon");
        report += &format!("Ended {session}: {daemons}, {} of their processes{killed}.\n", others.len());
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

    /// A shell that has run its script as far as a line that it writes.
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
    fn daemons_end_in_order_and_nothing_is_left() {
        let scratch = Scratch::new();
        let mut head = shell("trap 'exit 0' TERM; echo; while :; do sleep 0.01; done");
        // A shell that is about to become `sleep` loses a signal.
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
    fn what_does_not_end_in_time_is_killed_with_what_it_ran() {
        let scratch = Scratch::new();
        let mut agent = shell("trap '' TERM; sleep 1000 & echo; while :; do sleep 1000; done");
        let session = session(&scratch, &[(Role::Agent, &agent)]);
        let manner = StopOptions { grace: Some(Duration::from_millis(10)), keep_logs: false };
        let stopped = stop(&session, manner).unwrap();
        assert_eq!(stopped.daemons, [agent.id()]);
        assert!(stopped.killed.len() >= 3 && stopped.killed[0] == agent.id(), "{stopped:?}");
        agent.wait().unwrap();
    }

    #[test]
    fn force_waits_for_nobody() {
        let scratch = Scratch::new();
        let mut agent = shell("trap 'exit 0' TERM; echo; while :; do sleep 0.01; done");
        let session = session(&scratch, &[(Role::Agent, &agent)]);
        let stopped = stop(&session, StopOptions { grace: None, keep_logs: false }).unwrap();
        assert_eq!(stopped.killed[0], agent.id());
        assert!(!agent.wait().unwrap().success());
    }

    #[test]
    fn a_process_that_has_a_daemon_s_number_by_chance_is_left_alone() {
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
    fn the_report_says_what_was_ended() {
        let stopped = |daemons: &[u32], killed: &[u32]| Stopped {
            session_dir: PathBuf::from("home/session_1"),
            daemons: daemons.to_vec(),
            others: Vec::new(),
            killed: killed.to_vec(),
        };
        let expected = "\
Ended session_1: 2 daemons, 0 of their processes; 1 had to be killed.
Removed what session_1 had left.
Stopped all 2 Roadshow processes.
";
        assert_eq!(report(&[stopped(&[1, 2], &[2]), stopped(&[], &[])], true), expected);
        assert_eq!(report(&[stopped(&[], &[])], false), "Removed what session_1 had left.\n");
        assert_eq!(report(&[], true), "No Roadshow process of yours runs on this machine.\n");
    }
}
