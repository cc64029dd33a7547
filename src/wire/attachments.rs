//! Owned attachments of a body.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// Attachments of a body, in order. A single one, the common case, is stored without an allocation.
///
/// It has the size of a [`Bytes`], whose pointer to a vtable distinguishes the two forms.
#[derive(Clone)]
pub struct Attachments(Repr);

#[derive(Clone)]
enum Repr {
    One(Bytes),
    /// Any other number. No attachments need no memory.
    Many(Box<[Bytes]>),
}

const _: () = assert!(size_of::<Attachments>() == size_of::<Bytes>(), "no tag beside the handle");

impl Attachments {
    /// Converts into the handles, in order.
    pub(super) fn into_handles(self) -> impl Iterator<Item = Bytes> {
        let (one, many) = match self.0 {
            Repr::One(bytes) => (Some(bytes), Box::default()),
            Repr::Many(all) => (None, all),
        };
        one.into_iter().chain(many)
    }

    /// Splits off a single attachment; `Err` with any other number.
    #[inline]
    pub(super) fn into_single(self) -> Result<Bytes, Self> {
        match self.0 {
            Repr::One(bytes) => Ok(bytes),
            Repr::Many(_) => Err(self),
        }
    }
}

impl Default for Attachments {
    #[inline]
    fn default() -> Self {
        Self(Repr::Many(Box::default()))
    }
}

impl Deref for Attachments {
    type Target = [Bytes];

    #[inline]
    fn deref(&self) -> &[Bytes] {
        match &self.0 {
            Repr::One(bytes) => std::slice::from_ref(bytes),
            Repr::Many(all) => all,
        }
    }
}

impl From<Bytes> for Attachments {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self(Repr::One(bytes))
    }
}

impl From<Vec<Bytes>> for Attachments {
    fn from(mut all: Vec<Bytes>) -> Self {
        match all.pop() {
            Some(only) if all.is_empty() => only.into(),
            last => {
                all.extend(last);
                Self(Repr::Many(all.into()))
            }
        }
    }
}

impl From<&[Bytes]> for Attachments {
    fn from(all: &[Bytes]) -> Self {
        match all {
            [only] => only.clone().into(),
            all => Self(Repr::Many(all.into())),
        }
    }
}

impl PartialEq for Attachments {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Attachments {}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_of_any_number_keep_their_order() {
        for count in 0..4 {
            let all: Vec<_> = (0..count).map(|byte: u8| Bytes::from(vec![byte])).collect();
            let attachments = Attachments::from(all.clone());
            assert_eq!(*attachments, all);
            assert_eq!(attachments, Attachments::from(&all[..]));
            assert_eq!(attachments.clone().into_single().ok(), (count == 1).then(|| all[0].clone()));
            assert!(attachments.into_handles().eq(all));
        }
    }
}
