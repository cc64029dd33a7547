//! Memory in use and its limits: of this process's control groups, and of this machine.
//!
//! It reads the kernel's files when it is asked, and keeps nothing. A file that is missing or has no number counts as
//! no limit.

use std::fs;
use std::path::Path;

use crate::host::MemoryUse;

/// Mount point of the control groups.
pub(in crate::cluster) const GROUPS: &str = "/sys/fs/cgroup";

/// Memory in use under the limit that is nearest to being reached; `None` if the kernel tells of none.
pub(in crate::cluster) fn memory_use() -> Option<MemoryUse> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = uses_of_groups(Path::new(GROUPS), &read("/proc/self/cgroup"));
    fullest(groups.into_iter().chain(use_of_machine(&read("/proc/meminfo"))))
}

/// The use with the largest part of its limit.
fn fullest(uses: impl Iterator<Item = MemoryUse>) -> Option<MemoryUse> {
    let product = |used: u64, limit: u64| u128::from(used) * u128::from(limit);
    uses.max_by(|one, other| product(one.used, other.limit).cmp(&product(other.used, one.limit)))
}

/// Name of this machine in errors.
const MACHINE: &str = "the machine";

/// Use of this machine, from the text of `/proc/meminfo`.
fn use_of_machine(info: &str) -> Option<MemoryUse> {
    let bytes = |name| Some(number(info, name)? << 10);
    let limit = bytes("MemTotal:")?;
    Some(MemoryUse {
        used: limit.saturating_sub(bytes("MemAvailable:")?),
        limit,
        limited: MACHINE.to_owned(),
    })
}

/// Number behind a name at the start of a line.
pub(super) fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Files of a control group, in one version.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// Name of the reclaimable file cache in `memory.stat`, of the group and all below it.
    cache: &'static str,
}

const V2: Files = Files { limit: "memory.max", used: "memory.current", cache: "inactive_file " };

const V1: Files =
    Files { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file " };

/// Uses of the memory groups of a list such as `/proc/self/cgroup`, and of their ancestors.
///
/// In version 1 the memory controller has a hierarchy of its own. Where both versions are mounted, either may hold
/// the limit.
fn uses_of_groups(mounted: &Path, list: &str) -> Vec<MemoryUse> {
    let v2 = group(list).map(|group| (mounted.to_owned(), group, V2));
    let v1 = group_v1(list).map(|group| (mounted.join("memory"), group, V1));
    let uses = v2.into_iter().chain(v1).map(|(mounted, group, files)| {
        let uses = Path::new(&group).ancestors().filter_map(|group| use_of_group(&mounted, group, &files));
        uses.collect::<Vec<_>>()
    });
    uses.flatten().collect()
}

fn use_of_group(mounted: &Path, group: &Path, files: &Files) -> Option<MemoryUse> {
    let directory = mounted.join(group.strip_prefix("/").ok()?);
    let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
    // A file that holds `max` does not parse, and counts as no limit.
    let limit = read(files.limit)?.trim().parse().ok()?;
    let used: u64 = read(files.used)?.trim().parse().ok()?;
    let cache = number(&read("memory.stat").unwrap_or_default(), files.cache).unwrap_or_default();
    let limited = format!("the control group {}", group.display());
    Some(MemoryUse { used: used.saturating_sub(cache), limit, limited })
}

/// Smallest memory limit of this process's control groups and their ancestors; each limits everything below it.
pub(super) fn group_limit(mounted: &Path) -> Option<u64> {
    let list = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = [
        group(&list).and_then(|group| limit_of(mounted, &group, V2.limit)),
        group_v1(&list).and_then(|group| limit_of(&mounted.join("memory"), &group, V1.limit)),
    ];
    limits.into_iter().flatten().min()
}

fn limit_of(mounted: &Path, group: &str, file: &str) -> Option<u64> {
    texts_of(mounted, group, file).filter_map(|text| text.trim().parse().ok()).min()
}

/// Contents of a file in a group and its ancestors, the group first.
///
/// In a container the listed path may be that of the host and not exist here. Its ancestor `/`, the container's own
/// group, does.
fn texts_of(mounted: &Path, group: &str, file: &str) -> impl Iterator<Item = String> {
    Path::new(group).ancestors().filter_map(move |group| {
        fs::read_to_string(mounted.join(group.strip_prefix("/").ok()?).join(file)).ok()
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
pub(in crate::cluster) fn group_texts(
    mounted: &Path,
    list: &str,
    v2: &str,
    v1: &str,
) -> impl Iterator<Item = String> {
    let texts = [
        group(list).and_then(|group| texts_of(mounted, &group, v2).next()),
        group_v1(list).and_then(|group| texts_of(&mounted.join("memory"), &group, v1).next()),
    ];
    texts.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test_dir::TestDir;

    /// Writes files below the mount point of the groups.
    fn write(mounted: &TestDir, group: &str, files: &[(&str, &str)]) {
        let directory = mounted.join(group);
        fs::create_dir_all(&directory).unwrap();
        files.iter().for_each(|(name, text)| fs::write(directory.join(name), text).unwrap());
    }

    fn of_group(path: &str, used: u64, limit: u64) -> MemoryUse {
        MemoryUse { used, limit, limited: format!("the control group {path}") }
    }

    #[test]
    fn file_cache_of_a_group_does_not_count_as_used() {
        let mounted = TestDir::new();
        let uses = |list| uses_of_groups(mounted.path(), list);
        assert_eq!(uses("0::/slice/unit\n"), []);
        let stat = "anon 100\ninactive_anon 7\ninactive_file 300\nactive_file 9\n";
        write(
            &mounted,
            "slice/unit",
            &[("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", stat)],
        );
        assert_eq!(uses("0::/slice/unit\n"), [of_group("/slice/unit", 600, 1000)]);
        // Without the statistics, all that is in use counts.
        fs::remove_file(mounted.join("slice/unit/memory.stat")).unwrap();
        assert_eq!(uses("0::/slice/unit\n"), [of_group("/slice/unit", 900, 1000)]);
        fs::write(mounted.join("slice/unit/memory.max"), "max\n").unwrap();
        assert_eq!(uses("0::/slice/unit\n"), []);
    }

    #[test]
    fn groups_of_version_1_count_what_is_below_them() {
        let mounted = TestDir::new();
        let stat = "cache 9\ninactive_file 1\ntotal_cache 90\ntotal_inactive_file 50\n";
        let files =
            [("memory.limit_in_bytes", "400\n"), ("memory.usage_in_bytes", "350\n"), ("memory.stat", stat)];
        write(&mounted, "memory/docker/1f", &files);
        let list = "5:cpu,cpuacct:/docker/1f\n4:hugetlb,memory:/docker/1f\n0::/\n";
        assert_eq!(uses_of_groups(mounted.path(), list), [of_group("/docker/1f", 300, 400)]);
    }

    #[test]
    fn limit_with_the_largest_part_in_use_is_the_nearest() {
        let mounted = TestDir::new();
        let group = |group: &str, used: &str, limit: &str| {
            write(&mounted, group, &[("memory.current", used), ("memory.max", limit)]);
        };
        group("slice/unit", "10", "1000");
        group("slice", "4000", "5000");
        let machine = use_of_machine("MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 3 kB\n");
        let expected = MemoryUse { used: 5 << 10, limit: 8 << 10, limited: MACHINE.to_owned() };
        assert_eq!(machine, Some(expected.clone()));
        let nearest =
            || fullest(uses_of_groups(mounted.path(), "0::/slice/unit\n").into_iter().chain(machine.clone()));
        assert_eq!(nearest(), Some(of_group("/slice", 4000, 5000)));
        group("slice", "400", "5000");
        assert_eq!(nearest(), Some(expected));
        group("slice/unit", "999", "1000");
        assert_eq!(nearest(), Some(of_group("/slice/unit", 999, 1000)));
    }

    #[test]
    fn unknown_numbers_are_no_limit() {
        assert_eq!(use_of_machine(""), None);
        assert_eq!(use_of_machine("MemTotal: 8 kB\n"), None, "before Linux 3.14");
        assert_eq!(number("MemFree: 5 kB\nMemTotal:  12 kB\n", "MemTotal:"), Some(12));
        assert!(memory_use().is_some_and(|use_| use_.limit > 0 && use_.used > 0));
    }

    #[test]
    fn memory_limit_is_the_smallest_of_the_group_and_its_ancestors() {
        let dir = TestDir::new();
        let limit = |own: &str, slice: &str| {
            write(&dir, "slice/unit", &[("memory.max", own)]);
            write(&dir, "slice", &[("memory.max", slice)]);
            limit_of(dir.path(), "/slice/unit", "memory.max")
        };
        assert_eq!(limit("4096\n", "max\n"), Some(4096));
        assert_eq!(limit("max\n", "8192\n"), Some(8192));
        assert_eq!(limit("4096\n", "1024\n"), Some(1024));
        assert_eq!(limit("max\n", "max\n"), None);
        // In a container the mount point is the root, and the listed path lies outside of it.
        fs::write(dir.join("memory.max"), "77\n").unwrap();
        assert_eq!(
            ["/", "/../other"].map(|group| limit_of(dir.path(), group, "memory.max")),
            [Some(77), Some(77)]
        );
        assert_eq!(group("1:cpu:/x\n0::/slice/unit\n"), Some("/slice/unit".to_owned()));
    }

    #[test]
    fn memory_is_limited_by_groups_of_version_1_too() {
        let dir = TestDir::new();
        let container = dir.join("docker/1f");
        fs::create_dir_all(&container).unwrap();
        let list = "5:cpu,cpuacct:/docker/1f\n4:hugetlb,memory:/docker/1f\n1:name=systemd:/x:y\n0::/\n";
        assert_eq!(group_v1(list), Some("/docker/1f".to_owned()));
        assert_eq!(group_v1("1:name=memory:/x\n0::/slice/unit\n"), None);
        let limit = || limit_of(dir.path(), "/docker/1f", "memory.limit_in_bytes");
        assert_eq!(limit(), None);
        // An unlimited group of version 1 holds the largest page-aligned number.
        fs::write(dir.join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(limit(), Some(9_223_372_036_854_771_712));
        fs::write(container.join("memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(limit(), Some(4096));
    }
}
