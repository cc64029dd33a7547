//! Task that waits for an end on the I/O runtime, whatever the thread of the watcher does.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

use crate::background;
use crate::host::{EndFuture, Host};
use crate::spec::{End, EndReason};

/// Running watch; resolves to the end. Dropping it ends the watch.
pub(super) struct Running(JoinHandle<End>);

impl Running {
    /// Starts a task that resolves to an end, at the latest when this process leaves the cluster.
    ///
    /// In a task, and not in the watcher's future: the shutdown of the host waits for open calls, and cannot
    /// depend on a future that is never polled.
    pub(super) fn start(host: &Host, end: EndFuture) -> Self {
        let watching = host.clone();
        Self(background::spawn_on(host.io(), async move {
            tokio::select! {
                biased;
                end = end => end,
                () = watching.closing() => left_cluster(),
            }
        }))
    }
}

/// End of everything that a process watches when it leaves the cluster.
fn left_cluster() -> End {
    End::new(EndReason::JobEnded, "this process has left the cluster, which may have ended it")
}

impl Future for Running {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<End> {
        // The task neither panics nor is aborted before it is dropped: its runtime has ended.
        Pin::new(&mut self.0).poll(task).map(|end| end.unwrap_or_else(|_| left_cluster()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
