//! Files of a store of executables: their names, their creation, and the recovery after a restart.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, fstatvfs};
use rustix::process::geteuid;

use super::ExecutableStoreError;
use crate::cluster::executable::{self, Digest};

const PARTIAL_EXTENSION: &str = ".part";

pub(super) fn path(dir: &Path, digest: Digest, complete: bool) -> PathBuf {
    dir.join(format!("{digest}{}", if complete { "" } else { PARTIAL_EXTENSION }))
}

/// Parses the digest in a file's name. The flag is true for a complete file.
fn digest_of(name: &str) -> Option<(Digest, bool)> {
    let (hex, complete) = match name.strip_suffix(PARTIAL_EXTENSION) {
        Some(hex) => (hex, false),
        None => (name, true),
    };
    // Lower case only: a digest has exactly one file name.
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some((Digest(digest), complete))
}

/// Creates the directory, accessible only to this user, and locks it for this process.
pub(super) fn lock_directory(dir: &Path) -> Result<File, ExecutableStoreError> {
    let failed = |source| ExecutableStoreError::of_io(dir, source);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    // The link itself is checked, not its target: the owner of a link can point it elsewhere later.
    let found = std::fs::symlink_metadata(dir).map_err(failed)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        return Err(ExecutableStoreError::NotOurs { dir: dir.to_owned() });
    }
    // An existing directory may have a wider mode.
    std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    let lock = File::open(dir).map_err(failed)?;
    // The kernel releases the lock with the process, so a killed agent leaves none behind.
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match io::Error::from(errno) {
        error if error.kind() == io::ErrorKind::WouldBlock => {
            ExecutableStoreError::Locked { dir: dir.to_owned() }
        }
        error => failed(error),
    })?;
    let mount = fstatvfs(&lock).map_err(|errno| failed(errno.into()))?;
    if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(ExecutableStoreError::NoExec { dir: dir.to_owned() });
    }
    Ok(lock)
}

/// Lists the complete executables of an earlier process with their sizes, oldest first. Incomplete ones are removed,
/// since their hashers are lost. Files with other names stay.
pub(super) fn recover(dir: &Path) -> Result<Vec<(Digest, u64)>, ExecutableStoreError> {
    let failed = |source| ExecutableStoreError::of_io(dir, source);
    let mut complete = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some((digest, is_complete)) = entry.file_name().to_str().and_then(digest_of) else { continue };
        let found = entry.metadata().map_err(failed)?;
        if found.is_file() && is_complete {
            // The time of the last write stands in for the last use, which is not recorded.
            complete.push((found.mtime(), digest, found.len()));
        } else {
            remove(dir, digest, is_complete);
        }
    }
    complete.sort_unstable();
    Ok(complete.into_iter().map(|(_, digest, size)| (digest, size)).collect())
}

/// Size of a file, if it exists.
pub(super) fn size(dir: &Path, digest: Digest, complete: bool) -> Option<u64> {
    std::fs::metadata(path(dir, digest, complete)).ok().map(|found| found.len())
}

/// Writes into a part. Offset 0 truncates it.
pub(super) fn write(
    dir: &Path,
    digest: Digest,
    offset: u64,
    bytes: &[u8],
) -> Result<(), ExecutableStoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(offset == 0).mode(0o600);
    let part = options.open(path(dir, digest, false));
    part.and_then(|part| part.write_all_at(bytes, offset))
        .map_err(|source| ExecutableStoreError::of_io(dir, source))
}

/// Reads bytes of an executable.
pub(super) fn read(
    dir: &Path,
    digest: Digest,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, ExecutableStoreError> {
    let mut bytes = vec![0; length];
    File::open(path(dir, digest, true))
        .and_then(|file| file.read_exact_at(&mut bytes, offset))
        .map_err(|source| ExecutableStoreError::of_io(dir, source))?;
    Ok(bytes)
}

/// Turns a complete part into an executable.
pub(super) fn complete(dir: &Path, digest: Digest) -> Result<(), ExecutableStoreError> {
    let part = path(dir, digest, false);
    // Executable before it has its name, so that each file with such a name can be run.
    std::fs::set_permissions(&part, Permissions::from_mode(0o700))
        .and_then(|()| std::fs::rename(&part, path(dir, digest, true)))
        .map_err(|source| ExecutableStoreError::of_io(dir, source))
}

/// Returns true if the content of an executable matches the digest in its name.
pub(super) fn verify_digest(dir: &Path, digest: Digest) -> Result<bool, ExecutableStoreError> {
    let found = File::open(path(dir, digest, true)).and_then(|file| executable::digest(&file));
    match found {
        Ok((found, _)) => Ok(found == digest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ExecutableStoreError::of_io(dir, source)),
    }
}

/// Removes a file, unless it is gone already.
pub(super) fn remove(dir: &Path, digest: Digest, complete: bool) {
    if let Err(error) = std::fs::remove_file(path(dir, digest, complete))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%digest, ?dir, %error, "cannot remove an executable; its disk space stays occupied");
    }
}
