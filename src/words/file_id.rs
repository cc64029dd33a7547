//! Identity of a file, independent of its name and of the process that opened it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::RemoteData;

/// Identity and state of a regular file.
///
/// Two processes with equal ids see the very same file. Within one kernel, device and inode identify a file
/// for as long as it is open. The boot id, a random number that Linux draws at boot, shows that it is the
/// same kernel. Files of other machines therefore never match, not even on a network file system; the text
/// is then sent, which is slower and still correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub struct FileId {
    /// Boot id of the kernel.
    boot: u128,
    device: u64,
    inode: u64,
    len: u64,
    /// Time of the last change of content or inode, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl FileId {
    /// Returns the id of an open file. `None` if it is not a regular file, or if the system has no boot id;
    /// only Linux has one.
    ///
    /// # Errors
    ///
    /// The operating system's error of reading the metadata.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    /// Returns the id of the file with this metadata.
    pub(super) fn from_metadata(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            // Only a regular file has the same content for every reader. A pipe or a device gives each
            // reader other bytes.
            boot: boot().filter(|_| metadata.is_file())?,
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Returns the length of the file, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Opens the file at this path if it is the file with this id.
    pub(super) fn open(&self, path: &Path) -> Option<File> {
        let is_this = |metadata: &Metadata| Self::from_metadata(metadata) == Some(*self);
        // Opening a device or a pipe can have side effects, so the metadata is checked first. A pipe may
        // replace the file after the check; `O_NONBLOCK` opens it without waiting for a writer.
        path.metadata().ok().filter(is_this)?;
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).ok()?;
        // The path may have changed between the check and the open.
        file.metadata().ok().filter(is_this)?;
        Some(file)
    }
}

/// Returns the kernel's boot id, if the system has one.
fn boot() -> Option<u128> {
    // The boot id cannot change while this process runs, so one read is enough.
    static BOOT: OnceLock<Option<u128>> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&id.trim().replace('-', ""), 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::temporary::Temporary;
    use super::*;

    fn id(file: &Temporary) -> FileId {
        FileId::of(&File::open(&file.0).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn file_is_the_same_by_any_name_until_it_is_changed() {
        let (file, link) = (Temporary::new("same", b"one"), Temporary::new("same-link", b""));
        fs::remove_file(&link.0).unwrap();
        fs::hard_link(&file.0, &link.0).unwrap();
        let before = id(&file);
        assert!(before.open(&link.0).is_some());
        OpenOptions::new().append(true).open(&file.0).unwrap().write_all(b" two").unwrap();
        assert!(before.open(&link.0).is_none());
        assert!(id(&file).open(&link.0).is_some());
    }

    #[test]
    fn file_with_equal_content_is_not_the_same() {
        let (file, copy) = (Temporary::new("file", b"one"), Temporary::new("copy", b"one"));
        assert!(id(&file).open(&copy.0).is_none());
        assert!(id(&file).open(Path::new("no such file")).is_none());
        assert!(id(&file).open(&std::env::temp_dir()).is_none());
    }

    #[test]
    fn file_of_another_kernel_is_not_the_same() {
        let file = Temporary::new("kernel", b"one");
        let here = id(&file);
        let there = FileId { boot: here.boot ^ 1, ..here };
        assert!(here.open(&file.0).is_some() && there.open(&file.0).is_none());
    }

    #[test]
    fn pipe_is_no_file_and_is_not_opened() {
        let (file, pipe) = (Temporary::new("no-pipe", b"one"), Temporary::new("pipe", b""));
        fs::remove_file(&pipe.0).unwrap();
        mknodat(CWD, &pipe.0, FileType::Fifo, Mode::RUSR, 0).unwrap();
        // Opening it would block until a writer comes, and the test would hang.
        assert!(id(&file).open(&pipe.0).is_none());
        assert_eq!(FileId::from_metadata(&pipe.0.metadata().unwrap()), None);
    }
}
