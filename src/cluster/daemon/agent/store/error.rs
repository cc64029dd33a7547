//! Why a store does not take an executable, or does not have it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::cluster::executable::Digest;

/// Why a store does not take an executable, or does not have it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The sender names a size that no executable may have.
    #[error("an executable of {size} bytes is not taken; it must have 1 to {limit}")]
    Size {
        /// The size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The sender's bytes lie outside of what it sends.
    #[error("{length} bytes at {offset} lie outside of an executable of {size} bytes")]
    OutOfRange {
        /// Where they would begin.
        offset: u64,
        /// How many they are.
        length: usize,
        /// The executable's size.
        size: u64,
    },
    /// Bytes between what is there and what was sent are missing.
    #[error(
        "the next bytes of the executable are those from {have} on, and not from {offset}; go on from there"
    )]
    Gap {
        /// Where the bytes that were sent begin.
        offset: u64,
        /// How many bytes are there.
        have: u64,
    },
    /// The same digest is known with another size.
    #[error("the executable {digest} was announced with {known} bytes, and now with {size}")]
    SizeDiffers {
        /// The digest.
        digest: Digest,
        /// The size that was named now.
        size: u64,
        /// The size that is known.
        known: u64,
    },
    /// What came is not what was announced.
    #[error(
        "the executable that came does not have the digest {digest}; its file was changed while it was sent, \
         so run the program again"
    )]
    WrongDigest {
        /// The digest that it should have.
        digest: Digest,
    },
    /// What is kept and cannot be given up leaves no room.
    #[error(
        "no room for an executable of {size} bytes in {dir:?}: those in use take up most of the {limit} bytes \
         that a node keeps; end a job, or send fewer programs at once"
    )]
    Full {
        /// The directory.
        dir: PathBuf,
        /// The size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk is full, or the user's share of it.
    #[error("no room on the disk for an executable in {dir:?}: {error}; free some, or use another directory")]
    DiskFull {
        /// The directory.
        dir: PathBuf,
        /// The operating system's words.
        error: io::Error,
    },
    /// The directory cannot be used.
    #[error("cannot use the directory {dir:?} for executables: {error}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The operating system's words.
        error: io::Error,
    },
    /// The directory belongs to somebody else, or is something else.
    #[error("{dir:?} is no directory of this user, so no executables are kept in it; use another")]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process keeps its executables there.
    #[error("another process keeps executables in {dir:?}; stop it, or use another directory")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// Nothing can be run from there.
    #[error("{dir:?} lies on a file system that is mounted with `noexec`; use another directory")]
    NoExec {
        /// The directory.
        dir: PathBuf,
    },
    /// It is not there, or not all of it.
    #[error("the executable {digest} is not in {dir:?}; it has to be sent first")]
    Missing {
        /// The digest.
        digest: Digest,
        /// The directory.
        dir: PathBuf,
    },
}

impl StoreError {
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
