//! List of words in two buffers.

mod parts;

use std::{fmt, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::parts::MalformedWordList;
use self::parts::Parts;
use crate::RemoteData;

/// Size of one entry of the bounds, in bytes: an unsigned 32-bit integer, little endian.
const BOUND: usize = size_of::<u32>();

/// Bounds of a list without words: the offset of its empty text.
const NO_WORDS: &[u8] = &[0; BOUND];

/// Words in order, with the position of the first in the text they come from.
///
/// Two buffers hold the words whatever their number: their UTF-8 without separators, and the bounds between
/// them. A part of the list shares the buffers; only its own bytes are sent to another process. All words
/// together may take up to 4 GiB.
///
/// Lists are equal if their words and their positions are.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use roadshow::words::WordList;
///
/// let words = WordList::from_words(["a", "b", "c", "d", "e"])?;
/// let parts = words.partition(NonZeroUsize::MIN.saturating_add(1));
/// assert_eq!(parts[1].iter().collect::<Vec<_>>(), ["d", "e"]);
/// assert_eq!(parts[1].position(), 3);
/// # Ok::<(), roadshow::words::TextTooLong>(())
/// ```
#[derive(Clone, Serialize, Deserialize, RemoteData)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct WordList {
    position: u64,
    text: Bytes,
    /// Boundaries of the words, one entry more than words. Word `i` lies between entries `i` and `i + 1`.
    ///
    /// ```text
    /// buffer   t o b e o r n o t      entries of the list:  0 2 4 6 9
    /// slice        b e o r            entries of the slice:   2 4 6
    /// ```
    ///
    /// The first entry is the offset of `text` in the buffer that it was cut from, and is subtracted
    /// from all entries. So a slice shares the entries of its list unchanged.
    bounds: Bytes,
}

impl WordList {
    /// Creates a list of the given words, the first at position 0.
    ///
    /// # Errors
    ///
    /// [`TextTooLong`] if the words take more than 4 GiB together.
    pub fn from_words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<Self, TextTooLong> {
        let mut list = Builder::default();
        for word in words {
            list.push(word.as_ref())?;
        }
        Ok(list.finish())
    }

    /// Repeats the list `times` times, as if its text were repeated.
    ///
    /// # Errors
    ///
    /// [`TextTooLong`] if the words then take more than 4 GiB.
    pub fn repeat(&self, times: usize) -> Result<Self, TextTooLong> {
        // The size is checked before anything is allocated, since `times` may be huge for a small list. A
        // word without bytes still takes a bound.
        let size = self.text.len().max(self.len()).checked_mul(times);
        if size.is_none_or(|size| size > TextTooLong::LIMIT) {
            return Err(TextTooLong { limit: TextTooLong::LIMIT });
        }
        if self.is_empty() {
            return Ok(self.clone());
        }
        let mut list = Builder::default();
        for _ in 0..times {
            for word in self {
                list.push(word)?;
            }
        }
        Ok(Self { position: self.position, ..list.finish() })
    }

    /// Returns the number of words.
    pub fn len(&self) -> usize {
        self.bounds.len() / BOUND - 1
    }

    /// Returns true if there are no words.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of words before this list in the whole text.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the word at an index of this list.
    pub fn get(&self, index: usize) -> Option<&str> {
        let start = index.checked_mul(BOUND)?;
        let word = self.bounds.get(start..start.checked_add(2 * BOUND)?)?;
        std::str::from_utf8(&self.text[self.place(word)]).ok()
    }

    /// Iterates over the words in order.
    pub fn iter(&self) -> Words<'_> {
        Words { rest: "", unread: &self.text, bounds: &self.bounds }
    }

    /// Returns the words of a range of indices, without a copy.
    ///
    /// # Panics
    ///
    /// If the range is not within the list.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let bounds = self.bounds.slice(range.start * BOUND..(range.end + 1) * BOUND);
        Self {
            position: self.position + range.start as u64,
            text: self.text.slice(self.place(&bounds)),
            bounds,
        }
    }

    /// Splits the list into exactly `parts` consecutive lists whose sizes differ by at most one.
    ///
    /// The larger ones come first; with more parts than words, the last ones are empty.
    pub fn partition(&self, parts: std::num::NonZeroUsize) -> Vec<Self> {
        let (size, larger) = (self.len() / parts, self.len() % parts);
        let start = |part: usize| part * size + part.min(larger);
        (0..parts.get()).map(|part| self.slice(start(part)..start(part + 1))).collect()
    }

    /// Returns the byte range in `text` of the words between some of the bounds.
    fn place(&self, bounds: &[u8]) -> Range<usize> {
        let (base, span) = (span(&self.bounds).start, span(bounds));
        span.start - base..span.end - base
    }
}

impl Default for WordList {
    fn default() -> Self {
        Self { position: 0, text: Bytes::new(), bounds: Bytes::from_static(NO_WORDS) }
    }
}

impl PartialEq for WordList {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position && self.iter().eq(other)
    }
}

impl Eq for WordList {}

impl fmt::Debug for WordList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WordList")
            .field("position", &self.position)
            .field("len", &self.len())
            .field("bytes", &self.text.len())
            .finish()
    }
}

impl<'a> IntoIterator for &'a WordList {
    type Item = &'a str;
    type IntoIter = Words<'a>;

    fn into_iter(self) -> Words<'a> {
        self.iter()
    }
}

/// Number of words that are checked as UTF-8 in one step. They stay in a core's L1 cache until they are
/// taken.
const STRETCH_WORDS: usize = 512;

/// Iterator over the words of a [`WordList`], in order.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    /// Checked text that starts with the next word.
    rest: &'a str,
    /// Unchecked text after `rest`.
    unread: &'a [u8],
    /// Bounds from the next word on.
    bounds: &'a [u8],
}

impl Words<'_> {
    /// Checks the next stretch of text once `rest` is used up.
    // Checking stretch by stretch keeps the text in the cache between the check and its use; a check for
    // each word would cost a call each.
    #[cold]
    fn read_on(&mut self) {
        let words = self.len().min(STRETCH_WORDS);
        let stretch = span(&self.bounds[..(words + 1) * BOUND]);
        let (text, unread) = self.unread.split_at(stretch.len());
        self.rest = std::str::from_utf8(text).expect("a list is made of strings or was checked");
        self.unread = unread;
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut own = offsets(self.bounds);
        let (start, end) = (own.next()?, own.next()?);
        // The next word is not in the checked text yet.
        if end - start > self.rest.len() {
            self.read_on();
        }
        let (word, rest) = self.rest.split_at(end - start);
        self.rest = rest;
        self.bounds = &self.bounds[BOUND..];
        Some(word)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.bounds.len() / BOUND - 1;
        (len, Some(len))
    }
}

impl ExactSizeIterator for Words<'_> {}

/// Decodes the entries of a list's bounds. The buffer need not be aligned.
fn offsets(bounds: &[u8]) -> impl DoubleEndedIterator<Item = usize> + '_ {
    let entries = bounds.as_chunks::<BOUND>().0;
    entries.iter().map(|entry| u32::from_le_bytes(*entry) as usize)
}

/// Returns the range from the first entry of some bounds to the last.
fn span(bounds: &[u8]) -> Range<usize> {
    let start = offsets(bounds).next().unwrap_or(0);
    start..offsets(bounds).next_back().unwrap_or(start)
}

/// Builder that appends words to the buffers of a list.
#[derive(Debug)]
pub(super) struct Builder {
    text: BytesMut,
    bounds: BytesMut,
    limit: usize,
}

impl Builder {
    pub(super) fn push(&mut self, word: &str) -> Result<(), TextTooLong> {
        let end = self.text.len() + word.len();
        // Checked before anything is appended: after an error the builder still has only whole words, and
        // can go on.
        let bound = u32::try_from(end).ok().filter(|_| end <= self.limit);
        let bound = bound.ok_or(TextTooLong { limit: self.limit })?;
        self.text.put_slice(word.as_bytes());
        self.bounds.put_u32_le(bound);
        Ok(())
    }

    pub(super) fn finish(self) -> WordList {
        WordList { position: 0, text: self.text.freeze(), bounds: self.bounds.freeze() }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self { text: BytesMut::new(), bounds: NO_WORDS.into(), limit: TextTooLong::LIMIT }
    }
}

/// Error of a text whose words exceed the capacity of one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize, RemoteData)]
#[error("the words take more than {limit} bytes, which is all that one list holds; split the text")]
pub struct TextTooLong {
    limit: usize,
}

impl TextTooLong {
    /// Maximum total length of the words of one list, in bytes: the range of a 32-bit bound.
    pub const LIMIT: usize = u32::MAX as usize;
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &[u8], bounds: &[u32]) -> Parts {
        let bounds: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
        Parts { position: 0, text: Bytes::copy_from_slice(text).into(), bounds: Bytes::from(bounds).into() }
    }

    #[track_caller]
    fn rejected(text: &[u8], bounds: &[u32]) -> MalformedWordList {
        WordList::try_from(parts(text, bounds)).unwrap_err()
    }

    fn round_trip(list: &WordList) -> WordList {
        WordList::try_from(Parts::from(list.clone())).unwrap()
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn list_gives_back_its_words(
            words in prop_oneof![
                any::<Vec<String>>(),
                prop::collection::vec("[aß—]{0,3}", 0..3 * STRETCH_WORDS),
            ],
        ) {
            let list = WordList::from_words(&words).unwrap();
            prop_assert_eq!(list.len(), words.len());
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), words.clone());
            for (index, word) in words.iter().enumerate() {
                prop_assert_eq!(list.get(index), Some(word.as_str()));
            }
            prop_assert_eq!(list.get(words.len()), None);
        }

        #[test]
        fn slices_of_slices_keep_words_and_positions(
            words in prop::collection::vec("[aß—]{0,3}", 0..20),
            cuts in prop::array::uniform4(0_usize..=20),
        ) {
            let list = WordList::from_words(&words).unwrap();
            let mut outer = [cuts[0].min(words.len()), cuts[1].min(words.len())];
            outer.sort_unstable();
            let slice = list.slice(outer[0]..outer[1]);
            let mut inner = [cuts[2].min(slice.len()), cuts[3].min(slice.len())];
            inner.sort_unstable();
            let slice = round_trip(&slice.slice(inner[0]..inner[1]));
            let start = outer[0] + inner[0];
            prop_assert_eq!(slice.position(), start as u64);
            prop_assert_eq!(slice.iter().collect::<Vec<_>>(), words[start..start + slice.len()].to_vec());
            prop_assert_eq!(slice.get(0), words.get(start).filter(|_| !slice.is_empty()).map(String::as_str));
        }

        #[test]
        fn partition_has_exactly_n_parts_of_nearly_equal_size(len in 0_usize..60, n in 1_usize..20) {
            let list = WordList::from_words((0..len).map(|word| word.to_string())).unwrap();
            let parts = list.partition(NonZeroUsize::new(n).unwrap());
            prop_assert_eq!(parts.len(), n);
            let sizes = || parts.iter().map(WordList::len);
            prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
            let words: Vec<_> = parts.iter().flatten().collect();
            prop_assert_eq!(words, list.iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_rejected_or_give_a_usable_list(
            text: Vec<u8>,
            bounds in prop::collection::vec(0_u8..8, 0..40),
            position: u64,
        ) {
            let (text, bounds) = (Bytes::from(text).into(), Bytes::from(bounds).into());
            if let Ok(list) = WordList::try_from(Parts { position, text, bounds }) {
                let words = list.iter().count();
                prop_assert_eq!(words, list.len());
                prop_assert_eq!(list.slice(0..words), list);
            }
        }
    }

    #[test]
    fn slice_is_sent_without_the_rest_of_the_text() {
        let list = WordList::from_words((100..200).map(|word| word.to_string())).unwrap();
        let parts = Parts::from(list.slice(50..52));
        assert_eq!(Bytes::from(parts.text), "150151");
        assert_eq!(Bytes::from(parts.bounds).len(), 3 * BOUND);
    }

    #[test]
    fn slice_shares_the_buffers_of_its_list() {
        let list = WordList::from_words(["ab", "cd", "ef"]).unwrap();
        let slice = list.slice(1..3);
        assert_eq!(slice.text.as_ptr(), list.text[2..].as_ptr());
        assert_eq!(slice.bounds.as_ptr(), list.bounds[BOUND..].as_ptr());
    }

    #[test]
    fn bounds_are_read_from_an_unaligned_buffer() {
        let list = WordList::from_words(["ab", "c"]).unwrap();
        let shifted = Bytes::from([&[7], &list.bounds[..]].concat()).slice(1..);
        let list = WordList { bounds: shifted, ..list };
        assert_eq!(round_trip(&list).iter().collect::<Vec<_>>(), ["ab", "c"]);
    }

    #[test]
    fn malformed_parts_are_rejected_with_the_reason() {
        assert_eq!(rejected(b"", &[]), MalformedWordList::Bounds);
        let mut cut = parts(b"ab", &[0, 2]);
        cut.bounds = Bytes::from_static(&[0, 0, 0, 0, 2, 0]).into();
        assert_eq!(WordList::try_from(cut).unwrap_err(), MalformedWordList::Bounds);
        assert_eq!(rejected(b"ab", &[0, 2, 1]), MalformedWordList::Order);
        assert_eq!(rejected(b"ab", &[0, 3]), MalformedWordList::Length { bounds: 3, text: 2 });
        assert_eq!(rejected(b"ab", &[7]), MalformedWordList::Length { bounds: 0, text: 2 });
        assert!(matches!(rejected(b"a\xff", &[0, 2]), MalformedWordList::NotUtf8(_)));
        assert_eq!(rejected("aß".as_bytes(), &[5, 7, 8]), MalformedWordList::Character { at: 2 });
        let late = Parts { position: u64::MAX, ..parts(b"a", &[0, 1]) };
        assert_eq!(WordList::try_from(late).unwrap_err(), MalformedWordList::Position);
    }

    #[test]
    fn list_survives_json_and_a_malformed_one_is_an_error() {
        let list = WordList::from_words(["ab", "ß"]).unwrap().slice(1..2);
        let json = serde_json::to_value(&list).unwrap();
        assert_eq!(serde_json::from_value::<WordList>(json.clone()).unwrap(), list);
        let mut cut = json;
        cut["text"].as_array_mut().unwrap().pop();
        let rejected = serde_json::from_value::<WordList>(cut).unwrap_err();
        assert_eq!(rejected.to_string(), "the bounds enclose 2 bytes, the text has 1");
    }

    #[test]
    fn words_over_the_limit_are_rejected() {
        let mut list = Builder { limit: 3, ..Builder::default() };
        list.push("ab").unwrap();
        assert_eq!(list.push("cd"), Err(TextTooLong { limit: 3 }));
        list.push("c").unwrap();
        assert_eq!(list.finish(), WordList::from_words(["ab", "c"]).unwrap());

        let list = WordList::from_words(["ab"]).unwrap();
        assert!(list.repeat(usize::MAX).is_err());
        assert!(list.repeat(TextTooLong::LIMIT).is_err());
    }

    #[test]
    fn repeated_list_has_the_words_of_each_copy_in_order() {
        let list = WordList::from_words(["a", "b"]).unwrap();
        assert_eq!(list.repeat(2).unwrap().iter().collect::<Vec<_>>(), ["a", "b", "a", "b"]);
        assert!(list.repeat(0).unwrap().is_empty());
    }
}
