//! Metrics of the cluster in OpenMetrics text, which Prometheus reads.
//!
//! They are of the latest sample, so a scrape costs the head nothing. Counters begin with the head. Labels are bounded:
//! beyond [`METRIC_LABELS_MAX`] values the rest is one value, [`OTHER`].

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::history::sampler::{OTHER, Observation};
use crate::cluster::admin::AlertKind;
use crate::config::METRIC_LABELS_MAX;

/// Content type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// Gauges of nodes: name, help, and the field of the row's usage.
const NODE_GAUGES: [(&str, &str, &str); 7] = [
    ("node_cpus", "CPUs of the node's machine", "cpus"),
    ("node_load1", "Load average of the node's machine over one minute", "load"),
    ("node_memory_used_bytes", "Memory of the node's machine in use", "memory_bytes"),
    ("node_memory_size_bytes", "Memory of the node's machine", "memory_total_bytes"),
    ("node_workers_memory_bytes", "Resident memory of the node's workers", "workers_memory_bytes"),
    (
        "node_filesystem_used_bytes",
        "Used bytes of the file system with the node's session",
        "disk_used_bytes",
    ),
    ("node_filesystem_size_bytes", "Size of the file system with the node's session", "disk_total_bytes"),
];

/// Counters of nodes: name, help, and the field of the row's usage.
const NODE_COUNTERS: [(&str, &str, &str); 3] = [
    ("node_cpu_seconds", "Busy time of all CPUs of the node's machine since its boot", "cpu_seconds"),
    ("node_network_transmit_bytes", "Bytes sent by the node's machine, without loopback", "sent_bytes"),
    (
        "node_network_receive_bytes",
        "Bytes received by the node's machine, without loopback",
        "received_bytes",
    ),
];

/// Encodes the metrics of an observation.
pub(super) fn text(seen: &Observation, stream_clients: usize) -> String {
    let mut registry = Registry::with_prefix("roadshow");
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "Version of the head", version);
    nodes(&mut registry, seen);
    work(&mut registry, seen);
    let clients = Gauge::<f64, AtomicU64>::default();
    clients.set(stream_clients as f64);
    registry.register("dashboard_stream_clients", "Pages that watch the cluster", clients);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn nodes(registry: &mut Registry, seen: &Observation) {
    let states = gauges(registry, "nodes", "Nodes by state");
    for state in ["ALIVE", "DRAINING", "UNREACHABLE", "REJOINING", "DEAD"] {
        let count = seen.nodes.iter().filter(|row| row["state"] == state).count();
        set(&states, vec![("state", state.to_owned())], count as f64);
    }
    let living = || seen.nodes.iter().filter(|row| row["state"] != "DEAD");
    // A sum of loads or sizes means nothing under one label, so nodes beyond the limit are left out.
    let shown: Vec<(String, &Value)> = living().take(METRIC_LABELS_MAX).map(|row| (id(row), row)).collect();
    for (name, help, field) in NODE_GAUGES {
        let family = gauges(registry, name, help);
        for (node, row) in &shown {
            if let Some(value) = row["usage"][field].as_f64() {
                set(&family, vec![("node", node.clone())], value);
            }
        }
    }
    for (name, help, field) in NODE_COUNTERS {
        let family = counters(registry, name, help);
        for (node, row) in &shown {
            if let Some(value) = row["usage"][field].as_f64() {
                count(&family, vec![("node", node.clone())], value);
            }
        }
    }
    for (name, help, field) in [
        ("node_workers", "Worker processes of the node", "workers"),
        ("node_actors", "Living actors of the node", "actors"),
    ] {
        let family = gauges(registry, name, help);
        for (node, row) in &shown {
            set(&family, vec![("node", node.clone())], row[field].as_f64().unwrap_or(0.0));
        }
    }
    resources(registry, living());
}

fn resources<'a>(registry: &mut Registry, nodes: impl Iterator<Item = &'a Value>) {
    let total = gauges(registry, "resource_total", "Amount of a resource that the nodes offer");
    let available = gauges(registry, "resource_available", "Amount of a resource that no actor holds");
    let mut names = Names::default();
    for row in nodes {
        for (family, field) in [(&total, "resources"), (&available, "available")] {
            for (name, amount) in row[field].as_object().into_iter().flatten() {
                let label = names.label(name);
                family.get_or_create(&vec![("resource", label)]).inc_by(amount.as_f64().unwrap_or(0.0));
            }
        }
    }
}

fn work(registry: &mut Registry, seen: &Observation) {
    let jobs = gauges(registry, "jobs", "Listed jobs by state");
    for (state, number) in &seen.jobs {
        set(&jobs, vec![("state", (*state).to_owned())], *number as f64);
    }
    let workers = Gauge::<f64, AtomicU64>::default();
    workers.set(seen.workers as f64);
    registry.register("workers", "Worker processes that have not ended", workers);
    let actors =
        gauges(registry, "actors", "Actors by class and state; dead ones as long as they are listed");
    let mut classes = Names::default();
    for class in &seen.classes {
        let label = classes.label(&class.class);
        for (state, number) in [
            ("PENDING_CREATION", class.pending_creation),
            ("ALIVE", class.alive),
            ("RESTARTING", class.restarting),
            ("DEAD", class.dead),
        ] {
            let labels = vec![("class", label.clone()), ("state", state.to_owned())];
            actors.get_or_create(&labels).inc_by(number as f64);
        }
    }
    let tasks = gauges(registry, "tasks", "Tasks that wait or run, by function");
    let mut functions = Names::default();
    for function in &seen.functions {
        let label = functions.label(&function.name);
        for (state, number) in [("QUEUED", function.queued), ("RUNNING", function.running)] {
            let labels = vec![("function", label.clone()), ("state", state.to_owned())];
            tasks.get_or_create(&labels).inc_by(number as f64);
        }
    }
    let finished =
        counters(registry, "tasks_finished", "Tasks that returned a result since the head started");
    let failed =
        counters(registry, "tasks_failed", "Tasks that panicked or were lost since the head started");
    for (function, (good, bad)) in &seen.tasks {
        count(&finished, vec![("function", escaped(function))], *good);
        count(&failed, vec![("function", escaped(function))], *bad);
    }
    let handled =
        counters(registry, "messages_handled", "Messages that actors handled since the head started");
    for (node, number) in &seen.messages {
        count(&handled, vec![("node", node.clone())], *number);
    }
    alerts(registry, seen);
    let changes = Counter::<f64, AtomicU64>::default();
    changes.inc_by(seen.snapshot as f64);
    registry.register("head_changes", "Changes of the head's tables since it started", changes);
}

fn alerts(registry: &mut Registry, seen: &Observation) {
    let alerts = gauges(registry, "alerts", "Conditions that an operator should handle, by kind");
    let kinds = [
        AlertKind::HeadState,
        AlertKind::UnreachableNode,
        AlertKind::WorkerStarts,
        AlertKind::SuspendedWorker,
    ];
    for kind in kinds {
        let number = seen.alerts.iter().filter(|alert| alert.kind == kind).count();
        let name = serde_json::to_value(kind).ok().and_then(|name| Some(name.as_str()?.to_owned()));
        set(&alerts, vec![("kind", name.unwrap_or_default())], number as f64);
    }
}

/// Names that have a label of their own.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn label(&mut self, name: &str) -> String {
        if self.0.len() < METRIC_LABELS_MAX {
            self.0.insert(name.to_owned());
        }
        escaped(if self.0.contains(name) { name } else { OTHER })
    }
}

/// Escapes a label's value, which the encoder writes as it is. Programs choose the names of types and resources.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn id(row: &Value) -> String {
    row["node_id"].as_str().unwrap_or_default().to_owned()
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn set(family: &Gauges, labels: Labels, value: f64) {
    family.get_or_create(&labels).set(value);
}

fn count(family: &Counters, labels: Labels, value: f64) {
    family.get_or_create(&labels).inc_by(value);
}

#[cfg(test)]
mod tests;
