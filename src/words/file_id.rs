//! Which file is meant, whoever has opened it, and by whatever name.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::RemoteData;

/// Which regular file it is, and in which state.
///
/// Two processes that find the same here have the very same bytes before them. On one machine the
/// device and the inode are those of one file only, as long as somebody has it open. On two machines
/// they may be equal by chance, but hardly with the same length and the same nanosecond of the last
/// change, which cannot be set as a file's other times can: that happens to a disk and its copy, and
/// then the file is a copy too. A network file system has another device number on each machine as a
/// rule, so that its files are taken for different ones, which is not wrong but slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub struct FileId {
    device: u64,
    inode: u64,
    len: u64,
    /// When content or inode were changed, in seconds, and in nanoseconds behind them.
    changed: (i64, i64),
}

impl FileId {
    /// The file of which this was told; none if it is not a regular one.
    pub(super) fn of(about: &Metadata) -> Option<Self> {
        about.is_file().then(|| Self {
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
        let is_this = |about: &Metadata| Self::of(about) == Some(*self);
        // To open what is something else, as a pipe, may take for ever.
        path.metadata().ok().filter(is_this)?;
        let file = File::open(path).ok()?;
        file.metadata().ok().filter(is_this)?;
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::range::Temporary;
    use super::*;

    fn id(file: &Temporary) -> FileId {
        FileId::of(&file.0.metadata().unwrap()).unwrap()
    }

    #[test]
    fn file_is_the_same_by_any_name_until_it_is_changed() {
        let (file, link) = (Temporary::new("same", b"one"), Temporary::new("same-link", b""));
        fs::remove_file(&link.0).unwrap();
        fs::hard_link(&file.0, &link.0).unwrap();
        let before = id(&file);
        assert!(before.open(&link.0).is_some());
        fs::OpenOptions::new().append(true).open(&file.0).unwrap().write_all(b" two").unwrap();
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
    fn pipe_is_no_file_and_is_not_opened() {
        let (file, pipe) = (Temporary::new("no-pipe", b"one"), Temporary::new("pipe", b""));
        fs::remove_file(&pipe.0).unwrap();
        mknodat(CWD, &pipe.0, FileType::Fifo, Mode::RUSR, 0).unwrap();
        // To open it would wait for somebody who writes.
        assert!(id(&file).open(&pipe.0).is_none());
        assert_eq!(FileId::of(&pipe.0.metadata().unwrap()), None);
    }
}
