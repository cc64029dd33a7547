//! Gate of a simulated process, which holds all of its tasks while the process is paused.
//!
//! A task that is spawned while a gated one is polled gets the same gate. So all work of a process has the gate that
//! its first task was wrapped in.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

thread_local! {
    /// Gate of the task that this thread polls.
    static PRESENT: RefCell<Option<Gate>> = const { RefCell::new(None) };
}

/// Gate of a process. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    /// Gate of the machine, which holds the process as well.
    outer: Option<Gate>,
    is_closed: AtomicBool,
    held: Mutex<Vec<Waker>>,
}

impl Gate {
    /// Gate within another one, which holds its tasks while either is closed.
    pub(crate) fn within(outer: &Self) -> Self {
        Self(Arc::new(GateState { outer: Some(outer.clone()), ..GateState::default() }))
    }

    /// Holds all tasks, or lets them go on.
    pub(crate) fn set_closed(&self, is_closed: bool) {
        self.0.is_closed.store(is_closed, Ordering::Relaxed);
        if !is_closed {
            let held = std::mem::take(&mut *self.0.held.lock().unwrap_or_else(PoisonError::into_inner));
            held.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        let outer = self.0.outer.as_ref().is_some_and(Self::is_closed);
        outer || self.0.is_closed.load(Ordering::Relaxed)
    }

    /// Puts a future behind the gate.
    pub(crate) fn wrap<F: Future>(&self, future: F) -> Gated<F> {
        Gated { gate: Some(self.clone()), future: Box::pin(future) }
    }

    /// Checks the gate, and keeps the waker of a task that has to wait.
    fn poll_open(&self, waker: &Waker) -> Poll<()> {
        if let Some(outer) = &self.0.outer
            && outer.poll_open(waker).is_pending()
        {
            return Poll::Pending;
        }
        if !self.0.is_closed.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).push(waker.clone());
        Poll::Pending
    }
}

/// Future behind a gate; without one it is polled as it is.
#[derive(Debug)]
pub(crate) struct Gated<F> {
    gate: Option<Gate>,
    future: Pin<Box<F>>,
}

/// Puts a future behind the gate of the present task, if there is one.
pub(crate) fn inherit<F: Future>(future: F) -> Gated<F> {
    Gated { gate: PRESENT.with_borrow(Clone::clone), future: Box::pin(future) }
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let Some(gate) = self.gate.clone() else { return self.future.as_mut().poll(task) };
        if gate.poll_open(task.waker()).is_pending() {
            return Poll::Pending;
        }
        let _present = Present(PRESENT.replace(Some(gate)));
        self.future.as_mut().poll(task)
    }
}

/// Restores the gate of the outer task, also after a panic.
struct Present(Option<Gate>);

impl Drop for Present {
    fn drop(&mut self) {
        PRESENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn closed_gates_hold_tasks_with_their_timers_and_what_these_spawn() {
        let machine = Gate::default();
        let process = Gate::within(&machine);
        let began = Instant::now();
        let mut task = tokio::spawn(process.wrap(async move {
            sleep(Duration::from_secs(1)).await;
            let inner = crate::background::spawn(async move {
                sleep(Duration::from_secs(1)).await;
                began.elapsed()
            });
            (began.elapsed(), inner.await.unwrap())
        }));
        // Its sleep begins.
        tokio::task::yield_now().await;
        process.set_closed(true);
        assert!(timeout(Duration::from_secs(10), &mut task).await.is_err());
        process.set_closed(false);
        sleep(Duration::from_millis(500)).await;
        machine.set_closed(true);
        assert!(timeout(Duration::from_secs(10), &mut task).await.is_err());
        machine.set_closed(false);
        let (outer, inner) = task.await.unwrap();
        assert_eq!([outer, inner].map(|it| it.as_secs()), [10, 20]);
    }
}
