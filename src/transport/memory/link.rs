//! Ends of an in-memory link, whole or split into directions.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pipe::{Pipe, Progress, Side};
use crate::transport::{DetachedLink, Link, LinkRead, LinkReader, LinkWriter};

/// End of a pipe. The pipe is closed when the last reference to the end is dropped.
struct End {
    cable: Arc<Pipe>,
    side: Side,
}

impl Drop for End {
    fn drop(&mut self) {
        self.cable.close(self.side);
    }
}

/// End of an in-memory link.
pub(super) struct Stream {
    end: Arc<End>,
    /// Timer for the next arrival, and for the other end being closed.
    reading: WakeAt,
    writing: WakeAt,
}

/// Returns both ends of a pipe: the dialler's, and the listener's.
pub(super) fn pair(cable: &Arc<Pipe>) -> [Stream; 2] {
    [Side::Dialer, Side::Listener].map(|side| Stream::new(Arc::new(End { cable: Arc::clone(cable), side })))
}

impl Stream {
    fn new(end: Arc<End>) -> Self {
        Self { end, reading: WakeAt::default(), writing: WakeAt::default() }
    }
}

impl Link for Stream {
    /// Drops the timers, which belong to a runtime. The rest is independent of it.
    fn detach(self: Box<Self>) -> io::Result<Box<dyn DetachedLink>> {
        Ok(Box::new(Detached(self.end)))
    }

    fn into_split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let writer = Writer(Self::new(Arc::clone(&self.end)));
        (Box::new(Self::new(self.end)), Box::new(writer))
    }
}

#[derive(Debug)]
struct Detached(Arc<End>);

impl DetachedLink for Detached {
    fn attach(self: Box<Self>) -> io::Result<Box<dyn Link>> {
        Ok(Box::new(Stream::new(self.0)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let turn = ready!(coop::poll_proceed(task));
        loop {
            match this.end.cable.read(this.end.side, task.waker(), buf) {
                Progress::Done(outcome) => {
                    turn.made_progress();
                    return Poll::Ready(outcome);
                }
                Progress::Wait(until) => ready!(this.reading.poll(until, task)),
            }
        }
    }
}

impl LinkRead for Stream {}

impl AsyncWrite for Stream {
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
            match this.end.cable.write(this.end.side, task.waker(), slices) {
                Progress::Done(outcome) => {
                    turn.made_progress();
                    return Poll::Ready(outcome);
                }
                Progress::Wait(until) => ready!(this.writing.poll(until, task)),
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
        self.end.cable.shut(self.end.side);
        Poll::Ready(Ok(()))
    }
}

/// Sending direction. Dropping it ends the stream.
struct Writer(Stream);

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
        self.0.end.cable.shut(self.0.end.side);
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
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(task)
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("side", &self.side).field("addresses", &self.cable.ends).finish()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.end).finish()
    }
}
