//! Errors of the store of executables.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::cluster::executable::Digest;

/// Reason that a store does not accept or does not have an executable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ExecutableStoreError {
    /// The announced size is out of range.
    #[error("an executable of {size} bytes is not accepted; the size must be 1 to {limit} bytes")]
    Size {
        /// Announced size in bytes.
        size: u64,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// The chunk lies outside of the executable.
    #[error("{length} bytes at {offset} lie outside of an executable of {size} bytes")]
    OutOfRange {
        /// Start of the chunk.
        offset: u64,
        /// Length of the chunk in bytes.
        length: usize,
        /// Size of the executable in bytes.
        size: u64,
    },
    /// The chunk starts behind the stored bytes.
    #[error("the next bytes of the executable start at {have}, not at {offset}; continue there")]
    Gap {
        /// Start of the chunk.
        offset: u64,
        /// Number of stored bytes.
        have: u64,
    },
    /// The digest is known with another size.
    #[error("the executable {digest} was announced with {known} bytes, and now with {size}")]
    SizeDiffers {
        /// Digest of the executable.
        digest: Digest,
        /// Size that was announced now, in bytes.
        size: u64,
        /// Size that was announced before, in bytes.
        known: u64,
    },
    /// The complete executable has another digest than the announced one.
    #[error(
        "the received executable does not have the digest {digest}; its file was changed while it was sent, \
         so run the program again"
    )]
    WrongDigest {
        /// Announced digest.
        digest: Digest,
    },
    /// Pinned and recent executables leave no space.
    #[error(
        "no room for an executable of {size} bytes in {dir:?}: those in use take up most of the {limit} bytes \
         that a node keeps; end a job, or send fewer programs at the same time"
    )]
    Full {
        /// Directory of the store.
        dir: PathBuf,
        /// Announced size in bytes.
        size: u64,
        /// Limit of the store in bytes.
        limit: u64,
    },
    /// The disk or the user's quota is exhausted.
    #[error("no room on the disk for an executable in {dir:?}: {error}; free some, or use another directory")]
    DiskFull {
        /// Directory of the store.
        dir: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The directory cannot be used.
    #[error("cannot use the directory {dir:?} for executables: {error}")]
    Directory {
        /// Directory of the store.
        dir: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The directory belongs to another user, or is not a directory.
    #[error("{dir:?} is not a directory of this user, so no executables are stored in it; use another")]
    NotOurs {
        /// Directory of the store.
        dir: PathBuf,
    },
    /// Another process has locked the directory.
    #[error("another process stores executables in {dir:?}; stop it, or use another directory")]
    Locked {
        /// Directory of the store.
        dir: PathBuf,
    },
    /// The file system does not allow execution.
    #[error("{dir:?} is on a file system that is mounted with `noexec`; use another directory")]
    NoExec {
        /// Directory of the store.
        dir: PathBuf,
    },
    /// The executable is absent or incomplete.
    #[error("the executable {digest} is not in {dir:?}; send it first")]
    Missing {
        /// Digest of the executable.
        digest: Digest,
        /// Directory of the store.
        dir: PathBuf,
    },
}

impl ExecutableStoreError {
    pub(super) fn of_io(dir: &Path, error: io::Error) -> Self {
        let dir = dir.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { dir, error }
            }
            _ => Self::Directory { dir, error },
        }
    }
}
