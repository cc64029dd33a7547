//! The way of a job to its account. What it takes is slow on a machine with many processes or temporary files, and is
//! done without the lock of the accounts' table.
//!
//! No uid is given twice, and none that something is left of:
//!
//! 1. Within this agent a uid is reserved in the table before anything else is asked about it. It stays there until the
//!    account has ended, with the job's processes, and its files are closed.
//! 2. Among agents of this machine it is the one that holds the uid's lock, which is taken next.
//! 3. The look that decides begins after both. Whoever had the uid before has let go of it by then, and had ended its
//!    processes first. So nothing of the uid comes into being during the look, and what there is the look finds.

use std::path::Path;
use std::sync::Arc;

use super::leftovers::Leftovers;
use super::lock::{self, UidLock};
use super::{Account, AccountError, Entry, Shared, Table, make_run_directory};
use crate::cluster::daemon::job_users::JobUsers;
use crate::cluster::daemon::job_users::UidRange;
use crate::cluster::daemon::job_users::is_known;
use crate::cluster::launch::user_ids::UserIds;
use crate::cluster::model::JobId;

/// A job that is getting its account. Until this is dropped, no other thread looks for one for the job.
#[derive(Debug)]
pub(super) struct Assignment<'a> {
    shared: &'a Arc<Shared>,
    job: JobId,
}

impl<'a> Assignment<'a> {
    pub(super) fn begin(shared: &'a Arc<Shared>, table: &mut Table, job: JobId) -> Self {
        table.pending.insert(job, None);
        Self { shared, job }
    }

    /// Makes the account. The table must not be locked.
    pub(super) fn finish(self) -> Result<Arc<Account>, AccountError> {
        let Self { shared, job } = self;
        let (user, lock) = match &shared.users {
            JobUsers::EachJob(range) => {
                let (uid, lock) = self.free_uid(*range)?;
                (UserIds { uid, gid: uid }, Some(lock))
            }
            JobUsers::One(user) => (UserIds { uid: user.uid, gid: user.gid }, None),
            JobUsers::Agent => unreachable!("such a node has no accounts"),
        };
        let run = shared.run.join(job.to_string());
        make_run_directory(&run, user).map_err(|error| AccountError::Files { path: run.clone(), error })?;
        let account = Arc::new(Account { job, user, run, shared: Arc::clone(shared) });
        shared.lock().jobs.insert(job, Entry { user, account: Arc::downgrade(&account), _lock: lock });
        Ok(account)
    }

    /// A uid that is nobody's, and that nothing is left of.
    fn free_uid(&self, range: UidRange) -> Result<(u32, UidLock), AccountError> {
        let locks = lock::directory();
        // Of earlier uids of this round: what has been seen of a uid once need not be looked for again.
        let mut leftovers = Leftovers::default();
        let (mut jobs, mut known, mut left, mut locked) = (0, 0, 0, 0);
        let last = self.shared.lock().last_uid;
        for uid in range.round_from(last) {
            if !self.reserve(uid) {
                jobs += 1;
            } else if leftovers.are_of(uid) {
                left += 1;
            } else if is_known(uid) {
                known += 1;
            } else {
                match take_lock(&locks, uid)? {
                    None => locked += 1,
                    Some(lock) => {
                        leftovers = (self.shared.look)();
                        match leftovers.are_of(uid) {
                            true => left += 1,
                            false => return Ok((uid, lock)),
                        }
                    }
                }
            }
        }
        Err(AccountError::NoUid { range, jobs, known, left, locked })
    }

    /// Reserves a uid in place of the one before, if no other job has it.
    fn reserve(&self, uid: u32) -> bool {
        let mut table = self.shared.lock();
        let is_free = !table.has_uid(uid, self.job);
        if is_free {
            table.pending.insert(self.job, Some(uid));
            table.last_uid = Some(uid);
        }
        is_free
    }
}

impl Drop for Assignment<'_> {
    fn drop(&mut self) {
        self.shared.lock().pending.remove(&self.job);
        self.shared.changed.notify_all();
    }
}

impl Table {
    /// Whether a uid is another job's, or being looked at for another job.
    fn has_uid(&self, uid: u32, job: JobId) -> bool {
        self.jobs.values().any(|entry| entry.user.uid == uid)
            || self.pending.iter().any(|(other, reserved)| *other != job && *reserved == Some(uid))
    }
}

fn take_lock(locks: &Path, uid: u32) -> Result<Option<UidLock>, AccountError> {
    UidLock::take(locks, uid).map_err(|error| AccountError::Files { path: locks.to_owned(), error })
}
