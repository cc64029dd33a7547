//! Bytes that are kept in place where they are few.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// How many bytes are kept in place: as many as fit without making a [`Bytes`] larger.
const IN_PLACE_MAX: usize = 23;

/// Up to this length bytes get memory of their own, and keep nothing else alive.
const COPIED_MAX: usize = 4 << 10;

/// Bytes that are not changed, in place where they are few.
///
/// Most messages take a few bytes. To share those with the buffer that they were read into would cost
/// two counts, and keep the whole buffer alive while the message waits; to copy them costs less.
#[derive(Clone)]
pub struct InlineBytes(Place);

#[derive(Clone)]
enum Place {
    Here { len: u8, bytes: [u8; IN_PLACE_MAX] },
    There(Bytes),
}

impl InlineBytes {
    /// No bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self(Place::Here { len: 0, bytes: [0; IN_PLACE_MAX] })
    }

    /// A copy of `bytes`.
    #[must_use]
    #[inline]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self::in_place(bytes).unwrap_or_else(|| Self(Place::There(Bytes::copy_from_slice(bytes))))
    }

    /// The `part` of `whole`: as a copy if it is short, else by handle.
    #[inline]
    pub(super) fn part_of(whole: &Bytes, part: &[u8]) -> Self {
        Self::in_place(part).unwrap_or_else(|| Self::long_part_of(whole, part))
    }

    fn long_part_of(whole: &Bytes, part: &[u8]) -> Self {
        Self(Place::There(if part.len() <= COPIED_MAX {
            Bytes::copy_from_slice(part)
        } else {
            whole.slice_ref(part)
        }))
    }

    #[inline]
    fn in_place(source: &[u8]) -> Option<Self> {
        let mut bytes = [0; IN_PLACE_MAX];
        copy_few(source, bytes.get_mut(..source.len())?);
        Some(Self(Place::Here { len: source.len() as u8, bytes }))
    }
}

/// Copies bytes to a place of the same length: by two words that overlap, without a call of `memcpy`.
#[inline]
fn copy_few(from: &[u8], to: &mut [u8]) {
    match from.len() {
        8..=16 => copy_ends::<8>(from, to),
        4..8 => copy_ends::<4>(from, to),
        1..4 => {
            let (middle, last) = (from.len() / 2, from.len() - 1);
            (to[0], to[middle], to[last]) = (from[0], from[middle], from[last]);
        }
        0 => {}
        _ => to.copy_from_slice(from),
    }
}

#[inline]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    if let (Some(start), Some(end)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
        to[..N].copy_from_slice(start);
        let at = to.len() - N;
        to[at..].copy_from_slice(end);
    }
}

impl Deref for InlineBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Here { len, bytes } => &bytes[..usize::from(*len)],
            Place::There(bytes) => bytes,
        }
    }
}

impl From<Bytes> for InlineBytes {
    fn from(bytes: Bytes) -> Self {
        Self::in_place(&bytes).unwrap_or(Self(Place::There(bytes)))
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
        for length in (0..=IN_PLACE_MAX + 1).chain([COPIED_MAX, COPIED_MAX + 1]) {
            let part = &whole[7..7 + length];
            let kept = InlineBytes::part_of(&whole, part);
            assert_eq!(*kept, *part);
            assert_eq!(kept, InlineBytes::from(part));
            assert_eq!(kept.as_ptr() == part.as_ptr(), length > COPIED_MAX, "{length} bytes");
        }
    }
}
