//! Kills by the kernel's out-of-memory killer, read from the kernel's counters.

use std::fs;

use crate::cluster::host_info;

/// Number of processes that the kernel has killed so far, in this control group and on the whole machine.
pub(crate) fn oom_kill_count() -> u64 {
    group_kills().unwrap_or(0) + machine_kills().unwrap_or(0)
}

/// Adds a hint to the cause of a process' end if the kernel has killed processes since.
pub(crate) fn annotate_oom(cause: String, kills_before: u64) -> String {
    match cause.contains("SIGKILL") && oom_kill_count() > kills_before {
        true => format!(
            "{cause}; the kernel has killed processes for want of memory meanwhile: give it less to do, or the node \
             more memory"
        ),
        false => cause,
    }
}

fn machine_kills() -> Option<u64> {
    counter(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

fn group_kills() -> Option<u64> {
    counter(&host_info::group_file("memory.events")?, "oom_kill")
}

fn counter(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_is_found_by_its_whole_name() {
        let text = "oom 3\noom_kill_group 9\noom_kill 4\n";
        assert_eq!(counter(text, "oom_kill"), Some(4));
        assert_eq!(counter(text, "low"), None);
    }

    #[test]
    fn hint_is_added_only_to_kills() {
        let ended = "the process exited with code 1".to_owned();
        assert_eq!(annotate_oom(ended.clone(), 0), ended);
        let killed = "the process was killed by signal 9 (SIGKILL)".to_owned();
        assert_eq!(annotate_oom(killed.clone(), u64::MAX), killed);
    }
}
