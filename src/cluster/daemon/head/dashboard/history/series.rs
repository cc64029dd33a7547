//! Names and units of the series, and samples of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cluster::model::NodeId;

/// Names and units of the series. The first [`OF_NODES`] exist for each node, too.
const SERIES: [(&str, &str); COUNT] = [
    ("cpu_percent", "percent"),
    ("memory_bytes", "bytes"),
    ("memory_total_bytes", "bytes"),
    ("disk_used_bytes", "bytes"),
    ("sent_bytes_per_s", "bytes/s"),
    ("received_bytes_per_s", "bytes/s"),
    ("messages_per_s", "1/s"),
    ("tasks_per_s", "1/s"),
    ("tasks_queued", ""),
    ("tasks_failed_per_s", "1/s"),
    ("actors", ""),
    ("actors_pending", ""),
    ("workers", ""),
    ("nodes", ""),
    ("jobs_running", ""),
];

/// Number of series of the cluster.
pub(in crate::cluster::daemon::head::dashboard) const COUNT: usize = 15;

/// Number of series of a node.
pub(in crate::cluster::daemon::head::dashboard) const OF_NODES: usize = 6;

/// Values of the series at one time; a series without a value has none. Of a node only the first are used.
pub(in crate::cluster::daemon::head::dashboard) type Reading = [Option<f64>; COUNT];

/// Values of the cluster and of its nodes at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cluster::daemon::head::dashboard) struct Sample {
    pub(in crate::cluster::daemon::head::dashboard) time_ms: u64,
    pub(in crate::cluster::daemon::head::dashboard) cluster: Reading,
    pub(in crate::cluster::daemon::head::dashboard) nodes: BTreeMap<NodeId, Reading>,
}

impl Sample {
    /// Sample as the event stream has it.
    pub(in crate::cluster::daemon::head::dashboard) fn json(&self) -> Value {
        let nodes = self.nodes.iter().map(|(node, reading)| (node.to_string(), named(&reading[..OF_NODES])));
        json!({
            "time_ms": self.time_ms,
            "cluster": named(&self.cluster),
            "nodes": nodes.collect::<Map<String, Value>>(),
        })
    }
}

fn named(reading: &[Option<f64>]) -> Value {
    SERIES.iter().zip(reading).map(|((name, _), value)| ((*name).to_owned(), json!(value))).collect()
}

/// Number of a series.
pub(in crate::cluster::daemon::head::dashboard) fn number(name: &str) -> Option<usize> {
    SERIES.iter().position(|(known, _)| *known == name)
}

/// Name and unit of a series.
pub(in crate::cluster::daemon::head::dashboard) fn name(series: usize) -> (&'static str, &'static str) {
    SERIES[series]
}
