//! Whether the kernel has killed processes for want of memory, by its own account.

use std::fs;

use crate::cluster::host_info;

/// How many it has killed by now, in this control group and on the whole machine.
pub(crate) fn oom_kill_count() -> u64 {
    group_kills().unwrap_or(0) + machine_kills().unwrap_or(0)
}

/// How a process ended, in the light of what the kernel has killed since.
pub(crate) fn annotate_oom(cause: String, kills_before: u64) -> String {
    match cause.contains("SIGKILL") && oom_kill_count() > kills_before {
        true => format!(
            "{cause}; the kernel has killed for want of memory meanwhile: give it less to do, or the node more memory"
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
    fn a_counter_is_found_by_its_whole_name() {
        let text = "oom 3\noom_kill_group 9\noom_kill 4\n";
        assert_eq!(counter(text, "oom_kill"), Some(4));
        assert_eq!(counter(text, "low"), None);
    }

    #[test]
    fn only_what_was_killed_may_have_been_killed_for_want_of_memory() {
        let ended = "the process exited with code 1".to_owned();
        assert_eq!(annotate_oom(ended.clone(), 0), ended);
        let killed = "the process was killed by signal 9 (SIGKILL)".to_owned();
        assert_eq!(annotate_oom(killed.clone(), u64::MAX), killed);
    }
}
