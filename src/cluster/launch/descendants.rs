//! All that a worker has started, found in the process table and ended.
//!
//! A process belongs to a worker if it descends from it, is in its process group or session, or has its mark:
//! a variable of the environment that each worker has another value of, and that what it starts inherits. So
//! it is found, too, once its parents have ended and it has made a session of its own. A driver's own children
//! have none of these.
//!
//! What is found is first stopped, until nothing new is found, and then killed: nothing of it can start more
//! meanwhile. Processes are held by descriptors, so that none is signalled that got the number of another.

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

use crate::config::OFFSPRING_END_TIMEOUT;
use crate::observe::log;
use shared_scan::SharedLook;

/// The variable with the marks of all workers that a process descends from, a colon between two.
pub(crate) const MARK_VARIABLE: &str = "ROADSHOW_STARTED_BY";

/// Pause between two looks at processes that are about to stop.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The process table, for all ends of workers that look at it at the same time.
static TABLE: SharedLook<Table> = SharedLook::new();

/// What the environment of a worker, and of all that it starts, has and no other has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// The mark that this process was started with.
    pub(crate) fn of_this_process() -> Option<Self> {
        let marks = std::env::var(MARK_VARIABLE).ok()?;
        marks.rsplit(':').next().map(|mark| Self(mark.to_owned()))
    }

    /// The value for a process to be started: the marks that this process has, and this one.
    pub(crate) fn value(&self) -> OsString {
        let mut marks = std::env::var_os(MARK_VARIABLE).unwrap_or_default();
        if !marks.is_empty() {
            marks.push(":");
        }
        marks.push(&self.0);
        marks
    }

    /// Whether it is one of these, which have colons between them.
    fn is_in(&self, marks: &[u8]) -> bool {
        marks.split(|byte| *byte == b':').any(|mark| mark == self.0.as_bytes())
    }
}

/// The marks in an environment, as `/proc` shows it; empty if there are none.
fn marks_of(environment: &[u8]) -> &[u8] {
    let name = [MARK_VARIABLE.as_bytes(), b"="].concat();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(name.as_slice())).unwrap_or_default()
}

/// Whether this process has children, also some that wait to be reaped.
pub(crate) fn has_children() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}

/// Ends all that a process has started, and not the process itself.
///
/// The process must not have been reaped, or its number may be another's. Blocks until all of it is gone, at
/// most for [`OFFSPRING_END_TIMEOUT`]: a process may be stuck in the kernel.
pub(crate) fn end_all(of: u32, mark: Option<&Mark>) {
    if !end_whole(&Whose { of, mark, user: None }) {
        log::warn!(worker = of, "processes that a worker has started do not end");
    }
}

/// Ends all processes of a user, and what those have started; gives whether none is left.
#[cfg(feature = "cli")]
pub(crate) fn end_user(uid: u32) -> bool {
    // No process has the number 0.
    end_whole(&Whose { of: 0, mark: None, user: Some(uid) })
}

/// What processes are to have in common.
#[derive(Clone, Copy, Debug)]
struct Whose<'a> {
    /// Started by this process, or in its group or session.
    of: u32,
    mark: Option<&'a Mark>,
    user: Option<u32>,
}

/// Whether all of it has ended in time.
fn end_whole(whose: &Whose<'_>) -> bool {
    let until = Instant::now() + OFFSPRING_END_TIMEOUT;
    while Instant::now() < until {
        let stopped = stop_all(whose, until);
        if stopped.is_empty() {
            return true;
        }
        stopped.iter().for_each(|process| process.signal(Signal::KILL));
        stopped.iter().for_each(|process| process.wait(until));
    }
    false
}

/// Ends all that has a mark.
#[cfg(feature = "cli")]
pub(crate) fn end_marked(mark: &Mark) {
    // No process has this number.
    end_all(0, Some(mark));
}

/// Ends one process and all that it has started.
#[cfg(feature = "cli")]
pub(crate) fn end(process: ProcessId) {
    if let Some(held) =
        Row::read(process.pid).filter(|row| row.id() == process).and_then(|row| Held::open(&row))
    {
        end_all(process.pid, None);
        held.signal(Signal::KILL);
    }
}

/// Stops all that belongs to a process, until it starts nothing more.
fn stop_all(whose: &Whose<'_>, until: Instant) -> Vec<Held> {
    let mut held = BTreeMap::new();
    loop {
        let table = TABLE.look(Table::read);
        let mut settled = true;
        for row in table.below(whose, &held.keys().copied().collect()) {
            settled &= row.is_stopped() && held.contains_key(&row.pid);
            if !held.contains_key(&row.pid)
                && let Some(process) = Held::open(row)
            {
                process.signal(Signal::STOP);
                held.insert(row.pid, process);
            }
        }
        if settled || Instant::now() >= until {
            return held.into_values().collect();
        }
        thread::park_timeout(LOOK_EVERY);
    }
}

/// A hold of a process, whichever may have its number later.
#[derive(Debug)]
struct Held(OwnedFd);

impl Held {
    fn open(row: &Row) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(row.pid).ok()?)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // Read after the hold was taken: from now on the number is its own.
        let is_same = Row::read(row.pid).is_some_and(|now| now.start_ticks == row.start_ticks);
        is_same.then_some(Self(handle))
    }

    fn signal(&self, signal: Signal) {
        // It fails for a process that has ended, or that has become another user's.
        let _ = pidfd_send_signal(&self.0, signal);
    }

    fn wait(&self, until: Instant) {
        let rest = until.saturating_duration_since(Instant::now());
        // Whether it has ended is seen in the next round.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Timespec::try_from(rest).ok().as_ref());
    }
}

/// The processes of this user; for root, whose jobs may run as other users, all processes.
#[derive(Debug)]
pub(crate) struct Table(Vec<Row>);

/// A process, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) pid: u32,
    state: u8,
    parent: u32,
    group: u32,
    session: u32,
    start_ticks: u64,
    /// The marks in its environment, read once for all that look.
    marks: OnceLock<Box<[u8]>>,
    /// Its real, effective, saved and file system user, read once for all that look.
    users: OnceLock<Box<[u32]>>,
}

/// A process, and no other that may have its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    start_ticks: u64,
}

impl Table {
    pub(crate) fn read() -> Self {
        let user = geteuid();
        let entries = std::fs::read_dir("/proc").inspect_err(|error| {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| log::warn!(%error, "cannot read /proc: what workers start may outlive them"));
        });
        let entries = entries.into_iter().flatten().flatten();
        let is_own = |metadata: std::fs::Metadata| metadata.uid() == user.as_raw();
        let own = entries.filter(|entry| user.is_root() || entry.metadata().is_ok_and(is_own));
        let pids = own.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(pids.filter_map(Row::read).collect())
    }

    /// The living processes that belong to one, and those below others that do.
    fn below(&self, whose: &Whose<'_>, others: &BTreeSet<u32>) -> Vec<&Row> {
        let Whose { of, mark, user } = *whose;
        let this = std::process::id();
        let root = self.0.iter().find(|row| row.pid == of);
        let began = root.map_or(0, |root| root.start_ticks);
        let belongs = |row: &Row| {
            let near = root.is_some() && (row.group == of || row.session == of);
            near || others.contains(&row.pid)
                || mark.is_some_and(|mark| row.start_ticks >= began && mark.is_in(row.marks()))
                || user.is_some_and(|user| row.users().contains(&user))
        };
        let candidates = || self.0.iter().filter(|row| row.pid != of && row.pid != this);
        let mut found: BTreeSet<u32> = candidates().filter(|row| belongs(row)).map(|row| row.pid).collect();
        let is_below = |row: &Row, found: &BTreeSet<u32>| {
            (root.is_some() && row.parent == of) || found.contains(&row.parent)
        };
        while let Some(next) = candidates().find(|row| !found.contains(&row.pid) && is_below(row, &found)) {
            found.insert(next.pid);
        }
        candidates().filter(|row| found.contains(&row.pid) && !row.has_ended()).collect()
    }

    /// The users that processes run as, those that wait to be reaped left out.
    #[cfg(feature = "cli")]
    pub(crate) fn users(&self) -> BTreeSet<u32> {
        self.0.iter().filter(|row| !row.has_ended()).flat_map(|row| row.users().iter().copied()).collect()
    }

    /// The children of this process, whether they live or wait to be reaped.
    #[cfg(feature = "cli")]
    pub(crate) fn children(&self) -> impl Iterator<Item = &Row> {
        let this = std::process::id();
        self.0.iter().filter(move |row| row.parent == this)
    }
}

impl Row {
    pub(crate) const fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_ticks: self.start_ticks }
    }

    fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name stands in parentheses and may hold any byte, parentheses too.
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
            // Field 22 of the line.
            start_ticks: fields.nth(15)?.parse().ok()?,
            marks: OnceLock::new(),
            users: OnceLock::new(),
        })
    }

    /// Nothing of it runs any more, even if its parent has not asked how it ended.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    const fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Empty where this user may not read them.
    fn marks(&self) -> &[u8] {
        self.marks.get_or_init(|| {
            let environment = std::fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
            marks_of(&environment).into()
        })
    }

    /// Empty once it has been reaped. The owner of its directory says less: root, where a process has made itself
    /// untraceable.
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
        let row = Row {
            pid: 12,
            state: b'S',
            parent: 7,
            group: 8,
            session: 9,
            start_ticks: 4567,
            marks: OnceLock::new(),
            users: OnceLock::new(),
        };
        assert_eq!(Row::parse(12, line), Some(row));
        assert_eq!(Row::parse(12, b"12 (a) S 7"), None);
        assert_eq!(Row::parse(12, b""), None);
    }

    #[test]
    fn a_mark_is_one_of_those_in_its_variable_and_nothing_else() {
        let (mark, other) = (Mark::new().unwrap(), Mark::new().unwrap());
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
        fn run(script: &str, mark: &Mark) -> (Self, u32) {
            Self::run_as(geteuid().as_raw(), script, mark)
        }

        fn run_as(uid: u32, script: &str, mark: &Mark) -> (Self, u32) {
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
        Row::read(pid).is_some_and(|row| !row.has_ended())
    }

    #[test]
    fn a_daemon_is_found_by_its_mark_and_a_child_without_a_mark_by_its_parent() {
        let scripts = [
            "setsid sh -c 'echo $$; exec sleep 1000' >&1 & wait",
            "(setsid sh -c 'echo $$; exec sleep 1000' >&1 &) ; exec sleep 1000",
            "env -i setsid sh -c 'echo $$; exec sleep 1000' & wait",
        ];
        for script in scripts {
            let mark = Mark::new().unwrap();
            let (shell, sleep) = Shell::run(script, &mark);
            assert!(runs(sleep), "{script}");
            end_all(shell.0.id(), Some(&mark));
            assert!(!runs(sleep), "{script}");
            assert!(runs(shell.0.id()) || script.ends_with("wait"), "{script}");
        }
    }

    #[test]
    fn what_has_another_mark_is_left_alone() {
        let (mark, other) = (Mark::new().unwrap(), Mark::new().unwrap());
        let (innocent, sleep) = Shell::run("sh -c 'echo $$; exec sleep 1000'", &other);
        let (shell, below) = Shell::run("sh -c 'echo $$; exec sleep 1000'", &mark);
        end_all(shell.0.id(), Some(&mark));
        assert!(!runs(below) && runs(sleep));
        end_all(innocent.0.id(), Some(&other));
    }

    #[cfg(feature = "cli")]
    #[test]
    fn all_processes_of_a_user_end_whatever_they_have_made_of_themselves() {
        const UID: u32 = 61_150;
        if !geteuid().is_root() {
            return eprintln!("skipped: only root may start a process as another user");
        }
        let mark = Mark::new().unwrap();
        let (other, _) = Shell::run("echo $$; exec sleep 1000", &mark);
        let (shell, daemon) =
            Shell::run_as(UID, "(env -i setsid sh -c 'echo $$; exec sleep 1000' &); exec sleep 1000", &mark);
        assert!(runs(daemon) && runs(shell.0.id()) && Table::read().users().contains(&UID));
        assert!(end_user(UID));
        assert!(!runs(daemon) && !runs(shell.0.id()) && !Table::read().users().contains(&UID));
        assert!(runs(other.0.id()));
    }

    #[test]
    fn marks_of_the_parents_come_first() {
        let mark = Mark::new().unwrap();
        assert!(mark.value().as_bytes().ends_with(mark.0.as_bytes()));
    }
}
