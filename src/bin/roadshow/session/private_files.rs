//! Files and directories that only this user can access.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

/// Maximum length of a file that is read, in bytes; no file of a session comes near it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Mode of a directory that other users can pass through but not list, on the way to directories of jobs.
const PASSABLE: u32 = 0o711;

/// Creates a directory that is closed to others, or closes an existing one.
pub(crate) fn own_directory(path: &Path) -> io::Result<()> {
    match own_mode(path)? & OTHERS_ANY {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(0o700)),
    }
}

/// Like [`own_directory`], but leaves a passable directory passable.
pub(crate) fn own_passable_directory(path: &Path) -> io::Result<()> {
    match own_mode(path)? {
        mode if mode & 0o777 == PASSABLE => Ok(()),
        _ => own_directory(path),
    }
}

/// Makes a directory of this user passable for others.
pub(crate) fn let_others_pass(path: &Path) -> io::Result<()> {
    own_mode(path)?;
    fs::set_permissions(path, Permissions::from_mode(PASSABLE))
}

/// Creates a directory if it is missing, checks that it is this user's, and returns its mode.
fn own_mode(path: &Path) -> io::Result<u32> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    // `symlink_metadata`: another user may have placed a link here, to make us write elsewhere.
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no directory"));
    }
    is_own(&metadata)?;
    Ok(metadata.mode())
}

/// Permission bits that other users must not have on a directory of sessions: they could place links there.
const OTHERS_WRITE: u32 = 0o022;

/// Permission bits that other users must not have on a session's directory.
const OTHERS_ANY: u32 = 0o077;

/// Checks that a directory of sessions is this user's, and that others cannot write to it.
pub(crate) fn check_root(path: &Path) -> io::Result<()> {
    check_directory(path, OTHERS_WRITE)
}

/// Checks that a session's directory is this user's and closed, or passable as [`let_others_pass`] makes it.
pub(crate) fn check_closed(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.mode() & 0o777 {
        PASSABLE => check_directory(path, OTHERS_WRITE),
        _ => check_directory(path, OTHERS_ANY),
    }
}

fn check_directory(path: &Path, forbidden: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no directory"));
    }
    is_own(&metadata)?;
    match metadata.mode() & forbidden {
        0 => Ok(()),
        _ => {
            let text =
                format!("it is not closed to other users (its mode is {:03o})", metadata.mode() & 0o777);
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
    }
}

/// Takes a shared lock of a directory, held until the file is closed.
///
/// Programs that remove old temporary files, such as systemd-tmpfiles, skip a locked directory with its content.
pub(crate) fn lock_shared(path: &Path) -> io::Result<File> {
    let directory = File::open(path)?;
    flock(&directory, FlockOperation::NonBlockingLockShared)?;
    Ok(directory)
}

/// Reads a file if this user owns it.
pub(crate) fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    // Checked on the open file, which another user cannot exchange any more.
    let file = File::open(path)?;
    is_own(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file atomically by one that only this user can read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // An interrupted write may have left one. `create_new` fails for it, but never follows a link.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

fn is_own(metadata: &fs::Metadata) -> io::Result<()> {
    let (own, owner) = (geteuid().as_raw(), metadata.uid());
    match owner == own {
        true => Ok(()),
        false => {
            let text = format!("it belongs to the user with the id {owner}, not to you");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn directories_and_files_are_closed_to_others() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("a/b");
        own_directory(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        own_directory(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        let_others_pass(&dir).unwrap();
        own_passable_directory(&dir).unwrap();
        assert_eq!((mode(&dir), check_closed(&dir).is_ok()), (0o711, true));
        own_directory(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);

        let file = dir.join("node.json");
        write_private(&file, b"one").unwrap();
        write_private(&file, b"two").unwrap();
        assert_eq!((mode(&file), read_own(&file).unwrap()), (0o600, b"two".to_vec()));
        assert!(!dir.join("node.new").exists());
    }

    #[test]
    fn link_in_place_of_a_directory_is_not_followed() {
        let scratch = Scratch::new();
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink(std::env::temp_dir(), &link).unwrap();
        assert!(own_directory(&link).is_err());
    }
}
