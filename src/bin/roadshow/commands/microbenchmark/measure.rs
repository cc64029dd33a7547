//! Durations, medians, and process data of the operating system.

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Latency percentiles in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Number of operations in a duration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) count: u64,
    pub(super) elapsed: Duration,
}

impl Count {
    pub(super) fn per_second(self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Megabytes per second for operations of `bytes` bytes.
    pub(super) fn megabytes(self, bytes: usize) -> f64 {
        self.per_second() * bytes as f64 / 1e6
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.elapsed += more.elapsed;
    }
}

/// Median and 99th percentile.
pub(super) fn percentiles(mut taken: Vec<Duration>) -> Timing {
    taken.sort_unstable();
    let at = |percent: usize| taken.get(taken.len() * percent / 100).map_or(f64::NAN, |it| micros(*it));
    Timing { p50: at(50), p99: at(99) }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Median: the middle value, or the mean of the two middle ones.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count.is_multiple_of(2) => f64::midpoint(values[count / 2 - 1], values[count / 2]),
        count => values[count / 2],
    }
}

/// CPU time of this process in seconds.
pub(super) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU cores that this process may run on.
pub(super) fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Pins every thread of this process to these cores, and all threads and processes that it starts later.
pub(super) fn pin(cores: &[usize]) -> io::Result<()> {
    for thread in fs::read_dir("/proc/self/task")? {
        let id = thread?.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        sched_setaffinity(id, &set_of(cores))?;
    }
    Ok(())
}

/// Pins the calling thread to a core.
pub(super) fn pin_thread(core: usize) -> io::Result<()> {
    Ok(sched_setaffinity(None, &set_of(&[core]))?)
}

fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// Memory of a process in bytes, with each shared page counted in proportion (PSS).
pub(super) fn proportional_bytes(pid: u32) -> io::Result<f64> {
    rollup(pid, "Pss:")
}

/// Anonymous memory of a process in bytes.
///
/// Mapped files are left out: their share depends on what other processes read.
pub(super) fn anonymous_bytes(pid: u32) -> io::Result<f64> {
    rollup(pid, "Anonymous:")
}

fn rollup(pid: u32, field: &str) -> io::Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0)
        .ok_or_else(|| io::Error::other("the kernel does not report the memory of a process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_of_sorted_values() {
        assert_eq!(median(vec![5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        let timing = percentiles((1..=200).rev().map(Duration::from_micros).collect());
        assert_eq!((timing.p50.round(), timing.p99.round()), (101.0, 199.0));
    }

    #[test]
    fn this_process_has_memory_and_a_core() {
        let (own, shared) = (anonymous_bytes(std::process::id()), proportional_bytes(std::process::id()));
        assert!(shared.unwrap() > 0.0 && own.unwrap() > 0.0);
        assert!(!cores().unwrap().is_empty());
    }
}
