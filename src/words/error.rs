//! Errors of counting a text in a cluster.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{list::TextTooLong, pieces::PIECE_BYTES_MAX};
use crate::{RemoteData, SendError, SpawnError, TaskError};

/// The parts of a text could not be counted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SolveError {
    /// A Node could not be spawned.
    #[error("could not spawn a node for a part of the text")]
    Spawn(#[from] SpawnError),
    /// A Node did not answer.
    #[error("a node did not answer")]
    Send(#[from] SendError),
    /// A task did not answer.
    #[error("a task for a part of the text failed")]
    Task(#[from] TaskError),
    /// The winners of the parts are too long to be asked for.
    #[error("could not ask for the winners of the parts")]
    Candidates(#[from] TextTooLong),
}

/// Error of reading or counting one piece of a text, in this process or on a Node.
///
/// Offsets are in bytes from the start of the piece.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize, RemoteData)]
#[non_exhaustive]
pub enum PieceError {
    /// The piece is not UTF-8.
    #[error("not UTF-8 after {at} bytes")]
    NotUtf8 {
        /// Length of the valid prefix, in bytes.
        at: u64,
    },
    /// A read failed.
    #[error("cannot be read after {at} bytes: {text}")]
    Unreadable {
        /// Bytes read before the error.
        at: u64,
        /// The operating system's error number, if the error has one.
        code: Option<i32>,
        /// The operating system's error text.
        text: String,
    },
    /// The file is shorter than when it was opened.
    #[error("ends after {at} bytes, {missing} too early")]
    Truncated {
        /// Length of the file now, in bytes.
        at: u64,
        /// Missing bytes up to the expected end.
        missing: u64,
    },
    /// The piece has no white space within [`PIECE_BYTES_MAX`] bytes.
    #[error("no white space in {PIECE_BYTES_MAX} bytes after {at}")]
    NoSpace {
        /// Offset of the bytes without white space.
        at: u64,
    },
}

impl PieceError {
    pub(super) fn unreadable(at: u64, err: &io::Error) -> Self {
        Self::Unreadable { at, code: err.raw_os_error(), text: err.to_string() }
    }

    /// The error for a range of a file that the Node has not opened.
    pub(super) fn unseen() -> Self {
        Self::Unreadable { at: 0, code: None, text: "the node sees no file; ask it for one first".into() }
    }

    /// Shifts the offset of the error by `bytes`, the length of the text before the piece.
    pub(super) fn behind(mut self, bytes: u64) -> Self {
        let (Self::NotUtf8 { at }
        | Self::Unreadable { at, .. }
        | Self::Truncated { at, .. }
        | Self::NoSpace { at }) = &mut self;
        // Saturates: a Node sent the offset, and a wrong one must not panic here.
        *at = at.saturating_add(bytes);
        self
    }
}

impl From<PieceError> for TextError {
    /// Converts an error of a piece that is the whole text.
    fn from(err: PieceError) -> Self {
        match err {
            PieceError::NotUtf8 { at } => Self::NotUtf8 { at },
            PieceError::Unreadable { at, code, text } => {
                let source = code.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error);
                Self::Unreadable { at, source }
            }
            PieceError::Truncated { at, missing } => Self::Truncated { len: at.saturating_add(missing), at },
            PieceError::NoSpace { at } => Self::NoSpace { at, limit: PIECE_BYTES_MAX },
        }
    }
}

/// Error of counting a text while it is read.
///
/// Offsets are in bytes from the start of the text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TextError {
    /// The file does not exist.
    #[error("there is no file {0:?}; give the path of a text")]
    NotFound(PathBuf),
    /// The path names a directory.
    #[error("{0:?} is a directory; give the path of a text")]
    Directory(PathBuf),
    /// The file cannot be opened.
    #[error("cannot open {path:?}; give a text that you may read")]
    Closed {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A read failed.
    #[error("cannot read the text after {at} bytes; check the disk or the connection, and count again")]
    Unreadable {
        /// Bytes read before the error.
        at: u64,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file became shorter while it was read.
    #[error("the text had {len} bytes and ends after {at}; count it again when no process writes to it")]
    Truncated {
        /// Length of the file when it was opened, in bytes.
        len: u64,
        /// Length of the file now, in bytes.
        at: u64,
    },
    /// The text is not UTF-8.
    #[error("the text is not UTF-8 after {at} bytes; convert it first, as with iconv")]
    NotUtf8 {
        /// Length of the valid prefix, in bytes.
        at: u64,
    },
    /// The text has no white space within `limit` bytes.
    #[error("there is no white space in {limit} bytes after {at}; give a text that has words")]
    NoSpace {
        /// Offset of the bytes without white space.
        at: u64,
        /// Maximum length of a piece, in bytes.
        limit: usize,
    },
    /// A Node could not be spawned.
    #[error("could not spawn a node for the text")]
    Spawn(#[from] SpawnError),
    /// A Node did not answer.
    #[error("a node did not answer")]
    Send(#[from] SendError),
    /// The different words do not fit into one answer.
    #[error("there are too many different words")]
    TooManyWords(#[from] TextTooLong),
}
