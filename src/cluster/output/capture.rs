//! Capture of a process's output: from its pipes into its logs, and as lines to a receiver.
//!
//! ```text
//!                    task "read"                        task "write"            blocking threads
//!   pipe -> OutputPipe -> StreamWriter -- bytes -->   batches of chunks -----> LogWriter (disk)
//!                              '--------- lines -->   receiver (terminal, network)
//! ```
//!
//! With a log, neither the disk nor the receiver blocks the process for long: what does not fit is dropped, counted
//! and reported. Without one, the process waits until its lines are received.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::LogName;
use super::bounded_sender::{BoundedSender, NotSent};
use super::file::LogWriter;
use super::lines::{LineSplitter, LongLines};
use crate::background;
use crate::cluster::protocol::Stream;
use crate::config::{
    LOG_FILE_BYTES_MAX, LOG_FLUSH_BYTES_MAX, LOG_GRACE, LOG_READ_BYTES, LOG_READS_QUEUED_MAX, LOG_STALL_MAX,
};

/// Output of a process, as the receiver gets it.
#[derive(Debug)]
pub(crate) enum Captured {
    /// Printed text.
    Text {
        /// Stream on which it was printed.
        stream: Stream,
        /// Complete lines, without their newlines.
        lines: Vec<String>,
        /// Line after them that has no newline yet, as it stands.
        unfinished: Option<String>,
    },
    /// Marks that all text which the process had printed when a [`Flusher`] asked precedes this.
    Flushed(oneshot::Sender<()>),
}

/// Capture of one process's output.
///
/// Dropping it declares that the process has ended, as [`Capture::finish`] does, without waiting for the rest.
#[derive(Debug)]
pub(crate) struct Capture {
    ended: DropGuard,
    streams: [JoinHandle<()>; 2],
    flusher: Flusher,
}

/// Requests the output that the process has printed by now.
#[derive(Clone, Debug)]
pub(crate) struct Flusher([mpsc::Sender<oneshot::Sender<()>>; 2]);

impl Flusher {
    /// Waits until the receiver has acknowledged all output that the process has printed by now. Returns false if
    /// the capture has ended; then the last lines may still be in flight.
    pub(crate) async fn flush(&self) -> bool {
        let flushed = join_all(self.0.iter().map(|stream| async {
            let (done, acked) = oneshot::channel();
            // The reply is dropped if there is no receiver.
            stream.send(done).await.is_ok() && acked.await.is_ok()
        }));
        flushed.await.into_iter().all(|flushed| flushed)
    }
}

impl Capture {
    /// Captures two pipes: sends their lines to `to`, and writes their bytes to the logs of a name in a directory
    /// if `log` is given. Must be called within a tokio runtime.
    ///
    /// The channel should have a capacity of [`LOG_LINES_QUEUED_MAX`](crate::config::LOG_LINES_QUEUED_MAX). If its
    /// receiver is dropped, the pipes are still read and the logs written.
    ///
    /// # Errors
    ///
    /// The error of the operating system, if a file descriptor is not the read end of a pipe.
    pub(crate) fn start(
        log: Option<(&Path, LogName)>,
        stdout: OwnedFd,
        stderr: OwnedFd,
        to: mpsc::Sender<Captured>,
    ) -> io::Result<Self> {
        let ended = CancellationToken::new();
        let warned = Arc::new(AtomicBool::new(false));
        let (flush_out, out) = mpsc::channel(1);
        let (flush_err, err) = mpsc::channel(1);
        let pipes = [
            (Stream::Out, pipe::Receiver::from_owned_fd(stdout)?, out),
            (Stream::Err, pipe::Receiver::from_owned_fd(stderr)?, err),
        ];
        let streams = pipes.map(|(stream, pipe, flushes)| {
            let path = log.map(|(dir, name)| dir.join(name.file(stream)));
            let mut writing = None;
            let file = path.clone().map(|path| {
                let (file, chunks) = mpsc::channel(LOG_READS_QUEUED_MAX);
                writing = Some(background::spawn(write(path, chunks, Arc::clone(&warned))));
                BoundedSender::new(file, Some(LOG_STALL_MAX))
            });
            let (long, room_timeout) = match path {
                Some(_) => (LongLines::Cut, Some(LOG_STALL_MAX)),
                None => (LongLines::Break, None),
            };
            let lines = BoundedSender::new(to.clone(), room_timeout);
            let splitter = LineSplitter::new(long);
            let output =
                StreamWriter { stream, path, splitter, file, bytes_dropped: 0, lines, lines_dropped: 0 };
            let pipe =
                OutputPipe { pipe, ended: ended.clone(), deadline: None, remainder: LOG_FLUSH_BYTES_MAX };
            background::spawn(async move {
                read(pipe, output, flushes).await;
                if let Some(writing) = writing {
                    // It fails if the runtime shuts down, and the file is lost with it.
                    let _ = writing.await;
                }
            })
        });
        Ok(Self { ended: ended.drop_guard(), streams, flusher: Flusher([flush_out, flush_err]) })
    }

    /// Handle with which to request the lines printed so far.
    pub(crate) fn flusher(&self) -> Flusher {
        self.flusher.clone()
    }

    /// Waits until all output of the process, which must have ended, is in the logs and was sent. A descendant that
    /// still holds the pipes is given [`LOG_GRACE`] only.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the rest is captured nevertheless.
    pub(crate) async fn finish(self) {
        drop(self.ended);
        for stream in self.streams {
            // It fails if the runtime shuts down.
            let _ = stream.await;
        }
    }
}

/// Task of one stream: reads until the end, answers flush requests, and shows unfinished lines when they are due.
async fn read(
    mut pipe: OutputPipe,
    mut output: StreamWriter,
    mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
) {
    // Flushes and deadlines come first: a process that prints without pause would starve them otherwise.
    loop {
        let due = output.splitter.due();
        let next = tokio::select! {
            biased;
            Some(done) = flushes.recv() => {
                flush(&pipe, &mut output, done).await;
                continue;
            }
            () = until(due) => {
                // The end of the line may be in the pipe by now.
                if let Some(chunk) = pipe.take_now() {
                    output.take(chunk).await;
                }
                output.send_unfinished().await;
                continue;
            }
            next = pipe.next() => next,
        };
        match next {
            Some(chunk) => output.take(chunk).await,
            None => return output.end().await,
        }
    }
}

/// Sends what is in the pipe now. The limit keeps a process that goes on printing from prolonging the flush.
async fn flush(pipe: &OutputPipe, output: &mut StreamWriter, done: oneshot::Sender<()>) {
    let mut left = LOG_FLUSH_BYTES_MAX;
    while let Some(chunk) = pipe.take_now().filter(|_| left > 0) {
        left = left.saturating_sub(chunk.len());
        output.take(chunk).await;
    }
    output.flushed(done).await;
}

/// Sleeps until a deadline; without one, for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Read end of a pipe, until its process has ended.
struct OutputPipe {
    pipe: pipe::Receiver,
    ended: CancellationToken,
    /// End of the wait for more output, set once the process has ended.
    deadline: Option<Instant>,
    /// Bytes that are still read after the deadline.
    remainder: usize,
}

impl OutputPipe {
    /// Next bytes; `None` at the end. Cancel safe.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(deadline) = self.deadline else {
                tokio::select! {
                    biased;
                    () = self.ended.cancelled() => self.deadline = Some(Instant::now() + LOG_GRACE),
                    ready = self.pipe.readable() => match self.take(ready) {
                        Some(None) => {}
                        result => return result.flatten(),
                    },
                }
                continue;
            };
            // Output that is in the pipe already is read even after the deadline, up to the limit: it was printed
            // by the process itself. A descendant may print for ever.
            let ready = timeout_at(deadline, self.pipe.readable()).await.ok()?;
            let is_late = Instant::now() >= deadline;
            match self.take(ready) {
                Some(None) => {}
                Some(Some(_)) if is_late && self.remainder == 0 => return None,
                result => {
                    let chunk = result.flatten()?;
                    let counted = if is_late { chunk.len() } else { 0 };
                    self.remainder = self.remainder.saturating_sub(counted);
                    return Some(chunk);
                }
            }
        }
    }

    /// Reads without blocking: `None` at the end of the pipe, `Some(None)` if it is empty.
    fn take(&self, ready: io::Result<()>) -> Option<Option<Bytes>> {
        ready.ok()?;
        let mut chunk = BytesMut::with_capacity(LOG_READ_BYTES);
        match self.pipe.try_read_buf(&mut chunk) {
            Ok(0) => None,
            Ok(_) => Some(Some(chunk.freeze())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(None),
            Err(_) => None,
        }
    }

    /// Reads what is in the pipe even if the runtime has not polled its readiness yet; a flush must not miss it.
    fn take_now(&self) -> Option<Bytes> {
        let mut chunk = vec![0; LOG_READ_BYTES];
        let count = rustix::io::read(self.pipe.as_fd(), &mut chunk[..]).unwrap_or(0);
        chunk.truncate(count);
        (count > 0).then(|| chunk.into())
    }
}

/// Destinations of one stream's bytes, with counts of what was dropped.
struct StreamWriter {
    stream: Stream,
    path: Option<PathBuf>,
    splitter: LineSplitter,
    file: Option<BoundedSender<Bytes>>,
    bytes_dropped: usize,
    lines: BoundedSender<Captured>,
    lines_dropped: usize,
}

impl StreamWriter {
    async fn take(&mut self, chunk: Bytes) {
        let lines =
            if self.lines.is_closed() { Vec::new() } else { self.splitter.push(Instant::now(), &chunk) };
        self.write(chunk).await;
        self.send(lines, None).await;
    }

    async fn send_unfinished(&mut self) {
        let unfinished = self.splitter.unfinished(Instant::now());
        self.send(Vec::new(), unfinished).await;
    }

    async fn flushed(&mut self, done: oneshot::Sender<()>) {
        self.lines.reset_stall();
        let unfinished = self.splitter.as_it_stands();
        self.send(Vec::new(), unfinished).await;
        // If there is no room, the dropped `done` tells the flusher.
        let _ = self.lines.send(Captured::Flushed(done)).await;
    }

    async fn end(mut self) {
        // The process has ended, so it cannot be delayed: the last bytes may wait for room once more.
        self.file.iter_mut().for_each(BoundedSender::reset_stall);
        self.lines.reset_stall();
        let last = self.splitter.end();
        self.write(Bytes::new()).await;
        self.send(last.into_iter().collect(), None).await;
    }

    async fn write(&mut self, chunk: Bytes) {
        let Some(file) = &mut self.file else { return };
        if self.bytes_dropped > 0 {
            let notice =
                format!("\n... {} bytes are missing here: the disk was too slow\n", self.bytes_dropped);
            if file.send(notice.into()).await.is_ok() {
                self.bytes_dropped = 0;
            }
        }
        let length = chunk.len();
        if length > 0 && (self.bytes_dropped > 0 || file.send(chunk).await == Err(NotSent::Full)) {
            self.bytes_dropped += length;
        }
    }

    async fn send(&mut self, mut lines: Vec<String>, unfinished: Option<String>) {
        let (count, is_unfinished) = (lines.len(), unfinished.is_some());
        if let (true, Some(path)) = (self.lines_dropped > 0, &self.path) {
            lines.insert(
                0,
                format!("... {} lines were not forwarded; they are in {path:?}", self.lines_dropped),
            );
        }
        if lines.is_empty() && unfinished.is_none() {
            return;
        }
        match self.lines.send(Captured::Text { stream: self.stream, lines, unfinished }).await {
            Ok(()) => self.lines_dropped = 0,
            Err(NotSent::Full) => {
                self.lines_dropped += count;
                if is_unfinished {
                    // It counts as lost only if its end is dropped, too.
                    self.splitter.not_shown(Instant::now());
                }
            }
            Err(NotSent::Closed) => {}
        }
    }
}

/// Writes chunks to the log; the file I/O runs on a thread that may block.
async fn write(path: PathBuf, mut chunks: mpsc::Receiver<Bytes>, warned: Arc<AtomicBool>) {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut log = LogWriter::new(dir, &name, LOG_FILE_BYTES_MAX);
    let report = |result: io::Result<()>| match result {
        Ok(()) => warned.store(false, Ordering::Relaxed),
        Err(error) if !warned.swap(true, Ordering::Relaxed) => {
            tracing::warn!(
                ?path, %error,
                "output of a process is lost, since its log cannot be written; free some space"
            );
        }
        Err(_) => {}
    };
    let mut batch = Vec::with_capacity(LOG_READS_QUEUED_MAX);
    while chunks.recv_many(&mut batch, LOG_READS_QUEUED_MAX).await > 0 {
        let taken = std::mem::take(&mut batch);
        let written = spawn_blocking(move || {
            // Every chunk is tried: the log counts the lost ones.
            let results = taken.iter().map(|chunk| log.append(chunk)).collect::<Vec<_>>();
            (log, results.into_iter().collect())
        });
        let Ok((back, result)) = written.await else { return };
        log = back;
        report(result);
    }
    // It fails if the runtime shuts down.
    if let Ok(result) = spawn_blocking(move || log.finish()).await {
        report(result);
    }
}

#[cfg(test)]
mod tests;
