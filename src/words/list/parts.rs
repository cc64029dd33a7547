//! A list of words on its way: from its parts, which may come from anywhere.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{BOUND, WordList, offsets, span};
use crate::Payload;

/// A list as it travels.
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

    /// Checks all that the methods rely on, since the parts may come from anywhere.
    fn try_from(parts: Parts) -> Result<Self, MalformedWordList> {
        let (text, bounds) = (Bytes::from(parts.text), Bytes::from(parts.bounds));
        if bounds.is_empty() || !bounds.len().is_multiple_of(BOUND) {
            return Err(MalformedWordList::Bounds);
        }
        // To the end in any case: without a way out on the way the compiler compares many at once.
        let (entries, _) = bounds.as_chunks::<BOUND>();
        let ascends = |pair: &[[u8; BOUND]]| u32::from_le_bytes(pair[0]) <= u32::from_le_bytes(pair[1]);
        if !entries.windows(2).fold(true, |sorted, pair| sorted & ascends(pair)) {
            return Err(MalformedWordList::Order);
        }
        let span = span(&bounds);
        if span.len() != text.len() {
            return Err(MalformedWordList::Length { bounds: span.len(), text: text.len() });
        }
        // Between two bytes of ASCII a word may end anywhere.
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

/// Bytes from elsewhere are not a list of words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MalformedWordList {
    /// The bounds are not one entry more than words, of four bytes each.
    #[error("the bounds of the words are not a row of 32-bit entries")]
    Bounds,
    /// A word would end before it starts.
    #[error("the bounds of the words do not ascend")]
    Order,
    /// The bounds speak of another amount of text than there is.
    #[error("the bounds enclose {bounds} bytes, the text has {text}")]
    Length {
        /// Bytes between the first bound and the last.
        bounds: usize,
        /// Bytes of the text.
        text: usize,
    },
    /// The text is not UTF-8.
    #[error("the words are not UTF-8")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// A word would start or end within a character.
    #[error("a bound at byte {at} cuts a character")]
    Character {
        /// The place in the text.
        at: usize,
    },
    /// The words would lie beyond the end of any text.
    #[error("the position of the words is too high")]
    Position,
}
