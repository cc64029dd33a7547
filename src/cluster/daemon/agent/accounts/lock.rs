//! Locks by which the agents of a machine do not give the same uid to two jobs.
//!
//! A lock is a `flock` of a file that is named by the uid, in the directory of the sessions of the agents' user.
//! It ends with the process that has it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often a file is opened anew that was removed before it was locked.
const TRIES: u32 = 100;

/// Where the locks are.
pub(super) fn directory() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("roadshow-{user}")).join("worker-uids")
}

/// The lock of a uid. Dropping it removes its file.
#[derive(Debug)]
pub(super) struct UidLock {
    path: PathBuf,
    _file: File,
}

impl UidLock {
    /// Takes the lock of a uid; none if another agent has it.
    pub(super) fn take(directory: &Path, uid: u32) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(uid.to_string());
        for _ in 0..TRIES {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                locked => locked?,
            }
            // Its last holder may have removed it meanwhile: then the lock is of no file that others find.
            let is_same = fs::metadata(&path)
                .is_ok_and(|found| file.metadata().is_ok_and(|it| it.ino() == found.ino()));
            if is_same {
                return Ok(Some(Self { path, _file: file }));
            }
        }
        Ok(None)
    }
}

impl Drop for UidLock {
    fn drop(&mut self) {
        // While it is locked: whoever has opened it by now sees that it is gone.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[test]
    fn a_uid_has_one_lock_until_that_is_dropped() {
        let scratch = TestDir::new();
        let locks = scratch.join("locks");
        let lock = UidLock::take(&locks, 7).unwrap().unwrap();
        assert!(UidLock::take(&locks, 7).unwrap().is_none());
        let other = UidLock::take(&locks, 8).unwrap();
        assert!(other.is_some());
        drop(lock);
        assert!(!locks.join("7").exists());
        assert!(UidLock::take(&locks, 7).unwrap().is_some());
    }
}
