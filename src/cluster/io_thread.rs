//! The thread that runs no user code.
//!
//! It accepts, dials, shakes hands, keeps deadlines and answers heartbeats, whatever the threads with
//! handlers on them compute.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long the end of the thread waits for pooled tasks that still run.
const POOL_SHUTDOWN_TIMEOUT: Duration = Duration::ZERO;

/// A tokio runtime on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct IoThread {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl IoThread {
    /// Starts the thread. Tasks in its pool have a stack of `pool_stack_bytes` each.
    pub(super) fn start(pool_stack_bytes: usize) -> io::Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let (hand_out, started) = sync_channel(1);
        // The runtime lives and dies on its own thread: it must not be dropped within another one.
        thread::Builder::new().name("roadshow-io".to_owned()).spawn(move || {
            let mut builder = Builder::new_current_thread();
            let runtime = match builder.enable_all().thread_stack_size(pool_stack_bytes).build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(hand_out.send(Err(error))),
            };
            drop(hand_out.send(Ok(runtime.handle().clone())));
            // Dropping the sender is the signal.
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(POOL_SHUTDOWN_TIMEOUT);
        })?;
        let handle = started.recv().map_err(io::Error::other)??;
        Ok(Self { handle, _end: end })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
