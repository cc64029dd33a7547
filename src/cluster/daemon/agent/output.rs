//! Output of workers: captured from their pipes, written to logs of the node, and forwarded to the driver.

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

/// Output on its way to drivers.
#[derive(Debug, Default)]
pub(super) struct Outputs(Mutex<Vec<OutputStream>>);

/// Output of one worker.
#[derive(Clone, Debug)]
struct OutputStream {
    job: JobId,
    flusher: Flusher,
    /// Cancelled when all of it has been sent to the driver.
    sent: CancellationToken,
}

impl Outputs {
    /// Waits until the output that a job's workers have written so far was sent to the job's driver.
    pub(super) async fn flush(&self, job: JobId) {
        let of_job: Vec<_> = self.lock().iter().filter(|stream| stream.job == job).cloned().collect();
        let flushed = join_all(of_job.iter().map(|stream| async {
            if !stream.flusher.flush().await {
                // The worker has ended, or lines were dropped. In both cases the stream itself reports its end.
                stream.sent.cancelled().await;
            }
        }));
        // A slow driver misses lines here. The logs have them.
        let _ = tokio::time::timeout(OUTPUT_SENT_TIMEOUT, flushed).await;
    }

    fn add(&self, stream: OutputStream) {
        let mut all = self.lock();
        // Streams of ended workers are removed here, since nothing else happens when one ends.
        all.retain(|stream| !stream.sent.is_cancelled());
        all.push(stream);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OutputStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates a pipe: the end to read, and the end for a child that may run as another user.
pub(super) fn pipe(account: Option<&Account>) -> Result<(OwnedFd, OwnedFd), String> {
    let pipe = pipe_with(PipeFlags::CLOEXEC);
    let pipe = pipe.map_err(|error| format!("cannot create a pipe for the worker's output: {error}"))?;
    account.map_or(Ok(()), |account| account.take_pipe(&pipe.1))?;
    Ok(pipe)
}

/// Captures the output of a worker in a log, and forwards it to the job's driver.
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
            tracing::warn!(%worker, %error, "cannot create the log of a worker; its output is lost");
            return None;
        }
    };
    let sent = CancellationToken::new();
    agent.outputs.add(OutputStream { job: launch.job, flusher: capture.flusher(), sent: sent.clone() });
    let forwarding = forward(Arc::clone(agent), launch.driver, pid, Arc::clone(label), written);
    tokio::spawn(async move {
        let _sent = sent.drop_guard();
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
    let node = agent.descriptor.id();
    // One call after the other, so that the lines keep their order.
    let mut unsent = Unsent::default();
    while let Some(captured) = written.recv().await {
        let (stream, mut lines, unfinished) = match captured {
            Captured::Text { stream, lines, unfinished } => (stream, lines, unfinished),
            Captured::Flushed(done) => {
                // The receiver is gone if the flush has timed out.
                let _ = done.send(());
                continue;
            }
        };
        let count = unsent.add_to(stream, &mut lines);
        let last = unfinished.clone();
        let output = OutputLines { pid, node, label: label.text(), stream, lines, unfinished };
        let delivered: Result<(), _> =
            call_host(&agent.host, driver, OUTPUT, output, deadline_in(HEAD_RPC_TIMEOUT)).await;
        match delivered {
            Ok(()) => unsent.lines = 0,
            Err(error) => {
                // A driver that has ended reads nothing. The logs have all lines.
                tracing::debug!(%error, "cannot send lines of a worker to its driver");
                unsent.lines += count;
                unsent.unfinished[stream as usize] = last;
            }
        }
    }
}

/// Lines that could not be sent to a driver.
#[derive(Debug, Default)]
struct Unsent {
    lines: usize,
    /// Last unfinished line of each stream. It is not sent again when it ends as it was.
    unfinished: [Option<String>; 2],
}

impl Unsent {
    /// Prepends unsent text and a notice to the next lines of a stream, and returns the number of lines without the
    /// notice.
    fn add_to(&mut self, stream: Stream, lines: &mut Vec<String>) -> usize {
        // No complete line: this is a later state of the same unfinished line, which replaces the unsent one.
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
    fn unsent_progress_bar_becomes_one_line_when_it_ends() {
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
    fn notice_counts_unsent_lines_but_not_itself() {
        let mut unsent = Unsent { lines: 3, ..Unsent::default() };
        let mut lines = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(unsent.add_to(Stream::Out, &mut lines), 2);
        assert_eq!(lines, ["... 3 lines were not sent here in time; they are in the node's logs", "a", "b"]);
    }
}
