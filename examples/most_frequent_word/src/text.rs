//! Text to count.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::Utf8Error;

use roadshow::words::{Counting, TextTooLong, WordList, tokenize};
use thiserror::Error;

use crate::args::Args;

/// Default text without `--book`, compiled in so that it does not depend on the working directory.
const HANDBOOK: &str = include_str!("../../../docs/handbook.md");

/// Name of the default text in the report.
const HANDBOOK_SOURCE: &str = "docs/handbook.md";

/// Words of a text, at least one.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) source: String,
    pub(crate) words: WordList,
    /// Number of distinct words.
    pub(crate) distinct: usize,
}

impl Text {
    pub(crate) fn read(args: &Args) -> Result<Self, TextError> {
        let (source, words) = match &args.book {
            Some(path) => (path.display().to_string(), tokenize(&read(path)?)?),
            None => (HANDBOOK_SOURCE.to_owned(), tokenize(HANDBOOK)?),
        };
        if words.is_empty() {
            return Err(TextError::NoWords(source.into()));
        }
        let words = words.repeat(args.repeat.get())?;
        let distinct = Counting::Hash.count_all(&words).len();
        Ok(Self { source, words, distinct })
    }
}

fn read(path: &Path) -> Result<String, TextError> {
    let unreadable = |err: io::Error| match err.kind() {
        ErrorKind::NotFound => TextError::NotFound(path.into()),
        ErrorKind::IsADirectory => TextError::Directory(path.into()),
        _ => TextError::Unreadable(path.into(), err),
    };
    let mut bytes = Vec::new();
    // A device or a pipe may never end, so reading stops at the limit.
    let limit = TextTooLong::LIMIT as u64;
    let file = File::open(path).map_err(unreadable)?;
    let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if read as u64 > limit {
        return Err(TextError::Endless(path.into(), limit));
    }
    String::from_utf8(bytes).map_err(|err| TextError::NotUtf8(path.into(), err.utf8_error()))
}

/// Error of an unusable text; each says what to do.
#[derive(Debug, Error)]
pub(crate) enum TextError {
    #[error("there is no file {0:?}; give the path of a text with --book")]
    NotFound(PathBuf),
    #[error("{0:?} is a directory; give the path of a text with --book")]
    Directory(PathBuf),
    #[error("cannot read {0:?}: {1}; give a text that you may read with --book")]
    Unreadable(PathBuf, io::Error),
    #[error("{0:?} is not UTF-8 after {at} bytes; convert it first, as with iconv", at = .1.valid_up_to())]
    NotUtf8(PathBuf, #[source] Utf8Error),
    #[error("{0:?} has no words; give a text with --book")]
    NoWords(PathBuf),
    #[error("{0:?} has more than {1} bytes; give a part of it")]
    Endless(PathBuf, u64),
    #[error("{0}, or give a smaller --repeat")]
    TooLong(TextTooLong),
}

impl From<TextTooLong> for TextError {
    fn from(error: TextTooLong) -> Self {
        Self::TooLong(error)
    }
}
