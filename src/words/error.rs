//! Why a cluster gave no answer.

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

/// A piece of a text could not be read or counted, wherever that was.
///
/// Places are bytes from where the piece begins.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize, RemoteData)]
#[non_exhaustive]
pub enum PieceError {
    /// It is not UTF-8.
    #[error("not UTF-8 after {at} bytes")]
    NotUtf8 {
        /// How many bytes come before the first that is wrong.
        at: u64,
    },
    /// Reading failed.
    #[error("cannot be read after {at} bytes: {text}")]
    Unreadable {
        /// How many bytes could be read.
        at: u64,
        /// The operating system's number of the error, where it has one.
        code: Option<i32>,
        /// What it says.
        text: String,
    },
    /// There is less of it than there was.
    #[error("ends after {at} bytes, {missing} too early")]
    Truncated {
        /// How many bytes there are.
        at: u64,
        /// How many more there should be.
        missing: u64,
    },
    /// There is no white space for longer than any word is.
    #[error("no white space in {PIECE_BYTES_MAX} bytes after {at}")]
    NoSpace {
        /// How many bytes come before.
        at: u64,
    },
}

impl PieceError {
    pub(super) fn unreadable(at: u64, err: &io::Error) -> Self {
        Self::Unreadable { at, code: err.raw_os_error(), text: err.to_string() }
    }

    /// A part is asked for, and the Node sees no file.
    pub(super) fn unseen() -> Self {
        Self::Unreadable { at: 0, code: None, text: "the node sees no file; ask it for one first".into() }
    }

    /// The same seen from so many bytes before.
    pub(super) fn behind(mut self, bytes: u64) -> Self {
        let (Self::NotUtf8 { at }
        | Self::Unreadable { at, .. }
        | Self::Truncated { at, .. }
        | Self::NoSpace { at }) = &mut self;
        // Saturating, since the numbers may come from elsewhere.
        *at = at.saturating_add(bytes);
        self
    }
}

impl From<PieceError> for TextError {
    /// The piece is the whole text.
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

/// A text could not be counted while it was read.
///
/// Places are bytes from the start of the text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TextError {
    /// There is no such file.
    #[error("there is no file {0:?}; give the path of a text")]
    NotFound(PathBuf),
    /// The path is that of a directory.
    #[error("{0:?} is a directory; give the path of a text")]
    Directory(PathBuf),
    /// The file cannot be opened.
    #[error("cannot open {path:?}; give a text that you may read")]
    Closed {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read the text after {at} bytes; see to what holds it, and count it again")]
    Unreadable {
        /// How many bytes could be read.
        at: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file has become shorter while it was read.
    #[error("the text had {len} bytes and ends after {at}; count it when nobody writes to it")]
    Truncated {
        /// How long it was when it was opened.
        len: u64,
        /// Where it ends now.
        at: u64,
    },
    /// The text is not UTF-8.
    #[error("the text is not UTF-8 after {at} bytes; convert it first, as with iconv")]
    NotUtf8 {
        /// How many bytes come before the first that is wrong.
        at: u64,
    },
    /// There is no white space for longer than any word is.
    #[error("there is no white space in {limit} bytes after {at}; give a text that has words")]
    NoSpace {
        /// How many bytes come before.
        at: u64,
        /// The longest piece that has no white space.
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
