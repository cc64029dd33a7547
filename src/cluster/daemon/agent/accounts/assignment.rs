//! Assignment of an account to a job. The search for a free uid is slow on a machine with many processes or
//! temporary files. It runs without the lock of the accounts' table.
//!
//! No uid is assigned twice, and none with leftovers:
//!
//! 1. Within this agent the uid is reserved in the table before anything else. The reservation lasts until the account
//!    has ended together with the job's processes, and its files are closed.
//! 2. Among the agents of this machine the lock of the uid decides, which is taken next.
//! 3. The decisive search for leftovers begins after both. An earlier owner of the uid has released it by then, and had
//!    ended its processes before. So no process of the uid can start during the search, and nothing is missed.

use std::path::Path;
use std::sync::Arc;

use super::leftovers::Leftovers;
use super::lock::{self, UidLock};
use super::{Account, AccountEntry, AccountError, AccountTable, AccountsShared, create_run_directory};
use crate::cluster::daemon::job_users::JobUsers;
use crate::cluster::daemon::job_users::UidRange;
use crate::cluster::daemon::job_users::is_known;
use crate::cluster::launch::user_ids::UserIds;
use crate::cluster::model::JobId;

/// Assignment in progress. Until it is dropped, no other thread assigns an account to the job.
#[derive(Debug)]
pub(super) struct AccountAssignment<'a> {
    shared: &'a Arc<AccountsShared>,
    job: JobId,
}

impl<'a> AccountAssignment<'a> {
    pub(super) fn begin(shared: &'a Arc<AccountsShared>, table: &mut AccountTable, job: JobId) -> Self {
        table.pending.insert(job, None);
        Self { shared, job }
    }

    /// Creates the account. The table must not be locked.
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
        create_run_directory(&run, user).map_err(|error| AccountError::Files { path: run.clone(), error })?;
        let account = Arc::new(Account { job, user, run, shared: Arc::clone(shared) });
        shared.lock().jobs.insert(job, AccountEntry { user, account: Arc::downgrade(&account), _lock: lock });
        Ok(account)
    }

    /// Finds and locks a uid that has no owner and no leftovers.
    fn free_uid(&self, range: UidRange) -> Result<(u32, UidLock), AccountError> {
        let locks = lock::directory();
        // The last search covers all uids, so a uid that is known to have leftovers needs no search of its own.
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

    /// Moves the reservation to this uid, unless another job has it.
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

impl Drop for AccountAssignment<'_> {
    fn drop(&mut self) {
        self.shared.lock().pending.remove(&self.job);
        self.shared.changed.notify_all();
    }
}

impl AccountTable {
    /// Returns true if a uid belongs to another job, or is reserved for one.
    fn has_uid(&self, uid: u32, job: JobId) -> bool {
        self.jobs.values().any(|entry| entry.user.uid == uid)
            || self.pending.iter().any(|(other, reserved)| *other != job && *reserved == Some(uid))
    }
}

fn take_lock(locks: &Path, uid: u32) -> Result<Option<UidLock>, AccountError> {
    UidLock::take(locks, uid).map_err(|error| AccountError::Files { path: locks.to_owned(), error })
}
