//! Report of one job: what ran, where, what it did and what ended it, as data and as one HTML file.
//!
//! A report is what remains when the cluster is gone. [`JobReport::gather`] reads it from the head and the agents,
//! with bounds on each part. [`JobReport::to_html`] makes a file that needs neither a network nor a script.

mod busy;
mod gather;
mod html;
mod page;
mod timeline;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::model::{
    ActorInfo, EventInfo, JobInfo, JobSpans, MessageInfo, NodeId, NodeInfo, TaskInfo, WorkerId, WorkerSummary,
};

pub(super) use gather::rows_of_job;

/// Version of the report's data; it grows with each change that a reader of an older one would not understand.
pub const REPORT_SCHEMA: u32 = 1;

/// State of a job and of everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobReport {
    /// Version of this data, [`REPORT_SCHEMA`].
    pub schema: u32,
    /// Version of the program that made the report.
    pub version: String,
    /// Time of the report, in milliseconds since 1970.
    pub time_ms: u64,
    /// Address of the cluster's head.
    pub head: Option<SocketAddr>,
    /// The job.
    pub job: JobInfo,
    /// Nodes of the cluster.
    pub nodes: Vec<NodeInfo>,
    /// Workers of the job.
    pub workers: ReportRows<WorkerSummary>,
    /// Actors that the job requested.
    pub actors: ReportRows<ActorInfo>,
    /// Tasks of the job, by function and worker.
    pub tasks: ReportRows<TaskInfo>,
    /// Messages that the job's actors handled, by class, message and worker.
    pub messages: ReportRows<MessageInfo>,
    /// Events of the job, the newest first.
    pub events: ReportRows<EventInfo>,
    /// Handlers and tasks of the timeline, at most [`REPORT_SPANS_MAX`](crate::config::REPORT_SPANS_MAX).
    #[serde(default)]
    pub spans: JobSpans,
    /// Last lines of the job's logs.
    pub logs: Vec<LogTail>,
    /// Parts that could not be read, with the reason.
    pub missing: Vec<String>,
}

/// Rows of a list, up to [`REPORT_ROWS_MAX`](crate::config::REPORT_ROWS_MAX).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportRows<T> {
    /// Rows, in the order of the list.
    pub rows: Vec<T>,
    /// Number of rows that were left out.
    pub left_out: u64,
}

/// End of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTail {
    /// Node that has the log.
    pub node_id: NodeId,
    /// Name of the file.
    pub file: String,
    /// Worker that wrote it, unless the driver did.
    pub worker_id: Option<WorkerId>,
    /// Length of the whole log, in bytes.
    pub size: u64,
    /// Last lines: at most [`REPORT_LOG_LINES`](crate::config::REPORT_LOG_LINES) and
    /// [`REPORT_LOG_BYTES_MAX`](crate::config::REPORT_LOG_BYTES_MAX) bytes.
    pub text: String,
}

impl JobReport {
    /// Formats the report as one HTML file, with the data as JSON in it.
    ///
    /// The file has no script and loads nothing.
    #[must_use]
    pub fn to_html(&self) -> String {
        page::page(self)
    }
}
