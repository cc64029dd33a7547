//! Identity of processes across reuse of process ids.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Kind of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DaemonRole {
    Head,
    Agent,
}

impl DaemonRole {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Agent => "agent",
        }
    }
}

/// Record of a daemon's process in `node.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) role: DaemonRole,
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot; with the pid it identifies the process.
    pub(crate) start_ticks: u64,
}

impl ProcessRecord {
    /// Records the process that has this pid now; none if there is none.
    pub(crate) fn of(role: DaemonRole, pid: u32) -> Option<Self> {
        Some(Self { role, pid, start_ticks: Stat::of(pid)?.start_ticks })
    }

    /// Reports if the recorded process still runs.
    pub(crate) fn is_alive(self) -> bool {
        is_alive(self.pid, self.start_ticks)
    }

    /// Opens the recorded process, if it still runs.
    pub(crate) fn open(self) -> Option<Process> {
        Process::open(self.pid, self.start_ticks)
    }
}

/// Stack size of a thread that only waits for a process.
const WATCH_STACK_BYTES: usize = 64 << 10;

/// Open handle (pidfd) of a process, which stays valid when the pid is reused.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    start_ticks: u64,
    handle: OwnedFd,
}

impl Process {
    fn open(pid: u32, start_ticks: u64) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // Checked after opening: the pid may have been reused before, but the pidfd cannot change its process.
        is_alive(pid, start_ticks).then_some(Self { pid, start_ticks, handle })
    }

    pub(crate) fn is_alive(&self) -> bool {
        is_alive(self.pid, self.start_ticks)
    }

    /// Sends a signal; returns false if the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.handle, signal).is_ok()
    }

    /// Waits for the exit of the process, at most for `limit`.
    pub(crate) async fn has_ended(self, limit: Duration) {
        if let Ok(ended) = self.watch() {
            // The caller checks the process itself, on either result.
            drop(tokio::time::timeout(limit, ended).await);
        }
    }

    /// Returns a receiver that completes when the process exits.
    ///
    /// A detached thread waits for the exit. It ends with the command.
    pub(crate) fn watch(self) -> io::Result<oneshot::Receiver<()>> {
        let (sender, ended) = oneshot::channel();
        let watch = move || {
            wait(std::slice::from_ref(&self), None);
            // The receiver is gone if the command has stopped waiting.
            let _ = sender.send(());
        };
        // `wait` blocks, so it needs a thread. A command watches two processes at most.
        thread::Builder::new().name("watch".to_owned()).stack_size(WATCH_STACK_BYTES).spawn(watch)?;
        Ok(ended)
    }
}

/// Waits until all processes have exited or the limit has passed; returns those that still run.
pub(crate) fn all_ended(processes: &[Process], limit: Duration) -> Vec<&Process> {
    let deadline = Instant::now() + limit;
    wait(processes, Some(deadline));
    processes.iter().filter(|process| process.is_alive()).collect()
}

/// Waits until all processes have exited or the deadline has passed.
fn wait(processes: &[Process], deadline: Option<Instant>) {
    let mut left: Vec<&OwnedFd> = processes.iter().map(|process| &process.handle).collect();
    while !left.is_empty() {
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = rest.and_then(|rest| Timespec::try_from(rest).ok());
        let mut fds: Vec<_> = left.iter().map(|handle| PollFd::new(*handle, PollFlags::IN)).collect();
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => return,
            Err(rustix::io::Errno::INTR) => {}
            // The callers check each process afterwards, so a failed poll only shortens the wait.
            Err(_) => return,
            Ok(_) => {
                let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
                let mut ended = ended.into_iter();
                left.retain(|_| !ended.next().unwrap_or_default());
            }
        }
    }
}

/// Descendants of these processes, of the same user; of all users for root, whose jobs may run as other users.
pub(crate) fn descendants(of: &[Process]) -> Vec<Process> {
    let mut children: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
    for (pid, stat) in processes_within_reach() {
        children.entry(stat.parent).or_default().push((pid, stat.start_ticks));
    }
    let mut found = Vec::new();
    let mut parents: Vec<u32> = of.iter().map(|process| process.pid).collect();
    // Each process is opened with the start time of the scan, so a pid that was reused since is left out.
    while let Some(parent) = parents.pop() {
        for (pid, start_ticks) in children.remove(&parent).unwrap_or_default() {
            parents.push(pid);
            found.extend(Process::open(pid, start_ticks));
        }
    }
    found.retain(|process| of.iter().all(|one| one.pid != process.pid));
    found
}

fn processes_within_reach() -> Vec<(u32, Stat)> {
    let user = geteuid();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_own = |metadata: fs::Metadata| metadata.uid() == user.as_raw();
    let own = entries.filter(|entry| user.is_root() || entry.metadata().is_ok_and(is_own));
    let pids = own.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

fn is_alive(pid: u32, start_ticks: u64) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.start_ticks == start_ticks && !stat.has_ended())
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: u32,
    start_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses the line. The name is in parentheses, and may contain any character.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        Some(Self {
            state: *fields.next()?.as_bytes().first()?,
            parent: fields.next()?.parse().ok()?,
            // Fields 3 and 4 are consumed; the start time is field 22.
            start_ticks: fields.nth(17)?.parse().ok()?,
        })
    }

    /// Reports if the process has exited, including a zombie that its parent has not reaped.
    const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Identifier of this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn name_of_a_process_may_look_like_fields() {
        let line = "12 (a) R 1) S 7 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4567 89 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat, Stat { state: b'S', parent: 7, start_ticks: 4567 });
        assert_eq!(Stat::parse("12 (a) S 7"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn reused_pid_is_another_process() {
        let own = ProcessRecord::of(DaemonRole::Agent, std::process::id()).unwrap();
        assert!(own.is_alive() && own.open().is_some());

        let earlier = ProcessRecord { start_ticks: own.start_ticks - 1, ..own };
        assert!(!earlier.is_alive() && earlier.open().is_none());
    }

    #[tokio::test]
    async fn exit_is_reported_and_a_zombie_counts_as_dead() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let record = ProcessRecord::of(DaemonRole::Head, child.id()).unwrap();
        let processes = [record.open().unwrap()];
        assert_eq!(all_ended(&processes, Duration::ZERO).len(), 1);
        assert!(processes[0].signal(Signal::KILL));
        assert!(all_ended(&processes, Duration::from_secs(10)).is_empty());
        assert!(!record.is_alive());
        child.wait().unwrap();
        assert!(record.open().is_none());

        let mut child = Command::new("sleep").arg("0.02").spawn().unwrap();
        let process = ProcessRecord::of(DaemonRole::Head, child.id()).unwrap().open().unwrap();
        process.watch().unwrap().await.unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn descendants_are_found_through_generations() {
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'sleep 1000 & echo; wait' & wait"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = [0];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let shell = ProcessRecord::of(DaemonRole::Agent, child.id()).unwrap().open().unwrap();
        let below = descendants(&[shell]);
        assert_eq!(below.len(), 2, "{below:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        for process in &below {
            process.signal(Signal::KILL);
        }
        assert!(all_ended(&below, Duration::from_secs(10)).is_empty());
    }
}
