//! Times, medians, and what the operating system knows of a process.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// How long things take, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// The median and the 99th percentile.
pub(super) fn percentiles(mut taken: Vec<Duration>) -> Timing {
    taken.sort_unstable();
    let at = |percent: usize| taken.get(taken.len() * percent / 100).map_or(f64::NAN, |it| micros(*it));
    Timing { p50: at(50), p99: at(99) }
}

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count.is_multiple_of(2) => f64::midpoint(values[count / 2 - 1], values[count / 2]),
        count => values[count / 2],
    }
}

/// The processor time that this process has taken, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The cores that this process may run on.
pub(super) fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps every thread of this process to one core, and those that it starts later.
pub(super) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    for thread in fs::read_dir("/proc/self/task")? {
        let id = thread?.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        sched_setaffinity(id, &set)?;
    }
    Ok(())
}

/// The memory of a process in MiB, each shared page counted in proportion (PSS).
pub(super) fn memory_mib(pid: u32) -> io::Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = pss.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0)
        .ok_or_else(|| io::Error::other("the kernel does not tell the memory of a process"))
}
