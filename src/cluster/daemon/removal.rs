//! Removal of directories that hostile code may have filled.
//!
//! The standard library's `remove_dir_all` recurses once for each level and keeps a descriptor open for each. A
//! directory of 100,000 levels, which a job can make in seconds, overflows the stack of the process that removes it, or
//! takes all its descriptors. This removal goes [`LEVELS_MAX`] levels down. A directory that lies deeper is moved up to
//! the top and removed from there:
//!
//! ```text
//! top/a/b/c/.../z/deeper      ─▶      top/removed-0      ─▶      gone
//! ```
//!
//! Each step names an entry of a directory that is held open, and follows no symbolic link. So an entry that a process
//! swaps meanwhile cannot lead out of the top. The kernel refuses a mount point (`EBUSY`) before it is entered.

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

/// Levels that are open at the same time, each with a descriptor and a buffer of entries. Directories that are not
/// hostile rarely have more.
const LEVELS_MAX: usize = 32;

/// Passes over a directory that is not empty at its end. Without other processes one pass is enough.
const PASSES_MAX: u32 = 100;

/// Mode bits that let the owner of a directory remove its entries.
const OWNER_MODE: u32 = 0o700;

/// Reason that a directory cannot be removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoveTreeError {
    /// Another file system or directory is mounted in it. The mounted content is not touched.
    #[error("something is mounted at {}, and is left alone; unmount it first", path.display())]
    Mounted {
        /// Path of the mount point.
        path: PathBuf,
    },
    /// Other processes write to it, faster than it is emptied.
    #[error("processes still create files in {}; end them first (`fuser -v` names them)", path.display())]
    Busy {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The entry belongs to another user, or an attribute protects it.
    #[error(
        "{} cannot be removed by this user: {error}; see its owner and attributes (`ls -ld`, `lsattr -d`)", path.display()
    )]
    Denied {
        /// Path of the entry.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The directory lies deep, and its file system does not allow to move it up.
    #[error(
        "{} lies more than {LEVELS_MAX} directories deep and cannot be moved up: {error}; remove it with `rm -r` first",
        path.display()
    )]
    Deep {
        /// Path of the directory.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The file system reports an error.
    #[error("{} cannot be removed: {error}; look for errors of its disk in the kernel log (`dmesg`)", path.display())]
    Failed {
        /// Path of the entry.
        path: PathBuf,
        /// Error of the operating system.
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

/// Removes a directory with its content, or a single file.
///
/// Stack, memory and descriptors do not depend on the depth, and symbolic links are never followed. A directory of this
/// user whose mode forbids access is made accessible first. The parent directory must be writable only for this user.
/// A path that does not exist is not an error.
///
/// # Errors
///
/// [`RemoveTreeError`] names the first entry that cannot be removed. The entries before it are gone.
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

/// Removal in progress.
#[derive(Debug)]
struct Removal<'a> {
    path: &'a Path,
    /// Parent directory of the top.
    above: OwnedFd,
    /// Open directories, from the top to the one that is being emptied.
    levels: Vec<Level>,
    /// Number of directories that were moved up, and of names for them that were taken: the next free name.
    moved_count: u64,
}

/// Directory whose entries are being removed.
#[derive(Debug)]
struct Level {
    name: CString,
    entries: Dir,
    passes: u32,
}

impl Removal<'_> {
    fn run(mut self, top: &CStr) -> Result<(), RemoveTreeError> {
        // A top that is a mount point is emptied: the caller has named it explicitly.
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

    /// Removes an entry of the innermost level, or enters it if it is a directory with content.
    ///
    /// The type is only a guess: another process may have swapped the entry since it was read.
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

    /// Removes the file or link that has replaced a directory.
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
        // Opened before the check, so that its owner's mode allows the move: renaming a directory writes its `..` entry.
        if self.levels.len() == LEVELS_MAX {
            return self.move_up(name);
        }
        let entries = Dir::new(opened).map_err(|error| self.error(name, error))?;
        self.levels.push(Level { name: name.to_owned(), entries, passes: 0 });
        Ok(())
    }

    /// Moves a directory of the innermost level into the top, whose next pass removes it.
    fn move_up(&mut self, name: &CStr) -> Result<(), RemoveTreeError> {
        loop {
            let fresh = format!("removed-{}", self.moved_count);
            self.moved_count += 1;
            match renameat(self.innermost(), name, self.fd_of(self.levels.first()), &fresh) {
                Ok(()) | Err(Errno::NOENT) => break,
                // The name is taken, for example by an interrupted removal.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                Err(error) => {
                    return Err(RemoveTreeError::Deep { path: self.path_of(name), error: error.into() });
                }
            }
        }
        // This entry is the removal's own, and must not count as one by another process.
        self.levels[0].passes = 0;
        Ok(())
    }

    /// Removes the innermost level after all of its entries were read.
    fn leave(&mut self) -> Result<(), RemoveTreeError> {
        let Some(mut level) = self.levels.pop() else { return Ok(()) };
        match unlinkat(self.innermost(), &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.passes == PASSES_MAX => {
                Err(RemoveTreeError::Busy { path: self.path_of(&level.name) })
            }
            // An entry was moved up or created since, or the file system skips entries while others are removed.
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

    /// Current path of an entry of the innermost level.
    fn path_of(&self, name: &CStr) -> PathBuf {
        let names = self.levels.iter().map(|level| level.name.as_c_str()).chain([name]);
        // The first name is the top's, which `path` contains already.
        names.skip(1).fold(self.path.to_owned(), |path, name| path.join(OsStr::from_bytes(name.to_bytes())))
    }
}

/// Opens a directory, but not a link to one, and makes its entries removable for its owner.
fn open_directory(above: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(above, name, OFlags::RDONLY | flags, Mode::empty());
    let mode = Mode::from_raw_mode(OWNER_MODE);
    let opened = match open() {
        Err(Errno::ACCESS) => {
            // `chmod` by name would follow a link, and `fchmod` needs a directory that can be opened.
            let found = openat(above, name, OFlags::PATH | flags, Mode::empty())?;
            chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), mode)?;
            open()?
        }
        opened => opened?,
    };
    if fstat(&opened)?.st_mode & OWNER_MODE != OWNER_MODE {
        // A failure does not matter for root, and for others the removal of an entry reports it.
        let _ = fchmod(&opened, mode);
    }
    Ok(opened)
}

#[cfg(test)]
mod tests;
