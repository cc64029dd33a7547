//! Resources and load of this machine.

use std::path::Path;

use super::model::Resources;
#[cfg(feature = "cli")]
use super::model::Usage;

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

/// Mount point of the control groups.
pub(super) const GROUPS: &str = "/sys/fs/cgroup";

/// Smallest memory limit of this process's control groups and their ancestors; each limits everything below it.
///
/// In version 1 the memory controller has a hierarchy of its own. Where both versions are mounted, either may hold
/// the limit.
fn group_limit(mounted: &Path) -> Option<u64> {
    let list = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = [
        group(&list).and_then(|group| limit_of(mounted, &group, "memory.max")),
        group_v1(&list).and_then(|group| limit_of(&mounted.join("memory"), &group, "memory.limit_in_bytes")),
    ];
    limits.into_iter().flatten().min()
}

fn limit_of(mounted: &Path, group: &str, file: &str) -> Option<u64> {
    // A file that holds `max` does not parse, and counts as no limit.
    texts_of(mounted, group, file).filter_map(|text| text.trim().parse().ok()).min()
}

/// Contents of a file in a group and its ancestors, the group first.
///
/// In a container the listed path may be that of the host and not exist here. Its ancestor `/`, the container's own
/// group, does.
fn texts_of(mounted: &Path, group: &str, file: &str) -> impl Iterator<Item = String> {
    Path::new(group).ancestors().filter_map(move |group| {
        std::fs::read_to_string(mounted.join(group.strip_prefix("/").ok()?).join(file)).ok()
    })
}

/// Path of the version 1 memory group in a list such as `/proc/self/cgroup`: `4:memory:/docker/1f`.
fn group_v1(list: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let of_memory = fields.next()?.split(',').any(|controller| controller == "memory");
        of_memory.then(|| fields.next().map(str::to_owned))?
    })
}

/// Path of the version 2 group in a list such as `/proc/self/cgroup`.
fn group(list: &str) -> Option<String> {
    list.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Contents of a file of version 2 and of one of version 1, each from the nearest group that has it.
///
/// The search starts at the memory group of a list such as `/proc/self/cgroup`, and goes on with its ancestors.
pub(super) fn group_texts(mounted: &Path, list: &str, v2: &str, v1: &str) -> impl Iterator<Item = String> {
    let texts = [
        group(list).and_then(|group| texts_of(mounted, &group, v2).next()),
        group_v1(list).and_then(|group| texts_of(&mounted.join("memory"), &group, v1).next()),
    ];
    texts.into_iter().flatten()
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
    let memory_total_bytes = kibibytes(&memory, "MemTotal:") << 10;
    let (disk_used_bytes, disk_total_bytes) = disk;
    let (received_bytes, sent_bytes) = interface_bytes(&read("/proc/net/dev"));
    let (cpus, busy_ticks) = busy_ticks(&stat);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Usage {
        load: load.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default(),
        memory_bytes: memory_total_bytes.saturating_sub(kibibytes(&memory, "MemAvailable:") << 10),
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

#[cfg(feature = "cli")]
fn kibibytes(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[test]
    fn memory_limit_is_the_smallest_of_the_group_and_its_ancestors() {
        let dir = TestDir::new();
        let unit = dir.join("slice/unit");
        std::fs::create_dir_all(&unit).unwrap();
        let limit = |own: &str, slice: &str| {
            std::fs::write(unit.join("memory.max"), own).unwrap();
            std::fs::write(dir.join("slice/memory.max"), slice).unwrap();
            limit_of(dir.path(), "/slice/unit", "memory.max")
        };
        assert_eq!(limit("4096\n", "max\n"), Some(4096));
        assert_eq!(limit("max\n", "8192\n"), Some(8192));
        assert_eq!(limit("4096\n", "1024\n"), Some(1024));
        assert_eq!(limit("max\n", "max\n"), None);
        // In a container the mount point is the root, and the listed path lies outside of it.
        std::fs::write(dir.join("memory.max"), "77\n").unwrap();
        assert_eq!(
            ["/", "/../other"].map(|group| limit_of(dir.path(), group, "memory.max")),
            [Some(77), Some(77)]
        );
        assert_eq!(group("1:cpu:/x\n0::/slice/unit\n"), Some("/slice/unit".to_owned()));
        assert!(memory_bytes() > 0);
    }

    #[test]
    fn memory_is_limited_by_groups_of_version_1_too() {
        let dir = TestDir::new();
        let container = dir.join("docker/1f");
        std::fs::create_dir_all(&container).unwrap();
        let list = "5:cpu,cpuacct:/docker/1f\n4:hugetlb,memory:/docker/1f\n1:name=systemd:/x:y\n0::/\n";
        assert_eq!(group_v1(list), Some("/docker/1f".to_owned()));
        assert_eq!(group_v1("1:name=memory:/x\n0::/slice/unit\n"), None);
        let limit = || limit_of(dir.path(), "/docker/1f", "memory.limit_in_bytes");
        assert_eq!(limit(), None);
        // An unlimited group of version 1 holds the largest page-aligned number.
        std::fs::write(dir.join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(limit(), Some(9_223_372_036_854_771_712));
        std::fs::write(container.join("memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(limit(), Some(4096));
    }

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
        assert_eq!(kibibytes("MemFree: 5 kB\nMemTotal:  12 kB\n", "MemTotal:"), 12);
    }
}
