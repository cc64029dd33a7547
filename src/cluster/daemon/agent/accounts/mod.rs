//! Accounts of a node's jobs: the users that they run as, and the files that belong to them.
//!
//! A job has an [`Account`] from its first executable or driver on the node until its last process has ended and its
//! executable is unpinned. Then all processes of its uid are ended, its directory becomes the agent's, and the uid is
//! free. A uid that still owns processes, IPC objects or temporary files is skipped. Each uid is reused as late as
//! possible, since a leftover that is not found would give the next job access.
//!
//! ```text
//! session             0711 root       others pass through, and cannot list it
//! |-- jobs            0711 root
//! |   `-- JOB         0700 the job    working directory
//! `-- run             0711 root
//!     `-- JOB         0710 root, the job's group
//!         |-- DIGEST  0755 root       link to the executable in the store, which is closed to jobs
//!         |-- enrol   0660 root, the job's group: the socket through which a submitted driver enrols
//!         `-- tmp     0700 the job    TMPDIR
//! ```

mod assignment;
mod leftovers;
mod lock;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use rustc_hash::FxHashMap;
use rustix::fs::{Gid, Uid};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::cluster::daemon::job_users::JobUsers;
use crate::cluster::daemon::job_users::UidRange;
use crate::cluster::daemon::removal::remove_tree;
use crate::cluster::launch::descendants;
use crate::cluster::launch::user_ids::UserIds;
use crate::cluster::model::JobId;
use crate::cluster::protocol::Variables;
use crate::config::WORKER_UID_TIMEOUT;

use assignment::AccountAssignment;
use leftovers::Leftovers;
use lock::UidLock;

/// Mode of a directory that other users can pass through but not list.
const PASSABLE: u32 = 0o711;

/// Directory of the files that jobs need to run and must not change.
const RUN: &str = "run";

/// Accounts of a node's jobs; `None` where jobs run as the agent's user. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Accounts(Option<Arc<AccountsShared>>);

#[derive(Debug)]
struct AccountsShared {
    users: JobUsers,
    jobs: PathBuf,
    run: PathBuf,
    runtime: Handle,
    table: Mutex<AccountTable>,
    /// Notified when an account has ended, or is no longer pending.
    changed: Condvar,
    /// Search for leftovers of earlier jobs, replaced in tests.
    look: fn() -> Leftovers,
}

#[derive(Debug, Default)]
struct AccountTable {
    jobs: FxHashMap<JobId, AccountEntry>,
    /// Jobs that are getting an account, each with the uid that is being checked for it.
    pending: FxHashMap<JobId, Option<u32>>,
    /// Uid that was checked last.
    last_uid: Option<u32>,
    /// Number of accounts that have ended.
    ended_count: u64,
}

#[derive(Debug)]
struct AccountEntry {
    user: UserIds,
    /// Account of the job. Once nothing holds it, the job's processes are being ended.
    account: Weak<Account>,
    /// Lock that keeps other agents of this machine from the uid.
    _lock: Option<UidLock>,
}

/// Reason that a job has no account.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum AccountError {
    /// All uids are taken.
    #[error(
        "each of the {} uids {range} of --worker-uids is taken on this node: {jobs} by jobs, {known} are of users or groups \
         of the machine, {left} still own processes or temporary files, {locked} are another agent's; wait for a job to end, \
         or start the node with more uids",
        range.count()
    )]
    NoUid { range: UidRange, jobs: usize, known: u32, left: u32, locked: u32 },
    /// The processes of the job's earlier account have not ended.
    #[error("earlier processes of job {job} do not end; look for hanging ones with `ps`, and try again")]
    Ending { job: JobId },
    /// The files of the account cannot be created.
    #[error("cannot create {}: {error}", path.display())]
    Files { path: PathBuf, error: io::Error },
}

impl Accounts {
    /// Opens the accounts of a session. Call it within the agent's runtime.
    pub(super) fn new(users: &JobUsers, session_dir: &Path) -> io::Result<Self> {
        Self::with_look(users, session_dir, Leftovers::look)
    }

    fn with_look(users: &JobUsers, session_dir: &Path, look: fn() -> Leftovers) -> io::Result<Self> {
        if *users == JobUsers::Agent {
            return Ok(Self(None));
        }
        let (jobs, run) = (session_dir.join("jobs"), session_dir.join(RUN));
        for directory in [session_dir, &jobs, &run] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            fs::set_permissions(directory, Permissions::from_mode(PASSABLE))?;
        }
        // A killed agent left these directories to the uids of its jobs. This agent gives the uids to other jobs.
        for directory in fs::read_dir(&jobs)? {
            close_directory(&directory?.path())?;
        }
        let runtime = Handle::current();
        let (table, changed) = (Mutex::default(), Condvar::new());
        Ok(Self(Some(Arc::new(AccountsShared {
            users: users.clone(),
            jobs,
            run,
            runtime,
            table,
            changed,
            look,
        }))))
    }

    /// Returns the account of a job, and creates it if needed. `None` where jobs run as the agent's user.
    ///
    /// Blocks while the processes of an earlier account of the job are being ended.
    ///
    /// # Errors
    ///
    /// [`AccountError`] if no uid is free, or the files of the account cannot be created.
    pub(super) fn of(&self, job: JobId) -> Result<Option<Arc<Account>>, AccountError> {
        let Some(shared) = &self.0 else { return Ok(None) };
        let until = Instant::now() + WORKER_UID_TIMEOUT;
        let mut table = shared.lock();
        loop {
            // Another thread may be assigning an account to this job. A second search would cost as much again.
            table = shared.wait_until_settled(table, job);
            let ended_count = table.ended_count;
            let error = match table.jobs.get(&job) {
                Some(entry) => match entry.account.upgrade() {
                    Some(account) => return Ok(Some(account)),
                    None => AccountError::Ending { job },
                },
                None => {
                    let assignment = AccountAssignment::begin(shared, &mut table, job);
                    drop(table);
                    let assigned = assignment.finish();
                    table = shared.lock();
                    match assigned {
                        // An account ended during the search, so a uid may be free by now: search again.
                        Err(error) if table.some_are_ending() || table.ended_count != ended_count => error,
                        assigned => return assigned.map(Some),
                    }
                }
            };
            // The end of another account may free a uid, or end the earlier processes of this job.
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(error);
            }
            let none_has_ended = |table: &mut AccountTable| table.ended_count == ended_count;
            let waited = shared.changed.wait_timeout_while(table, left, none_has_ended);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Retries the end of accounts whose processes did not end.
    pub(super) fn retry_ends(&self) {
        let Some(shared) = &self.0 else { return };
        let is_ending = |(_, entry): &(&JobId, &AccountEntry)| entry.account.strong_count() == 0;
        let ending: Vec<_> = shared.lock().jobs.iter().filter(is_ending).map(|(job, _)| *job).collect();
        ending.into_iter().for_each(|job| shared.end(job));
    }

    /// Ends all processes of the jobs' uids, when the agent shuts down.
    pub(super) fn close(&self) {
        let Some(shared) = &self.0 else { return };
        let users: Vec<_> = shared.lock().jobs.iter().map(|(job, entry)| (*job, entry.user.uid)).collect();
        for (job, uid) in users {
            if matches!(shared.users, JobUsers::EachJob(_)) && !descendants::end_user(uid) {
                tracing::warn!(uid, "processes of a job do not end; they outlive this agent");
            }
            if let Err(error) = shared.close_files(job) {
                tracing::warn!(%job, %error, "cannot close the files of a job; the next agent retries");
            }
        }
    }
}

impl AccountTable {
    fn some_are_ending(&self) -> bool {
        self.jobs.values().any(|entry| entry.account.strong_count() == 0)
    }
}

impl AccountsShared {
    fn lock(&self) -> MutexGuard<'_, AccountTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no thread assigns an account to the job.
    fn wait_until_settled<'a>(
        &self,
        table: MutexGuard<'a, AccountTable>,
        job: JobId,
    ) -> MutexGuard<'a, AccountTable> {
        let is_pending = |table: &mut AccountTable| table.pending.contains_key(&job);
        self.changed.wait_while(table, is_pending).unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an account that nothing holds any more: its processes, its files, and its entry, in this order.
    fn end(&self, job: JobId) {
        let Some(user) = self.lock().jobs.get(&job).map(|entry| entry.user) else { return };
        if matches!(self.users, JobUsers::EachJob(_)) && !descendants::end_user(user.uid) {
            return tracing::warn!(%job, uid = user.uid, "processes of a job do not end; its uid stays reserved");
        }
        if let Err(error) = self.close_files(job) {
            tracing::warn!(%job, %error, "cannot close the files of an ended job; its uid stays reserved");
            return;
        }
        let mut table = self.lock();
        table.jobs.remove(&job);
        table.ended_count += 1;
        self.changed.notify_all();
    }

    /// Removes what the job needed to run, and makes its directory the agent's: a later job with the same uid must not
    /// enter it.
    fn close_files(&self, job: JobId) -> io::Result<()> {
        ignore_missing(close_directory(&self.jobs.join(job.to_string())))?;
        // Not `remove_dir_all`, which a job can crash with a deeply nested directory.
        Ok(remove_tree(&self.run.join(job.to_string()))?)
    }
}

/// Makes a job's directory the agent's. The job cannot have replaced it by a link, since the directory above belongs
/// to the agent.
fn close_directory(directory: &Path) -> io::Result<()> {
    lchown(directory, Some(rustix::process::geteuid().as_raw()), Some(rustix::process::getegid().as_raw()))?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn create_run_directory(run: &Path, user: UserIds) -> io::Result<()> {
    remove_tree(run)?;
    let tmp = run.join("tmp");
    for directory in [run, &tmp] {
        fs::DirBuilder::new().mode(0o700).create(directory)?;
    }
    chown(&tmp, Some(user.uid), Some(user.gid))?;
    chown(run, None, Some(user.gid))?;
    // Opened last: the job's group must not enter a directory whose content has the wrong owner.
    fs::set_permissions(run, Permissions::from_mode(0o710))
}

/// User of a job, for as long as this exists.
#[derive(Debug)]
pub(super) struct Account {
    job: JobId,
    user: UserIds,
    run: PathBuf,
    shared: Arc<AccountsShared>,
}

impl Account {
    pub(super) fn user(&self) -> UserIds {
        self.user
    }

    /// Path of the socket through which the job's driver enrols.
    pub(super) fn socket(&self) -> PathBuf {
        self.run.join("enrol")
    }

    /// Links an executable of the store into the job's directory. The job can read and run it, but not change it.
    pub(super) fn link(&self, executable: &Path) -> io::Result<PathBuf> {
        let link = self.run.join(executable.file_name().unwrap_or_default());
        // The wider mode gives access only through the link: other users cannot enter the directory of the store.
        fs::set_permissions(executable, Permissions::from_mode(0o755))?;
        match fs::hard_link(executable, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(link),
        }
    }

    /// Makes a directory the job's. One that belongs to another uid, such as of an earlier cluster, is renamed if it is
    /// not empty.
    pub(super) fn claim_directory(&self, directory: &Path) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;

        let found = fs::symlink_metadata(directory)?;
        if found.uid() == self.user.uid {
            return Ok(());
        }
        if fs::read_dir(directory)?.next().is_some() {
            move_aside(directory)?;
            fs::DirBuilder::new().mode(0o700).create(directory)?;
        }
        chown(directory, Some(self.user.uid), Some(self.user.gid))
    }

    /// Makes a pipe the job's. Otherwise its processes could not reopen it by its name in `/proc`, as shells do.
    pub(super) fn take_pipe(&self, pipe: impl AsFd) -> Result<(), String> {
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        rustix::fs::fchown(pipe, Some(uid), Some(gid))
            .map_err(|error| format!("cannot give the output pipe to the job's user: {error}"))
    }

    /// Variables that replace the agent's `HOME`, `USER` and `TMPDIR` for the job's processes.
    pub(super) fn environment(&self, directory: &Path) -> Variables {
        let variable = |name: &str, value: OsString| (OsString::from(name), value);
        let tmp = variable("TMPDIR", self.run.join("tmp").into());
        match &self.shared.users {
            JobUsers::One(user) => {
                let name = || OsString::from(&user.name);
                let home = user.home.clone().into();
                vec![tmp, variable("HOME", home), variable("USER", name()), variable("LOGNAME", name())]
            }
            JobUsers::EachJob(_) | JobUsers::Agent => vec![tmp, variable("HOME", directory.into())],
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // On another thread: it waits for processes, and the caller may hold locks.
        let (shared, job) = (Arc::clone(&self.shared), self.job);
        self.shared.runtime.spawn_blocking(move || shared.end(job));
    }
}

/// Renames a directory to the first free name of the form `00000001.1`.
fn move_aside(directory: &Path) -> io::Result<()> {
    for number in 1_u32.. {
        let aside = directory.with_extension(number.to_string());
        if fs::symlink_metadata(&aside).is_err() {
            return fs::rename(directory, aside);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests;
