//! Waiting for an answer on the very thread that has to read it.
//!
//! The links of a host with actors or tasks are read on the thread of its actors or tasks. A synchronous
//! handler that blocks there, as by `futures::executor::block_on`, waits for ever, and so does every other
//! actor of the thread. This is found out where the wait is polled: while the handler runs, it is not ready,
//! and polled again after a while that no handler which returns soon reaches. An I/O thread sees to the
//! second poll.
//!
//! One poll alone shows nothing: a handler may poll what it keeps, and return.

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use super::Host;
use crate::config::BLOCKED_AFTER;
use crate::registry::synchronous;

/// The thread that waits is the one that has to read the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlock;

/// What is known of a wait: the synchronous call that it was first polled in, and when.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Option<(NonZeroU64, Instant)>);

impl Waiting {
    /// Whether a wait that is not ready never will be; to be asked when it was polled.
    #[inline]
    pub(crate) fn is_deadlock(&mut self, host: &Host, task: &Context<'_>) -> bool {
        synchronous::running().is_some_and(|call| self.look(host, call, task))
    }

    #[cold]
    fn look(&mut self, host: &Host, call: NonZeroU64, task: &Context<'_>) -> bool {
        if host.shared.thread.get() != Some(&thread::current().id()) {
            return false;
        }
        match self.0 {
            Some((known, since)) if known == call => since.elapsed() >= BLOCKED_AFTER,
            _ => {
                self.0 = Some((call, Instant::now()));
                let waker = task.waker().clone();
                host.io().spawn(async move {
                    tokio::time::sleep(BLOCKED_AFTER).await;
                    waker.wake();
                });
                false
            }
        }
    }
}

/// Waits, but not for ever on the thread that has to see to the end of the wait.
pub(crate) fn unless_deadlock<F: Future + Unpin>(host: &Host, future: F) -> UnlessDeadlock<'_, F> {
    UnlessDeadlock { host, future, waiting: Waiting::default() }
}

/// Future of [`unless_deadlock`]. It is written by hand because the future of an `async fn` keeps a moved
/// argument twice.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct UnlessDeadlock<'a, F> {
    host: &'a Host,
    future: F,
    waiting: Waiting,
}

impl<F: Future + Unpin> Future for UnlessDeadlock<'_, F> {
    type Output = Result<F::Output, Deadlock>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match Pin::new(&mut this.future).poll(task) {
            Poll::Pending if this.waiting.is_deadlock(this.host, task) => Poll::Ready(Err(Deadlock)),
            polled => polled.map(Ok),
        }
    }
}
