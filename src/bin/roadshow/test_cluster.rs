//! Fake cluster for tests: canned replies of a head and its agents.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use roadshow::admin::{
    Admin, AdminEndpoint, AdminError, AdminReply, AdminRequest, AdminTransport, Alert, GroupCounts, Kind,
    LogFile, LogFrom, Page, PendingActor, Query, RestartCounts,
};
use roadshow::model::{
    ActorInfo, ActorKey, ActorState, ClassCount, EventInfo, JobId, JobInfo, JobSpans, MessageInfo, NodeId,
    NodeInfo, TaskCount, TaskInfo, WorkerId, WorkerSummary,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::cluster_args::AdminConnector;
use crate::cli::values::significant;
use crate::error::CliResult;
use crate::output::CliOutput;
use crate::output::rows::TableRow;

fn list<T: DeserializeOwned>(value: Value) -> Vec<T> {
    serde_json::from_value(value).unwrap()
}

pub(crate) const HEAD: NodeId = NodeId(0xa1b2_0000_0000_0001);
pub(crate) const OTHER: NodeId = NodeId(0xc3d4_0000_0000_0002);

pub(crate) fn head_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 6379))
}

pub(crate) fn other_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 6], 40001))
}

pub(crate) fn nodes() -> Vec<NodeInfo> {
    list(json!([
        {"node_id": HEAD, "state": "ALIVE", "address": "10.0.0.5:6379", "hostname": "head", "pid": 11,
         "is_head": true, "resources": {"cpu": 4.0, "memory": 8589934592.0},
         "available": {"cpu": 3.5, "memory": 8589934592.0}, "labels": {}, "workers": 4, "actors": 1,
         "session_dir": "s", "started_ms": 0, "cause": null},
        {"node_id": OTHER, "state": "DRAINING", "address": "10.0.0.6:40001", "hostname": "other", "pid": 12,
         "is_head": false, "resources": {"cpu": 2.0, "gpu": 1.0}, "available": {"cpu": 2.0, "gpu": 0.0},
         "labels": {"zone": "a"}, "workers": 2, "actors": 1, "session_dir": "s", "started_ms": 0,
         "cause": null},
        {"node_id": "e5f6000000000003", "state": "DEAD", "address": "10.0.0.7:40001", "hostname": "other",
         "pid": 13, "is_head": false, "resources": {}, "available": {}, "labels": {}, "workers": 0,
         "actors": 0, "session_dir": "s", "started_ms": 0, "cause": "it was not heard of for 10 s"},
    ]))
}

pub(crate) fn jobs() -> Vec<JobInfo> {
    list(json!([
        {"job_id": JobId(1), "state": "SUCCEEDED", "entrypoint": "./count book.txt", "hostname": "head",
         "pid": 21, "runs_on": HEAD, "started_ms": 1000, "ended_ms": 63000, "exit_code": 0, "message": null},
        {"job_id": JobId(2), "state": "FAILED", "entrypoint": "./fails", "hostname": "head", "pid": 22,
         "runs_on": null, "started_ms": 1000, "ended_ms": 2000, "exit_code": 7,
         "message": "the process exited with code 7"},
    ]))
}

pub(crate) fn actors() -> Vec<ActorInfo> {
    list(json!([
        {"actor_id": ActorKey(1), "class": "app::Counter", "state": "ALIVE", "job_id": JobId(1),
         "name": "counter", "namespace": "", "lifetime": "DETACHED", "resources": {"cpu": 0.5},
         "node_id": OTHER, "worker_id": WorkerId(1), "pid": 31, "started_ms": 1000, "handled": 70,
         "mailbox": 2, "cause": null},
        {"actor_id": ActorKey(2), "class": "app::Counter", "state": "DEAD", "job_id": JobId(2), "name": "old",
         "namespace": "", "lifetime": "JOB", "resources": {}, "node_id": null, "worker_id": null,
         "pid": null, "cause": "it was killed"},
    ]))
}

pub(crate) fn workers() -> Vec<WorkerSummary> {
    list(json!([
        {"worker_id": WorkerId(1), "state": "ALIVE", "job_id": JobId(1), "node_id": OTHER, "pid": 31,
         "actors": 1, "detached": ActorKey(1), "started_ms": 1000, "cause": null,
         "usage": {"cpu_seconds": 61.0, "memory_bytes": 67108864, "sent_bytes": 1, "received_bytes": 2,
                   "messages_sent": 3, "messages_received": 4, "handled": 70, "mailbox": 2,
                   "sampled_ms": 62000}},
        {"worker_id": WorkerId(2), "state": "STARTING", "job_id": JobId(2), "node_id": HEAD, "pid": 0,
         "actors": 0, "detached": null, "cause": null},
    ]))
}

pub(crate) fn tasks() -> Vec<TaskInfo> {
    list(json!([
        {"job_id": JobId(1), "worker_id": WorkerId(1), "node_id": OTHER, "name": "app::square", "queued": 2,
         "running": 1, "finished": 40, "failed": 0, "p50_us": 40, "p99_us": 80},
        {"job_id": JobId(1), "worker_id": WorkerId(2), "node_id": HEAD, "name": "app::square", "queued": 0,
         "running": 0, "finished": 2, "failed": 1},
    ]))
}

pub(crate) fn messages() -> Vec<MessageInfo> {
    list(json!([{"job_id": JobId(1), "worker_id": WorkerId(1), "node_id": OTHER, "class": "app::Counter",
        "message": "app::Add", "handled": 70, "p50_us": 2, "p99_us": 1240}]))
}

/// Events in the order of the head's list, newest first.
pub(crate) fn events() -> Vec<EventInfo> {
    list(json!([
        {"event_id": "0000000000000002", "time_ms": 2000, "severity": "ERROR", "kind": "WORKER_DIED",
         "node_id": OTHER, "worker_id": WorkerId(3), "job_id": JobId(1), "actor_id": null,
         "text": "it was killed by signal 9; 1 actor ended with it"},
        {"event_id": "0000000000000001", "time_ms": 1000, "severity": "INFO", "kind": "NODE_JOINED",
         "node_id": HEAD, "worker_id": null, "job_id": null, "actor_id": null,
         "text": "it joined: head at 10.0.0.5:6379"},
    ]))
}

/// Spans of the first job, on the worker that lives and on a thread that is its second.
pub(crate) fn spans(job: JobId) -> JobSpans {
    if job != JobId(1) {
        return JobSpans::default();
    }
    serde_json::from_value(json!({
        "names": [{"Task": {"function": "app::square"}},
                  {"Message": {"class": "app::Counter", "message": "app::Add"}}],
        "lanes": [{"worker_id": WorkerId(1), "number": 0, "thread": "roadshow-actors"},
                  {"worker_id": WorkerId(1), "number": 1, "thread": "roadshow-tasks"}],
        "spans": [[2_000_000, 500_000, 0, 1], [2_100_000, 40, 1, 0]],
        "left_out": 7,
    }))
    .unwrap()
}

pub(crate) fn classes() -> Vec<ClassCount> {
    list(json!([{"class": "app::Counter", "pending_creation": 0, "alive": 1, "restarting": 0, "dead": 1}]))
}

pub(crate) fn functions() -> Vec<TaskCount> {
    list(json!([{"name": "app::square", "queued": 2, "running": 1, "finished": 42, "failed": 1}]))
}

/// Page of a list, filtered and paged as the head does it. A cursor is the number of rows before it.
fn page<T: TableRow>(all: Vec<T>, query: &Query) -> Page<T> {
    let passes = |row: &T| {
        let row = serde_json::to_value(row).unwrap();
        query.filters.iter().all(|filter| {
            let field = row.get(&filter.key).or_else(|| row.get(format!("{}_id", filter.key))).unwrap();
            let text = field.as_str().map_or_else(|| field.to_string(), str::to_owned);
            let [field, value] = [&text, &filter.value].map(|text| significant(text).to_ascii_lowercase());
            (field == value) == filter.is_equal
        })
    };
    // The order of the head's lists: entities that have not ended first, then the newest first.
    let mut rows: Vec<T> = all.into_iter().filter(passes).collect();
    rows.reverse();
    rows.sort_by_key(TableRow::has_ended);
    let before: usize = query.after.as_ref().map_or(0, |after| after.parse().unwrap());
    let mut rows = rows.split_off(before.min(rows.len()));
    let more = rows.len().saturating_sub(query.limit);
    rows.truncate(query.limit);
    let next = (more > 0).then(|| (before + rows.len()).to_string());
    Page { rows, next, more: query.count.then_some(more as u64), skipped: 0 }
}

pub(crate) fn pending_actors() -> Vec<PendingActor> {
    list(json!([{"actor_id": ActorKey(3), "class": "app::Big", "job_id": JobId(1),
        "reason": "it needs gpu 1, of which no node has any left"}]))
}

pub(crate) fn alert(with: &str, text: &str) -> Alert {
    serde_json::from_value(json!({"kind": with, "text": text})).unwrap()
}

/// Fake cluster that records every request.
#[derive(Clone)]
pub(crate) struct FakeCluster(Arc<Mutex<FakeClusterState>>);

pub(crate) struct FakeClusterState {
    pub(crate) recorded: Vec<(AdminEndpoint, SocketAddr, AdminRequest)>,
    /// Successive replies to job lists; the last one repeats.
    pub(crate) jobs: VecDeque<Vec<JobInfo>>,
    pub(crate) logs: Vec<(SocketAddr, LogFile, String)>,
    /// Stored bytes of every executable.
    pub(crate) stored: u64,
    pub(crate) alerts: Vec<Alert>,
    /// Reply to every request that changes something.
    pub(crate) done: AdminReply,
    /// Makes actors ignore a graceful kill, as one with a long computation does.
    pub(crate) actors_are_busy: bool,
    /// Keeps the constructor of the live actor running.
    pub(crate) actors_are_constructing: bool,
    /// Closes connections instead of replying.
    pub(crate) is_lost: bool,
    killed: Vec<ActorKey>,
}

impl FakeClusterState {
    fn actors(&self) -> Vec<ActorInfo> {
        let mut actors = actors();
        for actor in actors.iter_mut().filter(|actor| self.killed.contains(&actor.actor_id)) {
            actor.state = ActorState::Dead;
        }
        for actor in
            actors.iter_mut().filter(|actor| self.actors_are_constructing && actor.state == ActorState::Alive)
        {
            actor.state = ActorState::PendingCreation;
        }
        actors
    }
}

impl FakeCluster {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(FakeClusterState {
            recorded: Vec::new(),
            jobs: VecDeque::from([jobs()]),
            logs: Vec::new(),
            stored: 0,
            alerts: vec![alert("WORKER_STARTS", "job 00000002: its workers crash")],
            done: AdminReply::Done,
            actors_are_busy: false,
            actors_are_constructing: false,
            is_lost: false,
            killed: Vec::new(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, FakeClusterState> {
        self.0.lock().unwrap()
    }

    /// Recorded requests, without their destination.
    pub(crate) fn requests(&self) -> Vec<AdminRequest> {
        self.state().recorded.iter().map(|(_, _, request)| request.clone()).collect()
    }

    pub(crate) fn log(&self, at: SocketAddr, name: &str, (worker, job): (u64, u32), text: &str) {
        let some = |number: u64| (number > 0).then_some(number);
        let file = LogFile {
            file: name.to_owned(),
            worker: some(worker).map(WorkerId),
            job: some(job.into()).map(|_| JobId(job)),
            size: text.len() as u64,
        };
        self.state().logs.push((at, file, text.to_owned()));
    }

    /// Runs a command, and returns its result and the text of both streams.
    pub(crate) async fn run(
        &self,
        command: impl AsyncFnOnce(&Self, &mut CliOutput<'_>) -> CliResult<()>,
    ) -> (CliResult<()>, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome =
            command(self, &mut CliOutput { out: &mut out, err: &mut err, are_terminals: [false; 2] }).await;
        (outcome, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }
}

impl AdminConnector for FakeCluster {
    type Exchange = TestTransport;

    fn head_address(&self) -> SocketAddr {
        head_address()
    }

    async fn open(
        &self,
        endpoint: AdminEndpoint,
        address: SocketAddr,
    ) -> Result<Admin<TestTransport>, AdminError> {
        Ok(Admin::new(TestTransport { cluster: self.clone(), endpoint, address }))
    }
}

/// Log files in one reply of an agent; small, so that tests need several pages.
const LOGS_LISTED: usize = 2;

/// Connection to one process of the fake cluster.
pub(crate) struct TestTransport {
    cluster: FakeCluster,
    endpoint: AdminEndpoint,
    address: SocketAddr,
}

impl AdminTransport for TestTransport {
    async fn exchange(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        let mut state = self.cluster.state();
        state.recorded.push((self.endpoint, self.address, request.clone()));
        if state.is_lost {
            return Err(AdminError::Lost { why: "the connection is closed".to_owned() });
        }
        let is_here = |(at, _, _): &&(SocketAddr, LogFile, String)| *at == self.address;
        Ok(match request {
            AdminRequest::List { of: Kind::Nodes, query } => AdminReply::Nodes(page(nodes(), &query)),
            AdminRequest::List { of: Kind::Jobs, query } => {
                let jobs = state.jobs[0].clone();
                // The last reply stays, so that a polling command always sees the final state.
                if state.jobs.len() > 1 {
                    state.jobs.pop_front();
                }
                AdminReply::Jobs(page(jobs, &query))
            }
            AdminRequest::List { of: Kind::Actors, query } => {
                AdminReply::Actors(page(state.actors(), &query))
            }
            AdminRequest::List { of: Kind::Workers, query } => AdminReply::Workers(page(workers(), &query)),
            AdminRequest::List { of: Kind::Tasks, query } => AdminReply::Tasks(page(tasks(), &query)),
            AdminRequest::List { of: Kind::Messages, query } => {
                AdminReply::Messages(page(messages(), &query))
            }
            AdminRequest::List { of: Kind::Events, query } => {
                // `page` reverses the rows, since the other tables are in the order of display.
                AdminReply::Events(page(events().into_iter().rev().collect(), &query))
            }
            AdminRequest::Snapshot => AdminReply::Snapshot { version: 17, time_ms: 62_000 },
            AdminRequest::Classes => AdminReply::Classes(GroupCounts { rows: classes(), more: 0 }),
            AdminRequest::Functions { .. } => {
                AdminReply::Functions(GroupCounts { rows: functions(), more: 0 })
            }
            AdminRequest::PendingActors => AdminReply::PendingActors { first: pending_actors(), count: 8 },
            AdminRequest::Restarts => AdminReply::Restarts(RestartCounts { total: 5, last_hour: 2 }),
            AdminRequest::Alerts => AdminReply::Alerts(state.alerts.clone()),
            AdminRequest::Spans { job } => AdminReply::Spans(spans(job)),
            AdminRequest::Submit(_) => {
                AdminReply::Submitted { job: JobId(3), node: HEAD, address: head_address() }
            }
            AdminRequest::ExecutableStatus { .. } => AdminReply::ExecutableStatus { have: state.stored },
            AdminRequest::UploadExecutable { offset, bytes, .. } => {
                state.stored = offset + bytes.len() as u64;
                AdminReply::ExecutableStatus { have: state.stored }
            }
            AdminRequest::LogFiles { after } => {
                let mut here: Vec<_> =
                    state.logs.iter().filter(is_here).map(|(_, file, _)| file.clone()).collect();
                here.sort_by(|one, other| one.file.cmp(&other.file));
                // Paged by file name, as an agent does it.
                here.retain(|log| after.as_ref().is_none_or(|after| log.file > *after));
                let more = here.len() > LOGS_LISTED;
                here.truncate(LOGS_LISTED);
                AdminReply::LogFiles { files: here, more }
            }
            AdminRequest::Log { file, from } => {
                let mut here = state.logs.iter().filter(is_here);
                let (_, _, text) = here.find(|(_, log, _)| log.file == file).unwrap();
                let from = match from {
                    LogFrom::Offset(offset) => offset as usize,
                    LogFrom::Tail(lines) => tail(text, lines as usize),
                };
                AdminReply::Log { text: text[from..].to_owned(), offset: text.len() as u64 }
            }
            AdminRequest::Kill { actor } if !state.actors_are_busy => {
                state.killed.push(actor);
                state.done.clone()
            }
            AdminRequest::KillWorkerOf { actor } => {
                state.killed.push(actor);
                state.done.clone()
            }
            _ => state.done.clone(),
        })
    }
}

/// Offset of the last lines of a text.
fn tail(text: &str, lines: usize) -> usize {
    let starts: Vec<usize> = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(start)
        })
        .collect();
    starts.len().checked_sub(lines).map_or(0, |first| starts.get(first).copied().unwrap_or(text.len()))
}
