//! What this machine is, as far as a cluster cares.

use super::model::Resources;

/// Its name.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How many processors this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// What it has for work: processors and memory, unless others are given.
pub(super) fn resources(cpus: Option<f64>, memory: Option<u64>) -> Resources {
    let cpus = cpus.unwrap_or_else(|| cores() as f64);
    let memory = memory.unwrap_or_else(memory_bytes);
    Resources::none().with(Resources::CPU, cpus).with(Resources::MEMORY, memory as f64)
}

/// All of its memory, or what the control group of this process may have of it.
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let all = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)));
    group_limit().map_or(all, |limit| limit.min(all))
}

fn group_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok()?;
    limit.trim().parse().ok()
}
