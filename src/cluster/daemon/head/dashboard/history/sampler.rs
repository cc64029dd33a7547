//! Sampler: reads the cluster's state each two seconds, for the history, the event stream and `/metrics`.
//!
//! Fields of rows are taken by their names, so that a row without one is a series without values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rates::{Decrease, First, Rates};
use super::series::{Reading, Sample, number};
use crate::cluster::admin::{Alert, Filter, Kind, Query};
use crate::cluster::daemon::head::dashboard::reply::ApiError;
use crate::cluster::daemon::head::dashboard::routes::lists::{Rows, page};
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::cluster::daemon::head::dashboard::source::{Destination, admin};
use crate::cluster::listing::hexadecimal;
use crate::cluster::model::{ClassCount, JobState, NodeId, TaskCount};
use crate::config::{HISTORY_WORKERS_MAX, LIST_ROWS_MAX, METRIC_LABELS_MAX};

/// Label of all values beyond [`METRIC_LABELS_MAX`].
pub(in crate::cluster::daemon::head::dashboard) const OTHER: &str = "other";

/// Series of a node's usage that are fields of the same name.
const GAUGES: [&str; 3] = ["memory_bytes", "memory_total_bytes", "disk_used_bytes"];

/// Counters of a node's usage, and the series of their rates.
const COUNTERS: [(&str, &str); 2] =
    [("sent_bytes", "sent_bytes_per_s"), ("received_bytes", "received_bytes_per_s")];

/// State of the cluster at one time, for `/metrics`.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster::daemon::head::dashboard) struct Observation {
    pub(in crate::cluster::daemon::head::dashboard) sample: Sample,
    pub(in crate::cluster::daemon::head::dashboard) snapshot: u64,
    /// Rows of the node list.
    pub(in crate::cluster::daemon::head::dashboard) nodes: Vec<Value>,
    pub(in crate::cluster::daemon::head::dashboard) jobs: Vec<(&'static str, u64)>,
    pub(in crate::cluster::daemon::head::dashboard) classes: Vec<ClassCount>,
    pub(in crate::cluster::daemon::head::dashboard) functions: Vec<TaskCount>,
    pub(in crate::cluster::daemon::head::dashboard) alerts: Vec<Alert>,
    pub(in crate::cluster::daemon::head::dashboard) workers: u64,
    /// Tasks that have finished and failed since the head started, by function.
    pub(in crate::cluster::daemon::head::dashboard) tasks: BTreeMap<String, (f64, f64)>,
    /// Messages handled since the head started, by node.
    pub(in crate::cluster::daemon::head::dashboard) messages: BTreeMap<String, f64>,
}

/// Reader of samples, with the counters of the sample before.
#[derive(Debug)]
pub(in crate::cluster::daemon::head::dashboard) struct Sampler {
    usage: Rates<(NodeId, &'static str)>,
    handled: Rates<u64>,
    tasks: Rates<(String, bool)>,
    task_totals: BTreeMap<String, (f64, f64)>,
    message_totals: BTreeMap<String, f64>,
}

impl Sampler {
    pub(in crate::cluster::daemon::head::dashboard) fn new() -> Self {
        Self {
            usage: Rates::new(First::Baseline, Decrease::Restart),
            handled: Rates::new(First::FromZero, Decrease::Restart),
            tasks: Rates::new(First::FromZero, Decrease::Forgotten),
            task_totals: BTreeMap::new(),
            message_totals: BTreeMap::new(),
        }
    }

    /// Reads the state of the cluster.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the sample.
    pub(in crate::cluster::daemon::head::dashboard) async fn observe(
        &mut self,
        shared: &Shared,
    ) -> Result<Observation, ApiError> {
        let mut seen =
            Observation { snapshot: shared.source.versions().snapshot(), ..Observation::default() };
        seen.sample.time_ms = shared.source.now_ms();
        let mut head = admin(&shared.source, Destination::Head);
        seen.nodes = all(shared, Kind::Nodes, Vec::new(), usize::MAX).await?.rows;
        for state in JobState::WORDS {
            let query =
                Query { limit: 1, count: true, ..Query::filtered(vec![equals("state", state, true)]) };
            seen.jobs.push((state, page(shared, Kind::Jobs, query).await?.total()));
        }
        seen.classes = head.classes().await?.rows;
        seen.functions = head.functions(None).await?.rows;
        seen.alerts = head.alerts().await?;
        let living = vec![equals("state", "DEAD", false)];
        let workers = all(shared, Kind::Workers, living, HISTORY_WORKERS_MAX).await?;
        seen.workers = workers.total();
        self.measure_nodes(&mut seen);
        self.measure_work(&mut seen, &workers.rows);
        seen.tasks.clone_from(&self.task_totals);
        seen.messages.clone_from(&self.message_totals);
        Ok(seen)
    }

    fn measure_nodes(&mut self, seen: &mut Observation) {
        let time_ms = seen.sample.time_ms;
        let (mut busy, mut cpus) = (None, 0.0);
        let (mut sums, mut living) = (Reading::default(), 0.0);
        for row in seen.nodes.iter().filter(|row| row["state"] != "DEAD") {
            living += 1.0;
            let Some(node) = row["node_id"].as_str().and_then(hexadecimal).map(NodeId) else { continue };
            let usage = &row["usage"];
            let at_ms = usage["sampled_ms"].as_u64().unwrap_or(time_ms);
            let mut reading = Reading::default();
            for name in GAUGES {
                set(&mut reading, name, usage[name].as_f64());
            }
            for (counter, name) in COUNTERS {
                let count = usage[counter].as_f64();
                let change = count.map(|count| self.usage.report((node, counter), count, at_ms));
                set(&mut reading, name, change.and_then(|change| change.per_s));
            }
            let seconds = usage["cpu_seconds"].as_f64();
            let change = seconds.map(|seconds| self.usage.report((node, "cpu_seconds"), seconds, at_ms));
            if let (Some(per_s), Some(count)) = (change.and_then(|it| it.per_s), usage["cpus"].as_f64())
                && count > 0.0
            {
                set(&mut reading, "cpu_percent", Some((100.0 * per_s / count).min(100.0)));
                busy = Some(busy.unwrap_or(0.0) + per_s);
                cpus += count;
            }
            for (sum, value) in sums.iter_mut().zip(reading) {
                *sum = value.map(|value| sum.unwrap_or(0.0) + value).or(*sum);
            }
            seen.sample.nodes.insert(node, reading);
        }
        self.usage.end_round(time_ms);
        seen.sample.cluster = sums;
        set(&mut seen.sample.cluster, "cpu_percent", busy.map(|busy: f64| (100.0 * busy / cpus).min(100.0)));
        set(&mut seen.sample.cluster, "nodes", Some(living));
    }

    fn measure_work(&mut self, seen: &mut Observation, workers: &[Value]) {
        let time_ms = seen.sample.time_ms;
        let mut messages = None;
        for row in workers {
            let (Some(id), Some(handled)) =
                (row["worker_id"].as_str().and_then(hexadecimal), row["usage"]["handled"].as_f64())
            else {
                continue;
            };
            let at_ms = row["usage"]["sampled_ms"].as_u64().unwrap_or(time_ms);
            let change = self.handled.report(id, handled, at_ms);
            messages = change.per_s.map(|per_s| messages.unwrap_or(0.0) + per_s).or(messages);
            let node = row["node_id"].as_str().unwrap_or_default();
            *total(&mut self.message_totals, node) += change.increase;
        }
        self.handled.end_round(time_ms);
        let (mut rates, mut queued) = ([None; 2], 0);
        for count in &seen.functions {
            queued += count.queued;
            let totals = total(&mut self.task_totals, &count.name);
            for (is_failed, number) in [(false, count.finished), (true, count.failed)] {
                let change = self.tasks.report((count.name.clone(), is_failed), number as f64, time_ms);
                *(if is_failed { &mut totals.1 } else { &mut totals.0 }) += change.increase;
                let rate = &mut rates[usize::from(is_failed)];
                *rate = change.per_s.map(|per_s| rate.unwrap_or(0.0) + per_s).or(*rate);
            }
        }
        self.tasks.end_round(time_ms);
        let cluster = &mut seen.sample.cluster;
        set(cluster, "messages_per_s", messages);
        set(cluster, "tasks_per_s", rates[0].map(|rate: f64| rate + rates[1].unwrap_or(0.0)));
        set(cluster, "tasks_failed_per_s", rates[1]);
        set(cluster, "tasks_queued", Some(queued as f64));
        let sum = |count: fn(&ClassCount) -> u64| Some(seen.classes.iter().map(count).sum::<u64>() as f64);
        set(cluster, "actors", sum(|class| class.alive));
        set(cluster, "actors_pending", sum(|class| class.pending_creation));
        set(cluster, "workers", Some(seen.workers as f64));
        let running = seen.jobs.iter().find(|(state, _)| *state == "RUNNING");
        set(cluster, "jobs_running", running.map(|(_, count)| *count as f64));
    }
}

/// Total under a name, or under [`OTHER`] once there are too many names.
fn total<'a, T: Default>(totals: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    let is_known = totals.contains_key(name) || totals.len() < METRIC_LABELS_MAX;
    totals.entry(if is_known { name } else { OTHER }.to_owned()).or_default()
}

fn set(reading: &mut Reading, name: &str, value: Option<f64>) {
    if let Some(series) = number(name) {
        reading[series] = value;
    }
}

fn equals(key: &str, value: &str, is_equal: bool) -> Filter {
    Filter { key: key.to_owned(), value: value.to_owned(), is_equal }
}

/// Reads the rows of all pages, up to a number of rows; the total counts those that are left out.
async fn all(shared: &Shared, kind: Kind, filters: Vec<Filter>, rows_max: usize) -> Result<Rows, ApiError> {
    let mut query = Query { count: true, ..Query::filtered(filters) };
    let mut found = page(shared, kind, query.clone()).await?;
    while let Some(next) = found.next.take().filter(|_| found.rows.len() < rows_max) {
        query.after = Some(next);
        query.limit = LIST_ROWS_MAX.min(rows_max - found.rows.len());
        found.append(page(shared, kind, query.clone()).await?);
    }
    Ok(found)
}
