//! Wire form of a word list, and the checks of one that arrives.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{BOUND, WordList, offsets, span};
use crate::Payload;

/// Wire form of a [`WordList`].
#[derive(Serialize, Deserialize)]
pub(super) struct Parts {
    pub(super) position: u64,
    pub(super) text: Payload,
    pub(super) bounds: Payload,
}

impl From<WordList> for Parts {
    fn from(list: WordList) -> Self {
        Self { position: list.position, text: list.text.into(), bounds: list.bounds.into() }
    }
}

impl TryFrom<Parts> for WordList {
    type Error = MalformedWordList;

    /// Checks everything that the methods rely on, since the sender may be faulty or hostile.
    fn try_from(parts: Parts) -> Result<Self, MalformedWordList> {
        let (text, bounds) = (Bytes::from(parts.text), Bytes::from(parts.bounds));
        if bounds.is_empty() || !bounds.len().is_multiple_of(BOUND) {
            return Err(MalformedWordList::Bounds);
        }
        // Scans to the end even after a violation: without an early exit the compiler vectorises the loop.
        let (entries, _) = bounds.as_chunks::<BOUND>();
        let ascends = |pair: &[[u8; BOUND]]| u32::from_le_bytes(pair[0]) <= u32::from_le_bytes(pair[1]);
        if !entries.windows(2).fold(true, |sorted, pair| sorted & ascends(pair)) {
            return Err(MalformedWordList::Order);
        }
        let span = span(&bounds);
        if span.len() != text.len() {
            return Err(MalformedWordList::Length { bounds: span.len(), text: text.len() });
        }
        // In ASCII text every offset is a character boundary, and the check for each word is skipped.
        if !text.is_ascii() {
            let string = std::str::from_utf8(&text)?;
            if let Some(at) = offsets(&bounds).find(|at| !string.is_char_boundary(at - span.start)) {
                return Err(MalformedWordList::Character { at: at - span.start });
            }
        }
        let list = Self { position: parts.position, text, bounds };
        let end = list.position.checked_add(list.len() as u64);
        end.map(|_| list).ok_or(MalformedWordList::Position)
    }
}

/// Error of decoding a word list from malformed bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MalformedWordList {
    /// The length of the bounds is not a positive multiple of four bytes.
    #[error("the bounds of the words are not a row of 32-bit entries")]
    Bounds,
    /// A word would end before its start.
    #[error("the bounds of the words do not ascend")]
    Order,
    /// The bounds and the text differ in length.
    #[error("the bounds enclose {bounds} bytes, the text has {text}")]
    Length {
        /// Bytes between the first bound and the last.
        bounds: usize,
        /// Length of the text in bytes.
        text: usize,
    },
    /// The text is not UTF-8.
    #[error("the words are not UTF-8")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// A word would start or end within a character.
    #[error("a bound at byte {at} cuts a character")]
    Character {
        /// Offset in the text, in bytes.
        at: usize,
    },
    /// The position of the last word would overflow.
    #[error("the position of the words is too high")]
    Position,
}
