//! The output of a local cluster's workers, on its way to the driver's terminal.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::model::NodeId;
use crate::cluster::output::{Capture, Captured, Display, Kept, Label};
use crate::cluster::protocol::Output;
use crate::cluster::protocol::worker::Report;
use crate::config::{LOG_LINES_QUEUED_MAX, OUTPUT_DROP_TIMEOUT, OUTPUT_FLUSH_TIMEOUT};

/// What shows the output of all workers, and waits for it at the end.
#[derive(Debug)]
pub(crate) struct LocalOutput {
    display: Display,
    node: NodeId,
    /// Each ends when all that its worker has printed was handed to the display.
    flowing: Vec<JoinHandle<()>>,
}

/// Pipes for a worker's output.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// The ends that are read, of its standard output and of its standard error.
    pub(crate) read: [PipeReader; 2],
    /// What the worker has as its standard output.
    pub(crate) stdout: PipeWriter,
    /// What it has as its standard error.
    pub(crate) stderr: PipeWriter,
}

/// What captures the output of one worker.
#[derive(Debug)]
pub(crate) struct WorkerOutput {
    label: Arc<Label>,
    capture: Capture,
    forwarding: JoinHandle<()>,
}

impl LocalOutput {
    /// Starts what shows lines, of workers on `node`.
    pub(crate) fn start(io: &Handle, node: NodeId, folds: Option<bool>) -> io::Result<Self> {
        Ok(Self { display: Display::start(io, Kept::Nowhere, folds)?, node, flowing: Vec::new() })
    }

    /// Where workers' lines go.
    pub(crate) fn display(&self) -> (Display, NodeId) {
        (self.display.clone(), self.node)
    }

    /// Takes the output of a worker that runs, until it has ended.
    pub(crate) fn add(
        &mut self,
        io: &Handle,
        output: WorkerOutput,
        mut ended: watch::Receiver<Option<String>>,
    ) {
        self.flowing.push(io.spawn(async move {
            // It fails if nobody watches the worker any more.
            let _ = ended.wait_for(Option::is_some).await;
            output.finish().await;
        }));
    }

    /// Waits until all that workers have printed is on the terminal. To be called when they have ended.
    pub(crate) async fn finish(&mut self) {
        let until = Instant::now() + OUTPUT_FLUSH_TIMEOUT;
        // What a worker has started may hold its pipes, and is not waited for for long.
        let _ = tokio::time::timeout_at(until, join_all(&mut self.flowing)).await;
        self.flowing.clear();
        self.display.flush(until).await;
    }

    /// The same for a thread that may not wait for long.
    pub(crate) fn finish_in_drop(&mut self, io: &Handle) {
        if self.flowing.is_empty() {
            return;
        }
        let mut rest = Self {
            display: self.display.clone(),
            node: self.node,
            flowing: std::mem::take(&mut self.flowing),
        };
        let (tell, over) = std::sync::mpsc::sync_channel(1);
        io.spawn(async move {
            rest.finish().await;
            // Nobody waits any more when it took too long.
            let _ = tell.send(());
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
    /// Captures the output of a process. Must be called within a runtime.
    pub(crate) fn start(
        (display, node): (Display, NodeId),
        pid: u32,
        [out, err]: [PipeReader; 2],
    ) -> io::Result<Self> {
        let (lines, captured) = mpsc::channel(LOG_LINES_QUEUED_MAX);
        let capture = Capture::start(None, out.into(), err.into(), lines)?;
        let label = Arc::<Label>::default();
        let forwarding = tokio::spawn(forward(display, node, pid, Arc::clone(&label), captured));
        Ok(Self { label, capture, forwarding })
    }

    /// Takes the worker's name from what it reports.
    pub(crate) fn names(&self) -> impl Fn(&Report) + Send + 'static {
        let label = Arc::clone(&self.label);
        move |report| {
            if let Report::Class(class) = report {
                label.add(class);
            }
        }
    }

    /// Waits until all that the process has printed was handed to the display. To be called when it has ended.
    pub(crate) async fn finish(self) {
        self.capture.finish().await;
        // It fails if the runtime ends.
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
                let output = Output { pid, node, label: label.text(), stream, lines, unfinished };
                // It fails if the runtime ends.
                let _ = display.show(output).await;
            }
            // It may have been waited for long enough.
            Captured::Flushed(done) => drop(done.send(())),
        }
    }
}
