//! Which file is meant, whoever has opened it, and by whatever name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::RemoteData;

/// Which regular file it is, and in which state.
///
/// Two processes that find the same here have the very same file before them. Under one kernel the device
/// and the inode are those of one file only, as long as somebody has it open; that it is one kernel, the
/// random number says that Linux draws when it starts. So files of other machines are always others, also
/// those of a network file system: that is not wrong, but slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub struct FileId {
    /// Which run of which kernel it is.
    boot: u128,
    device: u64,
    inode: u64,
    len: u64,
    /// When content or inode were changed, in seconds, and in nanoseconds behind them.
    changed: (i64, i64),
}

impl FileId {
    /// An open file; none if it is not a regular one, or the system does not tell its runs apart, as only
    /// Linux does.
    ///
    /// # Errors
    ///
    /// The operating system's, if it cannot say what the file is.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        Ok(Self::told(&file.metadata()?))
    }

    /// The file of which this was told.
    pub(super) fn told(about: &Metadata) -> Option<Self> {
        Some(Self {
            boot: boot().filter(|_| about.is_file())?,
            device: about.dev(),
            inode: about.ino(),
            len: about.len(),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Opens it, if it is what is found at this path.
    pub(super) fn open(&self, path: &Path) -> Option<File> {
        let is_this = |about: &Metadata| Self::told(about) == Some(*self);
        // To open what is something else may do something. If it has become a pipe meanwhile, it is opened
        // without waiting for who writes to it.
        path.metadata().ok().filter(is_this)?;
        let unwaiting = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(unwaiting).open(path).ok()?;
        file.metadata().ok().filter(is_this)?;
        Some(file)
    }
}

/// The number of this run of the kernel, where it has one.
fn boot() -> Option<u128> {
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
    fn another_file_is_not_the_same_whatever_it_has() {
        let (file, copy) = (Temporary::new("file", b"one"), Temporary::new("copy", b"one"));
        assert!(id(&file).open(&copy.0).is_none());
        assert!(id(&file).open(Path::new("no such file")).is_none());
        assert!(id(&file).open(&std::env::temp_dir()).is_none());
    }

    #[test]
    fn file_of_another_kernel_is_not_the_same_whatever_else_is() {
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
        // To open it would wait for somebody who writes.
        assert!(id(&file).open(&pipe.0).is_none());
        assert_eq!(FileId::told(&pipe.0.metadata().unwrap()), None);
    }
}
