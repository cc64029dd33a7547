//! The process table, read from `/proc`, and processes that are ended by what holds them.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long a step may take on a machine that has much else to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition on another process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until there is something; fails with `what` if that takes too long.
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
        // Another process cannot wake this thread.
        thread::park_timeout(LOOK_EVERY);
    }
}

/// Whether a process still runs. One that has ended and waits for its parent to notice does not.
pub(super) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state is in parentheses, and may have some itself.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The children of a process, whether they run or wait to be reaped.
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

/// The processes that run below a directory: those of a cluster, since each of its processes does.
pub(super) fn below(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_below(pid, directory) && runs(pid)).collect()
}

fn is_below(pid: u32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd: PathBuf| cwd.starts_with(directory))
}

/// Kills what still runs below a directory.
pub(super) fn kill_below(directory: &Path) {
    for pid in below(directory) {
        let Some(process) = open(pid) else { continue };
        // The number may have gone to another process before it was held.
        if is_below(pid, directory) {
            // It may end by itself meanwhile.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

fn open(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()
}

/// Sends a process a signal.
#[track_caller]
pub(super) fn signal(pid: u32, signal: Signal) -> OwnedFd {
    let process = open(pid).unwrap_or_else(|| panic!("process {pid} does not run"));
    pidfd_send_signal(&process, signal).unwrap();
    process
}

/// Kills a process, and waits for its end.
#[track_caller]
pub(super) fn kill(pid: u32) {
    let process = signal(pid, Signal::KILL);
    // Its first thread may be gone before one that still writes to a file which it holds.
    let limit = PATIENCE.try_into().unwrap();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap();
    ended(pid);
}

/// Waits for a process's end.
#[track_caller]
pub(super) fn ended(pid: u32) {
    wait_for(&format!("process {pid} ends"), || (!runs(pid)).then_some(()));
}

/// A file of `/proc` about a process; nothing once it has ended.
pub(super) fn file(pid: u32, name: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()
}
