//! Jobs of a node: how their workers are started, and where they run.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::Agent;
use super::accounts::Account;
use super::workers::NodeWorkers;
use crate::cluster::daemon::agent::store::PinnedExecutable;
use crate::cluster::daemon::logs::LogReader;
use crate::cluster::model::JobId;
use crate::cluster::output::LogName;
use crate::cluster::protocol::JobSpec;
use crate::config::{LOG_RETENTION_INTERVAL, LOGS_BYTES_MAX, LOGS_FILES_MAX};

/// Jobs whose executables are stored on this node.
#[derive(Debug)]
pub(super) struct Jobs {
    directory: PathBuf,
    logs: PathBuf,
    provisioned: Mutex<FxHashMap<JobId, ProvisionedJob>>,
}

#[derive(Debug)]
struct ProvisionedJob {
    spec: Arc<JobSpec>,
    /// Pin that keeps the executable in the store.
    executable: PinnedExecutable,
    /// User that its workers run as; `None` for the agent's own user.
    account: Option<Arc<Account>>,
    /// True once the job has ended: the entry then stays only until its last worker has ended.
    ended: bool,
}

impl Jobs {
    pub(super) fn new(session_dir: &Path) -> io::Result<Self> {
        let directory = session_dir.join("jobs");
        private_directory(&directory)?;
        let logs = session_dir.join("logs");
        private_directory(&logs)?;
        Ok(Self { directory, logs, provisioned: Mutex::default() })
    }

    /// Records how the workers of a job are started. A second call replaces the first, as when a driver rejoins.
    pub(super) fn provision(
        &self,
        spec: JobSpec,
        executable: PinnedExecutable,
        account: Option<Arc<Account>>,
    ) {
        let spec = Arc::new(spec);
        self.lock().insert(spec.job, ProvisionedJob { spec, executable, account, ended: false });
    }

    /// Returns how a job's workers are started: the specification, the executable, and the account.
    pub(super) fn launch(&self, job: JobId) -> Option<(Arc<JobSpec>, PathBuf, Option<Arc<Account>>)> {
        let provisioned = self.lock();
        let ProvisionedJob { spec, executable, account, .. } = provisioned.get(&job)?;
        Some((Arc::clone(spec), executable.path(), account.clone()))
    }

    /// Directory of the node's logs.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Creates and returns the working directory of a job's processes.
    pub(super) fn directory(&self, job: JobId, account: Option<&Account>) -> io::Result<PathBuf> {
        let directory = self.directory.join(job.to_string());
        private_directory(&directory)?;
        account.map_or(Ok(()), |account| account.claim_directory(&directory))?;
        Ok(directory)
    }

    /// Periodically limits the remains of ended processes: their logs, and the empty directories of their jobs.
    pub(super) async fn enforce_retention(agent: Arc<Agent>) {
        loop {
            tokio::time::sleep(LOG_RETENTION_INTERVAL).await;
            let checked = Arc::clone(&agent);
            let trimmed = tokio::task::spawn_blocking(move || {
                let is_writing = |name: LogName| checked.is_writing(name);
                checked.jobs.drop_empty(|job| checked.drivers.runs(job));
                checked.accounts.retry_ends();
                LogReader::new(checked.jobs.logs()).trim(LOGS_BYTES_MAX, LOGS_FILES_MAX, is_writing)
            });
            if let Ok(Err(error)) = trimmed.await {
                tracing::warn!(%error, "cannot trim the logs of ended processes");
            }
        }
    }

    /// Removes the empty directories of jobs that have no workers and no driver here.
    fn drop_empty(&self, has_driver: impl Fn(JobId) -> bool) {
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let job = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // Locked for the check and the removal, so that no job starts in a directory that disappears.
            let provisioned = self.lock();
            if job.is_some_and(|job| !provisioned.contains_key(&job) && !has_driver(job)) {
                // Fails if the directory is not empty. The files in it belong to the user.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }

    /// Jobs that have not ended and whose executables are pinned.
    pub(super) fn pinned_jobs(&self) -> Vec<JobId> {
        let provisioned = self.lock();
        provisioned.iter().filter(|(_, entry)| !entry.ended).map(|(job, _)| *job).collect()
    }

    /// Marks a job as ended: no more of its workers are started here.
    pub(super) fn mark_ended(&self, job: JobId) {
        if let Some(entry) = self.lock().get_mut(&job) {
            entry.ended = true;
        }
    }

    /// Unpins the executable of an ended job, unless some of its workers still run.
    pub(super) fn release_if_idle(&self, job: JobId, workers: &NodeWorkers) {
        // Under the lock of the jobs: a worker that starts meanwhile is either counted, or finds no executable.
        let mut provisioned = self.lock();
        if provisioned.get(&job).is_some_and(|entry| entry.ended) && !workers.has_workers_of(job) {
            provisioned.remove(&job);
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<JobId, ProvisionedJob>> {
        self.provisioned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates a directory that other users cannot access, unless it exists.
fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that other users cannot read.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::daemon::agent::store::ExecutableStore;
    use crate::cluster::executable::Digest;
    use crate::cluster::model::WorkerId;
    use crate::cluster::test_dir::TestDir;
    use crate::config::Limits;
    use crate::host::fresh_identity;

    const JOB: JobId = JobId(7);

    /// Creates a node that has an executable for a job.
    fn provisioned() -> (TestDir, ExecutableStore, Digest, Jobs) {
        let scratch = TestDir::new();
        let store = ExecutableStore::open(&scratch.join("executables")).unwrap();
        let digest = Digest(blake3::hash(b"program").into());
        store.write(digest, 7, 0, b"program").unwrap();
        let jobs = Jobs::new(scratch.path()).unwrap();
        jobs.provision(spec(digest), store.pin(digest).unwrap(), None);
        (scratch, store, digest, jobs)
    }

    fn spec(digest: Digest) -> JobSpec {
        JobSpec {
            job: JOB,
            digest,
            arguments: Vec::new(),
            environment: Vec::new(),
            limits: Limits::default(),
            stack_bytes: 1 << 20,
            driver: fresh_identity(),
        }
    }

    #[test]
    fn executable_of_an_ended_job_is_unpinned_even_if_it_had_no_workers_here() {
        let (_scratch, store, digest, jobs) = provisioned();
        let workers = NodeWorkers::default();
        jobs.release_if_idle(JOB, &workers);
        assert_eq!((jobs.pinned_jobs(), store.is_pinned(digest)), (vec![JOB], true));
        jobs.mark_ended(JOB);
        jobs.release_if_idle(JOB, &workers);
        assert_eq!((jobs.pinned_jobs(), store.is_pinned(digest)), (Vec::new(), false));
        assert!(jobs.launch(JOB).is_none());
    }

    #[test]
    fn directory_of_an_ended_job_is_removed_if_empty() {
        let (_scratch, _store, _digest, jobs) = provisioned();
        let of = |job| jobs.directory(JobId(job), None).unwrap();
        let (empty, driven, left, provisioned) = (of(1), of(2), of(3), of(JOB.0));
        std::fs::write(left.join("result"), "words").unwrap();
        jobs.drop_empty(|job| job == JobId(2));
        assert_eq!([empty, driven, left, provisioned].map(|path| path.exists()), [false, true, true, true]);
    }

    #[test]
    fn executable_of_an_ended_job_stays_pinned_while_a_worker_runs() {
        let (_scratch, store, digest, jobs) = provisioned();
        let workers = NodeWorkers::default();
        workers.reserve(WorkerId(1), JOB, None);
        jobs.mark_ended(JOB);
        jobs.release_if_idle(JOB, &workers);
        // An ended job is not reported to the head any more.
        assert_eq!((jobs.pinned_jobs(), store.is_pinned(digest)), (Vec::new(), true));
        // A driver that does not know of the end provisions the node again.
        jobs.provision(spec(digest), store.pin(digest).unwrap(), None);
        assert_eq!(jobs.pinned_jobs(), [JOB]);
        jobs.mark_ended(JOB);
        jobs.release_if_idle(JOB, &NodeWorkers::default());
        assert!(!store.is_pinned(digest));
    }
}
