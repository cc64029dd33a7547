//! Deserializer.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Error, Expected, Unexpected, Visitor};

use super::input::{Input, ValueHead, too_deep};
use super::nil::NilInSomes;
use super::{Depth, NIL};
use crate::wire::{DecodeError, payload};

/// Deserializer of one value.
#[derive(Debug)]
pub(super) struct Deserializer<'a, 'de> {
    input: &'a mut Input<'de>,
    depth: Depth,
}

impl<'a, 'de> Deserializer<'a, 'de> {
    #[inline]
    pub(super) fn new(input: &'a mut Input<'de>) -> Self {
        Self { input, depth: Depth::TOP }
    }

    #[inline]
    fn in_container(self) -> Result<Self, DecodeError> {
        Ok(Self { depth: self.depth.in_container().ok_or_else(too_deep)?, ..self })
    }

    #[inline]
    fn in_some(self) -> Result<Self, DecodeError> {
        Ok(Self { depth: self.depth.in_some().ok_or_else(too_deep)?, ..self })
    }

    #[inline]
    fn in_newtype(self) -> Result<Self, DecodeError> {
        Ok(Self { depth: self.depth.in_newtype().ok_or_else(too_deep)?, ..self })
    }

    /// Passes a value whose head has been taken to the visitor.
    #[inline]
    fn visit<V: Visitor<'de>>(self, head: ValueHead<'de>, visitor: V) -> Result<V::Value, DecodeError> {
        match head {
            ValueHead::NilInSomes(somes) => self.nil_in_somes(somes, visitor),
            ValueHead::Array(length) => self.array(length, visitor),
            ValueHead::Map(length) => self.map(length, visitor),
            scalar => Self::scalar(scalar, visitor),
        }
    }

    #[inline]
    fn nil_in_somes<V: Visitor<'de>>(self, somes: u8, visitor: V) -> Result<V::Value, DecodeError> {
        let depth = self.in_some()?.depth;
        visitor.visit_some(NilInSomes { somes: somes - 1, depth })
    }

    /// Passes a scalar to the visitor. Fails for values with parts.
    #[inline]
    fn scalar<V: Visitor<'de>>(head: ValueHead<'de>, visitor: V) -> Result<V::Value, DecodeError> {
        match head {
            ValueHead::Nil => visitor.visit_unit(),
            ValueHead::Bool(value) => visitor.visit_bool(value),
            ValueHead::Unsigned(value) => visitor.visit_u64(value),
            ValueHead::Signed(value) => visitor.visit_i64(value),
            ValueHead::F32(value) => visitor.visit_f32(value),
            ValueHead::F64(value) => visitor.visit_f64(value),
            ValueHead::Str(text) => visitor.visit_borrowed_str(text),
            ValueHead::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            ValueHead::NilInSomes(_) | ValueHead::Array(_) | ValueHead::Map(_) => {
                Err(DecodeError::invalid_type(head.unexpected(), &visitor))
            }
        }
    }

    /// Passes the elements of an array whose head has been taken to the visitor.
    #[inline]
    fn array<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        let mut parts = self.parts(length)?;
        let value = visitor.visit_seq(&mut parts);
        parts.end(length, value)
    }

    /// Passes the pairs of a map whose head has been taken to the visitor.
    #[inline]
    fn map<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        let mut parts = self.parts(length)?;
        let value = visitor.visit_map(&mut parts);
        parts.end(length, value)
    }

    #[inline]
    fn parts(self, length: usize) -> Result<PartsAccess<'a, 'de>, DecodeError> {
        let Self { input, depth } = self.in_container()?;
        Ok(PartsAccess { input, depth, left: length })
    }
}

/// Methods that decode by the marker alone, as all types of MessagePack are self-describing.
macro_rules! by_its_head {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.deserialize_any(visitor)
        }
    )*};
}

/// Methods that decode an integer; most are unsigned and small.
macro_rules! integers {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match self.input.take_unsigned() {
                // Skips the construction of a `ValueHead` for the most frequent case.
                Some(value) => visitor.visit_u64(value),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Deserializer<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let head = self.input.head()?;
        self.visit(head, visitor)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    by_its_head! {
        deserialize_bool
        deserialize_f32 deserialize_f64
        deserialize_char
        deserialize_bytes deserialize_byte_buf
        deserialize_unit
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.input.take_short_str() {
            // Skips the construction of a `ValueHead` for the most frequent case.
            Some(text) => visitor.visit_borrowed_str(text),
            None => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let head = self.input.head()?;
        match head {
            ValueHead::Bytes(bytes) => match bytes.try_into() {
                Ok(bytes) => visitor.visit_i128(i128::from_be_bytes(bytes)),
                Err(_) => Err(DecodeError::invalid_type(head.unexpected(), &visitor)),
            },
            other => self.visit(other, visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let head = self.input.head()?;
        match head {
            ValueHead::Bytes(bytes) => match bytes.try_into() {
                Ok(bytes) => visitor.visit_u128(u128::from_be_bytes(bytes)),
                Err(_) => Err(DecodeError::invalid_type(head.unexpected(), &visitor)),
            },
            other => self.visit(other, visitor),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.input.take_if(NIL) {
            return visitor.visit_none();
        }
        if self.input.peek() == Some(super::FIXEXT1) {
            // One byte of look-ahead: nil is `None`, and only this extension may be a nil inside of
            // `Some`s.
            let somes = self.input.nil_in_somes(&visitor)?;
            return self.nil_in_somes(somes, visitor);
        }
        visitor.visit_some(self.in_some()?)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.input.head()? {
            // An empty array is the encoding of rmp-serde.
            ValueHead::Array(0) => visitor.visit_unit(),
            head => self.visit(head, visitor),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let inner = self.in_newtype()?;
        match name {
            payload::NEWTYPE => payload::expected(|| visitor.visit_newtype_struct(inner)),
            _ => visitor.visit_newtype_struct(inner),
        }
    }

    // A type that asks for one kind of value gets no code for the others: each type has a copy of this code, and
    // its visitor would return an error.

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let length = self.input.array(&visitor)?;
        self.array(length, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let length = self.input.map(&visitor)?;
        self.map(length, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_map(visitor)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.input.head()? {
            ValueHead::Str(name) => visitor.visit_borrowed_str(name),
            // A flattened map has its own keys beside the names of fields. Serde accepts scalars as such keys.
            head => Self::scalar(head, visitor),
        }
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        // One type of accessor for both forms: the code of an enum is generated once for each.
        let variant = self.variant(&visitor)?;
        visitor.visit_enum(variant)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.input.skip(self.depth)?;
        visitor.visit_unit()
    }
}

impl<'a, 'de> Deserializer<'a, 'de> {
    /// Takes the name of a variant.
    fn variant(self, expected: &dyn Expected) -> Result<Variant<'a, 'de>, DecodeError> {
        match self.input.head()? {
            ValueHead::Str(name) => Ok(Variant { name, content: None }),
            ValueHead::Map(1) => {
                let content = self.in_container()?;
                let name = content.input.name(&"the name of a variant")?;
                Ok(Variant { name, content: Some(content) })
            }
            other => Err(DecodeError::invalid_type(other.unexpected(), expected)),
        }
    }
}

/// Accessor of the parts of a value, in order.
#[derive(Debug)]
struct PartsAccess<'a, 'de> {
    input: &'a mut Input<'de>,
    /// Depth of the parts.
    depth: Depth,
    left: usize,
}

impl<'de> PartsAccess<'_, 'de> {
    #[inline]
    fn part<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        seed.deserialize(Deserializer { input: self.input, depth: self.depth })
    }

    /// Returns the result of the parts, or an error if parts of `length` are left.
    ///
    /// A type that ignores parts would leave them in the input, where they shift all later values.
    #[inline]
    fn end<T>(self, length: usize, value: Result<T, DecodeError>) -> Result<T, DecodeError> {
        if self.left > 0 && value.is_ok() {
            return Err(parts_left(length, self.left));
        }
        value
    }

    /// Returns the next part, or `None` after the last.
    #[inline]
    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.part(seed).map(Some)
    }
}

#[cold]
fn parts_left(length: usize, left: usize) -> DecodeError {
    DecodeError::invalid_length(length, &format!("{left} fewer").as_str())
}

impl<'de> de::SeqAccess<'de> for &mut PartsAccess<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        self.next(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for &mut PartsAccess<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        self.next(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        self.part(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// Deserializer of a variant: its name, then its content if it has any.
#[derive(Debug)]
struct Variant<'a, 'de> {
    name: &'de str,
    content: Option<Deserializer<'a, 'de>>,
}

impl<'a, 'de> de::EnumAccess<'de> for Variant<'a, 'de> {
    type Error = DecodeError;
    type Variant = VariantContent<'a, 'de>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, VariantContent<'a, 'de>), DecodeError> {
        let variant = seed.deserialize(BorrowedStrDeserializer::new(self.name))?;
        Ok((variant, VariantContent(self.content)))
    }
}

/// Content of a variant.
#[derive(Debug)]
struct VariantContent<'a, 'de>(Option<Deserializer<'a, 'de>>);

impl<'a, 'de> VariantContent<'a, 'de> {
    fn content(self, expected: &dyn Expected) -> Result<Deserializer<'a, 'de>, DecodeError> {
        self.0.ok_or_else(|| DecodeError::invalid_type(Unexpected::UnitVariant, expected))
    }
}

impl<'de> de::VariantAccess<'de> for VariantContent<'_, 'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        self.0.map_or(Ok(()), de::Deserialize::deserialize)
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, DecodeError> {
        seed.deserialize(self.content(&"newtype variant")?)
    }

    // The content of several parts is a level of its own, as it is for a type that is read from serde's
    // buffer.

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_seq(self.content(&"tuple variant")?, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_map(self.content(&"struct variant")?, visitor)
    }
}
