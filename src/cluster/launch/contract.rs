//! Contract by which a process recognises that it is a worker: an environment variable and its standard input.
//!
//! The parent sets [`WORKER_VARIABLE`] to its own pid and to the inode of the control socket that the worker has as
//! its standard input. The variable alone proves nothing, since programs that a worker starts inherit it.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::getppid;

use crate::cluster::error::ClusterError;

/// Environment variable that marks a worker: `PARENT_PID:SOCKET_INODE`.
pub(in crate::cluster) const WORKER_VARIABLE: &str = "ROADSHOW_WORKER";

/// Set once the worker entry point was reached, in any process.
pub(in crate::cluster) static WORKER_ENTRY_REACHED: AtomicBool = AtomicBool::new(false);

/// Test that runs in place of the program's `main` when a test executable is started as a worker.
///
/// Registered by `worker_test!`.
#[derive(Debug)]
pub struct WorkerTest {
    path: &'static str,
}

inventory::collect!(WorkerTest);

impl WorkerTest {
    /// Test at `path`, as `module_path!` gives it.
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self { path }
    }

    /// Path as the test harness prints it: without the crate's name.
    fn name(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, name)| name)
    }
}

/// Arguments with which this executable runs as a worker.
pub(in crate::cluster) fn arguments() -> Result<Vec<String>, ClusterError> {
    if let ProcessRole::Worker | ProcessRole::Orphan = started_as() {
        // This process is a worker whose `main` did not enter the worker loop. Its own workers would do the same,
        // without end.
        return Err(ClusterError::NoWorkerEntry);
    }
    if let Some(test) = inventory::iter::<WorkerTest>.into_iter().next() {
        return Ok([test.name(), "--exact", "--nocapture", "--test-threads=1"].map(String::from).into());
    }
    if WORKER_ENTRY_REACHED.load(Ordering::Relaxed) {
        Ok(Vec::new())
    } else {
        Err(ClusterError::NoWorkerEntry)
    }
}

/// Role of this process.
pub(in crate::cluster) enum ProcessRole {
    Driver,
    Worker,
    /// Worker whose parent has ended already.
    Orphan,
}

/// Value of [`WORKER_VARIABLE`] for a worker with this end of the socket pair.
pub(in crate::cluster) fn spawn_token(control_socket: &UnixStream) -> io::Result<String> {
    Ok(format!("{}:{}", std::process::id(), rustix::fs::fstat(control_socket)?.st_ino))
}

/// Role with which this process was started, by the contract of this module.
pub(in crate::cluster) fn started_as() -> ProcessRole {
    let token = std::env::var(WORKER_VARIABLE).ok();
    let Some((driver, socket)) = token.as_deref().and_then(|text| text.split_once(':')) else {
        return ProcessRole::Driver;
    };
    if rustix::fs::fstat(io::stdin()).map(|stat| stat.st_ino.to_string()).as_deref() != Ok(socket) {
        return ProcessRole::Driver;
    }
    // If the parent ended before this process ran, another process has adopted it, and there is no work to do.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.as_deref() == Some(driver) { ProcessRole::Worker } else { ProcessRole::Orphan }
}
