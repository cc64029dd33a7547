//! What workers write: to files of the node, and to the driver's terminal.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::accounts::Account;
use crate::cluster::model::{JobId, WorkerId};
use crate::cluster::output::{Capture, Captured, Flusher, Label, LogName};
use crate::cluster::protocol::Stream;
use crate::cluster::protocol::{JobSpec, OUTPUT, OutputLines};
use crate::config::{HEAD_RPC_TIMEOUT, LOG_LINES_QUEUED_MAX, OUTPUT_SENT_TIMEOUT};
use crate::host::deadline_in;
use crate::id::HostUid;
use crate::remote::call_host;

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

/// A pipe: the end to be read, and the end for a child, which may run as another user.
pub(super) fn pipe(account: Option<&Account>) -> Result<(OwnedFd, OwnedFd), String> {
    let pipe = pipe_with(PipeFlags::CLOEXEC);
    let pipe = pipe.map_err(|error| format!("no pipe for the worker's output: {error}"))?;
    account.map_or(Ok(()), |account| account.take_pipe(&pipe.1))?;
    Ok(pipe)
}

/// Keeps what a worker writes, and sends it to the job's driver.
pub(super) fn capture(
    agent: &Arc<Agent>,
    launch: &JobSpec,
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
    driver: HostUid,
    pid: u32,
    label: Arc<Label>,
    mut written: mpsc::Receiver<Captured>,
) {
    let node = agent.facts.id();
    let mut unsent = Unsent::default();
    while let Some(captured) = written.recv().await {
        let (stream, mut lines, unfinished) = match captured {
            Captured::Text { stream, lines, unfinished } => (stream, lines, unfinished),
            Captured::Flushed(done) => {
                // It may have been waited for long enough.
                let _ = done.send(());
                continue;
            }
        };
        let count = unsent.add_to(stream, &mut lines);
        let last = unfinished.clone();
        let output = OutputLines { pid, node, label: label.text(), stream, lines, unfinished };
        let told: Result<(), _> =
            call_host(&agent.host, driver, OUTPUT, output, deadline_in(HEAD_RPC_TIMEOUT)).await;
        match told {
            Ok(()) => unsent.lines = 0,
            Err(error) => {
                // A driver that has gone reads nothing; the files have it all.
                tracing::debug!(%error, "lines of a worker were not sent to its driver");
                unsent.lines += count;
                unsent.unfinished[stream as usize] = last;
            }
        }
    }
}

/// What a driver was not sent.
#[derive(Debug, Default)]
struct Unsent {
    lines: usize,
    /// Of each stream the line without an end as it stood: it does not come again when it ends so.
    unfinished: [Option<String>; 2],
}

impl Unsent {
    /// Adds what was not sent to the next lines of a stream, and gives how many lines there are then without
    /// the notice.
    fn add_to(&mut self, stream: Stream, lines: &mut Vec<String>) -> usize {
        // Without another line it is still the same one, which has changed.
        if let Some(before) = self.unfinished[stream as usize].take().filter(|_| !lines.is_empty()) {
            lines.insert(0, before);
        }
        let count = lines.len();
        if self.lines > 0 {
            let notice =
                format!("... {} lines were not sent here in time; they are in the node's logs", self.lines);
            lines.insert(0, notice);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_bar_that_was_not_sent_is_one_line_and_shown_when_that_ends() {
        let mut unsent = Unsent::default();
        for percent in 0..100 {
            assert_eq!(unsent.add_to(Stream::Err, &mut Vec::new()), 0);
            unsent.unfinished[Stream::Err as usize] = Some(format!("{percent} %"));
        }
        let mut other = vec!["x".to_owned()];
        assert_eq!(unsent.add_to(Stream::Out, &mut other), 1);
        assert_eq!(other, ["x"]);
        let mut next = vec!["next".to_owned()];
        assert_eq!(unsent.add_to(Stream::Err, &mut next), 2);
        assert_eq!(next, ["99 %", "next"]);
    }

    #[test]
    fn lines_that_were_not_sent_are_told_and_the_notice_is_none_of_them() {
        let mut unsent = Unsent { lines: 3, ..Unsent::default() };
        let mut lines = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(unsent.add_to(Stream::Out, &mut lines), 2);
        assert_eq!(lines, ["... 3 lines were not sent here in time; they are in the node's logs", "a", "b"]);
    }
}
