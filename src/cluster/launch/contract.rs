//! How a process learns that it is a worker: an environment variable and its standard input.
//!
//! The starting process sets [`WORKER_VARIABLE`] to its own pid and to the inode of the control socket that the
//! worker has as its standard input. The variable alone means nothing, since programs that a worker starts
//! inherit it.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::getppid;

use crate::cluster::error::ClusterError;

/// Says to a process that it was started as a worker, and by which process.
pub(in crate::cluster) const WORKER_VARIABLE: &str = "ROADSHOW_WORKER";

/// Set once this process would have been diverted, had it been a worker.
pub(in crate::cluster) static WORKER_ENTRY_REACHED: AtomicBool = AtomicBool::new(false);

/// The test that takes over when a test executable is started as a worker.
///
/// Registered by `worker_test!`.
#[derive(Debug)]
pub struct WorkerTest {
    path: &'static str,
}

inventory::collect!(WorkerTest);

impl WorkerTest {
    /// The test at `path`, as `module_path!` gives it.
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self { path }
    }

    /// The path as test harnesses know it: without the crate's name.
    fn name(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, name)| name)
    }
}

/// The arguments by which this executable runs as a worker.
pub(in crate::cluster) fn arguments() -> Result<Vec<String>, ClusterError> {
    if let ProcessRole::Worker | ProcessRole::Orphan = started_as() {
        // Here we are a worker that nobody diverted: starting workers would never end.
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

pub(in crate::cluster) enum ProcessRole {
    Driver,
    Worker,
    Orphan,
}

/// Says to a process to be started that it is a worker: by whom, and by which socket it will know.
pub(in crate::cluster) fn spawn_token(lifeline: &UnixStream) -> io::Result<String> {
    Ok(format!("{}:{}", std::process::id(), rustix::fs::fstat(lifeline)?.st_ino))
}

/// A worker has its driver's number in its environment, and as its standard input the very socket
/// that is named there. The variable alone means nothing: programs that a worker starts inherit it.
pub(in crate::cluster) fn started_as() -> ProcessRole {
    let introduction = std::env::var(WORKER_VARIABLE).ok();
    let Some((driver, socket)) = introduction.as_deref().and_then(|text| text.split_once(':')) else {
        return ProcessRole::Driver;
    };
    if rustix::fs::fstat(io::stdin()).map(|stat| stat.st_ino.to_string()).as_deref() != Ok(socket) {
        return ProcessRole::Driver;
    }
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.as_deref() == Some(driver) { ProcessRole::Worker } else { ProcessRole::Orphan }
}
