//! Fake cluster: canned rows, and a record of the requests that change something.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::admin::{
    AdminError, AdminReply, AdminRequest, GroupCounts, Kind, LogFile, LogFrom, Page, Query,
};
use crate::cluster::control_service::TableVersions;
use crate::cluster::daemon::head::dashboard::source::{Answer, ClusterSource, Destination};
use crate::cluster::model::{JobId, JobSpans, RestartCounts};

#[derive(Debug, Default)]
pub(super) struct FakeCluster {
    versions: Mutex<TableVersions>,
    clock_ms: AtomicU64,
    pub(super) actions: Mutex<Vec<AdminRequest>>,
    pub(super) queries: Mutex<Vec<Query>>,
}

/// Address of the node that does not answer.
const SILENT: &str = "10.0.0.6:40001";

pub(super) const LOG: &str = "one\ntwo\nthree\n";

impl FakeCluster {
    /// Cluster whose head's clock shows a time.
    pub(super) fn at(clock_ms: u64) -> Self {
        Self { clock_ms: AtomicU64::new(clock_ms), ..Self::default() }
    }

    /// Counts a change of some tables.
    pub(super) fn change(&self, tables: &[Kind]) {
        let mut versions = self.versions.lock().unwrap();
        let next = versions.snapshot() + 1;
        versions.count(tables, next);
    }

    fn head(&self, request: AdminRequest) -> AdminReply {
        match request {
            AdminRequest::Snapshot => AdminReply::Snapshot {
                version: self.versions.lock().unwrap().snapshot(),
                time_ms: self.clock_ms.load(Ordering::Relaxed),
            },
            AdminRequest::List { of, query } => {
                self.queries.lock().unwrap().push(query.clone());
                list(of, &query)
            }
            AdminRequest::Classes => AdminReply::Classes(GroupCounts {
                rows: rows(
                    json!([{"class": "app::Counter", "pending_creation": 1, "alive": 2, "restarting": 0,
                    "dead": 1}]),
                ),
                more: 0,
            }),
            AdminRequest::Functions { .. } => AdminReply::Functions(GroupCounts {
                rows: rows(json!([{"name": "app::square", "queued": 2, "running": 1, "finished": 42,
                    "failed": 1}])),
                more: 0,
            }),
            AdminRequest::PendingActors => AdminReply::PendingActors {
                first: rows(
                    json!([{"actor_id": "0000000000000003", "class": "app::Big", "job_id": "00000001",
                    "reason": "it needs gpu 1"}]),
                ),
                count: 1,
            },
            AdminRequest::Restarts => AdminReply::Restarts(RestartCounts { total: 5, last_hour: 2 }),
            AdminRequest::Alerts => {
                AdminReply::Alerts(rows(json!([{"kind": "WORKER_STARTS", "text": "workers crash"}])))
            }
            AdminRequest::Spans { job: JobId(9) } => {
                AdminReply::Failed { text: "no job 00000009".to_owned(), unknown: true }
            }
            AdminRequest::Spans { .. } => AdminReply::Spans(spans()),
            AdminRequest::StopJob { job: JobId(9) } => {
                AdminReply::Failed { text: "no job 00000009".to_owned(), unknown: true }
            }
            AdminRequest::StopJob { job: JobId(2) } => {
                AdminReply::Failed { text: "job 00000002 has ended already".to_owned(), unknown: false }
            }
            request => {
                self.actions.lock().unwrap().push(request);
                AdminReply::Done
            }
        }
    }
}

impl ClusterSource for FakeCluster {
    fn ask(&self, to: Destination, request: AdminRequest) -> Answer {
        let reply = match to {
            Destination::Head => Ok(self.head(request)),
            Destination::Agent(address) if address.to_string() == SILENT => {
                Err(AdminError::Unreachable(format!("no agent answers at {address}")))
            }
            Destination::Agent(_) => Ok(agent(request)),
        };
        Box::pin(async { reply })
    }

    fn versions(&self) -> TableVersions {
        *self.versions.lock().unwrap()
    }

    /// A clock that goes on by a step of the history with each reading.
    fn now_ms(&self) -> u64 {
        self.clock_ms.fetch_add(2_000, Ordering::Relaxed)
    }
}

fn agent(request: AdminRequest) -> AdminReply {
    match request {
        AdminRequest::LogFiles { .. } => {
            let file = LogFile {
                file: "driver-1.out".to_owned(),
                worker: None,
                job: Some(JobId(1)),
                size: LOG.len() as u64,
            };
            AdminReply::LogFiles { files: vec![file], more: false }
        }
        AdminRequest::Log { file, .. } if file != "driver-1.out" => {
            AdminReply::Failed { text: format!("no log {file:?} on this node"), unknown: true }
        }
        AdminRequest::Log { from: LogFrom::Tail(_), .. } => {
            AdminReply::Log { text: "three\n".to_owned(), offset: LOG.len() as u64 }
        }
        AdminRequest::Log { from: LogFrom::Offset(offset), .. } => {
            // Parts of some bytes, so that a download needs several.
            let rest = LOG.get(offset as usize..).unwrap_or_default();
            let text = &rest[..rest.len().min(5)];
            AdminReply::Log { text: text.to_owned(), offset: offset + text.len() as u64 }
        }
        request => panic!("unexpected request to an agent: {request:?}"),
    }
}

fn rows<T: DeserializeOwned>(value: Value) -> Vec<T> {
    serde_json::from_value(value).unwrap()
}

fn list(kind: Kind, query: &Query) -> AdminReply {
    match kind {
        Kind::Nodes => AdminReply::Nodes(page(nodes(), query)),
        Kind::Jobs => AdminReply::Jobs(page(jobs(), query)),
        Kind::Actors => AdminReply::Actors(page(actors(), query)),
        Kind::Workers => AdminReply::Workers(page(workers(), query)),
        Kind::Tasks => AdminReply::Tasks(page(tasks(), query)),
        Kind::Messages => AdminReply::Messages(page(messages(), query)),
        Kind::Events => AdminReply::Events(page(events(), query)),
    }
}

/// Page with the offset and the limit of a query; filters are the real head's to apply.
fn page<T: DeserializeOwned>(all: Value, query: &Query) -> Page<T> {
    let mut all: Vec<T> = rows(all);
    let skipped = query.offset.min(all.len());
    let mut shown = all.split_off(skipped);
    let more = shown.len().saturating_sub(query.limit) as u64;
    shown.truncate(query.limit);
    Page { rows: shown, next: None, more: Some(more), skipped: skipped as u64 }
}

fn nodes() -> Value {
    let node = |id: &str, state: &str, address: &str, is_head: bool| {
        json!({"node_id": id, "state": state, "address": address, "hostname": "host", "pid": 11,
            "is_head": is_head, "resources": {"cpu": 4.0}, "available": {"cpu": 3.5}, "labels": {}, "workers": 4,
            "actors": 1, "session_dir": "s", "started_ms": 0, "cause": null,
            "usage": {"load": 0.5, "memory_bytes": 1000, "workers_memory_bytes": 10, "cpus": 4, "cpu_seconds": 100.0,
                "memory_total_bytes": 4000, "disk_used_bytes": 100, "disk_total_bytes": 1000, "sent_bytes": 10,
                "received_bytes": 20, "sampled_ms": 1000}})
    };
    json!([
        node("00000000000000a1", "ALIVE", "10.0.0.5:6379", true),
        node("00000000000000b2", "DRAINING", SILENT, false),
        node("00000000000000c3", "DEAD", "10.0.0.7:40001", false),
    ])
}

fn jobs() -> Value {
    json!([
        {"job_id": "00000002", "state": "FAILED", "entrypoint": "./fails", "hostname": "h", "pid": 22,
         "runs_on": null, "started_ms": 1000, "ended_ms": 2000, "exit_code": 7, "message": "code 7"},
        {"job_id": "00000001", "state": "RUNNING", "entrypoint": "./count book.txt", "hostname": "h", "pid": 21,
         "runs_on": "00000000000000a1", "started_ms": 1000, "ended_ms": null, "exit_code": null,
         "message": null},
    ])
}

fn actors() -> Value {
    json!([{"actor_id": "0000000000000001", "class": "app::Counter", "state": "ALIVE", "job_id": "00000001",
        "name": "counter", "namespace": "", "lifetime": "DETACHED", "resources": {"cpu": 0.5},
        "node_id": "00000000000000a1", "worker_id": "0000000000000001", "pid": 31, "cause": null}])
}

fn workers() -> Value {
    json!([{"worker_id": "0000000000000001", "state": "ALIVE", "job_id": "00000001",
        "node_id": "00000000000000a1", "pid": 31, "actors": 1, "detached": null, "cause": null}])
}

fn tasks() -> Value {
    json!([{"job_id": "00000001", "worker_id": "0000000000000001", "node_id": "00000000000000a1",
        "name": "app::square", "queued": 2, "running": 1, "finished": 40, "failed": 0}])
}

fn spans() -> JobSpans {
    let span = |number: u64| json!([1_000_000 + number, 50, 0, 0]);
    serde_json::from_value(json!({"names": [{"Task": {"function": "app::square"}}],
        "lanes": [{"worker_id": "0000000000000001", "number": 0, "thread": "roadshow-tasks"}],
        "spans": (0..4).map(span).collect::<Vec<_>>(), "left_out": 3}))
    .unwrap()
}

fn messages() -> Value {
    json!([{"job_id": "00000001", "worker_id": "0000000000000001", "node_id": "00000000000000a1",
        "class": "app::Counter", "message": "app::Add", "handled": 40, "p50_us": 3, "p99_us": 14}])
}

fn events() -> Value {
    json!([{"event_id": "0000000000000002", "time_ms": 2000, "severity": "ERROR", "kind": "WORKER_DIED",
        "node_id": "00000000000000a1", "worker_id": "0000000000000002", "job_id": "00000001", "actor_id": null,
        "text": "it was killed by signal 9"}])
}
