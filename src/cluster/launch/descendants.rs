//! Descendants of a worker, found in the process table and ended.
//!
//! A process belongs to a worker if one of these holds:
//!
//! - it descends from the worker by parent pids;
//! - it is in the worker's process group or session;
//! - its environment has the worker's mark, a variable with a random value that child processes inherit. The mark
//!   finds a daemon that left the session and whose parents have ended.
//!
//! A driver's own children match none of these.
//!
//! ```text
//!   scan the process table  -->  SIGSTOP what is new  --+--> nothing new, all stopped  -->  SIGKILL, wait  --+
//!          ^                                            |                                                    |
//!          '--------------------------------------------'                          until nothing is found <--'
//! ```
//!
//! Processes are stopped before any is killed, since a running one could fork while its siblings are killed. A
//! pidfd holds each of them, so no signal reaches a process that was given a reused pid.

mod shared_scan;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, geteuid, pidfd_open, pidfd_send_signal, waitid,
};

use crate::config::DESCENDANTS_END_TIMEOUT;
use crate::observe::log;
use shared_scan::SharedScan;

/// Environment variable with the marks of all workers that a process descends from, separated by colons.
pub(crate) const MARK_VARIABLE: &str = "ROADSHOW_STARTED_BY";

/// Pause between two scans while processes stop.
const SCAN_INTERVAL: Duration = Duration::from_millis(1);

/// Scan of the process table, shared by all workers that end at the same time.
static TABLE: SharedScan<ProcessTable> = SharedScan::new();

/// Random value that only a worker and its descendants have in their environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerMark(String);

impl WorkerMark {
    pub(crate) fn new() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// Mark of the worker that this process is, or was started by.
    pub(crate) fn of_this_process() -> Option<Self> {
        let marks = std::env::var(MARK_VARIABLE).ok()?;
        marks.rsplit(':').next().map(|mark| Self(mark.to_owned()))
    }

    /// Value of [`MARK_VARIABLE`] for a new process: the marks of this process, and this one.
    pub(crate) fn value(&self) -> OsString {
        // The outer marks stay: a worker may be a descendant of another worker, which must find it too.
        let mut marks = std::env::var_os(MARK_VARIABLE).unwrap_or_default();
        if !marks.is_empty() {
            marks.push(":");
        }
        marks.push(&self.0);
        marks
    }

    /// Reports that this is one of the colon-separated marks.
    fn is_in(&self, marks: &[u8]) -> bool {
        marks.split(|byte| *byte == b':').any(|mark| mark == self.0.as_bytes())
    }
}

/// Marks in an environment, as `/proc` shows it; empty if there are none.
fn marks_of(environment: &[u8]) -> &[u8] {
    let name = [MARK_VARIABLE.as_bytes(), b"="].concat();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(name.as_slice())).unwrap_or_default()
}

/// Reports that this process has children, including those that wait to be reaped.
pub(crate) fn has_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// Ends all descendants of a process, and not the process itself.
///
/// The process must not have been reaped, or its pid may belong to another process. Blocks until the descendants
/// have ended, for at most [`DESCENDANTS_END_TIMEOUT`]: a process may be blocked in the kernel.
pub(crate) fn end_all(of: u32, mark: Option<&WorkerMark>) {
    if !end_selected(&Selector { of, mark, user: None }) {
        log::warn!(worker = of, "descendants of a worker do not end; they may be blocked in the kernel");
    }
}

/// Ends all processes of a user and their descendants; returns true if none is left.
#[cfg(feature = "cli")]
pub(crate) fn end_user(uid: u32) -> bool {
    // No process has the pid 0.
    end_selected(&Selector { of: 0, mark: None, user: Some(uid) })
}

/// Criteria that select processes.
#[derive(Clone, Copy, Debug)]
struct Selector<'a> {
    /// Descendants of this process, and members of its process group or session.
    of: u32,
    mark: Option<&'a WorkerMark>,
    user: Option<u32>,
}

/// Ends the selected processes; returns false if some are left after the timeout.
fn end_selected(selector: &Selector<'_>) -> bool {
    let until = Instant::now() + DESCENDANTS_END_TIMEOUT;
    while Instant::now() < until {
        // A process may fork between the scan and its own stop, hence the loop.
        let stopped = stop_all(selector, until);
        if stopped.is_empty() {
            return true;
        }
        stopped.iter().for_each(|process| process.signal(Signal::KILL));
        stopped.iter().for_each(|process| process.wait(until));
    }
    false
}

/// Ends all processes with a mark.
#[cfg(feature = "cli")]
pub(crate) fn end_marked(mark: &WorkerMark) {
    // No process has the pid 0.
    end_all(0, Some(mark));
}

/// Ends one process and all of its descendants.
#[cfg(feature = "cli")]
pub(crate) fn end(process: ProcessId) {
    if let Some(root) = ProcessRow::read(process.pid)
        .filter(|row| row.id() == process)
        .and_then(|row| ProcessHandle::open(&row))
    {
        // The root is killed last: its descendants are found through it.
        end_all(process.pid, None);
        root.signal(Signal::KILL);
    }
}

/// Stops the selected processes until a scan finds all of them stopped and none new.
fn stop_all(selector: &Selector<'_>, until: Instant) -> Vec<ProcessHandle> {
    let mut stopped = BTreeMap::new();
    loop {
        let table = TABLE.scan(ProcessTable::read);
        let mut settled = true;
        for row in table.matching(selector, &stopped.keys().copied().collect()) {
            settled &= row.is_stopped() && stopped.contains_key(&row.pid);
            if !stopped.contains_key(&row.pid)
                && let Some(process) = ProcessHandle::open(row)
            {
                process.signal(Signal::STOP);
                stopped.insert(row.pid, process);
            }
        }
        if settled || Instant::now() >= until {
            return stopped.into_values().collect();
        }
        thread::park_timeout(SCAN_INTERVAL);
    }
}

/// Pidfd of a process: refers to this process even when its pid is reused.
#[derive(Debug)]
struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    fn open(row: &ProcessRow) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(row.pid).ok()?)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // Compared after the pidfd was opened: from then on the pid cannot be reused unnoticed.
        let is_same = ProcessRow::read(row.pid).is_some_and(|now| now.start_ticks == row.start_ticks);
        is_same.then_some(Self(handle))
    }

    fn signal(&self, signal: Signal) {
        // It fails for a process that has ended, or that has changed its user.
        let _ = pidfd_send_signal(&self.0, signal);
    }

    fn wait(&self, until: Instant) {
        let rest = until.saturating_duration_since(Instant::now());
        // The next scan shows which processes are left.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Timespec::try_from(rest).ok().as_ref());
    }
}

/// Process table: the processes of this user, or for root, selector jobs may run as other users, all processes.
#[derive(Debug)]
pub(crate) struct ProcessTable(Vec<ProcessRow>);

/// Process, as `/proc/PID/stat` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessRow {
    pub(crate) pid: u32,
    state: u8,
    parent: u32,
    group: u32,
    session: u32,
    start_ticks: u64,
    /// Marks in its environment. Read on demand, and once for all users of a shared scan.
    marks: OnceLock<Box<[u8]>>,
    /// Real, effective, saved and file system user. Read on demand, and once for all users of a shared scan.
    users: OnceLock<Box<[u32]>>,
}

/// Pid and start time of a process, which no other process shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    start_ticks: u64,
}

impl ProcessTable {
    pub(crate) fn read() -> Self {
        let user = geteuid();
        let entries = std::fs::read_dir("/proc").inspect_err(|error| {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| log::warn!(%error, "cannot read /proc: what workers start may outlive them"));
        });
        let entries = entries.into_iter().flatten().flatten();
        let is_own = |metadata: std::fs::Metadata| metadata.uid() == user.as_raw();
        let own = entries.filter(|entry| user.is_root() || entry.metadata().is_ok_and(is_own));
        let pids = own.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(pids.filter_map(ProcessRow::read).collect())
    }

    /// Live processes that match the criteria, and the descendants of those and of `others`.
    fn matching(&self, selector: &Selector<'_>, others: &BTreeSet<u32>) -> Vec<&ProcessRow> {
        let Selector { of, mark, user } = *selector;
        let this = std::process::id();
        let root = self.0.iter().find(|row| row.pid == of);
        // An older process cannot have inherited the mark; reading its environment would be a waste.
        let root_start = root.map_or(0, |root| root.start_ticks);
        let belongs = |row: &ProcessRow| {
            let is_grouped = root.is_some() && (row.group == of || row.session == of);
            is_grouped
                || others.contains(&row.pid)
                || mark.is_some_and(|mark| row.start_ticks >= root_start && mark.is_in(row.marks()))
                || user.is_some_and(|user| row.users().contains(&user))
        };
        let candidates = || self.0.iter().filter(|row| row.pid != of && row.pid != this);
        let mut found: BTreeSet<u32> = candidates().filter(|row| belongs(row)).map(|row| row.pid).collect();
        // Parent links are followed until no more are found. Marks and groups may match a process in the middle of
        // the tree, whose descendants belong to the worker, too.
        let is_child = |row: &ProcessRow, found: &BTreeSet<u32>| {
            (root.is_some() && row.parent == of) || found.contains(&row.parent)
        };
        while let Some(next) = candidates().find(|row| !found.contains(&row.pid) && is_child(row, &found)) {
            found.insert(next.pid);
        }
        candidates().filter(|row| found.contains(&row.pid) && !row.has_ended()).collect()
    }

    /// Users of the processes, without those that wait to be reaped.
    #[cfg(feature = "cli")]
    pub(crate) fn users(&self) -> BTreeSet<u32> {
        self.0.iter().filter(|row| !row.has_ended()).flat_map(|row| row.users().iter().copied()).collect()
    }

    /// Children of this process, including those that wait to be reaped.
    #[cfg(feature = "cli")]
    pub(crate) fn children(&self) -> impl Iterator<Item = &ProcessRow> {
        let this = std::process::id();
        self.0.iter().filter(move |row| row.parent == this)
    }
}

impl ProcessRow {
    pub(crate) const fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_ticks: self.start_ticks }
    }

    fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses a line of `/proc/PID/stat`. The name, in parentheses, may contain any byte, also parentheses.
    fn parse(pid: u32, line: &[u8]) -> Option<Self> {
        let behind_name = line.iter().rposition(|byte| *byte == b')')? + 1;
        let fields = std::str::from_utf8(&line[behind_name..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        Some(Self {
            pid,
            state: *fields.next()?.as_bytes().first()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            session: fields.next()?.parse().ok()?,
            // Field 22 of the line, counted from 1.
            start_ticks: fields.nth(15)?.parse().ok()?,
            marks: OnceLock::new(),
            users: OnceLock::new(),
        })
    }

    /// Reports that the process runs no more, even if it was not reaped.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    const fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Marks of the process; empty if this user may not read its environment.
    fn marks(&self) -> &[u8] {
        self.marks.get_or_init(|| {
            let environment = std::fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
            marks_of(&environment).into()
        })
    }

    /// Users of the process; empty once it was reaped. The owner of `/proc/PID` would not do: it is root for a
    /// process that has made itself undumpable.
    fn users(&self) -> &[u32] {
        self.users.get_or_init(|| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
            line.split_ascii_whitespace().filter_map(|uid| uid.parse().ok()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn the_name_of_a_process_may_look_like_fields() {
        let line = b"12 (a) R 1) S 7 8 9 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4567 89 1";
        let row = ProcessRow {
            pid: 12,
            state: b'S',
            parent: 7,
            group: 8,
            session: 9,
            start_ticks: 4567,
            marks: OnceLock::new(),
            users: OnceLock::new(),
        };
        assert_eq!(ProcessRow::parse(12, line), Some(row));
        assert_eq!(ProcessRow::parse(12, b"12 (a) S 7"), None);
        assert_eq!(ProcessRow::parse(12, b""), None);
    }

    #[test]
    fn a_mark_matches_whole_values_of_its_variable_only() {
        let (mark, other) = (WorkerMark::new().unwrap(), WorkerMark::new().unwrap());
        let marks = |value: &str| {
            let environment = format!("A=b\0{MARK_VARIABLE}={value}\0C=d\0");
            marks_of(environment.as_bytes()).to_vec()
        };
        assert!(mark.is_in(&marks(&mark.0)));
        assert!(mark.is_in(&marks(&format!("{}:{}", mark.0, other.0))));
        assert!(!mark.is_in(&marks(&other.0)));
        assert!(!mark.is_in(&marks(&mark.0[1..])));
        assert!(marks_of(format!("A={}\0", mark.0).as_bytes()).is_empty());
        assert!(marks_of(b"").is_empty() && !mark.is_in(b""));
    }

    /// A shell that has written a line for each of its `sleep`s, with its number; it is killed when dropped.
    struct Shell(Child);

    impl Shell {
        fn run(script: &str, mark: &WorkerMark) -> (Self, u32) {
            Self::run_as(geteuid().as_raw(), script, mark)
        }

        fn run_as(uid: u32, script: &str, mark: &WorkerMark) -> (Self, u32) {
            let mut command = Command::new("sh");
            if uid != geteuid().as_raw() {
                command.uid(uid);
            }
            command.args(["-c", script]).env(MARK_VARIABLE, &mark.0).stdout(Stdio::piped());
            let mut shell = Self(command.spawn().unwrap());
            let mut line = String::new();
            let output = shell.0.stdout.take().unwrap();
            io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).unwrap();
            (shell, line.trim().parse().unwrap())
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            // Both fail only for a process that has ended and was waited for.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn runs(pid: u32) -> bool {
        ProcessRow::read(pid).is_some_and(|row| !row.has_ended())
    }

    #[test]
    fn a_daemon_is_found_by_its_mark_and_an_unmarked_child_by_its_parent() {
        let scripts = [
            "setsid sh -c 'echo $$; exec sleep 1000' >&1 & wait",
            "(setsid sh -c 'echo $$; exec sleep 1000' >&1 &) ; exec sleep 1000",
            "env -i setsid sh -c 'echo $$; exec sleep 1000' & wait",
        ];
        for script in scripts {
            let mark = WorkerMark::new().unwrap();
            let (shell, sleep) = Shell::run(script, &mark);
            assert!(runs(sleep), "{script}");
            end_all(shell.0.id(), Some(&mark));
            assert!(!runs(sleep), "{script}");
            assert!(runs(shell.0.id()) || script.ends_with("wait"), "{script}");
        }
    }

    #[test]
    fn processes_with_another_mark_are_left_alone() {
        let (mark, other) = (WorkerMark::new().unwrap(), WorkerMark::new().unwrap());
        let (other_shell, sleep) = Shell::run("sh -c 'echo $$; exec sleep 1000'", &other);
        let (shell, below) = Shell::run("sh -c 'echo $$; exec sleep 1000'", &mark);
        end_all(shell.0.id(), Some(&mark));
        assert!(!runs(below) && runs(sleep));
        end_all(other_shell.0.id(), Some(&other));
    }

    #[cfg(feature = "cli")]
    #[test]
    fn all_processes_of_a_user_end_even_daemons_without_a_mark() {
        const UID: u32 = 61_150;
        if !geteuid().is_root() {
            return eprintln!("skipped: only root may start a process as another user");
        }
        let mark = WorkerMark::new().unwrap();
        let (other, _) = Shell::run("echo $$; exec sleep 1000", &mark);
        let (shell, daemon) =
            Shell::run_as(UID, "(env -i setsid sh -c 'echo $$; exec sleep 1000' &); exec sleep 1000", &mark);
        assert!(runs(daemon) && runs(shell.0.id()) && ProcessTable::read().users().contains(&UID));
        assert!(end_user(UID));
        assert!(!runs(daemon) && !runs(shell.0.id()) && !ProcessTable::read().users().contains(&UID));
        assert!(runs(other.0.id()));
    }

    #[test]
    fn the_marks_of_the_parents_come_first() {
        let mark = WorkerMark::new().unwrap();
        assert!(mark.value().as_bytes().ends_with(mark.0.as_bytes()));
    }
}
