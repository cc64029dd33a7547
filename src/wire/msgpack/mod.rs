//! MessagePack encoding that round-trips every serde representation.
//!
//! The layout is that of rmp-serde, with structs as maps and 128-bit integers as 16 bytes, except:
//!
//! | value | bytes | reason |
//! |---|---|---|
//! | `Some` of what is written as nil, and of such a `Some` | extension [`SOME_TYPE`], one byte: how many `Some`s stand around the nil | `Some(None)`, `Some(())` and `None` stay apart |
//! | unit struct | nil | serde's buffer for untagged and flattened types has no other unit |
//! | sequence or map of unknown length | header with a 32-bit length, written last | nothing is buffered |
//! | [`Payload`](crate::Payload) | reference to an attachment, see [`payload`](super::payload) | no copy |
//!
//! Both directions are human-readable in serde's sense. Serde buffers the parts of untagged,
//! internally tagged and flattened types, and reads its buffer as human-readable. A type with two
//! forms (`IpAddr`, for example) must therefore be written in that form.
//!
//! Invariants: neither direction descends more than [`MESSAGE_DEPTH_MAX`] levels, as many
//! consecutive `Some`s in each, and as many consecutive newtypes in each of those; a length in the
//! input never reserves memory for more elements than bytes remain; no input of a peer causes a
//! panic.
//!
//! The limit covers the bytes read. A type may contain itself through nothing but `Option`,
//! newtypes and `#[serde(transparent)]`. It recurses in its own code, or in serde's, where serde
//! passes it the same buffered value repeatedly, and no byte is read there.

mod de;
mod input;
mod nil;
mod ser;
#[cfg(test)]
mod tests;

use super::{DecodeError, EncodeError};
use crate::config::MESSAGE_DEPTH_MAX;
use de::Deserializer;
use input::Input;
use ser::Serializer;
pub(super) use ser::SerializerOutput;

/// Extension type of a nil inside `Some`s. Its one byte of data is their number, at least 1.
pub(super) const SOME_TYPE: i8 = 0x53;

/// Encoding of nil.
const NIL: u8 = 0xc0;

/// Marker of an extension with one byte of data.
const FIXEXT1: u8 = 0xd4;

/// Appends a value to `out`.
///
/// # Errors
///
/// When the value nests too deep, or its own `Serialize` fails.
#[inline]
pub(super) fn write<T: serde::Serialize + ?Sized>(
    value: &T,
    out: &mut SerializerOutput,
) -> Result<(), EncodeError> {
    value.serialize(Serializer::new(out)).map_err(ser::SerializerError::into_inner)
}

/// Decodes the only value in `bytes`.
///
/// # Errors
///
/// When the bytes do not match the type, nest too deep, or continue after the value.
#[inline]
pub(super) fn read<'de, T: serde::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    let mut input = Input::new(bytes);
    let value = T::deserialize(Deserializer::new(&mut input))?;
    if input.is_empty() { Ok(value) } else { Err(DecodeError::TrailingBytes) }
}

/// Nesting depth of a value. It is passed down by value, so that nothing has to be undone on the
/// way up.
///
/// A sequence, tuple, map, struct, or variant with content is one level. A variant with several
/// fields is two, as it is written and buffered as a map around its fields. `Some` and newtype
/// structs are written as their content, and types can recurse through them alone (`struct
/// Count(Option<Box<Count>>)`). They are no levels, but the number of consecutive `Some`s and of
/// consecutive newtypes is limited.
#[derive(Clone, Copy, Debug)]
struct Depth {
    levels: u16,
    /// Consecutive `Some`s, with any newtypes between them.
    somes: u16,
    /// Consecutive newtypes.
    newtypes: u16,
}

impl Depth {
    const TOP: Self = Self { levels: 0, somes: 0, newtypes: 0 };

    /// Returns the depth of the content of a container at this depth.
    #[inline]
    fn in_container(self) -> Option<Self> {
        let levels = self.levels + 1;
        (usize::from(levels) <= MESSAGE_DEPTH_MAX).then_some(Self { levels, somes: 0, newtypes: 0 })
    }

    /// Returns the depth of the content of a `Some`.
    #[inline]
    fn in_some(self) -> Option<Self> {
        let somes = self.somes + 1;
        (usize::from(somes) <= MESSAGE_DEPTH_MAX).then_some(Self { somes, newtypes: 0, ..self })
    }

    /// Returns the depth of the content of a newtype struct.
    #[inline]
    fn in_newtype(self) -> Option<Self> {
        let newtypes = self.newtypes + 1;
        (usize::from(newtypes) <= MESSAGE_DEPTH_MAX).then_some(Self { newtypes, ..self })
    }
}
