//! Values as MessagePack, so that each arrives as it was sent.
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
//! Both directions are human-readable in serde's sense. Serde buffers the parts of untagged, internally
//! tagged and flattened types, and reads them from that buffer as human-readable; a type that has two
//! forms (`IpAddr`, say) has to be written in the form that is read.
//!
//! Invariants: neither direction goes through more than [`MESSAGE_DEPTH_MAX`] levels, as many `Some`s in a row
//! within each, and as many newtypes in a row within each of those; no length in the input reserves memory for
//! more elements than there are bytes left; what a peer sent never panics.
//!
//! The limit holds for what is read here. A type that contains itself through nothing but `Option`, newtypes and
//! `#[serde(transparent)]` recurses in code of its own or of serde's where serde hands it a buffered value again
//! and again, and no byte is read.

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
pub(super) use ser::Output;
use ser::Serializer;

/// The extension type of a nil within `Some`s. Its data is their number, one byte, at least 1.
pub(super) const SOME_TYPE: i8 = 0x53;

/// The byte of a nil.
const NIL: u8 = 0xc0;

/// The first byte of an extension with one byte of data.
const FIXEXT1: u8 = 0xd4;

/// Writes a value behind what `out` has already.
///
/// # Errors
///
/// When the value nests too deep, or its own `Serialize` fails.
#[inline]
pub(super) fn write<T: serde::Serialize + ?Sized>(value: &T, out: &mut Output) -> Result<(), EncodeError> {
    value.serialize(Serializer::new(out)).map_err(ser::Failed::into_inner)
}

/// Reads the one value that `bytes` are.
///
/// # Errors
///
/// When the bytes do not fit the type, nest too deep, or go on behind the value.
#[inline]
pub(super) fn read<'de, T: serde::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    let mut input = Input::new(bytes);
    let value = T::deserialize(Deserializer::new(&mut input))?;
    if input.is_empty() { Ok(value) } else { Err(DecodeError::TrailingBytes) }
}

/// How deep a value lies. It is handed down by value, so that nothing has to be undone on the way up.
///
/// A sequence, tuple, map or struct, and a variant with content, is one level; a variant with several fields is
/// two, itself and its fields, since it is written and buffered as a map around them. `Some` and newtype structs
/// are written as what they hold, and types can recurse through them alone
/// (`struct Count(Option<Box<Count>>)`). They are no levels, but as many `Some`s in a row are refused, and as
/// many newtypes.
#[derive(Clone, Copy, Debug)]
struct Depth {
    levels: u16,
    /// In a row, whatever newtypes stand between them.
    somes: u16,
    /// In a row.
    newtypes: u16,
}

impl Depth {
    const TOP: Self = Self { levels: 0, somes: 0, newtypes: 0 };

    /// The depth of what a container holds that lies at this depth.
    #[inline]
    fn in_container(self) -> Option<Self> {
        let levels = self.levels + 1;
        (usize::from(levels) <= MESSAGE_DEPTH_MAX).then_some(Self { levels, somes: 0, newtypes: 0 })
    }

    /// The depth of what a `Some` holds.
    #[inline]
    fn in_some(self) -> Option<Self> {
        let somes = self.somes + 1;
        (usize::from(somes) <= MESSAGE_DEPTH_MAX).then_some(Self { somes, newtypes: 0, ..self })
    }

    /// The depth of what a newtype struct holds.
    #[inline]
    fn in_newtype(self) -> Option<Self> {
        let newtypes = self.newtypes + 1;
        (usize::from(newtypes) <= MESSAGE_DEPTH_MAX).then_some(Self { newtypes, ..self })
    }
}
