//! The process table, read from `/proc`.

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Polling interval of a condition on another process.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `holds` is true; returns `false` after `limit`.
pub(super) fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        // Another process cannot wake this thread, so it has to poll.
        thread::park_timeout(POLL_INTERVAL);
    }
    true
}

/// Tests if this process ignores a signal, as a shell's background process does. Its children inherit that.
pub(super) fn ignores(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

/// Tests if a process still runs. A zombie, which waits for its parent, does not.
pub(super) fn runs(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Lists the running children of a process.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| state_and_parent(pid).is_some_and(|(_, of)| of == parent)).collect()
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the state is in parentheses, and may contain some itself.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut columns = rest.split_whitespace();
    Some((columns.next()?.chars().next()?, columns.next()?.parse().ok()?))
}

/// Fails unless every process ends within `limit`.
#[track_caller]
pub(super) fn all_end_within(limit: Duration, pids: &[u32]) {
    let ended = wait_until(limit, || !pids.iter().any(|&pid| runs(pid)));
    let left: Vec<_> = pids.iter().filter(|&&pid| runs(pid)).collect();
    assert!(ended, "still there after {limit:?}: {left:?}");
}

/// Sends a signal to a process. Fails if the process has ended.
pub(crate) fn signal(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal)
}

/// Returns the strings of a file in `/proc`, which are separated by zero bytes.
pub(super) fn strings(pid: u32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Returns the TCP ports that a process listens on, as the kernel writes them: address and port in
/// hexadecimal.
pub(super) fn listens_at(pid: u32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let sockets: HashSet<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let mut listening = Vec::new();
    for line in tables.iter().flatten().flat_map(|table| table.lines().skip(1)) {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = columns[..] else { continue };
        if state == "0A" && sockets.contains(inode) {
            listening.push(local.to_owned());
        }
    }
    listening
}

/// 127.0.0.1 as the kernel writes it: in the byte order of the machine.
pub(super) fn loopback() -> String {
    format!("{:08X}:", u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()))
}
