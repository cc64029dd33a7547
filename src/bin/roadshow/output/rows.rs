//! Nodes, jobs, actors, workers, tasks, messages and events as rows of a table.

use roadshow::admin::AdminRow;
use roadshow::model::{
    ActorInfo, ActorState, EventInfo, JobInfo, MessageInfo, NodeInfo, NodeState, Quantity, Resources,
    TaskInfo, WorkerState, WorkerSummary,
};
use serde::Serialize;

use crate::cli::values::significant;
use crate::output::table::{PLACEHOLDER, duration, memory, microseconds, or_nothing, short};
use crate::output::time::now_ms;

/// Listed entity: a row of a table, and an object in JSON.
pub(crate) trait TableRow: AdminRow + Serialize {
    /// Singular noun for messages.
    const NOUN: &'static str;
    const HEADERS: &'static [&'static str];
    /// Keys of its JSON object.
    const FIELDS: &'static [&'static str];

    fn cells(&self) -> Vec<String>;

    /// Complete id, as text.
    fn id(&self) -> String;

    /// Names by which a row resolves while it has not ended.
    fn names(&self) -> Vec<&str>;

    /// Reports if the entity has ended; its names are free then.
    fn has_ended(&self) -> bool;
}

impl TableRow for NodeInfo {
    const NOUN: &'static str = "node";
    const HEADERS: &'static [&'static str] =
        &["NODE", "STATE", "ADDRESS", "HEAD", "CPU", "WORKERS", "ACTORS", "NAME"];
    const FIELDS: &'static [&'static str] = &[
        "node_id",
        "state",
        "address",
        "hostname",
        "pid",
        "is_head",
        "resources",
        "available",
        "labels",
        "workers",
        "actors",
        "session_dir",
        "started_ms",
        "cause",
        "usage",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id(),
            word(&self.state),
            self.address.to_string(),
            if self.is_head { "yes" } else { "no" }.to_owned(),
            used(self, Resources::CPU),
            self.workers.to_string(),
            self.actors.to_string(),
            self.hostname.clone(),
        ]
    }

    fn id(&self) -> String {
        self.node_id.to_string()
    }

    fn names(&self) -> Vec<&str> {
        vec![&self.hostname]
    }

    fn has_ended(&self) -> bool {
        self.state == NodeState::Dead
    }
}

impl TableRow for JobInfo {
    const NOUN: &'static str = "job";
    const HEADERS: &'static [&'static str] = &["JOB", "STATE", "TIME", "EXIT", "PROGRAM", "MESSAGE"];
    const FIELDS: &'static [&'static str] = &[
        "job_id",
        "state",
        "entrypoint",
        "hostname",
        "pid",
        "runs_on",
        "started_ms",
        "ended_ms",
        "exit_code",
        "message",
    ];

    fn cells(&self) -> Vec<String> {
        let end = self.ended_ms.unwrap_or_else(now_ms);
        vec![
            self.id(),
            word(&self.state),
            // The start is by the clock of another machine, which may be ahead of this one.
            duration(end.saturating_sub(self.started_ms)),
            or_nothing(self.exit_code),
            self.entrypoint.clone(),
            or_nothing(self.message.as_ref()),
        ]
    }

    fn id(&self) -> String {
        self.job_id.to_string()
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn has_ended(&self) -> bool {
        !self.state.is_open()
    }
}

impl TableRow for ActorInfo {
    const NOUN: &'static str = "actor";
    const HEADERS: &'static [&'static str] =
        &["ACTOR", "STATE", "CLASS", "NAME", "JOB", "NODE", "PID", "RESTARTS", "HANDLED", "MAILBOX", "CAUSE"];
    const FIELDS: &'static [&'static str] = &[
        "actor_id",
        "class",
        "state",
        "job_id",
        "name",
        "namespace",
        "lifetime",
        "resources",
        "node_id",
        "worker_id",
        "pid",
        "started_ms",
        "ended_ms",
        "restarts",
        "restart_cause",
        "handled",
        "mailbox",
        "cause",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id(),
            word(&self.state),
            last_part(&self.class).to_owned(),
            or_nothing(self.name.as_ref()),
            significant(&self.job_id.to_string()).to_owned(),
            or_nothing(self.node_id.map(short)),
            or_nothing(self.pid),
            self.restarts.to_string(),
            or_nothing(self.handled),
            or_nothing(self.mailbox),
            or_nothing(self.cause.as_ref()),
        ]
    }

    fn id(&self) -> String {
        self.actor_id.to_string()
    }

    fn names(&self) -> Vec<&str> {
        self.name.as_deref().into_iter().collect()
    }

    fn has_ended(&self) -> bool {
        self.state == ActorState::Dead
    }
}

impl TableRow for WorkerSummary {
    const NOUN: &'static str = "worker";
    const HEADERS: &'static [&'static str] =
        &["WORKER", "STATE", "JOB", "NODE", "PID", "ACTORS", "CPU", "MEMORY", "HANDLED", "CAUSE"];
    const FIELDS: &'static [&'static str] = &[
        "worker_id",
        "state",
        "job_id",
        "node_id",
        "pid",
        "actors",
        "detached",
        "started_ms",
        "ended_ms",
        "cause",
        "usage",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id(),
            word(&self.state),
            significant(&self.job_id.to_string()).to_owned(),
            short(self.node_id),
            // A worker has the pid 0 until its process has started.
            or_nothing(Some(self.pid).filter(|pid| *pid > 0)),
            self.actors.to_string(),
            or_nothing(self.usage.map(|usage| duration((1000.0 * usage.cpu_seconds) as u64))),
            or_nothing(self.usage.map(|usage| memory(usage.memory_bytes as f64))),
            or_nothing(self.usage.map(|usage| usage.handled)),
            or_nothing(self.cause.as_ref()),
        ]
    }

    fn id(&self) -> String {
        self.worker_id.to_string()
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn has_ended(&self) -> bool {
        self.state == WorkerState::Dead
    }
}

impl TableRow for TaskInfo {
    const NOUN: &'static str = "task";
    const HEADERS: &'static [&'static str] =
        &["FUNCTION", "JOB", "WORKER", "QUEUED", "RUNNING", "FINISHED", "FAILED", "P50", "P99"];
    const FIELDS: &'static [&'static str] = &[
        "job_id",
        "worker_id",
        "node_id",
        "name",
        "queued",
        "running",
        "finished",
        "failed",
        "p50_us",
        "p99_us",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            last_part(&self.count.name).to_owned(),
            significant(&self.job_id.to_string()).to_owned(),
            significant(&self.worker_id.to_string()).to_owned(),
            self.count.queued.to_string(),
            self.count.running.to_string(),
            self.count.finished.to_string(),
            self.count.failed.to_string(),
            or_nothing(self.count.p50_us.map(microseconds)),
            or_nothing(self.count.p99_us.map(microseconds)),
        ]
    }

    fn id(&self) -> String {
        self.count.name.clone()
    }

    fn names(&self) -> Vec<&str> {
        vec![last_part(&self.count.name)]
    }

    fn has_ended(&self) -> bool {
        self.count.queued + self.count.running == 0
    }
}

impl TableRow for MessageInfo {
    const NOUN: &'static str = "message";
    const HEADERS: &'static [&'static str] =
        &["CLASS", "MESSAGE", "JOB", "WORKER", "NODE", "HANDLED", "P50", "P99"];
    const FIELDS: &'static [&'static str] =
        &["job_id", "worker_id", "node_id", "class", "message", "handled", "p50_us", "p99_us"];

    fn cells(&self) -> Vec<String> {
        vec![
            last_part(&self.count.class).to_owned(),
            last_part(&self.count.message).to_owned(),
            significant(&self.job_id.to_string()).to_owned(),
            significant(&self.worker_id.to_string()).to_owned(),
            short(self.node_id),
            self.count.handled.to_string(),
            or_nothing(self.count.p50_us.map(microseconds)),
            or_nothing(self.count.p99_us.map(microseconds)),
        ]
    }

    fn id(&self) -> String {
        self.count.message.clone()
    }

    fn names(&self) -> Vec<&str> {
        vec![last_part(&self.count.message)]
    }

    fn has_ended(&self) -> bool {
        false
    }
}

impl TableRow for EventInfo {
    const NOUN: &'static str = "event";
    const HEADERS: &'static [&'static str] = &["EVENT", "AGE", "SEVERITY", "KIND", "JOB", "NODE", "TEXT"];
    const FIELDS: &'static [&'static str] =
        &["event_id", "time_ms", "severity", "kind", "node_id", "worker_id", "job_id", "actor_id", "text"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id(),
            // The time is by the clock of another machine, which may be ahead of this one.
            duration(now_ms().saturating_sub(self.time_ms)),
            word(&self.severity),
            word(&self.kind),
            or_nothing(self.job_id.map(|job| significant(&job.to_string()).to_owned())),
            or_nothing(self.node_id.map(short)),
            self.text.clone(),
        ]
    }

    fn id(&self) -> String {
        self.event_id.to_string()
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn has_ended(&self) -> bool {
        false
    }
}

/// Name of a state as in JSON; Ray uses the same names.
pub(crate) fn word(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        // A state with fields serializes to an object.
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    }
}

/// Removes the module path from the name of a type or function.
pub(crate) fn last_part(name: &str) -> &str {
    // Only before the generics: `app::Shelf<std::vec::Vec<u8>>` must keep its parameters.
    let before_generics = name.find('<').unwrap_or(name.len());
    name[..before_generics].rfind("::").map_or(name, |at| &name[at + 2..])
}

/// Used and total amount of a resource on a node.
fn used(node: &NodeInfo, resource: &str) -> String {
    let total = quantity(&node.resources, resource);
    // The last known amounts of a dead node would look like capacity.
    if node.has_ended() || total == Quantity::default() {
        return PLACEHOLDER.to_owned();
    }
    let available = quantity(&node.available, resource);
    shown(resource, Quantity(total.0.saturating_sub(available.0)), total)
}

pub(crate) fn quantity(resources: &Resources, resource: &str) -> Quantity {
    resources.0.get(resource).copied().unwrap_or_default()
}

/// Formats used and total amounts as `0.5/4`; memory with units.
pub(crate) fn shown(resource: &str, used: Quantity, total: Quantity) -> String {
    match resource {
        Resources::MEMORY => format!("{}/{}", memory(used.into()), memory(total.into())),
        _ => format!("{used}/{total}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::test_cluster;

    fn fields_are_complete<T: TableRow>(row: &T) {
        let Value::Object(object) = serde_json::to_value(row).unwrap() else { panic!("a row is no object") };
        let mut shown: Vec<_> = object.keys().map(String::as_str).collect();
        let mut listed = T::FIELDS.to_vec();
        shown.sort_unstable();
        listed.sort_unstable();
        assert_eq!(shown, listed, "{}", T::NOUN);
        assert_eq!(row.cells().len(), T::HEADERS.len(), "{}", T::NOUN);
        // Objects and arrays have no text to compare a filter with.
        let simple = |field: &&str| !["resources", "available", "labels", "usage"].contains(field);
        let mut simple: Vec<_> = T::FIELDS.iter().copied().filter(simple).collect();
        let mut keys: Vec<_> = T::KIND.keys().collect();
        simple.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, simple, "{}", T::NOUN);
    }

    #[test]
    fn filters_accept_every_scalar_field_of_the_json() {
        fields_are_complete(&test_cluster::nodes()[0]);
        fields_are_complete(&test_cluster::jobs()[0]);
        fields_are_complete(&test_cluster::actors()[0]);
        fields_are_complete(&test_cluster::workers()[0]);
        fields_are_complete(&test_cluster::tasks()[0]);
        fields_are_complete(&test_cluster::messages()[0]);
        fields_are_complete(&test_cluster::events()[0]);
    }

    #[test]
    fn names_are_shown_without_module_paths() {
        let names = ["app::count::Counter", "Counter", "app::Shelf<std::vec::Vec<u8>>"];
        assert_eq!(names.map(last_part), ["Counter", "Counter", "Shelf<std::vec::Vec<u8>>"]);
    }
}
