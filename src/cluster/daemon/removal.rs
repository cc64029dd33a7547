//! Removal of directories that hostile code may have filled.
//!
//! The standard library's `remove_dir_all` recurses once for each level and keeps a descriptor open for each. A
//! directory of 100,000 levels, which a job can make in seconds, overflows the stack of the process that removes it, or
//! takes all its descriptors. This removal goes [`LEVELS_MAX`] levels down. A directory that lies deeper is moved up to
//! the top and removed from there:
//!
//! ```text
//! top/a/b/c/.../z/deeper      ->      top/removed-0      ->      gone
//! ```
//!
//! Each step names an entry of a directory that is held open, and follows no symbolic link. So what a process swaps
//! meanwhile does not lead out of the top. A mount point is refused by the kernel (`EBUSY`) before it is entered.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, chmod, fchmod, fstat, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use thiserror::Error;

/// Levels that are held open at the same time, each with a descriptor and a buffer of entries. Trees that are not made
/// to do harm rarely have more.
const LEVELS_MAX: usize = 32;

/// Times that a directory is read again because it was not empty at its end. Without other processes one is enough.
const PASSES_MAX: u32 = 100;

/// Mode by which the owner of a directory can remove what is in it.
const OWNER_MODE: u32 = 0o700;

/// A directory cannot be removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoveTreeError {
    /// Another file system, or another directory, is mounted in it. What is mounted there is not touched.
    #[error("something is mounted at {}, and is left alone; unmount it first", path.display())]
    Mounted {
        /// Where.
        path: PathBuf,
    },
    /// Other processes write to it, faster than it is emptied.
    #[error("processes still make files in {}; end them first (`fuser -v` names them)", path.display())]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// It is another user's, or protected by an attribute.
    #[error(
        "{} cannot be removed by this user: {error}; see its owner and attributes (`ls -ld`, `lsattr -d`)", path.display()
    )]
    Denied {
        /// Which entry.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// It lies deep, and its file system does not let it be moved up.
    #[error(
        "{} lies more than {LEVELS_MAX} directories deep and cannot be moved up: {error}; remove it with `rm -r` first",
        path.display()
    )]
    Deep {
        /// Which directory.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The file system fails.
    #[error("{} cannot be removed: {error}; see what the kernel says about its disk (`dmesg`)", path.display())]
    Failed {
        /// Which entry.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
}

impl RemoveTreeError {
    fn of(path: PathBuf, error: Errno) -> Self {
        match error {
            Errno::BUSY => Self::Mounted { path },
            Errno::ACCESS | Errno::PERM => Self::Denied { path, error: error.into() },
            _ => Self::Failed { path, error: error.into() },
        }
    }
}

impl From<RemoveTreeError> for io::Error {
    fn from(error: RemoveTreeError) -> Self {
        let kind = match &error {
            RemoveTreeError::Mounted { .. } | RemoveTreeError::Busy { .. } => io::ErrorKind::ResourceBusy,
            RemoveTreeError::Denied { error, .. }
            | RemoveTreeError::Deep { error, .. }
            | RemoveTreeError::Failed { error, .. } => error.kind(),
        };
        Self::new(kind, error)
    }
}

/// Removes a directory with all that is in it, or a single file.
///
/// It needs the same stack, memory and number of descriptors however deep the directory is, and never follows a
/// symbolic link. Directories of this user that their mode protects are opened first. The directory above must be one
/// that only this user can write to. What is gone already is no error.
///
/// # Errors
///
/// [`RemoveTreeError`] names the first entry that cannot be removed; what came before it is gone.
///
/// # Examples
///
/// ```
/// use std::fs;
/// use roadshow::daemon::remove_tree;
///
/// let dir = std::env::temp_dir().join(format!("remove-tree-{}", std::process::id()));
/// fs::create_dir_all(dir.join("a/b"))?;
/// remove_tree(&dir)?;
/// assert!(!dir.exists());
/// remove_tree(&dir)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn remove_tree(path: &Path) -> Result<(), RemoveTreeError> {
    let failed = |error| RemoveTreeError::of(path.to_owned(), error);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(Errno::INVAL));
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let above = match openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let name = CString::new(name.as_bytes()).map_err(|_| failed(Errno::INVAL))?;
    Removal { path, above, levels: Vec::with_capacity(LEVELS_MAX), moved_count: 0 }.run(&name)
}

/// A removal under way.
#[derive(Debug)]
struct Removal<'a> {
    path: &'a Path,
    /// The directory that has the top in it.
    above: OwnedFd,
    /// From the top to the directory that is being emptied.
    levels: Vec<Level>,
    /// Directories that were moved up, and names for them that were taken.
    moved_count: u64,
}

/// A directory whose entries are being removed.
#[derive(Debug)]
struct Level {
    name: CString,
    entries: Dir,
    passes: u32,
}

impl Removal<'_> {
    fn run(mut self, top: &CStr) -> Result<(), RemoveTreeError> {
        // A top that is a mount point is emptied all the same: it is what the caller has named.
        match unlinkat(self.innermost(), top, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => self.enter(top)?,
            Err(error) => return Err(self.error(top, error)),
        }
        while let Some(level) = self.levels.last_mut() {
            match level.entries.read() {
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => self.remove(entry.file_name(), entry.file_type())?,
                Some(Err(error)) => return Err(self.error(c".", error)),
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// Removes an entry of the innermost level, or enters it if that is a directory with something in it.
    ///
    /// The type is a guess: the entry may have been swapped since it was read.
    fn remove(&mut self, name: &CStr, file_type: FileType) -> Result<(), RemoveTreeError> {
        if file_type != FileType::Directory {
            match unlinkat(self.innermost(), name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(self.error(name, error)),
            }
        }
        match unlinkat(self.innermost(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.enter(name),
            Err(Errno::NOTDIR) => self.remove_file(name),
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// Removes what has taken the place of a directory.
    fn remove_file(&self, name: &CStr) -> Result<(), RemoveTreeError> {
        match unlinkat(self.innermost(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(RemoveTreeError::Busy { path: self.path_of(name) }),
            Err(error) => Err(self.error(name, error)),
        }
    }

    fn enter(&mut self, name: &CStr) -> Result<(), RemoveTreeError> {
        let opened = match open_directory(self.innermost(), name) {
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => return self.remove_file(name),
            opened => opened.map_err(|error| self.error(name, error))?,
        };
        if self.levels.len() == LEVELS_MAX {
            return self.move_up(name);
        }
        let entries = Dir::new(opened).map_err(|error| self.error(name, error))?;
        self.levels.push(Level { name: name.to_owned(), entries, passes: 0 });
        Ok(())
    }

    /// Moves a directory of the innermost level into the top, whose next pass finds it.
    fn move_up(&mut self, name: &CStr) -> Result<(), RemoveTreeError> {
        loop {
            let fresh = format!("removed-{}", self.moved_count);
            self.moved_count += 1;
            match renameat(self.innermost(), name, self.fd_of(self.levels.first()), &fresh) {
                Ok(()) | Err(Errno::NOENT) => break,
                // The name is taken, as by a removal that was broken off.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                Err(error) => {
                    return Err(RemoveTreeError::Deep { path: self.path_of(name), error: error.into() });
                }
            }
        }
        self.levels[0].passes = 0;
        Ok(())
    }

    /// Removes the innermost level, all of whose entries have been read.
    fn leave(&mut self) -> Result<(), RemoveTreeError> {
        let Some(mut level) = self.levels.pop() else { return Ok(()) };
        match unlinkat(self.innermost(), &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.passes == PASSES_MAX => {
                Err(RemoveTreeError::Busy { path: self.path_of(&level.name) })
            }
            // Something was moved up or made since, or the file system skips entries where others are removed.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                level.entries.rewind();
                level.passes += 1;
                self.levels.push(level);
                Ok(())
            }
            Err(Errno::NOTDIR) => self.remove_file(&level.name),
            Err(error) => Err(self.error(&level.name, error)),
        }
    }

    fn innermost(&self) -> BorrowedFd<'_> {
        self.fd_of(self.levels.last())
    }

    fn fd_of<'b>(&'b self, level: Option<&'b Level>) -> BorrowedFd<'b> {
        level.map_or(self.above.as_fd(), |level| {
            level.entries.fd().expect("a directory that was opened keeps its descriptor")
        })
    }

    fn error(&self, name: &CStr, error: Errno) -> RemoveTreeError {
        RemoveTreeError::of(self.path_of(name), error)
    }

    /// The path of an entry of the innermost level, as it is by now.
    fn path_of(&self, name: &CStr) -> PathBuf {
        let names = self.levels.iter().map(|level| level.name.as_c_str()).chain([name]);
        // The first is the top's.
        names.skip(1).fold(self.path.to_owned(), |path, name| path.join(OsStr::from_bytes(name.to_bytes())))
    }
}

/// Opens a directory, and no link to one, so that its owner can remove what is in it.
fn open_directory(above: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(above, name, OFlags::RDONLY | flags, Mode::empty());
    let mode = Mode::from_raw_mode(OWNER_MODE);
    let opened = match open() {
        Err(Errno::ACCESS) => {
            // A change of mode by name would follow a link, and one by descriptor takes a directory that is open.
            let found = openat(above, name, OFlags::PATH | flags, Mode::empty())?;
            chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), mode)?;
            open()?
        }
        opened => opened?,
    };
    if fstat(&opened)?.st_mode & OWNER_MODE != OWNER_MODE {
        // Who may not change it may be root, who need not: what follows tells.
        let _ = fchmod(&opened, mode);
    }
    Ok(opened)
}

#[cfg(test)]
mod tests;
