//! Process table from `/proc`, and signals to processes through pidfds.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Maximum time of a step on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Polling interval for conditions in other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until `look` returns a value; fails with `what` on timeout.
#[track_caller]
pub(super) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

#[track_caller]
pub(super) fn wait_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        // Other processes cannot wake this thread, so polling is the only way.
        thread::park_timeout(POLL_INTERVAL);
    }
}

/// Reports if a process still runs; a zombie does not.
pub(super) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The executable's name precedes the state in parentheses, and may contain parentheses itself.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Child processes, including zombies.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace());
        fields.and_then(|mut fields| fields.nth(1)?.parse().ok()) == Some(parent)
    };
    pids.filter(is_child).collect()
}

/// Processes whose working directory is below a directory: all processes of a test cluster.
pub(super) fn below(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_below(pid, directory) && runs(pid)).collect()
}

fn is_below(pid: u32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd: PathBuf| cwd.starts_with(directory))
}

/// Kills the processes whose working directory is below a directory.
pub(super) fn kill_below(directory: &Path) {
    for pid in below(directory) {
        let Some(process) = open(pid) else { continue };
        // The pid may have been reused before the pidfd was opened.
        if is_below(pid, directory) {
            // Fails only if the process has exited in between.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

fn open(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()
}

/// Sends a signal to a process.
#[track_caller]
pub(super) fn signal(pid: u32, signal: Signal) -> OwnedFd {
    let process = open(pid).unwrap_or_else(|| panic!("process {pid} does not run"));
    pidfd_send_signal(&process, signal).unwrap();
    process
}

/// Kills a process, and waits for its exit.
#[track_caller]
pub(super) fn kill(pid: u32) {
    let process = signal(pid, Signal::KILL);
    // The main thread may exit before another thread that holds file locks: only the pidfd covers all threads.
    let limit = PATIENCE.try_into().unwrap();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap();
    ended(pid);
}

/// Waits for the exit of a process.
#[track_caller]
pub(super) fn ended(pid: u32) {
    wait_for(&format!("process {pid} ends"), || (!runs(pid)).then_some(()));
}

/// CPU time that a process has used.
pub(super) fn cpu_time(pid: u32) -> Duration {
    let stat = String::from_utf8(file(pid, "stat")).unwrap();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().skip(11).take(2));
    let ticks: u64 = fields.unwrap().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Content of a file in `/proc/PID`; empty once the process has exited.
pub(super) fn file(pid: u32, name: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()
}
