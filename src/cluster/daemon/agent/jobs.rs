//! What a node knows of the jobs that it works for: how their workers are started, and where they run.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::Agent;
use super::accounts::Account;
use super::workers::Workers;
use crate::cluster::daemon::agent::store::PinnedExecutable;
use crate::cluster::daemon::logs::LogReader;
use crate::cluster::model::JobId;
use crate::cluster::output::LogName;
use crate::cluster::protocol::JobSpec;
use crate::config::{LOG_RETENTION_INTERVAL, LOGS_BYTES_MAX, LOGS_FILES_MAX};

/// The jobs whose executables are here.
#[derive(Debug)]
pub(super) struct Jobs {
    directory: PathBuf,
    logs: PathBuf,
    launches: Mutex<FxHashMap<JobId, ProvisionedJob>>,
}

#[derive(Debug)]
struct ProvisionedJob {
    launch: Arc<JobSpec>,
    /// Keeps the executable from being dropped.
    executable: PinnedExecutable,
    /// The user that its workers run as; the agent's if there is none.
    account: Option<Arc<Account>>,
    /// Whether it is kept only for the workers that still run.
    ended: bool,
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
    pub(super) fn provision(
        &self,
        launch: JobSpec,
        executable: PinnedExecutable,
        account: Option<Arc<Account>>,
    ) {
        let launch = Arc::new(launch);
        self.lock().insert(launch.job, ProvisionedJob { launch, executable, account, ended: false });
    }

    /// How a job's workers are started, from which file, and as whom.
    pub(super) fn launch(&self, job: JobId) -> Option<(Arc<JobSpec>, PathBuf, Option<Arc<Account>>)> {
        let launches = self.lock();
        let ProvisionedJob { launch, executable, account, .. } = launches.get(&job)?;
        Some((Arc::clone(launch), executable.path(), account.clone()))
    }

    /// Where the logs of the node are.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Where a job's processes run.
    pub(super) fn directory(&self, job: JobId, account: Option<&Account>) -> io::Result<PathBuf> {
        let directory = self.directory.join(job.to_string());
        private_directory(&directory)?;
        account.map_or(Ok(()), |account| account.claim_directory(&directory))?;
        Ok(directory)
    }

    /// Keeps what is left of processes that have ended within bounds, as long as it runs: their logs, and
    /// the directories of jobs in which they have left nothing.
    pub(super) async fn enforce_retention(agent: Arc<Agent>) {
        loop {
            tokio::time::sleep(LOG_RETENTION_INTERVAL).await;
            let looked_at = Arc::clone(&agent);
            let trimmed = tokio::task::spawn_blocking(move || {
                let lives = |name: LogName| looked_at.is_writing(name);
                looked_at.jobs.drop_empty(|job| looked_at.drivers.runs(job));
                looked_at.accounts.end_rest();
                LogReader::new(looked_at.jobs.logs()).trim(LOGS_BYTES_MAX, LOGS_FILES_MAX, lives)
            });
            if let Ok(Err(error)) = trimmed.await {
                tracing::warn!(%error, "logs of ended processes are not trimmed");
            }
        }
    }

    /// Removes the directories of jobs that nothing runs for here, as far as nothing is in them.
    fn drop_empty(&self, has_driver: impl Fn(JobId) -> bool) {
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let job = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // Held while it is looked at and removed: none begins meanwhile.
            let launches = self.lock();
            if job.is_some_and(|job| !launches.contains_key(&job) && !has_driver(job)) {
                // It fails where something was left, which is the user's.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }

    /// The jobs whose executables are kept, and that are not known to be over.
    pub(super) fn pinned_jobs(&self) -> Vec<JobId> {
        let launches = self.lock();
        launches.iter().filter(|(_, equipped)| !equipped.ended).map(|(job, _)| *job).collect()
    }

    /// A job is over: nothing more of it is started here.
    pub(super) fn mark_ended(&self, job: JobId) {
        if let Some(equipped) = self.lock().get_mut(&job) {
            equipped.ended = true;
        }
    }

    /// Lets go of the executable of a job that is over, unless some of its workers still run.
    pub(super) fn release_if_idle(&self, job: JobId, workers: &Workers) {
        let mut launches = self.lock();
        if launches.get(&job).is_some_and(|equipped| equipped.ended) && !workers.has_workers_of(job) {
            launches.remove(&job);
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<JobId, ProvisionedJob>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::daemon::agent::store::Store;
    use crate::cluster::executable::Digest;
    use crate::cluster::model::WorkerId;
    use crate::cluster::test_dir::TestDir;
    use crate::config::Limits;
    use crate::host::fresh_identity;

    const JOB: JobId = JobId(7);

    /// A node that has an executable for a job.
    fn equipped() -> (TestDir, Store, Digest, Jobs) {
        let scratch = TestDir::new();
        let store = Store::open(&scratch.join("executables")).unwrap();
        let digest = Digest(blake3::hash(b"program").into());
        store.write(digest, 7, 0, b"program").unwrap();
        let jobs = Jobs::new(scratch.path()).unwrap();
        jobs.provision(launch(digest), store.pin(digest).unwrap(), None);
        (scratch, store, digest, jobs)
    }

    fn launch(digest: Digest) -> JobSpec {
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
    fn the_executable_of_a_job_that_is_over_is_let_go_also_where_none_of_its_workers_ran() {
        let (_scratch, store, digest, jobs) = equipped();
        let workers = Workers::default();
        jobs.release_if_idle(JOB, &workers);
        assert_eq!((jobs.pinned_jobs(), store.is_held(digest)), (vec![JOB], true));
        jobs.mark_ended(JOB);
        jobs.release_if_idle(JOB, &workers);
        assert_eq!((jobs.pinned_jobs(), store.is_held(digest)), (Vec::new(), false));
        assert!(jobs.launch(JOB).is_none());
    }

    #[test]
    fn the_directory_of_a_job_that_is_over_goes_unless_something_was_left_in_it() {
        let (_scratch, _store, _digest, jobs) = equipped();
        let of = |job| jobs.directory(JobId(job), None).unwrap();
        let (empty, driven, left, held) = (of(1), of(2), of(3), of(JOB.0));
        std::fs::write(left.join("result"), "words").unwrap();
        jobs.drop_empty(|job| job == JobId(2));
        assert_eq!([empty, driven, left, held].map(|path| path.exists()), [false, true, true, true]);
    }

    #[test]
    fn the_executable_of_a_job_that_is_over_is_kept_as_long_as_a_worker_of_it_runs() {
        let (_scratch, store, digest, jobs) = equipped();
        let workers = Workers::default();
        workers.reserve(WorkerId(1), JOB, None);
        jobs.mark_ended(JOB);
        jobs.release_if_idle(JOB, &workers);
        // The head need not be told of it any more.
        assert_eq!((jobs.pinned_jobs(), store.is_held(digest)), (Vec::new(), true));
        // A driver that has not heard of the end equips the node again.
        jobs.provision(launch(digest), store.pin(digest).unwrap(), None);
        assert_eq!(jobs.pinned_jobs(), [JOB]);
        jobs.mark_ended(JOB);
        jobs.release_if_idle(JOB, &Workers::default());
        assert!(!store.is_held(digest));
    }
}
