//! What a process prints, on its way from its pipes into its logs and to whoever shows it.
//!
//! Each stream has a task that reads the pipe and one that hands bytes to threads that may wait for the
//! disk. Where there are logs, the reader is held up by neither for long: what does not fit is dropped,
//! counted and told. Where there are none, the process waits until its lines are taken.

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
use super::bounded_sender::{BoundedSender, Refused};
use super::file::LogWriter;
use super::lines::{LineSplitter, LongLines};
use crate::cluster::protocol::Stream;
use crate::config::{
    LOG_FILE_BYTES_MAX, LOG_FLUSH_BYTES_MAX, LOG_GRACE, LOG_READ_BYTES, LOG_READS_QUEUED_MAX, LOG_STALL_MAX,
};

/// Captured output of a process.
#[derive(Debug)]
pub(crate) enum Captured {
    /// Text that it has printed.
    Text {
        /// On which stream.
        stream: Stream,
        /// The lines, without their ends.
        lines: Vec<String>,
        /// The line behind them that has no end yet, as it stands.
        unfinished: Option<String>,
    },
    /// All of a stream came before this that the process had printed when a [`Flusher`] asked.
    Flushed(oneshot::Sender<()>),
}

/// The capture of one process's output.
///
/// Dropping it is to say that the process has ended, as [`Capture::finish`] does, without waiting for the
/// rest.
#[derive(Debug)]
pub(crate) struct Capture {
    ended: DropGuard,
    streams: [JoinHandle<()>; 2],
    flusher: Flusher,
}

/// Asks a capture for what its process has printed by now.
#[derive(Clone, Debug)]
pub(crate) struct Flusher([mpsc::Sender<oneshot::Sender<()>>; 2]);

impl Flusher {
    /// Waits until whoever receives the lines has all that the process has printed by now, and says so.
    /// False if the capture is over: then the last lines may still be on their way.
    pub(crate) async fn flush(&self) -> bool {
        let flushed = join_all(self.0.iter().map(|stream| async {
            let (done, told) = oneshot::channel();
            // It is dropped where nobody takes the lines.
            stream.send(done).await.is_ok() && told.await.is_ok()
        }));
        flushed.await.into_iter().all(|flushed| flushed)
    }
}

impl Capture {
    /// Captures what comes out of two pipes, and sends the lines to `to`; into the logs of a name in a
    /// directory, too, if `log` has one. Must be called within a runtime.
    ///
    /// Make the channel one of [`LOG_LINES_QUEUED_MAX`](crate::config::LOG_LINES_QUEUED_MAX). When nobody
    /// receives from it any more, the pipes are still read and the logs written.
    ///
    /// # Errors
    ///
    /// Those of the operating system, if a file descriptor is no pipe to be read from.
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
                writing = Some(tokio::spawn(write(path, chunks, Arc::clone(&warned))));
                BoundedSender::new(file, Some(LOG_STALL_MAX))
            });
            let (long, patience) = match path {
                Some(_) => (LongLines::Cut, Some(LOG_STALL_MAX)),
                None => (LongLines::Break, None),
            };
            let lines = BoundedSender::new(to.clone(), patience);
            let splitter = LineSplitter::new(long);
            let output = StreamWriter { stream, path, splitter, file, bytes_lost: 0, lines, lines_lost: 0 };
            let source =
                Source { pipe, ended: ended.clone(), deadline: None, remainder: LOG_FLUSH_BYTES_MAX };
            tokio::spawn(async move {
                read(source, output, flushes).await;
                if let Some(writing) = writing {
                    // It fails if the runtime ends, and the file with it.
                    let _ = writing.await;
                }
            })
        });
        Ok(Self { ended: ended.drop_guard(), streams, flusher: Flusher([flush_out, flush_err]) })
    }

    /// Handle to request the lines printed up to now.
    pub(crate) fn flusher(&self) -> Flusher {
        self.flusher.clone()
    }

    /// To be called when the process has ended: waits until all that it has printed is in the logs and sent
    /// on. A process that it has started and that still holds the pipes is not waited for for long.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the rest goes its way all the same.
    pub(crate) async fn finish(self) {
        drop(self.ended);
        for stream in self.streams {
            // It fails if the runtime ends.
            let _ = stream.await;
        }
    }
}

async fn read(
    mut source: Source,
    mut output: StreamWriter,
    mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        let due = output.splitter.due();
        let next = tokio::select! {
            biased;
            Some(done) = flushes.recv() => {
                flush(&source, &mut output, done).await;
                continue;
            }
            () = until(due) => {
                // The end of the line may be there by now.
                if let Some(chunk) = source.take_now() {
                    output.take(chunk).await;
                }
                output.show_unfinished().await;
                continue;
            }
            next = source.next() => next,
        };
        match next {
            Some(chunk) => output.take(chunk).await,
            None => return output.end().await,
        }
    }
}

/// Hands on what is in the pipe by now. A process that goes on printing does not keep it from ending.
async fn flush(source: &Source, output: &mut StreamWriter, done: oneshot::Sender<()>) {
    let mut left = LOG_FLUSH_BYTES_MAX;
    while let Some(chunk) = source.take_now().filter(|_| left > 0) {
        left = left.saturating_sub(chunk.len());
        output.take(chunk).await;
    }
    output.flushed(done).await;
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The end of a pipe, until its process is gone.
struct Source {
    pipe: pipe::Receiver,
    ended: CancellationToken,
    /// Until when more is awaited, once the process has ended.
    deadline: Option<Instant>,
    /// How much is read after that.
    remainder: usize,
}

impl Source {
    /// The next bytes; none at the end. Dropping the future loses nothing.
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
            // What is there is taken also when the time is over.
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

    /// What can be read at once: none at the end, nothing if there is nothing yet.
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

    /// What is in the pipe, also where the runtime has not heard of it yet.
    fn take_now(&self) -> Option<Bytes> {
        let mut chunk = vec![0; LOG_READ_BYTES];
        let count = rustix::io::read(self.pipe.as_fd(), &mut chunk[..]).unwrap_or(0);
        chunk.truncate(count);
        (count > 0).then(|| chunk.into())
    }
}

/// Where the bytes of one stream go.
struct StreamWriter {
    stream: Stream,
    path: Option<PathBuf>,
    splitter: LineSplitter,
    file: Option<BoundedSender<Bytes>>,
    bytes_lost: usize,
    lines: BoundedSender<Captured>,
    lines_lost: usize,
}

impl StreamWriter {
    async fn take(&mut self, chunk: Bytes) {
        let lines =
            if self.lines.is_closed() { Vec::new() } else { self.splitter.push(Instant::now(), &chunk) };
        self.write(chunk).await;
        self.send(lines, None).await;
    }

    async fn show_unfinished(&mut self) {
        let unfinished = self.splitter.unfinished(Instant::now());
        self.send(Vec::new(), unfinished).await;
    }

    async fn flushed(&mut self, done: oneshot::Sender<()>) {
        self.lines.reset_stall();
        let unfinished = self.splitter.as_it_stands();
        self.send(Vec::new(), unfinished).await;
        // Whoever asked is told by its end where there is no room.
        let _ = self.lines.send(Captured::Flushed(done)).await;
    }

    async fn end(mut self) {
        self.file.iter_mut().for_each(BoundedSender::reset_stall);
        self.lines.reset_stall();
        let last = self.splitter.end();
        self.write(Bytes::new()).await;
        self.send(last.into_iter().collect(), None).await;
    }

    async fn write(&mut self, chunk: Bytes) {
        let Some(file) = &mut self.file else { return };
        if self.bytes_lost > 0 {
            let notice = format!("\n... {} bytes are missing here: the disk was too slow\n", self.bytes_lost);
            if file.send(notice.into()).await.is_ok() {
                self.bytes_lost = 0;
            }
        }
        let length = chunk.len();
        if length > 0 && (self.bytes_lost > 0 || file.send(chunk).await == Err(Refused::Full)) {
            self.bytes_lost += length;
        }
    }

    async fn send(&mut self, mut lines: Vec<String>, unfinished: Option<String>) {
        let (count, is_unfinished) = (lines.len(), unfinished.is_some());
        if let (true, Some(path)) = (self.lines_lost > 0, &self.path) {
            lines
                .insert(0, format!("... {} lines were not forwarded; they are in {path:?}", self.lines_lost));
        }
        if lines.is_empty() && unfinished.is_none() {
            return;
        }
        match self.lines.send(Captured::Text { stream: self.stream, lines, unfinished }).await {
            Ok(()) => self.lines_lost = 0,
            Err(Refused::Full) => {
                self.lines_lost += count;
                if is_unfinished {
                    // It counts as lost only if it is not taken either when it has ended.
                    self.splitter.not_shown(Instant::now());
                }
            }
            Err(Refused::Closed) => {}
        }
    }
}

/// Writes what comes into the log; the file I/O itself runs on a thread that may wait.
async fn write(path: PathBuf, mut chunks: mpsc::Receiver<Bytes>, warned: Arc<AtomicBool>) {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut log = LogWriter::new(dir, &name, LOG_FILE_BYTES_MAX);
    let told = |result: io::Result<()>| match result {
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
            // Each is tried: the log counts what is lost.
            let results = taken.iter().map(|chunk| log.append(chunk)).collect::<Vec<_>>();
            (log, results.into_iter().collect())
        });
        let Ok((back, result)) = written.await else { return };
        log = back;
        told(result);
    }
    // It fails if the runtime ends.
    if let Ok(result) = spawn_blocking(move || log.finish()).await {
        told(result);
    }
}

#[cfg(test)]
mod tests;
