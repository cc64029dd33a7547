//! Processor time and memory of processes, from `/proc`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

/// Processor time of each thread of a process.
///
/// `stat` of the process has ticks of 10 ms, which are a per cent of a window. `schedstat` of a thread has
/// nanoseconds, but a thread that has ended is gone with its time.
#[derive(Debug)]
pub(crate) struct CpuTime(BTreeMap<OsString, u64>);

impl CpuTime {
    pub(crate) fn of(pid: u32) -> Self {
        let threads =
            fs::read_dir(format!("/proc/{pid}/task")).unwrap_or_else(|err| panic!("process {pid}: {err}"));
        let times = threads.filter_map(|thread| {
            // A thread may end meanwhile.
            let thread = thread.ok()?;
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), text.split(' ').next()?.parse().ok()?))
        });
        Self(times.collect())
    }

    /// Time since an earlier one.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let nanos = self.0.iter().map(|(thread, nanos)| nanos - before.0.get(thread).unwrap_or(&0));
        Duration::from_nanos(nanos.sum())
    }

    /// Number of threads that have ended since an earlier time. What they took meanwhile is not known.
    pub(crate) fn ended_since(&self, before: &Self) -> usize {
        before.0.keys().filter(|thread| !self.0.contains_key(*thread)).count()
    }
}

/// Share of a time for which a process is busy: 1 is one processor.
pub(crate) async fn busy(pid: u32, time: Duration) -> f64 {
    let (before, begun) = (CpuTime::of(pid), Instant::now());
    tokio::time::sleep(time).await;
    CpuTime::of(pid).since(&before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// Resident memory of a process.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
