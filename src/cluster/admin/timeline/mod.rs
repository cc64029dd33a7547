//! Timeline of one job: the lives of its workers, its events, and a choice of the handlers and tasks that ran.

mod trace;

use std::collections::BTreeSet;

use super::client::{Admin, AdminError, AdminTransport};
use super::report::{ReportRows, rows_of_job};
use crate::cluster::model::{EventInfo, JobId, JobInfo, JobSpans, NodeId, NodeInfo, WorkerId, WorkerSummary};

pub use trace::ChromeTrace;

/// Timeline of a job, as the head knows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobTimeline {
    /// The job.
    pub job: JobInfo,
    /// Nodes of the cluster.
    pub nodes: Vec<NodeInfo>,
    /// Workers of the job.
    pub workers: ReportRows<WorkerSummary>,
    /// Events of the job, the newest first.
    pub events: ReportRows<EventInfo>,
    /// Handlers and tasks.
    pub spans: JobSpans,
    /// Time by the head's clock, in milliseconds since 1970.
    pub time_ms: u64,
}

impl JobTimeline {
    /// Reads the timeline of a job.
    ///
    /// # Errors
    ///
    /// [`AdminError`] if the head has no such job, or does not answer.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection to the head together with the future, and connect again.
    pub async fn gather<E: AdminTransport>(head: &mut Admin<E>, job: JobId) -> Result<Self, AdminError> {
        let unknown = || AdminError::Unknown(format!("no job {job}; see `roadshow job list`"));
        // First: what ends meanwhile is then in the rows.
        let spans = head.spans(job).await?;
        let nodes = head.all::<NodeInfo>(Vec::new()).await?;
        let (workers, events) = (rows_of_job(head, job).await?, rows_of_job(head, job).await?);
        let job = head.row::<JobInfo>(job, job.0).await?.ok_or_else(unknown)?;
        let (_, time_ms) = head.snapshot().await?;
        Ok(Self { job, nodes, workers, events, spans, time_ms })
    }

    /// Returns the timeline as a trace, which serializes to JSON.
    #[must_use]
    pub fn trace(&self) -> ChromeTrace<'_> {
        trace::trace(self)
    }

    /// Workers in the order of their nodes, with those of spans whose rows the head no longer has.
    fn workers(&self) -> Vec<(Option<NodeId>, WorkerId)> {
        let mut workers: BTreeSet<_> =
            self.workers.rows.iter().map(|worker| (Some(worker.node_id), worker.worker_id)).collect();
        let known: BTreeSet<_> = workers.iter().map(|(_, worker)| *worker).collect();
        let of_spans = self.spans.lanes.iter().map(|lane| lane.worker_id);
        workers.extend(of_spans.filter(|worker| !known.contains(worker)).map(|worker| (None, worker)));
        workers.into_iter().collect()
    }
}
