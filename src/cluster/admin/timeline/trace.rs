//! Trace of a job in the Trace Event Format, which Perfetto and `chrome://tracing` read.
//!
//! ```text
//!   process 1        the job, with its driver and the events of no worker
//!   process 2, ...   workers, by node and id
//!     thread 200     life of the worker, and its events
//!     thread 201 ..  threads that run handlers and tasks
//! ```
//! The ids of threads are unique in the whole trace, as Perfetto expects it of an operating system.
//!
//! Format: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::JobTimeline;
use crate::cluster::model::{
    EventId, EventInfo, JobId, JobState, NodeId, Severity, SpanName, WorkerId, WorkerState,
};

/// Process of the job itself.
const JOB_PROCESS: u64 = 1;

/// Distance of the first threads of two processes; a worker has fewer lanes.
const THREADS: u64 = 100;

/// Trace of a job. It serializes to the JSON object form of the format.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChromeTrace<'a> {
    trace_events: Vec<TraceEvent<'a>>,
    display_time_unit: &'static str,
    other_data: OtherData<'a>,
}

impl ChromeTrace<'_> {
    /// Number of handlers and tasks in the trace.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.other_data.spans
    }

    /// Number of timed handlers and tasks that are not in the trace.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.other_data.left_out
    }
}

/// Facts of the whole trace.
#[derive(Debug, Serialize)]
struct OtherData<'a> {
    version: &'static str,
    job_id: JobId,
    entrypoint: &'a str,
    state: JobState,
    started_ms: u64,
    /// Time of the trace by the head's clock.
    time_ms: u64,
    spans: usize,
    left_out: u64,
}

/// Event of the format: a span, an instant, or a name.
#[derive(Debug, Serialize)]
struct TraceEvent<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    ph: &'static str,
    /// Start in microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    /// Scope of an instant: `p` for its process, `g` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    pid: u64,
    tid: u64,
    args: Arguments<'a>,
}

/// Arguments of an event, which viewers show in detail.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Arguments<'a> {
    Name { name: String },
    SortIndex { sort_index: u64 },
    Message { class: &'a str, message: &'a str, job_id: JobId },
    Task { function: &'a str, job_id: JobId },
    Event { event_id: EventId, severity: Severity, text: &'a str, job_id: JobId },
    Job { entrypoint: &'a str, state: JobState, message: Option<&'a str>, job_id: JobId },
    Worker { worker_id: WorkerId, node_id: NodeId, state: WorkerState, cause: Option<&'a str>, job_id: JobId },
}

/// Makes the trace.
pub(super) fn trace(timeline: &JobTimeline) -> ChromeTrace<'_> {
    let mut writer = Writer { timeline, events: Vec::new(), processes: BTreeMap::new() };
    writer.job();
    writer.workers();
    writer.spans();
    writer.instants();
    let (job, spans) = (&timeline.job, &timeline.spans);
    ChromeTrace {
        trace_events: writer.events,
        display_time_unit: "ms",
        other_data: OtherData {
            version: env!("CARGO_PKG_VERSION"),
            job_id: job.job_id,
            entrypoint: &job.entrypoint,
            state: job.state,
            started_ms: job.started_ms,
            time_ms: timeline.time_ms,
            spans: spans.spans.len(),
            left_out: spans.left_out,
        },
    }
}

struct Writer<'a> {
    timeline: &'a JobTimeline,
    events: Vec<TraceEvent<'a>>,
    /// Processes of workers.
    processes: BTreeMap<WorkerId, u64>,
}

impl<'a> Writer<'a> {
    fn job(&mut self) {
        let job = &self.timeline.job;
        self.process(JOB_PROCESS, format!("job {}: {}", job.job_id, job.entrypoint));
        self.thread(JOB_PROCESS, 0, 0, "driver".to_owned());
        let end_ms = job.ended_ms.unwrap_or(self.timeline.time_ms);
        let arguments = Arguments::Job {
            entrypoint: &job.entrypoint,
            state: job.state,
            message: job.message.as_deref(),
            job_id: job.job_id,
        };
        self.life("job", "job", JOB_PROCESS, job.started_ms, end_ms, arguments);
    }

    fn workers(&mut self) {
        let timeline = self.timeline;
        for (process, (node, worker)) in (JOB_PROCESS + 1..).zip(timeline.workers()) {
            self.processes.insert(worker, process);
            let node = node.map_or_else(String::new, |node| {
                let row = timeline.nodes.iter().find(|row| row.node_id == node);
                let hostname = row.map_or_else(String::new, |row| format!(" ({})", row.hostname));
                format!(" on node {node}{hostname}")
            });
            self.process(process, format!("worker {worker}{node}"));
            self.thread(process, 0, 0, "worker process".to_owned());
        }
        for row in &timeline.workers.rows {
            // A worker that was never ready has no life.
            let Some(started_ms) = row.started_ms else { continue };
            let Some(process) = self.processes.get(&row.worker_id).copied() else { continue };
            let end_ms = row.ended_ms.unwrap_or(timeline.time_ms);
            let arguments = Arguments::Worker {
                worker_id: row.worker_id,
                node_id: row.node_id,
                state: row.state,
                cause: row.cause.as_deref(),
                job_id: row.job_id,
            };
            self.life("worker", "worker", process, started_ms, end_ms, arguments);
        }
        // Numbers are given in the order of the first handler or task, which differs from worker to worker.
        let mut lanes: Vec<_> = timeline.spans.lanes.iter().collect();
        lanes.sort_by_key(|lane| (lane.worker_id, &lane.thread, lane.number));
        for (position, lane) in (1..).zip(lanes) {
            if let Some(process) = self.processes.get(&lane.worker_id).copied() {
                self.thread(process, thread_of(lane.number), position, lane.thread.clone());
            }
        }
    }

    fn spans(&mut self) {
        let (spans, job_id) = (&self.timeline.spans, self.timeline.job.job_id);
        let kinds: Vec<_> = spans
            .names
            .iter()
            .map(|name| match name {
                SpanName::Message { class, message } => {
                    (name.short(), "message", Arguments::Message { class, message, job_id })
                }
                SpanName::Task { function } => (name.short(), "task", Arguments::Task { function, job_id }),
            })
            .collect();
        for span in &spans.spans {
            let (name, lane) = (usize::from(span.name), usize::from(span.lane));
            // The head keeps the positions valid. A reply of another one must not end this process.
            let (Some((short, category, arguments)), Some(lane)) = (kinds.get(name), spans.lanes.get(lane))
            else {
                continue;
            };
            let Some(process) = self.processes.get(&lane.worker_id).copied() else { continue };
            self.events.push(TraceEvent {
                name: Cow::Owned(short.clone()),
                cat: Some(category),
                ph: "X",
                ts: Some(span.start_us),
                dur: Some(span.duration_us),
                s: None,
                pid: process,
                tid: process * THREADS + thread_of(lane.number),
                args: arguments.clone(),
            });
        }
    }

    fn instants(&mut self) {
        for event in self.timeline.events.rows.iter().rev() {
            let EventInfo { event_id, time_ms, severity, kind, worker_id, text, .. } = event;
            let process = worker_id.and_then(|worker| self.processes.get(&worker).copied());
            self.events.push(TraceEvent {
                name: Cow::Borrowed(kind.word()),
                cat: Some("event"),
                ph: "i",
                ts: Some(time_ms.saturating_mul(1000)),
                dur: None,
                s: Some(if process.is_some() { "p" } else { "g" }),
                pid: process.unwrap_or(JOB_PROCESS),
                tid: process.unwrap_or(JOB_PROCESS) * THREADS,
                args: Arguments::Event {
                    event_id: *event_id,
                    severity: *severity,
                    text,
                    job_id: self.timeline.job.job_id,
                },
            });
        }
    }

    fn life(
        &mut self,
        name: &'static str,
        category: &'static str,
        process: u64,
        start_ms: u64,
        end_ms: u64,
        args: Arguments<'a>,
    ) {
        self.events.push(TraceEvent {
            name: Cow::Borrowed(name),
            cat: Some(category),
            ph: "X",
            ts: Some(start_ms.saturating_mul(1000)),
            dur: Some(end_ms.saturating_sub(start_ms).saturating_mul(1000)),
            s: None,
            pid: process,
            tid: process * THREADS,
            args,
        });
    }

    fn process(&mut self, process: u64, name: String) {
        self.metadata("process_name", process, 0, Arguments::Name { name });
        self.metadata("process_sort_index", process, 0, Arguments::SortIndex { sort_index: process });
    }

    fn thread(&mut self, process: u64, thread: u64, sort_index: u64, name: String) {
        self.metadata("thread_name", process, thread, Arguments::Name { name });
        self.metadata("thread_sort_index", process, thread, Arguments::SortIndex { sort_index });
    }

    fn metadata(&mut self, name: &'static str, process: u64, thread: u64, args: Arguments<'a>) {
        let tid = process * THREADS + thread;
        self.events.push(TraceEvent {
            name: Cow::Borrowed(name),
            cat: None,
            ph: "M",
            ts: None,
            dur: None,
            s: None,
            pid: process,
            tid,
            args,
        });
    }
}

/// Number of a lane among the threads of its process: the first is that of the process itself.
fn thread_of(lane: u16) -> u64 {
    // A lane that no worker has must not get the number of a thread of another process.
    u64::from(lane).min(THREADS - 2) + 1
}
