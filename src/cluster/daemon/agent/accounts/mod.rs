//! The users that the jobs of a node run as, and what of the node's files is theirs.
//!
//! A job has its [`Account`] from its first executable or driver on the node until its last process has ended and the
//! node need not keep its executable. Then all processes of a uid that was the job's alone are ended, the directory
//! that the job has left becomes the agent's, and the uid is free. One that still owns processes, IPC objects or
//! temporary files is left out, and each is used again as late as possible.
//!
//! ```text
//! session             0711 root       others pass through, and list nothing
//! |-- jobs            0711 root
//! |   `-- JOB         0700 the job    working directory
//! `-- run             0711 root
//!     `-- JOB         0710 root, the job's group
//!         |-- DIGEST  0755 root       link to the executable in the store, which is closed to jobs
//!         |-- enrol   0660 root, the job's group: the socket by which a submitted driver enrols
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

use assignment::Assignment;
use leftovers::Leftovers;
use lock::UidLock;

/// Others pass through a directory of this mode, and cannot list it.
const PASSABLE: u32 = 0o711;

/// The directory of what jobs need to run and may not change.
const RUN: &str = "run";

/// The accounts of a node's jobs; none where they run as the agent's user. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Accounts(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    users: JobUsers,
    jobs: PathBuf,
    run: PathBuf,
    runtime: Handle,
    table: Mutex<Table>,
    /// Told when an account has ended, or is no longer pending.
    changed: Condvar,
    /// Looks for what is left of earlier jobs.
    look: fn() -> Leftovers,
}

#[derive(Debug, Default)]
struct Table {
    jobs: FxHashMap<JobId, Entry>,
    /// Jobs that are getting an account, each with the uid that is being looked at for it.
    pending: FxHashMap<JobId, Option<u32>>,
    /// The uid that was looked at last.
    last_uid: Option<u32>,
    /// Accounts that have ended by now.
    ended_count: u64,
}

#[derive(Debug)]
struct Entry {
    user: UserIds,
    /// Of an account that nothing holds any more the processes are being ended.
    account: Weak<Account>,
    /// Keeps the uid from other agents of this machine.
    _lock: Option<UidLock>,
}

/// A job has no account.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum AccountError {
    /// Every uid is taken.
    #[error(
        "each of the {} uids {range} of --worker-uids is taken on this node: {jobs} by jobs, {known} are of users or groups \
         of the machine, {left} still own processes or temporary files, {locked} are another agent's; wait for a job to end, \
         or start the node with more uids",
        range.count()
    )]
    NoUid { range: UidRange, jobs: usize, known: u32, left: u32, locked: u32 },
    /// What it had before is still being ended.
    #[error("earlier processes of job {job} do not end; see which hang with `ps`, and try again")]
    Ending { job: JobId },
    /// Its files cannot be made.
    #[error("cannot make {}: {error}", path.display())]
    Files { path: PathBuf, error: io::Error },
}

impl Accounts {
    /// The accounts of a session. To be called within the agent's runtime.
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
        // An agent that was killed left them to the uids of its jobs, which this one gives to other jobs.
        for directory in fs::read_dir(&jobs)? {
            close_directory(&directory?.path())?;
        }
        let runtime = Handle::current();
        let (table, changed) = (Mutex::default(), Condvar::new());
        Ok(Self(Some(Arc::new(Shared { users: users.clone(), jobs, run, runtime, table, changed, look }))))
    }

    /// The account of a job, which it has as long as something holds it; none where jobs run as the agent's user.
    ///
    /// Blocks while what had the account before is being ended.
    ///
    /// # Errors
    ///
    /// [`AccountError`] if there is no uid for the job, or its files cannot be made.
    pub(super) fn of(&self, job: JobId) -> Result<Option<Arc<Account>>, AccountError> {
        let Some(shared) = &self.0 else { return Ok(None) };
        let until = Instant::now() + WORKER_UID_TIMEOUT;
        let mut table = shared.lock();
        loop {
            // Another thread looks for it already, and would be waited for by the next look.
            table = shared.wait_until_settled(table, job);
            let ended_count = table.ended_count;
            let error = match table.jobs.get(&job) {
                Some(entry) => match entry.account.upgrade() {
                    Some(account) => return Ok(Some(account)),
                    None => AccountError::Ending { job },
                },
                None => {
                    let assignment = Assignment::begin(shared, &mut table, job);
                    drop(table);
                    let assigned = assignment.finish();
                    table = shared.lock();
                    match assigned {
                        Err(error) if table.some_are_ending() || table.ended_count != ended_count => error,
                        assigned => return assigned.map(Some),
                    }
                }
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(error);
            }
            let none_has_ended = |table: &mut Table| table.ended_count == ended_count;
            let waited = shared.changed.wait_timeout_while(table, left, none_has_ended);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends again the processes of accounts that did not end.
    pub(super) fn end_rest(&self) {
        let Some(shared) = &self.0 else { return };
        let is_ending = |(_, entry): &(&JobId, &Entry)| entry.account.strong_count() == 0;
        let ending: Vec<_> = shared.lock().jobs.iter().filter(is_ending).map(|(job, _)| *job).collect();
        ending.into_iter().for_each(|job| shared.end(job));
    }

    /// Ends all processes of uids that are jobs' alone, at the end of the agent.
    pub(super) fn close(&self) {
        let Some(shared) = &self.0 else { return };
        let users: Vec<_> = shared.lock().jobs.iter().map(|(job, entry)| (*job, entry.user.uid)).collect();
        for (job, uid) in users {
            if matches!(shared.users, JobUsers::EachJob(_)) && !descendants::end_user(uid) {
                tracing::warn!(uid, "processes of a job do not end, and outlive this agent");
            }
            if let Err(error) = shared.close_files(job) {
                tracing::warn!(%job, %error, "files of a job cannot be closed; the next agent tries again");
            }
        }
    }
}

impl Table {
    fn some_are_ending(&self) -> bool {
        self.jobs.values().any(|entry| entry.account.strong_count() == 0)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no thread looks for an account of the job.
    fn wait_until_settled<'a>(&self, table: MutexGuard<'a, Table>, job: JobId) -> MutexGuard<'a, Table> {
        let is_pending = |table: &mut Table| table.pending.contains_key(&job);
        self.changed.wait_while(table, is_pending).unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an account that nothing holds any more.
    fn end(&self, job: JobId) {
        let Some(user) = self.lock().jobs.get(&job).map(|entry| entry.user) else { return };
        if matches!(self.users, JobUsers::EachJob(_)) && !descendants::end_user(user.uid) {
            return tracing::warn!(%job, uid = user.uid, "processes of a job do not end; its uid is not used again");
        }
        if let Err(error) = self.close_files(job) {
            tracing::warn!(%job, %error, "files of a job that is over cannot be closed; its uid is not used again");
            return;
        }
        let mut table = self.lock();
        table.jobs.remove(&job);
        table.ended_count += 1;
        self.changed.notify_all();
    }

    /// Removes what a job needed to run. What it has left in its directory is the agent's from now on: whoever has
    /// the job's uid later cannot enter it.
    fn close_files(&self, job: JobId) -> io::Result<()> {
        gone_is_fine(close_directory(&self.jobs.join(job.to_string())))?;
        Ok(remove_tree(&self.run.join(job.to_string()))?)
    }
}

/// Makes a job's directory the agent's, and no one else's. The directory above is the agent's: the job cannot have
/// replaced this one.
fn close_directory(directory: &Path) -> io::Result<()> {
    lchown(directory, Some(rustix::process::geteuid().as_raw()), Some(rustix::process::getegid().as_raw()))?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make_run_directory(run: &Path, user: UserIds) -> io::Result<()> {
    remove_tree(run)?;
    let tmp = run.join("tmp");
    for directory in [run, &tmp] {
        fs::DirBuilder::new().mode(0o700).create(directory)?;
    }
    chown(&tmp, Some(user.uid), Some(user.gid))?;
    chown(run, None, Some(user.gid))?;
    fs::set_permissions(run, Permissions::from_mode(0o710))
}

/// The user that a job runs as, for as long as it is held.
#[derive(Debug)]
pub(super) struct Account {
    job: JobId,
    user: UserIds,
    run: PathBuf,
    shared: Arc<Shared>,
}

impl Account {
    pub(super) fn user(&self) -> UserIds {
        self.user
    }

    /// The socket by which the job's driver enrols.
    pub(super) fn socket(&self) -> PathBuf {
        self.run.join("enrol")
    }

    /// Gives the job a way to an executable of the store, which it can run and read, and not change.
    pub(super) fn link(&self, executable: &Path) -> io::Result<PathBuf> {
        let link = self.run.join(executable.file_name().unwrap_or_default());
        fs::set_permissions(executable, Permissions::from_mode(0o755))?;
        match fs::hard_link(executable, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(link),
        }
    }

    /// Makes a directory the job's. One that is another's by now, such as what an earlier cluster has left, is put
    /// aside.
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

    /// Makes a pipe the job's, so that its processes may open it again by its name in `/proc`.
    pub(super) fn take_pipe(&self, pipe: impl AsFd) -> Result<(), String> {
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        rustix::fs::fchown(pipe, Some(uid), Some(gid))
            .map_err(|error| format!("the pipe for the output cannot be given to the job's user: {error}"))
    }

    /// What the environment of the job's processes has in place of the agent's `HOME`, `USER` and `TMPDIR`.
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
        // Processes are waited for, and whoever drops this may hold locks.
        let (shared, job) = (Arc::clone(&self.shared), self.job);
        self.shared.runtime.spawn_blocking(move || shared.end(job));
    }
}

/// Names of directories that were put aside, such as `00000001.1`.
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
