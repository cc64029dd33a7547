//! I/O thread of a process; it runs no user code.
//!
//! It accepts, dials, shakes hands, keeps deadlines and answers heartbeats while handlers compute on other threads.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Time that the end of the thread waits for blocking tasks of its pool that still run.
const POOL_SHUTDOWN_TIMEOUT: Duration = Duration::ZERO;

/// Tokio runtime on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct IoThread {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl IoThread {
    /// Starts the thread. Threads of the runtime's blocking pool have stacks of `pool_stack_bytes`.
    pub(super) fn start(pool_stack_bytes: usize) -> io::Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let (hand_out, started) = sync_channel(1);
        // The runtime is created and dropped on its own thread: tokio panics if one is dropped inside another.
        thread::Builder::new().name("roadshow-io".to_owned()).spawn(move || {
            let mut builder = Builder::new_current_thread();
            // The name is that of the pool's threads: this one has its own.
            builder.enable_all().thread_name("roadshow-pool").thread_stack_size(pool_stack_bytes);
            let runtime = match builder.build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(hand_out.send(Err(error))),
            };
            drop(hand_out.send(Ok(runtime.handle().clone())));
            // `IoThread` never sends; dropping its sender ends the thread.
            let _ = runtime.block_on(ended);
            // Tasks of the pool may be blocked in user code for good: they are not waited for.
            runtime.shutdown_timeout(POOL_SHUTDOWN_TIMEOUT);
        })?;
        let handle = started.recv().map_err(io::Error::other)??;
        Ok(Self { handle, _end: end })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
