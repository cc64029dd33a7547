//! What workers write: to files of the node, and to the driver's terminal.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::cluster::logs::{Capture, Captured, Flusher, Label, LogName};
use crate::cluster::model::{JobId, WorkerId};
use crate::cluster::protocol::{JobLaunch, OUTPUT, Output};
use crate::config::{HEAD_ANSWER_TIMEOUT, LOG_LINES_QUEUED_MAX, OUTPUT_SENT_TIMEOUT};
use crate::host::deadline_in;
use crate::id::Identity;
use crate::remote::ask_host;

/// The output that is still on its way to drivers.
#[derive(Debug, Default)]
pub(super) struct Outputs(Mutex<Vec<Flowing>>);

/// The output of one worker.
#[derive(Clone, Debug)]
struct Flowing {
    job: JobId,
    flusher: Flusher,
    /// Cancelled when the driver was sent the last of it.
    over: CancellationToken,
}

impl Outputs {
    /// Waits until the driver of a job was sent what the job's workers have written by now.
    pub(super) async fn flush(&self, job: JobId) {
        let of_job: Vec<_> = self.lock().iter().filter(|flowing| flowing.job == job).cloned().collect();
        let flushed = join_all(of_job.iter().map(|flowing| async {
            if !flowing.flusher.flush().await {
                // Its worker has ended, or lines were dropped.
                flowing.over.cancelled().await;
            }
        }));
        // A driver that is slow has missed some, which the logs have.
        let _ = tokio::time::timeout(OUTPUT_SENT_TIMEOUT, flushed).await;
    }

    fn add(&self, flowing: Flowing) {
        let mut all = self.lock();
        all.retain(|flowing| !flowing.over.is_cancelled());
        all.push(flowing);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Flowing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe: the end to be read, and the end for a child.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("no pipe for the worker's output: {error}"))
}

/// Keeps what a worker writes, and sends it to the job's driver.
pub(super) fn capture(
    agent: &Arc<Agent>,
    launch: &JobLaunch,
    worker: WorkerId,
    pid: u32,
    label: &Arc<Label>,
    (out, err): (OwnedFd, OwnedFd),
) -> Option<Capture> {
    let (lines, written) = mpsc::channel(LOG_LINES_QUEUED_MAX);
    let name = LogName::Worker { worker, job: launch.job, pid };
    let capture = match Capture::start(Some((agent.jobs.logs(), name)), out, err, lines) {
        Ok(capture) => capture,
        Err(error) => {
            tracing::warn!(%worker, %error, "what a worker writes is not kept");
            return None;
        }
    };
    let over = CancellationToken::new();
    agent.outputs.add(Flowing { job: launch.job, flusher: capture.flusher(), over: over.clone() });
    let forwarding = forward(Arc::clone(agent), launch.driver, pid, Arc::clone(label), written);
    tokio::spawn(async move {
        let _over = over.drop_guard();
        forwarding.await;
    });
    Some(capture)
}

async fn forward(
    agent: Arc<Agent>,
    driver: Identity,
    pid: u32,
    label: Arc<Label>,
    mut written: mpsc::Receiver<Captured>,
) {
    let node = agent.facts.id();
    let mut lost = 0;
    while let Some(captured) = written.recv().await {
        let (stream, mut lines, unfinished) = match captured {
            Captured::Text { stream, lines, unfinished } => (stream, lines, unfinished),
            Captured::Flushed(done) => {
                // It may have been waited for long enough.
                let _ = done.send(());
                continue;
            }
        };
        // A line without an end does not come again when it ends as it stands.
        let count = lines.len() + usize::from(unfinished.is_some());
        if lost > 0 {
            lines.insert(
                0,
                format!("... {lost} lines were not sent here in time; they are in the node's logs"),
            );
        }
        let output = Output { pid, node, label: label.text(), stream, lines, unfinished };
        let told: Result<(), _> =
            ask_host(&agent.host, driver, OUTPUT, output, deadline_in(HEAD_ANSWER_TIMEOUT)).await;
        match told {
            Ok(()) => lost = 0,
            Err(error) => {
                // A driver that has gone reads nothing; the files have it all.
                tracing::debug!(%error, "lines of a worker were not sent to its driver");
                lost += count;
            }
        }
    }
}
