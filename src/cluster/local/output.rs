//! Output of a local cluster's workers, captured and shown at the driver's terminal.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::background;
use crate::cluster::model::NodeId;
use crate::cluster::output::{Capture, Captured, Display, Label, Retention};
use crate::cluster::protocol::OutputLines;
use crate::cluster::protocol::worker::WorkerMessage;
use crate::config::{LOG_LINES_QUEUED_MAX, OUTPUT_DROP_TIMEOUT, OUTPUT_FLUSH_TIMEOUT};

/// Output of all workers: shows it, and waits for the rest at the end.
#[derive(Debug)]
pub(crate) struct LocalOutput {
    display: Display,
    node: NodeId,
    /// Tasks, one a worker; each ends once all of its worker's output was handed to the display.
    captures: Vec<JoinHandle<()>>,
}

/// Pipes of a worker's output.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// Read ends of standard output and standard error.
    pub(crate) read: [PipeReader; 2],
    /// Write end for the worker's standard output.
    pub(crate) stdout: PipeWriter,
    /// Write end for the worker's standard error.
    pub(crate) stderr: PipeWriter,
}

/// Capture of one worker's output.
#[derive(Debug)]
pub(crate) struct WorkerOutput {
    label: Arc<Label>,
    capture: Capture,
    forwarding: JoinHandle<()>,
}

impl LocalOutput {
    /// Starts the display for workers on `node`.
    pub(crate) fn start(io: &Handle, node: NodeId, dedup_logs: Option<bool>) -> io::Result<Self> {
        Ok(Self {
            display: Display::start(io, Retention::TerminalOnly, dedup_logs)?,
            node,
            captures: Vec::new(),
        })
    }

    /// Display and node to label the workers' lines with.
    pub(crate) fn display(&self) -> (Display, NodeId) {
        (self.display.clone(), self.node)
    }

    /// Takes over the output of a running worker until it has ended.
    pub(crate) fn add(
        &mut self,
        io: &Handle,
        output: WorkerOutput,
        mut ended: watch::Receiver<Option<String>>,
    ) {
        self.captures.retain(|capture| !capture.is_finished());
        self.captures.push(background::spawn_on(io, async move {
            // It fails if the worker's watch is gone; the output still has to be finished.
            let _ = ended.wait_for(Option::is_some).await;
            output.finish().await;
        }));
    }

    /// Waits until the terminal shows all output of the workers, which must have ended.
    pub(crate) async fn finish(&mut self) {
        let until = Instant::now() + OUTPUT_FLUSH_TIMEOUT;
        // A descendant of a worker may hold its pipes open for good, hence the timeout.
        let _ = tokio::time::timeout_at(until, join_all(&mut self.captures)).await;
        self.captures.clear();
        // Last: the captures above have handed their final lines to the display.
        self.display.flush(until).await;
    }

    /// Same as [`LocalOutput::finish`], from a destructor: blocks the calling thread for a bounded time.
    pub(crate) fn finish_in_drop(&mut self, io: &Handle) {
        if self.captures.is_empty() {
            return;
        }
        let mut rest = Self {
            display: self.display.clone(),
            node: self.node,
            captures: std::mem::take(&mut self.captures),
        };
        let (report_over, over) = std::sync::mpsc::sync_channel(1);
        background::spawn_on(io, async move {
            rest.finish().await;
            // The receiver is gone if that time has passed.
            let _ = report_over.send(());
        });
        let _ = over.recv_timeout(OUTPUT_DROP_TIMEOUT);
    }
}

impl Pipes {
    pub(crate) fn new() -> io::Result<Self> {
        let ((out, stdout), (err, stderr)) = (io::pipe()?, io::pipe()?);
        Ok(Self { read: [out, err], stdout, stderr })
    }
}

impl WorkerOutput {
    /// Captures the output of a process. Must be called within a tokio runtime.
    pub(crate) fn start(
        (display, node): (Display, NodeId),
        pid: u32,
        [out, err]: [PipeReader; 2],
    ) -> io::Result<Self> {
        let (lines, captured) = mpsc::channel(LOG_LINES_QUEUED_MAX);
        let capture = Capture::start(None, out.into(), err.into(), lines)?;
        let label = Arc::<Label>::default();
        let forwarding = background::spawn(forward(display, node, pid, Arc::clone(&label), captured));
        Ok(Self { label, capture, forwarding })
    }

    /// Names the worker's label after the class that it reports.
    pub(crate) fn names(&self) -> impl Fn(&WorkerMessage) + Send + 'static {
        let label = Arc::clone(&self.label);
        move |report| {
            if let WorkerMessage::Class(class) = report {
                label.add(class);
            }
        }
    }

    /// Waits until all output of the process, which must have ended, was handed to the display.
    pub(crate) async fn finish(self) {
        self.capture.finish().await;
        // It fails if the runtime shuts down.
        let _ = self.forwarding.await;
    }
}

async fn forward(
    display: Display,
    node: NodeId,
    pid: u32,
    label: Arc<Label>,
    mut captured: mpsc::Receiver<Captured>,
) {
    while let Some(captured) = captured.recv().await {
        match captured {
            Captured::Text { stream, lines, unfinished } => {
                let output = OutputLines { pid, node, label: label.text(), stream, lines, unfinished };
                // It fails if the runtime shuts down.
                let _ = display.show(output).await;
            }
            // The receiver may have given up by its timeout.
            Captured::Flushed(done) => drop(done.send(())),
        }
    }
}
