//! Reading of a report from the head and the agents.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{JobReport, LogTail, REPORT_SCHEMA, ReportRows};
use crate::cluster::admin::client::{Admin, AdminError, AdminTransport};
use crate::cluster::admin::lists::AdminRow;
use crate::cluster::admin::request::{LogFile, LogFrom};
use crate::cluster::listing::{Filter, Query, joined};
use crate::cluster::model::{JobId, JobInfo, NodeInfo, NodeState, WorkerSummary};
use crate::config::{
    REPORT_LOG_BYTES_MAX, REPORT_LOG_LINES, REPORT_LOGS_MAX, REPORT_ROWS_MAX, REPORT_SPANS_MAX,
};

/// Time limit for the logs of one node. Without it a node that is cut off would take the time of the others.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for all logs: the rows of the head are worth a report, too.
const LOGS_TIMEOUT: Duration = Duration::from_secs(30);

impl JobReport {
    /// Reads the report of a job. `agent` connects to the agent at an address.
    ///
    /// An agent that cannot be reached, or a log that is gone, is named in [`JobReport::missing`].
    ///
    /// # Errors
    ///
    /// [`AdminError`] if the head has no such job, or does not answer.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection to the head together with the future, and connect again.
    pub async fn gather<H: AdminTransport, A: AdminTransport>(
        head: &mut Admin<H>,
        head_address: Option<SocketAddr>,
        mut agent: impl AsyncFnMut(SocketAddr) -> Result<Admin<A>, AdminError>,
        job: JobId,
        time_ms: u64,
    ) -> Result<Self, AdminError> {
        let unknown = || AdminError::Unknown(format!("no job {job}; see `roadshow job list`"));
        let nodes = head.all::<NodeInfo>(Vec::new()).await?;
        let row = head.row::<JobInfo>(job, job.0).await?.ok_or_else(unknown)?;
        let workers = rows_of_job::<WorkerSummary, H>(head, job).await?;
        let is_of_job = |node: &NodeInfo| {
            // Of a worker that was left out the node is not known.
            workers.left_out > 0
                || row.runs_on == Some(node.node_id)
                || workers.rows.iter().any(|worker| worker.node_id == node.node_id)
        };
        let (mut logs, mut missing) = (Vec::new(), Vec::new());
        let until = Instant::now() + LOGS_TIMEOUT;
        for node in nodes.iter().filter(|node| is_of_job(node)) {
            let until = until.min(Instant::now() + NODE_TIMEOUT);
            let why = match timeout_at(until, read_logs(node, &mut agent, job, &mut logs)).await {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            missing.push(format!("logs of the node {} ({}): {why}", node.node_id, node.hostname));
        }
        if logs.len() >= REPORT_LOGS_MAX {
            missing.push(format!("logs beyond the first {REPORT_LOGS_MAX}"));
        }
        let mut spans = head.spans(job).await?;
        spans.thin(REPORT_SPANS_MAX);
        Ok(Self {
            schema: REPORT_SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time_ms,
            head: head_address,
            // Once more: they may have ended meanwhile.
            workers: rows_of_job(head, job).await?,
            actors: rows_of_job(head, job).await?,
            tasks: rows_of_job(head, job).await?,
            messages: rows_of_job(head, job).await?,
            events: rows_of_job(head, job).await?,
            job: head.row::<JobInfo>(job, job.0).await?.unwrap_or(row),
            nodes,
            spans,
            logs,
            missing,
        })
    }
}

/// Requests the rows of a job, up to the maximum.
pub(in crate::cluster::admin) async fn rows_of_job<T: AdminRow, H: AdminTransport>(
    head: &mut Admin<H>,
    job: JobId,
) -> Result<ReportRows<T>, AdminError> {
    let filter = Filter { key: "job_id".to_owned(), value: job.to_string(), is_equal: true };
    let mut query = Query { count: true, ..Query::filtered(vec![filter]) };
    let mut rows = Vec::new();
    loop {
        query.limit = REPORT_ROWS_MAX - rows.len();
        let page = head.page::<T>(query.clone()).await?;
        rows.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() || rows.len() >= REPORT_ROWS_MAX {
            // A row that changes while pages are read can be in two of them.
            return Ok(ReportRows { rows: joined(rows), left_out: page.more.unwrap_or(0) });
        }
    }
}

/// Reads the ends of a job's logs on a node.
async fn read_logs<A: AdminTransport>(
    node: &NodeInfo,
    agent: &mut impl AsyncFnMut(SocketAddr) -> Result<Admin<A>, AdminError>,
    job: JobId,
    logs: &mut Vec<LogTail>,
) -> Result<(), AdminError> {
    if node.state == NodeState::Dead {
        return Ok(());
    }
    let mut agent = agent(node.address).await?;
    let files = agent.log_files().await?;
    for LogFile { file, worker, size, .. } in files.into_iter().filter(|log| log.job == Some(job)) {
        if logs.len() >= REPORT_LOGS_MAX {
            break;
        }
        let text = match agent.log(file.clone(), LogFrom::Tail(REPORT_LOG_LINES)).await {
            // The agent has removed the log, to make room for newer ones.
            Err(AdminError::Unknown(_)) => continue,
            read => last_bytes(&read?.text),
        };
        logs.push(LogTail { node_id: node.node_id, file, worker_id: worker, size, text });
    }
    Ok(())
}

/// Returns the end of a text from a line or, within a long line, from a character on.
fn last_bytes(text: &str) -> String {
    let least = text.len().saturating_sub(REPORT_LOG_BYTES_MAX);
    let start = (least..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let end = &text[start..];
    let line = if start == 0 { 0 } else { end.find('\n').map_or(0, |at| at + 1) };
    end[line..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_log_is_cut_at_a_line_and_never_within_a_character() {
        assert_eq!(last_bytes("short\n"), "short\n");
        let lines = "äöü\n".repeat(REPORT_LOG_BYTES_MAX);
        let cut = last_bytes(&lines);
        assert!(cut.len() <= REPORT_LOG_BYTES_MAX && cut.starts_with("äöü\n") && cut.ends_with("äöü\n"));
        let line = "ä".repeat(REPORT_LOG_BYTES_MAX);
        let cut = last_bytes(&line);
        assert!(cut.len() <= REPORT_LOG_BYTES_MAX && cut.len() > REPORT_LOG_BYTES_MAX - 4);
    }
}
