//! The thread that runs no user code.
//!
//! It accepts, dials, shakes hands, keeps deadlines and watches processes, whatever the threads
//! with handlers on them compute.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long the end of the thread waits for pooled tasks that still run.
const POOL_PATIENCE: Duration = Duration::ZERO;

/// A tokio runtime on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct IoThread {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl IoThread {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("roadshow-io".to_owned()).spawn(move || {
            // Dropping the sender is the signal.
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(POOL_PATIENCE);
        })?;
        Ok(Self { handle, _end: end })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
