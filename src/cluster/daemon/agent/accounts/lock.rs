//! Locks that keep the agents of a machine from assigning the same uid to two jobs.
//!
//! A lock is a `flock` on a file that is named by the uid, in the directory of the agents' user. The kernel releases
//! it when its process ends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Attempts to open and lock a file that another process removes in between.
const TRIES: u32 = 100;

/// Directory of the locks.
pub(super) fn directory() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("roadshow-{user}")).join("worker-uids")
}

/// Lock of a uid. Dropping it removes its file.
#[derive(Debug)]
pub(super) struct UidLock {
    path: PathBuf,
    _file: File,
}

impl UidLock {
    /// Takes the lock of a uid. Returns `None` if another agent has it.
    pub(super) fn take(directory: &Path, uid: u32) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(uid.to_string());
        for _ in 0..TRIES {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                locked => locked?,
            }
            // The last holder may have removed the file between `open` and `flock`. A lock on a removed file is
            // useless, since other agents create a new one.
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
        // Removed while it is locked: a process that has opened it meanwhile notices that in `take`.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[test]
    fn uid_has_one_lock_until_it_is_dropped() {
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
