//! Ends of an in-memory link, whole or split into directions.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pipe::{IoProgress, Pipe, PipeEnd};
use crate::transport::{DetachedLink, Link, LinkRead, LinkReader, LinkWriter};

/// End of a pipe. The pipe is closed when the last reference to the end is dropped.
struct End {
    pipe: Arc<Pipe>,
    side: PipeEnd,
}

impl Drop for End {
    fn drop(&mut self) {
        self.pipe.close(self.side);
    }
}

/// End of an in-memory link.
pub(super) struct MemoryLink {
    end: Arc<End>,
    /// Timer for the next arrival, and for the other end being closed.
    reading: WakeAt,
    writing: WakeAt,
}

/// Returns both ends of a pipe: the dialler's, and the listener's.
pub(super) fn pair(pipe: &Arc<Pipe>) -> [MemoryLink; 2] {
    [PipeEnd::Dialer, PipeEnd::Listener]
        .map(|side| MemoryLink::new(Arc::new(End { pipe: Arc::clone(pipe), side })))
}

impl MemoryLink {
    fn new(end: Arc<End>) -> Self {
        Self { end, reading: WakeAt::default(), writing: WakeAt::default() }
    }
}

impl Link for MemoryLink {
    /// Drops the timers, which belong to a runtime. The rest is independent of it.
    fn detach(self: Box<Self>) -> io::Result<Box<dyn DetachedLink>> {
        Ok(Box::new(DetachedMemoryLink(self.end)))
    }

    fn into_split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let writer = Writer(Self::new(Arc::clone(&self.end)));
        (Box::new(Self::new(self.end)), Box::new(writer))
    }
}

#[derive(Debug)]
struct DetachedMemoryLink(Arc<End>);

impl DetachedLink for DetachedMemoryLink {
    fn attach(self: Box<Self>) -> io::Result<Box<dyn Link>> {
        Ok(Box::new(MemoryLink::new(self.0)))
    }
}

impl AsyncRead for MemoryLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // The cooperative budget of tokio applies as for a TCP stream. Otherwise a test could
        // starve where production would not.
        let turn = ready!(coop::poll_proceed(task));
        loop {
            match this.end.pipe.read(this.end.side, task.waker(), buf) {
                IoProgress::Done(outcome) => {
                    turn.made_progress();
                    return Poll::Ready(outcome);
                }
                IoProgress::Wait(until) => ready!(this.reading.poll(until, task)),
            }
        }
    }
}

impl LinkRead for MemoryLink {}

impl AsyncWrite for MemoryLink {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(task, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let turn = ready!(coop::poll_proceed(task));
        loop {
            match this.end.pipe.write(this.end.side, task.waker(), slices) {
                IoProgress::Done(outcome) => {
                    turn.made_progress();
                    return Poll::Ready(outcome);
                }
                IoProgress::Wait(until) => ready!(this.writing.poll(until, task)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.pipe.shut(self.end.side);
        Poll::Ready(Ok(()))
    }
}

/// Sending direction. Dropping it ends the stream.
struct Writer(MemoryLink);

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(task, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(task)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.end.pipe.shut(self.0.end.side);
    }
}

/// Timer that is created when it is first needed.
#[derive(Default)]
struct WakeAt(Option<Pin<Box<Sleep>>>);

impl WakeAt {
    /// Returns ready when the moment has passed; never without a moment.
    fn poll(&mut self, until: Option<Instant>, task: &mut Context<'_>) -> Poll<()> {
        let Some(until) = until else { return Poll::Pending };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        // Resetting a timer costs a lock of the timer wheel, and the deadline is mostly the same.
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(task)
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("side", &self.side).field("addresses", &self.pipe.ends).finish()
    }
}

impl fmt::Debug for MemoryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryLink").field(&self.end).finish()
    }
}
