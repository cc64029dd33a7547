//! Bytes that are kept in place where they are few.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// So many words hold few bytes.
pub(super) const SHORT_WORDS: usize = 3;

/// How many bytes are kept in place: as many as fit without making a [`Bytes`] larger.
const INLINE_MAX: usize = 23;

/// Up to this length bytes get memory of their own, and keep nothing else alive.
const COPY_MAX: usize = 4 << 10;

/// Bytes that are not changed, in place where they are few.
///
/// Most messages take a few bytes. To share those with the buffer that they were read into would cost
/// two counts, and keep the whole buffer alive while the message waits; to copy them costs less.
#[derive(Clone)]
pub struct InlineBytes(Place);

#[derive(Clone)]
enum Place {
    Here(ShortBytes),
    There(Bytes),
}

impl InlineBytes {
    /// No bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self(Place::Here(ShortBytes([0; 1 + INLINE_MAX])))
    }

    /// A copy of `bytes`.
    #[must_use]
    #[inline]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self::try_inline(bytes).unwrap_or_else(|| Self(Place::There(Bytes::copy_from_slice(bytes))))
    }

    /// The `part` of `whole`: as a copy if it is short, else by handle.
    #[inline]
    pub(super) fn part_of(whole: &Bytes, part: &[u8]) -> Self {
        Self::try_inline(part).unwrap_or_else(|| Self::long_part_of(whole, part))
    }

    fn long_part_of(whole: &Bytes, part: &[u8]) -> Self {
        Self(Place::There(if part.len() <= COPY_MAX {
            Bytes::copy_from_slice(part)
        } else {
            whole.slice_ref(part)
        }))
    }

    /// A copy in place; `None` if they are too many for that.
    #[inline(always)]
    fn try_inline(source: &[u8]) -> Option<Self> {
        ShortSlice::new(source).map(Self::from)
    }
}

/// Bytes so few that they are kept in place, where they were read.
///
/// They become bytes of their own ([`InlineBytes`]) where those are to stay: to move them there costs more
/// than to make them.
#[derive(Clone, Copy, Debug)]
pub struct ShortSlice<'a>(&'a [u8]);

impl<'a> ShortSlice<'a> {
    /// `bytes`, if they are few enough.
    #[must_use]
    #[inline(always)]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() <= INLINE_MAX).then_some(Self(bytes))
    }

    /// They, and zeros behind them.
    #[inline(always)]
    pub(super) fn padded(self) -> [[u8; 8]; SHORT_WORDS] {
        words(self.0).map(u64::to_le_bytes)
    }
}

/// A copy of [`ShortSlice`] bytes: three words, and nothing that is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortWords([u64; SHORT_WORDS]);

impl From<ShortSlice<'_>> for ShortWords {
    #[inline(always)]
    fn from(ShortSlice(source): ShortSlice<'_>) -> Self {
        let [first, second, third] = words(source);
        Self([first << 8 | source.len() as u64, second << 8 | first >> 56, third << 8 | second >> 56])
    }
}

/// The same where it stays, to be read as bytes.
#[derive(Clone, Copy, Debug)]
pub struct ShortBytes(
    /// Behind their count.
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
    fn from(few: ShortBytes) -> Self {
        Self(Place::Here(few))
    }
}

impl From<ShortWords> for InlineBytes {
    #[inline(always)]
    fn from(few: ShortWords) -> Self {
        Self(Place::Here(few.into()))
    }
}

impl From<ShortSlice<'_>> for InlineBytes {
    #[inline(always)]
    fn from(few: ShortSlice<'_>) -> Self {
        ShortWords::from(few).into()
    }
}

/// Few bytes as little-endian words, zeros behind them; of more than [`IN_PLACE_MAX`] zeros alone.
///
/// They are to stay in registers until they are where they belong: bytes that go through the stack piece
/// by piece are read back from there in wider pieces, for which a processor waits.
#[inline(always)]
fn words(bytes: &[u8]) -> [u64; SHORT_WORDS] {
    let length = bytes.len();
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let half = |at: usize| bytes[at..].first_chunk().map_or(0, |half| u32::from_le_bytes(*half).into());
    // The last word overlaps the one before, and loses what is in that.
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
            Place::Here(few) => few,
            Place::There(bytes) => bytes,
        }
    }
}

impl From<Bytes> for InlineBytes {
    fn from(bytes: Bytes) -> Self {
        Self::try_inline(&bytes).unwrap_or(Self(Place::There(bytes)))
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
    fn few_bytes_take_no_more_room_than_a_handle() {
        assert_eq!(size_of::<InlineBytes>(), size_of::<Bytes>());
    }

    #[test]
    fn any_number_of_bytes_comes_back() {
        let whole = Bytes::from((0..10_000).map(|at| at as u8).collect::<Vec<_>>());
        for length in (0..=INLINE_MAX + 1).chain([COPY_MAX, COPY_MAX + 1]) {
            let part = &whole[7..7 + length];
            let kept = InlineBytes::part_of(&whole, part);
            assert_eq!(*kept, *part);
            assert_eq!(kept, InlineBytes::from(part));
            assert_eq!(kept.as_ptr() == part.as_ptr(), length > COPY_MAX, "{length} bytes");
        }
    }
}
