//! Serializer.

use std::fmt::Display;

use rmp_serde::encode::Error as RmpError;
use serde::Serialize;
use serde::ser;

use super::{Depth, FIXEXT1, NIL, SOME_TYPE};
use crate::config::MESSAGE_DEPTH_MAX;
use crate::wire::scratch::Scratch;
use crate::wire::{EncodeError, payload};

/// Name by which rmp-serde's users mark extension types.
const EXT_STRUCT: &str = rmp_serde::MSGPACK_EXT_STRUCT_NAME;

/// Encoded bytes of one value, and observations about it.
#[derive(Debug)]
pub(in crate::wire) struct SerializerOutput {
    pub(in crate::wire) bytes: Scratch,
    /// Set if the value contains a 128-bit integer, which serde cannot buffer for untagged, tagged
    /// and flattened types.
    pub(in crate::wire) has_wide_integer: bool,
}

impl SerializerOutput {
    #[inline]
    pub(in crate::wire) fn new(limit: usize) -> Self {
        Self { bytes: Scratch::new(limit), has_wide_integer: false }
    }

    /// Marks a nil at `start` as one inside a further `Some`. Other values are unchanged.
    #[inline]
    fn mark_nil_in_some(&mut self, start: usize) {
        // The length identifies a nil: one byte plain, three bytes marked. No other value of that
        // length starts with these markers.
        match self.bytes.size() - start {
            1 => self.mark_plain_nil(start),
            3 => self.mark_marked_nil(start),
            _ => {}
        }
    }

    fn mark_plain_nil(&mut self, start: usize) {
        if self.bytes.written_mut(start..start + 1).is_some_and(|byte| *byte == [NIL]) {
            self.bytes.put(&[0; 2]);
            if let Some(mark) = self.bytes.written_mut(start..start + 3) {
                mark.copy_from_slice(&[FIXEXT1, SOME_TYPE as u8, 1]);
            }
        }
    }

    fn mark_marked_nil(&mut self, start: usize) {
        if let Some([FIXEXT1, kind, somes]) = self.bytes.written_mut(start..start + 3)
            && *kind == SOME_TYPE as u8
        {
            // Cannot overflow: `Depth` limits consecutive `Some`s.
            *somes += 1;
        }
    }
}

/// Error of the serializer: one word, as it is moved through every level of a value.
#[derive(Debug)]
pub(super) struct SerializerError(Box<EncodeError>);

impl SerializerError {
    #[cold]
    fn too_deep() -> Self {
        Self(Box::new(EncodeError::TooDeep { limit: MESSAGE_DEPTH_MAX }))
    }

    #[cold]
    fn new(text: impl Display) -> Self {
        Self(Box::new(EncodeError::Serialize(text.to_string())))
    }

    pub(super) fn into_inner(self) -> EncodeError {
        *self.0
    }
}

impl Display for SerializerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SerializerError {}

impl ser::Error for SerializerError {
    fn custom<T: Display>(text: T) -> Self {
        Self::new(text)
    }
}

impl From<RmpError> for SerializerError {
    #[cold]
    fn from(error: RmpError) -> Self {
        Self::new(error)
    }
}

/// Serializer of one value.
#[derive(Debug)]
pub(super) struct Serializer<'a> {
    out: &'a mut SerializerOutput,
    depth: Depth,
}

/// Methods that write an unsigned integer.
macro_rules! unsigned {
    ($($method:ident($ty:ty))*) => {$(
        #[inline]
        fn $method(self, value: $ty) -> Result<(), SerializerError> {
            put_unsigned(&mut self.out.bytes, value.into());
            Ok(())
        }
    )*};
}

/// Methods that write a scalar as rmp-serde does.
macro_rules! leaf {
    ($($method:ident($ty:ty))*) => {$(
        #[inline]
        fn $method(self, value: $ty) -> Result<(), SerializerError> {
            Ok(ser::Serializer::$method(&mut rmp_serde::Serializer::new(&mut self.out.bytes), value)?)
        }
    )*};
}

impl<'a> Serializer<'a> {
    #[inline]
    pub(super) fn new(out: &'a mut SerializerOutput) -> Self {
        Self { out, depth: Depth::TOP }
    }

    /// Starts the parts of this value.
    #[inline]
    fn parts(self, length: Option<usize>, header: Header) -> Result<PartsSerializer<'a>, SerializerError> {
        let depth = self.depth.in_container().ok_or_else(SerializerError::too_deep)?;
        PartsSerializer::begin(self.out, depth, length, header)
    }

    /// Starts a variant with content: a map from its name to the content. Returns the depth of the
    /// content.
    #[inline]
    fn variant(&mut self, name: &'static str) -> Result<Depth, SerializerError> {
        let depth = self.depth.in_container().ok_or_else(SerializerError::too_deep)?;
        put_length(&mut self.out.bytes, Header::Map, 1);
        put_str(&mut self.out.bytes, name)?;
        Ok(depth)
    }
}

impl<'a> ser::Serializer for Serializer<'a> {
    type Ok = ();
    type Error = SerializerError;
    type SerializeSeq = PartsSerializer<'a>;
    type SerializeTuple = PartsSerializer<'a>;
    type SerializeTupleStruct = PartsSerializer<'a>;
    type SerializeTupleVariant = PartsSerializer<'a>;
    type SerializeMap = PartsSerializer<'a>;
    type SerializeStruct = PartsSerializer<'a>;
    type SerializeStructVariant = PartsSerializer<'a>;

    unsigned! {
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
    }

    leaf! {
        serialize_bool(bool)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_f32(f32) serialize_f64(f64)
        serialize_char(char) serialize_bytes(&[u8])
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), SerializerError> {
        put_str(&mut self.out.bytes, text)
    }

    fn serialize_i128(self, value: i128) -> Result<(), SerializerError> {
        self.out.has_wide_integer = true;
        self.serialize_bytes(&value.to_be_bytes())
    }

    fn serialize_u128(self, value: u128) -> Result<(), SerializerError> {
        self.out.has_wide_integer = true;
        self.serialize_bytes(&value.to_be_bytes())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), SerializerError> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), SerializerError> {
        let start = self.out.bytes.size();
        let depth = self.depth.in_some().ok_or_else(SerializerError::too_deep)?;
        value.serialize(Serializer { out: &mut *self.out, depth })?;
        self.out.mark_nil_in_some(start);
        Ok(())
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), SerializerError> {
        self.out.bytes.put(&[NIL]);
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), SerializerError> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), SerializerError> {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), SerializerError> {
        match name {
            payload::NEWTYPE => payload::expected(|| value.serialize(self)),
            EXT_STRUCT => {
                Err(SerializerError::new("extension types of MessagePack cannot be sent; send bytes"))
            }
            _ => {
                let depth = self.depth.in_newtype().ok_or_else(SerializerError::too_deep)?;
                value.serialize(Serializer { out: self.out, depth })
            }
        }
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), SerializerError> {
        let depth = self.variant(variant)?;
        value.serialize(Serializer { out: self.out, depth })
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<PartsSerializer<'a>, SerializerError> {
        self.parts(length, Header::Array)
    }

    #[inline]
    fn serialize_tuple(self, length: usize) -> Result<PartsSerializer<'a>, SerializerError> {
        self.parts(Some(length), Header::Array)
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        length: usize,
    ) -> Result<PartsSerializer<'a>, SerializerError> {
        self.parts(Some(length), Header::Array)
    }

    #[inline]
    fn serialize_tuple_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<PartsSerializer<'a>, SerializerError> {
        let depth = self.variant(variant)?;
        Serializer { out: self.out, depth }.parts(Some(length), Header::Array)
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<PartsSerializer<'a>, SerializerError> {
        self.parts(length, Header::Map)
    }

    #[inline]
    fn serialize_struct(
        self,
        _name: &'static str,
        length: usize,
    ) -> Result<PartsSerializer<'a>, SerializerError> {
        self.parts(Some(length), Header::Map)
    }

    #[inline]
    fn serialize_struct_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<PartsSerializer<'a>, SerializerError> {
        let depth = self.variant(variant)?;
        Serializer { out: self.out, depth }.parts(Some(length), Header::Map)
    }
}

/// Kind of a header with a number of parts.
#[derive(Clone, Copy, Debug)]
enum Header {
    Array,
    Map,
}

impl Header {
    /// Markers of the three forms: for up to 15, up to 65,535, and all lengths.
    #[inline]
    const fn markers(self) -> [u8; 3] {
        match self {
            Self::Array => [0x90, 0xdc, 0xdd],
            Self::Map => [0x80, 0xde, 0xdf],
        }
    }
}

#[inline]
fn put_length(bytes: &mut Scratch, header: Header, length: u32) {
    let [short, medium, long] = header.markers();
    if length < 16 {
        bytes.put(&[short | length as u8]);
    } else if let Ok(length) = u16::try_from(length) {
        let [high, low] = length.to_be_bytes();
        bytes.put(&[medium, high, low]);
    } else {
        put_long_length(bytes, long, length);
    }
}

fn put_long_length(bytes: &mut Scratch, marker: u8, length: u32) {
    bytes.put(&[marker]);
    bytes.put(&length.to_be_bytes());
}

/// Writes an unsigned integer in its shortest form.
///
/// Written by hand, as small messages are mostly integers: rmp writes marker and value separately,
/// by a function that is not inlined.
#[inline]
fn put_unsigned(bytes: &mut Scratch, value: u64) {
    let [.., d, c, b, a] = value.to_be_bytes();
    match value {
        0..=0x7f => bytes.put(&[a]),
        0x80..=0xff => bytes.put(&[0xcc, a]),
        0x100..=0xffff => bytes.put(&[0xcd, b, a]),
        0x1_0000..=0xffff_ffff => bytes.put(&[0xce, d, c, b, a]),
        _ => {
            bytes.put(&[0xcf]);
            bytes.put(&value.to_be_bytes());
        }
    }
}

/// Writes a text; a short one with its marker in one piece.
///
/// Written by hand, as lists are mostly of short texts: rmp writes marker and text separately, each by a
/// function that is not inlined.
#[inline]
fn put_str(bytes: &mut Scratch, text: &str) -> Result<(), SerializerError> {
    if text.len() < 32 {
        bytes.put_behind(0xa0 | text.len() as u8, text.as_bytes());
        return Ok(());
    }
    put_long_str(bytes, text)
}

#[inline(never)]
fn put_long_str(bytes: &mut Scratch, text: &str) -> Result<(), SerializerError> {
    Ok(ser::Serializer::serialize_str(&mut rmp_serde::Serializer::new(bytes), text)?)
}

/// Serializer of the parts of a value.
#[derive(Debug)]
pub(super) struct PartsSerializer<'a> {
    out: &'a mut SerializerOutput,
    /// Depth of the parts.
    depth: Depth,
    length: Length,
    written: usize,
}

/// Number of parts of a value.
#[derive(Debug)]
enum Length {
    Announced(usize),
    /// Position of the four length bytes, which are written last.
    At(usize),
}

impl<'a> PartsSerializer<'a> {
    #[inline]
    fn begin(
        out: &'a mut SerializerOutput,
        depth: Depth,
        length: Option<usize>,
        header: Header,
    ) -> Result<Self, SerializerError> {
        let length = match length {
            Some(length) => {
                put_length(&mut out.bytes, header, checked(length)?);
                Length::Announced(length)
            }
            None => {
                put_long_length(&mut out.bytes, header.markers()[2], 0);
                Length::At(out.bytes.size() - 4)
            }
        };
        Ok(Self { out, depth, length, written: 0 })
    }

    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializerError> {
        self.written += 1;
        value.serialize(Serializer { out: self.out, depth: self.depth })
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), SerializerError> {
        put_str(&mut self.out.bytes, name)?;
        self.part(value)
    }

    /// Checks or writes the length: with a wrong one the reader would take later bytes for parts of
    /// this value.
    #[inline]
    fn finish(self) -> Result<(), SerializerError> {
        match self.length {
            Length::Announced(length) if length == self.written => Ok(()),
            Length::Announced(length) => Err(SerializerError::new(format_args!(
                "its Serialize announces {length} parts and writes {}",
                self.written
            ))),
            Length::At(at) => {
                let length = checked(self.written)?.to_be_bytes();
                if let Some(place) = self.out.bytes.written_mut(at..at + 4) {
                    place.copy_from_slice(&length);
                }
                Ok(())
            }
        }
    }
}

#[inline]
fn checked(length: usize) -> Result<u32, SerializerError> {
    u32::try_from(length)
        .map_err(|_| SerializerError::new(format_args!("MessagePack has no sequence of {length} parts")))
}

/// Implements the traits by which serde names the parts of a value.
macro_rules! parts {
    ($($kind:ident::$method:ident($($name:ident: &'static $str:ty)?) $part:ident;)*) => {$(
        impl ser::$kind for PartsSerializer<'_> {
            type Ok = ();
            type Error = SerializerError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: &'static $str,)?
                value: &T,
            ) -> Result<(), SerializerError> {
                self.$part($($name,)? value)
            }

            #[inline]
            fn end(self) -> Result<(), SerializerError> {
                self.finish()
            }
        }
    )*};
}

parts! {
    SerializeSeq::serialize_element() part;
    SerializeTuple::serialize_element() part;
    SerializeTupleStruct::serialize_field() part;
    SerializeTupleVariant::serialize_field() part;
    SerializeStruct::serialize_field(name: &'static str) field;
    SerializeStructVariant::serialize_field(name: &'static str) field;
}

impl ser::SerializeMap for PartsSerializer<'_> {
    type Ok = ();
    type Error = SerializerError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), SerializerError> {
        self.part(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializerError> {
        value.serialize(Serializer { out: self.out, depth: self.depth })
    }

    #[inline]
    fn end(self) -> Result<(), SerializerError> {
        self.finish()
    }
}
