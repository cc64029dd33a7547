//! Kills of processes, and those by the kernel's out-of-memory killer, read from the kernel's counters.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::process::SIGKILL;
use crate::cluster::host_info;
use crate::config::WORKER_KILLED_AFTER;
use crate::spec::{End, EndReason};

/// Number of processes that the kernel has killed so far, in this control group and on the whole machine.
fn oom_kill_count() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_kills(Path::new(host_info::GROUPS), &groups) + machine_kills().unwrap_or(0)
}

/// Explanation of a worker's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerEnd {
    pub(crate) end: End,
    /// True if the process was killed from outside, and not for want of memory.
    pub(crate) killed: bool,
}

/// State at the start of a process, by which its end is explained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtStart {
    kills: u64,
    started_at: Instant,
}

impl AtStart {
    pub(crate) fn now() -> Self {
        Self { kills: oom_kill_count(), started_at: Instant::now() }
    }

    /// Explains the end of the process, with a hint if the kernel has killed processes since the start.
    pub(crate) fn explain(self, end: End) -> WorkerEnd {
        explain(end, oom_kill_count() > self.kills, self.started_at.elapsed())
    }
}

fn explain(end: End, kernel_kills: bool, age: Duration) -> WorkerEnd {
    let is_kill = end.reason == EndReason::Signalled(SIGKILL);
    // The counters do not name the victim, so the hint is added only to a kill.
    if !is_kill || !kernel_kills {
        // A program may kill itself. One that does so at once must not be started again without a delay.
        return WorkerEnd { end, killed: is_kill && age >= WORKER_KILLED_AFTER };
    }
    let text = format!(
        "{end}; the kernel has killed processes for want of memory meanwhile: give it less to do, or the node more \
         memory"
    );
    WorkerEnd { end: End::new(EndReason::OutOfMemory, text), killed: false }
}

fn machine_kills() -> Option<u64> {
    counter(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// Kills in the groups of a list such as `/proc/self/cgroup`, of which version 1 has the count in another file.
fn group_kills(mounted: &Path, list: &str) -> u64 {
    let texts = host_info::group_texts(mounted, list, "memory.events", "memory.oom_control");
    texts.filter_map(|text| counter(&text, "oom_kill")).sum()
}

fn counter(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[test]
    fn kills_of_control_groups_are_counted_in_either_version() {
        let scratch = TestDir::new();
        let write = |path: &str, text: &str| {
            let path = scratch.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let kills = |list: &str| group_kills(scratch.path(), list);
        let (v2, v1) = ("0::/slice/unit\n", "5:cpu:/x\n4:hugetlb,memory:/docker/1f\n1:name=systemd:/y\n");
        assert_eq!((kills(v2), kills(v1), kills("")), (0, 0, 0));
        write("slice/unit/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\n");
        assert_eq!(kills(v2), 2);
        // In a container whose list has the group's name outside of it.
        write("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
        assert_eq!(kills(v1), 5);
        write("memory/docker/1f/memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 9\n");
        assert_eq!(kills(v1), 9);
        assert_eq!(kills(&format!("{v1}{v2}")), 11);
        // Before Linux 4.13 there is no count.
        write("memory/docker/1f/memory.oom_control", "oom_kill_disable 0\nunder_oom 1\n");
        assert_eq!(kills(v1), 0);
    }

    #[test]
    fn counter_is_found_by_its_whole_name() {
        let text = "oom 3\noom_kill_group 9\noom_kill 4\n";
        assert_eq!(counter(text, "oom_kill"), Some(4));
        assert_eq!(counter(text, "low"), None);
    }

    fn killed() -> End {
        End::new(EndReason::Signalled(SIGKILL), "the process was killed by signal 9 (SIGKILL)")
    }

    fn exited() -> End {
        End::new(EndReason::Exited(1), "the process exited with code 1")
    }

    #[test]
    fn only_late_kills_that_are_not_for_want_of_memory_are_from_outside() {
        let (soon, late) = (WORKER_KILLED_AFTER / 2, WORKER_KILLED_AFTER);
        let is_killed = |end, kernel_kills, age| explain(end, kernel_kills, age).killed;
        let [at_once, later, by_kernel] = [(false, soon), (false, late), (true, late)]
            .map(|(kernel_kills, age)| is_killed(killed(), kernel_kills, age));
        assert_eq!([at_once, later, by_kernel], [false, true, false]);
        assert!(!is_killed(exited(), false, late));
    }

    #[test]
    fn only_kills_can_be_for_want_of_memory() {
        let explained = |end| explain(end, true, Duration::ZERO).end;
        let by_kernel = explained(killed());
        assert_eq!(by_kernel.reason, EndReason::OutOfMemory);
        assert!(by_kernel.text.contains("want of memory"), "{by_kernel}");
        assert_eq!(explained(exited()), exited());
    }
}
