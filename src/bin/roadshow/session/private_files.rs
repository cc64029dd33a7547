//! Files and directories that are this user's alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

/// The longest file that is read whole: none of a session comes near.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Mode of a directory that others pass through, on the way to what jobs have in it. They cannot list it.
const PASSABLE: u32 = 0o711;

/// Makes a directory that is closed to others, or closes the one that is there.
pub(crate) fn own_directory(path: &Path) -> io::Result<()> {
    match own_mode(path)? & OTHERS_ANY {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(0o700)),
    }
}

/// The same, but leaves one that others may pass through.
pub(crate) fn own_passable_directory(path: &Path) -> io::Result<()> {
    match own_mode(path)? {
        mode if mode & 0o777 == PASSABLE => Ok(()),
        _ => own_directory(path),
    }
}

/// Lets others pass through a directory of this user.
pub(crate) fn let_others_pass(path: &Path) -> io::Result<()> {
    own_mode(path)?;
    fs::set_permissions(path, Permissions::from_mode(PASSABLE))
}

/// Makes a directory if it is not there; gives its mode once it is certain to be this user's.
fn own_mode(path: &Path) -> io::Result<u32> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    // Not through a link, which somebody may have put there to have us write elsewhere.
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no directory"));
    }
    is_own(&metadata)?;
    Ok(metadata.mode())
}

/// Permissions that a directory of sessions gives no other user, who could put links there.
const OTHERS_WRITE: u32 = 0o022;

/// Permissions that a session's directory gives no other user.
const OTHERS_ANY: u32 = 0o077;

/// Checks that a directory of sessions is this user's, and that others may write nothing into it.
pub(crate) fn check_root(path: &Path) -> io::Result<()> {
    check_directory(path, OTHERS_WRITE)
}

/// Checks that a session's directory is this user's alone, as [`own_directory`] makes it, or that others can only
/// pass through it, as [`let_others_pass`] lets them.
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

/// Takes a shared lock of a directory, held until the file is closed. Programs that remove old temporary
/// files, such as systemd-tmpfiles, leave a directory alone that is locked, with all that is in it.
pub(crate) fn lock_shared(path: &Path) -> io::Result<File> {
    let directory = File::open(path)?;
    flock(&directory, FlockOperation::NonBlockingLockShared)?;
    Ok(directory)
}

/// Reads a file of this user, and no other's.
pub(crate) fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    is_own(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that only this user can read; whoever reads meanwhile sees the old one or the new.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
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
    fn a_link_is_not_followed_where_a_directory_is_to_be() {
        let scratch = Scratch::new();
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink(std::env::temp_dir(), &link).unwrap();
        assert!(own_directory(&link).is_err());
    }
}
