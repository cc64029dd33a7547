//! What a node knows of the jobs that it works for: how their workers are started, and where they run.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::Agent;
use crate::cluster::executable::InUse;
use crate::cluster::logs::{LogName, LogReader};
use crate::cluster::model::JobId;
use crate::cluster::protocol::JobLaunch;
use crate::config::{LOGS_BYTES_MAX, LOGS_TRIMMED_EVERY};

/// The jobs whose executables are here.
#[derive(Debug)]
pub(super) struct Jobs {
    directory: PathBuf,
    logs: PathBuf,
    launches: Mutex<FxHashMap<JobId, Equipped>>,
}

#[derive(Debug)]
struct Equipped {
    launch: Arc<JobLaunch>,
    /// Keeps the executable from being dropped.
    executable: InUse,
}

impl Jobs {
    pub(super) fn new(session_dir: &Path) -> io::Result<Self> {
        let directory = session_dir.join("jobs");
        private_directory(&directory)?;
        let logs = session_dir.join("logs");
        private_directory(&logs)?;
        Ok(Self { directory, logs, launches: Mutex::default() })
    }

    /// Takes note of how a job's workers are started.
    pub(super) fn equip(&self, launch: JobLaunch, executable: InUse) {
        let launch = Arc::new(launch);
        self.lock().insert(launch.job, Equipped { launch, executable });
    }

    /// How a job's workers are started, and from which file.
    pub(super) fn launch(&self, job: JobId) -> Option<(Arc<JobLaunch>, PathBuf)> {
        self.lock().get(&job).map(|equipped| (Arc::clone(&equipped.launch), equipped.executable.path()))
    }

    /// Where the logs of the node are.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Where a job's processes run.
    pub(super) fn directory(&self, job: JobId) -> io::Result<PathBuf> {
        let directory = self.directory.join(job.to_string());
        private_directory(&directory)?;
        Ok(directory)
    }

    /// Keeps the logs of processes that have ended within their bound, as long as it runs.
    pub(super) async fn keep_logs_bounded(agent: Arc<Agent>) {
        loop {
            tokio::time::sleep(LOGS_TRIMMED_EVERY).await;
            let looked_at = Arc::clone(&agent);
            let trimmed = tokio::task::spawn_blocking(move || {
                let lives = |name: LogName| looked_at.writes(name);
                LogReader::new(looked_at.jobs.logs()).trim(LOGS_BYTES_MAX, lives)
            });
            if let Ok(Err(error)) = trimmed.await {
                tracing::warn!(%error, "logs of ended processes are not trimmed");
            }
        }
    }

    /// Nothing of the job runs here any more.
    pub(super) fn forget(&self, job: JobId) {
        self.lock().remove(&job);
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<JobId, Equipped>> {
        self.launches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a directory that no other user can look into, if it is not there.
fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that no other user can read.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
