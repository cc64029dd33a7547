//! Small byte strings, stored inline up to 23 bytes, as most messages are that short.
//!
//! ```text
//! InlineBytes, 32 bytes. The last 8 distinguish `Inline` from the vtable of a `Bytes`:
//!
//!   byte   0     1    2    3                     23
//!        +-----+----+----+----+---------- ... +----+
//!        | len | b0 | b1 | b2 |               | b22|  zeros after the last byte
//!        +-----+----+----+----+---------- ... +----+
//!
//! The same 24 bytes as ShortWords, three little-endian words:
//!
//!   word 0 = b6  b5  b4  b3  b2  b1  b0  len      (least significant byte last)
//!   word 1 = b14 b13 b12 b11 b10 b9  b8  b7
//!   word 2 = b22 b21 b20 b19 b18 b17 b16 b15
//! ```
//!
//! Three types have this content, one for each place where it is:
//!
//! - [`ShortSlice`]: the bytes where they were read, not copied yet.
//! - [`ShortWords`]: three integers, which travel in registers through the calls between reader and
//!   mailbox.
//! - [`ShortBytes`]: an array in memory, readable as a slice.
//!
//! `ShortWords` and `ShortBytes` convert into each other without a branch. Copying byte by byte
//! into an array and moving that as wider words stalls the processor: a load that spans several
//! earlier stores cannot be forwarded from the store buffer.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// Number of words of the longest short byte string, without its length.
pub(super) const SHORT_WORDS: usize = 3;

/// Longest inline byte string: the enum then has the size of [`Bytes`].
const INLINE_MAX: usize = 23;

/// Longest part in bytes that is copied. A longer one shares the read buffer, and keeps it alive.
pub(super) const COPY_MAX: usize = 4 << 10;

/// Immutable bytes, stored inline if they are short.
///
/// Sharing short bytes with their read buffer would cost two reference counts, and keep the whole
/// buffer alive while the message is queued. Copying them costs less.
#[derive(Clone)]
pub struct InlineBytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline(ShortBytes),
    Shared(Bytes),
}

impl InlineBytes {
    /// Creates an empty byte string.
    #[must_use]
    pub const fn new() -> Self {
        Self(Repr::Inline(ShortBytes([0; 1 + INLINE_MAX])))
    }

    /// Creates a copy of `bytes`.
    #[must_use]
    #[inline]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self::try_inline(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes))))
    }

    /// Takes `part` out of `whole`: by handle if it is long, otherwise as a copy.
    #[inline]
    pub(super) fn part_of(whole: Option<&Bytes>, part: &[u8]) -> Self {
        Self::try_inline(part).unwrap_or_else(|| Self::long_part_of(whole, part))
    }

    fn long_part_of(whole: Option<&Bytes>, part: &[u8]) -> Self {
        // A read buffer has 64 KiB or more, and a queued slice of it would keep all of that alive.
        Self(Repr::Shared(match whole {
            Some(whole) if part.len() > COPY_MAX => whole.slice_ref(part),
            _ => Bytes::copy_from_slice(part),
        }))
    }

    /// Copies `source` inline, or returns `None` if it is too long.
    #[inline(always)]
    fn try_inline(source: &[u8]) -> Option<Self> {
        ShortSlice::new(source).map(Self::from)
    }
}

/// Borrowed byte string of at most 23 bytes.
///
/// It is copied where it is stored ([`InlineBytes`]): moving an inline copy costs more than making
/// it there.
#[derive(Clone, Copy, Debug)]
pub struct ShortSlice<'a>(&'a [u8]);

impl<'a> ShortSlice<'a> {
    /// Returns `bytes` as a short slice, or `None` if they are too long.
    #[must_use]
    #[inline(always)]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() <= INLINE_MAX).then_some(Self(bytes))
    }

    /// The bytes, zero-padded to three words.
    #[inline(always)]
    pub(super) fn padded(self) -> [[u8; 8]; SHORT_WORDS] {
        words(self.0).map(u64::to_le_bytes)
    }
}

/// Byte string of at most 23 bytes in three words, without drop glue; see the module for the
/// layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortWords([u64; SHORT_WORDS]);

impl From<ShortSlice<'_>> for ShortWords {
    #[inline(always)]
    fn from(ShortSlice(source): ShortSlice<'_>) -> Self {
        let [first, second, third] = words(source);
        Self([first << 8 | source.len() as u64, second << 8 | first >> 56, third << 8 | second >> 56])
    }
}

/// Byte string of at most 23 bytes as an array, readable as a slice.
#[derive(Clone, Copy, Debug)]
pub struct ShortBytes(
    /// Length, then the bytes.
    [u8; 1 + INLINE_MAX],
);

impl From<ShortWords> for ShortBytes {
    #[inline(always)]
    fn from(ShortWords(words): ShortWords) -> Self {
        let mut bytes = [0; 1 + INLINE_MAX];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        Self(bytes)
    }
}

impl Deref for ShortBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let [len, bytes @ ..] = &self.0;
        &bytes[..usize::from(*len)]
    }
}

impl From<ShortBytes> for InlineBytes {
    fn from(short: ShortBytes) -> Self {
        Self(Repr::Inline(short))
    }
}

impl From<ShortWords> for InlineBytes {
    #[inline(always)]
    fn from(short: ShortWords) -> Self {
        Self(Repr::Inline(short.into()))
    }
}

impl From<ShortSlice<'_>> for InlineBytes {
    #[inline(always)]
    fn from(short: ShortSlice<'_>) -> Self {
        ShortWords::from(short).into()
    }
}

/// Packs at most 23 bytes into little-endian words, padded with zeros. Longer input gives zeros
/// only.
///
/// The bytes are loaded in whole words and stay in registers until they are stored: bytes stored
/// one by one and loaded again as a word would stall the processor.
#[inline(always)]
fn words(bytes: &[u8]) -> [u64; SHORT_WORDS] {
    let length = bytes.len();
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let half = |at: usize| bytes[at..].first_chunk().map_or(0, |half| u32::from_le_bytes(*half).into());
    // Two overlapping loads cover any length without a loop: the last word starts inside the one
    // before, and the shift drops the bytes that the earlier word has already.
    match length {
        1..4 => {
            let (middle, last) = (length / 2, length - 1);
            let byte = |at: usize| u64::from(bytes[at]) << (8 * at);
            [byte(0) | byte(middle) | byte(last), 0, 0]
        }
        4..8 => [half(0) | half(length - 4) << (8 * (length - 4)), 0, 0],
        8 => [word(0), 0, 0],
        9..=16 => [word(0), word(length - 8) >> (8 * (16 - length)), 0],
        17..=INLINE_MAX => [word(0), word(8), word(length - 8) >> (8 * (24 - length))],
        _ => [0; 3],
    }
}

impl Deref for InlineBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(short) => short,
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<Bytes> for InlineBytes {
    fn from(bytes: Bytes) -> Self {
        Self::try_inline(&bytes).unwrap_or(Self(Repr::Shared(bytes)))
    }
}

impl From<Vec<u8>> for InlineBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&[u8]> for InlineBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl Default for InlineBytes {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for InlineBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for InlineBytes {}

impl Hash for InlineBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for InlineBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes::copy_from_slice(self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_bytes_are_no_larger_than_a_handle() {
        assert_eq!(size_of::<InlineBytes>(), size_of::<Bytes>());
    }

    #[test]
    fn byte_strings_of_any_length_round_trip() {
        let whole = Bytes::from((0..10_000).map(|at| at as u8).collect::<Vec<_>>());
        for length in (0..=INLINE_MAX + 1).chain([COPY_MAX, COPY_MAX + 1]) {
            let part = &whole[7..7 + length];
            let kept = InlineBytes::part_of(Some(&whole), part);
            assert_eq!(*kept, *part);
            assert_eq!(kept, InlineBytes::from(part));
            assert_eq!(kept.as_ptr() == part.as_ptr(), length > COPY_MAX, "{length} bytes");
        }
    }
}
