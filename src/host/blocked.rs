//! Detection of a wait on the very thread that has to end it.
//!
//! The links of a host are read on the thread of its actors or tasks. A synchronous handler that blocks
//! there, for example in `futures::executor::block_on`, deadlocks together with all other actors of the
//! thread. The poll of the wait detects it:
//!
//! ```text
//!   first poll in the handler ── pending ──▶ an I/O thread wakes the task after BLOCKED_AFTER
//!   next poll  in the same call of the handler, BLOCKED_AFTER later ──▶ deadlock
//! ```
//! A single poll proves nothing, since a handler may poll a stored future and return.

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use super::Host;
use crate::background;
use crate::config::BLOCKED_AFTER;
use crate::registry::synchronous;

/// The waiting thread is the one that has to end the wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlock;

/// Probe of one wait: the synchronous call that first polled it, and the time.
#[derive(Debug, Default)]
pub(crate) struct WaitProbe(Option<(NonZeroU64, Instant)>);

impl WaitProbe {
    /// True if a pending wait can never end; called after each poll that is not ready.
    #[inline]
    pub(crate) fn is_deadlock(&mut self, host: &Host, task: &Context<'_>) -> bool {
        synchronous::running().is_some_and(|call| self.check(host, call, task))
    }

    #[cold]
    fn check(&mut self, host: &Host, call: NonZeroU64, task: &Context<'_>) -> bool {
        // Another thread drives the links, so the reply can still arrive.
        if host.shared.thread.get() != Some(&thread::current().id()) {
            return false;
        }
        match self.0 {
            Some((first_call, since)) if first_call == call => since.elapsed() >= BLOCKED_AFTER,
            _ => {
                self.0 = Some((call, Instant::now()));
                let waker = task.waker().clone();
                // A timer of this thread would not fire while the handler blocks it.
                background::spawn_on(host.io(), async move {
                    tokio::time::sleep(BLOCKED_AFTER).await;
                    waker.wake();
                });
                false
            }
        }
    }
}

/// Waits for `future`, unless this is the thread that has to complete it.
pub(crate) fn unless_deadlock<F: Future + Unpin>(host: &Host, future: F) -> UnlessDeadlock<'_, F> {
    UnlessDeadlock { host, future, waiting: WaitProbe::default() }
}

/// Future of [`unless_deadlock`].
///
/// It is written by hand, since the future of an `async fn` stores a moved argument twice.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct UnlessDeadlock<'a, F> {
    host: &'a Host,
    future: F,
    waiting: WaitProbe,
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
