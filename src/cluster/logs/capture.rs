//! What a process prints, on its way from its pipes into its logs and to whoever shows it.
//!
//! Each stream has a task that reads the pipe and one that hands bytes to threads that may wait for the
//! disk. The reader is held up by neither for long: what does not fit is dropped, counted and told.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::file::LogWriter;
use super::outlet::{Outlet, Refused};
use super::split::Splitter;
use super::{LogName, Stream};
use crate::config::{LOG_GRACE, LOG_READ_BYTES, LOG_READS_QUEUED_MAX, LOG_REMAINDER_BYTES};

/// Lines that a process has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CapturedLines {
    /// The process.
    pub(crate) from: LogName,
    /// On which stream.
    pub(crate) stream: Stream,
    /// The lines, without their ends.
    pub(crate) lines: Vec<String>,
}

/// The capture of one process's output.
///
/// Dropping it is to say that the process has ended, as [`Capture::finish`] does, without waiting for the
/// rest.
#[derive(Debug)]
pub(crate) struct Capture {
    ended: DropGuard,
    streams: [JoinHandle<()>; 2],
}

impl Capture {
    /// Captures what comes out of two pipes into logs in `dir`, and sends the lines to `to`. Must be called
    /// within a runtime.
    ///
    /// Make the channel one of [`LOG_LINES_QUEUED_MAX`](crate::config::LOG_LINES_QUEUED_MAX). When nobody
    /// receives from it any more, the logs are still written.
    ///
    /// # Errors
    ///
    /// Those of the operating system, if a file descriptor is no pipe to be read from.
    pub(crate) fn start(
        dir: &Path,
        name: LogName,
        stdout: OwnedFd,
        stderr: OwnedFd,
        to: mpsc::Sender<CapturedLines>,
    ) -> io::Result<Self> {
        let ended = CancellationToken::new();
        let warned = Arc::new(AtomicBool::new(false));
        let pipes = [
            (Stream::Out, pipe::Receiver::from_owned_fd(stdout)?),
            (Stream::Err, pipe::Receiver::from_owned_fd(stderr)?),
        ];
        let streams = pipes.map(|(stream, pipe)| {
            let path = dir.join(name.file(stream));
            let (file, chunks) = mpsc::channel(LOG_READS_QUEUED_MAX);
            let output = Output {
                from: name,
                stream,
                path: path.clone(),
                splitter: Splitter::default(),
                file: Outlet::new(file),
                bytes_lost: 0,
                lines: Outlet::new(to.clone()),
                lines_lost: 0,
            };
            let source =
                Source { pipe, ended: ended.clone(), deadline: None, remainder: LOG_REMAINDER_BYTES };
            let writing = tokio::spawn(write(path, chunks, Arc::clone(&warned)));
            tokio::spawn(async move {
                read(source, output).await;
                // It fails if the runtime ends, and the file with it.
                let _ = writing.await;
            })
        });
        Ok(Self { ended: ended.drop_guard(), streams })
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

async fn read(mut source: Source, mut output: Output) {
    while let Some(chunk) = source.next().await {
        output.take(chunk).await;
    }
    output.end().await;
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
}

/// Where the bytes of one stream go.
struct Output {
    from: LogName,
    stream: Stream,
    path: PathBuf,
    splitter: Splitter,
    file: Outlet<Bytes>,
    bytes_lost: usize,
    lines: Outlet<CapturedLines>,
    lines_lost: usize,
}

impl Output {
    async fn take(&mut self, chunk: Bytes) {
        let lines = if self.lines.is_closed() { Vec::new() } else { self.splitter.push(&chunk) };
        self.write(chunk).await;
        self.send(lines).await;
    }

    async fn end(mut self) {
        self.file.forgive();
        self.lines.forgive();
        let last = self.splitter.end();
        self.write(Bytes::new()).await;
        self.send(last.into_iter().collect()).await;
    }

    async fn write(&mut self, chunk: Bytes) {
        if self.bytes_lost > 0 {
            let notice = format!("\n... {} bytes are missing here: the disk was too slow\n", self.bytes_lost);
            if self.file.put(notice.into()).await.is_ok() {
                self.bytes_lost = 0;
            }
        }
        let length = chunk.len();
        if length > 0 && (self.bytes_lost > 0 || self.file.put(chunk).await == Err(Refused::Full)) {
            self.bytes_lost += length;
        }
    }

    async fn send(&mut self, mut lines: Vec<String>) {
        let count = lines.len();
        if self.lines_lost > 0 {
            lines.insert(
                0,
                format!("... {} lines were not forwarded; they are in {:?}", self.lines_lost, self.path),
            );
        }
        if lines.is_empty() {
            return;
        }
        let lines = CapturedLines { from: self.from, stream: self.stream, lines };
        match self.lines.put(lines).await {
            Ok(()) => self.lines_lost = 0,
            Err(Refused::Full) => self.lines_lost += count,
            Err(Refused::Closed) => {}
        }
    }
}

/// Writes what comes into the log; the file I/O itself runs on a thread that may wait.
async fn write(path: PathBuf, mut chunks: mpsc::Receiver<Bytes>, warned: Arc<AtomicBool>) {
    let opened = {
        let path = path.clone();
        spawn_blocking(move || {
            let dir = path.parent().unwrap_or(Path::new("."));
            LogWriter::open(dir, &path.file_name().unwrap_or_default().to_string_lossy())
        })
    };
    let warn = |error: io::Error| {
        if !warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(?path, %error, "a process's output is not written to its log any more; free some space");
        }
    };
    let mut log = match opened.await {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => return warn(error),
        Err(_) => return,
    };
    let mut batch = Vec::with_capacity(LOG_READS_QUEUED_MAX);
    while chunks.recv_many(&mut batch, LOG_READS_QUEUED_MAX).await > 0 {
        let taken = std::mem::take(&mut batch);
        let written = spawn_blocking(move || {
            let result = taken.iter().try_for_each(|chunk| log.append(chunk));
            (log, result)
        });
        let Ok((back, result)) = written.await else { return };
        log = back;
        if let Err(error) = result {
            // The channel closes: the reader hears that nobody writes any more.
            return warn(error);
        }
    }
}

#[cfg(test)]
mod tests;
