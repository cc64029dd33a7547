//! CPU time, memory and cores of processes, from `/proc`.

use std::{fs, io};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Clock ticks a second in `/proc`: `USER_HZ`, which is 100 on every Linux port of Rust.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds since the processes started.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// Time of the client's process.
    pub client: f64,
    /// Time of all servers.
    pub servers: f64,
    /// Time of all other programs of the machine.
    pub others: f64,
}

impl CpuTime {
    /// Reads the clocks of this process, of the servers and of the machine.
    #[must_use]
    pub fn now(servers: &[u32]) -> Self {
        let client = process(std::process::id());
        let servers = servers.iter().map(|pid| process(*pid)).sum();
        Self { client, servers, others: machine() - client - servers }
    }

    /// Time that was used since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            client: self.client - earlier.client,
            servers: self.servers - earlier.servers,
            others: (self.others - earlier.others).max(0.0),
        }
    }

    /// Sum of two times.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            client: self.client + other.client,
            servers: self.servers + other.servers,
            others: self.others + other.others,
        }
    }
}

fn process(pid: u32) -> f64 {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(0.0, |stat| process_seconds(&stat))
}

/// Fields 14 and 15 of the line, after a name in parentheses that may itself have blanks and parentheses.
fn process_seconds(stat: &str) -> f64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

fn machine() -> f64 {
    fs::read_to_string("/proc/stat").map_or(0.0, |stat| machine_seconds(&stat))
}

/// Busy time of all cores: user, nice, system, and the two kinds of interrupts.
fn machine_seconds(stat: &str) -> f64 {
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum::<f64>() / TICKS_PER_SECOND
}

/// Starts the peak of a process's memory again from what it has now.
///
/// Where the kernel refuses that, the peak is the one since the start of the process.
pub fn reset_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Peak of a process's resident memory in MiB.
#[must_use]
pub fn peak_mib(pid: u32) -> f64 {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(0.0, |status| peak(&status))
}

fn peak(status: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// Moves the calling thread to a core. Threads and processes that it starts later follow.
///
/// # Errors
///
/// The process may not run on that core.
pub fn pin_thread(core: usize) -> io::Result<()> {
    Ok(sched_setaffinity(None, &only(core))?)
}

/// Moves all threads of a process to a core. Threads that they start later follow.
///
/// # Errors
///
/// The process has ended, or may not run on that core.
pub fn pin_process(pid: u32, core: usize) -> io::Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = thread?.file_name();
        let id = name.to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        sched_setaffinity(Some(id.ok_or(io::ErrorKind::InvalidData)?), &only(core))?;
    }
    Ok(())
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let stat = "12 (a) (b c) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0";
        assert_eq!(process_seconds(stat), 3.0);
        assert_eq!(machine_seconds("cpu  100 200 300 9999 50 60 40 0 0 0\ncpu0 1 1 1"), 7.0);
        assert_eq!(peak("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n"), 2.0);
    }

    #[test]
    fn own_process_has_memory() {
        assert!(peak_mib(std::process::id()) > 0.5);
    }
}
