//! Resources and load of this machine, and the memory in use under each limit.

use std::path::Path;

use super::model::Resources;
#[cfg(feature = "cli")]
use super::model::Usage;

mod memory;

use memory::group_limit;
#[cfg(feature = "cli")]
use memory::number;
pub(super) use memory::{GROUPS, group_texts, memory_use};

/// Host name of this machine.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Number of processors that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Resources of this machine: processors and memory, with the given values instead of the measured ones.
pub(super) fn resources(cpus: Option<f64>, memory: Option<u64>) -> Resources {
    let cpus = cpus.unwrap_or_else(|| cores() as f64);
    let memory = memory.unwrap_or_else(memory_bytes);
    Resources::none().with(Resources::CPU, cpus).with(Resources::MEMORY, memory as f64)
}

/// Memory of this machine in bytes, or the limit of this process's control groups if that is lower.
pub(super) fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let all = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)));
    group_limit(Path::new(GROUPS)).map_or(all, |limit| limit.min(all))
}

/// Load of this machine and the memory of these processes on it. `disk` has used and total bytes.
#[cfg(feature = "cli")]
pub(super) fn usage(pids: impl Iterator<Item = u32>, disk: (u64, u64)) -> Usage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (load, memory, stat) = (read("/proc/loadavg"), read("/proc/meminfo"), read("/proc/stat"));
    let page = rustix::param::page_size() as u64;
    let resident = |pid: u32| -> Option<u64> {
        let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        Some(page * pages.split_whitespace().nth(1)?.parse::<u64>().ok()?)
    };
    let kibibytes = |name| number(&memory, name).unwrap_or_default();
    let memory_total_bytes = kibibytes("MemTotal:") << 10;
    let (disk_used_bytes, disk_total_bytes) = disk;
    let (received_bytes, sent_bytes) = interface_bytes(&read("/proc/net/dev"));
    let (cpus, busy_ticks) = busy_ticks(&stat);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Usage {
        load: load.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default(),
        memory_bytes: memory_total_bytes.saturating_sub(kibibytes("MemAvailable:") << 10),
        workers_memory_bytes: pids.filter_map(resident).sum(),
        cpus,
        cpu_seconds: busy_ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        memory_total_bytes,
        disk_used_bytes,
        disk_total_bytes,
        sent_bytes,
        received_bytes,
        sampled_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Used and total bytes of the file system with a directory.
///
/// As in `df`, the blocks that are reserved for root count as neither used nor available, but as part of the total.
#[cfg(feature = "cli")]
pub(super) fn disk_bytes(directory: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    Some((used.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}

/// Number of CPUs and their busy time in clock ticks, from the text of `/proc/stat`.
#[cfg(feature = "cli")]
fn busy_ticks(stat: &str) -> (u32, u64) {
    let is_single = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let cpus = stat.lines().filter(is_single).count();
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal. The time of guests is part of the user time.
    let ticks = all.split_whitespace().take(8).map(|ticks| ticks.parse::<u64>().unwrap_or_default());
    let busy = ticks.enumerate().filter(|(at, _)| ![3, 4].contains(at)).map(|(_, ticks)| ticks).sum();
    (u32::try_from(cpus).unwrap_or(u32::MAX), busy)
}

/// Received and sent bytes of all interfaces but loopback, from the text of `/proc/net/dev`.
#[cfg(feature = "cli")]
fn interface_bytes(devices: &str) -> (u64, u64) {
    let counters = devices.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<&str> = counters.split_whitespace().collect();
        let count = |at: usize| counters.get(at)?.parse::<u64>().ok();
        // Eight counters of the receiver precede those of the sender.
        (name.trim() != "lo").then_some((count(0)?, count(8)?))
    });
    counters.fold((0, 0), |(received, sent), (more, and)| (received + more, sent + and))
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    #[test]
    fn usage_covers_the_machine_and_the_given_processes() {
        let disk = disk_bytes(Path::new("/")).unwrap();
        let own = usage(std::iter::once(std::process::id()), disk);
        assert!(own.workers_memory_bytes > 0 && own.memory_bytes >= own.workers_memory_bytes, "{own:?}");
        assert!(own.cpus > 0 && own.cpu_seconds > 0.0 && own.sampled_ms > 0, "{own:?}");
        assert!(
            own.memory_bytes < own.memory_total_bytes && own.disk_used_bytes < own.disk_total_bytes,
            "{own:?}"
        );
        assert_eq!(usage(std::iter::empty(), disk).workers_memory_bytes, 0);
        let stat = "cpu  10 1 5 900 80 2 3 4 7 0\ncpu0 5 1 5 450 40 1 1 2 7 0\ncpu1 5 0 0 450 40 1 2 2 0 0\nintr 7\n";
        assert_eq!(busy_ticks(stat), (2, 25));
        let devices = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  \
                       eth0: 100 2 0 0 0 0 0 0 30 1 0 0 0 0 0 0\nwlan0:7 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n";
        assert_eq!(interface_bytes(devices), (107, 35));
        assert!(memory_bytes() > 0);
    }
}
