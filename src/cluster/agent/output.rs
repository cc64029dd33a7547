//! What workers write: to files of the node, and to the driver's terminal.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;

use super::Agent;
use crate::cluster::logs::{Capture, CapturedLines, LogName};
use crate::cluster::model::WorkerId;
use crate::cluster::protocol::{JobLaunch, OUTPUT, Output};
use crate::config::{HEAD_ANSWER_TIMEOUT, LOG_LINES_QUEUED_MAX};
use crate::host::deadline_in;
use crate::id::Identity;
use crate::remote::ask_host;

/// What lives in a worker, as a reader of its output knows it.
#[derive(Debug, Default)]
pub(super) struct Label(Mutex<BTreeSet<String>>);

impl Label {
    pub(super) fn add(&self, class: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(class.to_owned());
    }

    /// The type of its actors if they are of one, without its module.
    fn text(&self) -> String {
        let classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (classes.len(), classes.first()) {
            (1, Some(class)) => class.rsplit("::").next().unwrap_or(class).to_owned(),
            _ => "worker".to_owned(),
        }
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
    tokio::spawn(forward(Arc::clone(agent), launch.driver, pid, Arc::clone(label), written));
    let name = LogName::Worker { worker, job: launch.job, pid };
    match Capture::start(agent.jobs.logs(), name, out, err, lines) {
        Ok(capture) => Some(capture),
        Err(error) => {
            tracing::warn!(%worker, %error, "what a worker writes is not kept");
            None
        }
    }
}

async fn forward(
    agent: Arc<Agent>,
    driver: Identity,
    pid: u32,
    label: Arc<Label>,
    mut written: mpsc::Receiver<CapturedLines>,
) {
    while let Some(CapturedLines { stream, lines, .. }) = written.recv().await {
        let output = Output { pid, node: agent.facts.id(), label: label.text(), stream, lines };
        let told: Result<(), _> =
            ask_host(&agent.host, driver, OUTPUT, output, deadline_in(HEAD_ANSWER_TIMEOUT)).await;
        if let Err(error) = told {
            // A driver that has gone reads nothing; the files have it all.
            tracing::debug!(%error, "lines of a worker were not sent to its driver");
        }
    }
}
