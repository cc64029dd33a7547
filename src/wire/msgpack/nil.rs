//! Nil inside `Some`s.

use serde::de::{self, Visitor};
use serde::forward_to_deserialize_any;

use super::Depth;
use super::input::too_deep;
use crate::wire::DecodeError;

/// Deserializer of a nil inside `somes` further `Some`s.
#[derive(Clone, Copy, Debug)]
pub(super) struct NilInSomes {
    pub(super) somes: u8,
    pub(super) depth: Depth,
}

impl NilInSomes {
    /// Returns the content of the outermost `Some`; `None` for the nil itself.
    fn within(self) -> Result<Option<Self>, DecodeError> {
        let Some(somes) = self.somes.checked_sub(1) else { return Ok(None) };
        Ok(Some(Self { somes, depth: self.depth.in_some().ok_or_else(too_deep)? }))
    }
}

impl<'de> de::Deserializer<'de> for NilInSomes {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.within()? {
            Some(within) => visitor.visit_some(within),
            None => visitor.visit_unit(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.within()? {
            Some(within) => visitor.visit_some(within),
            None => visitor.visit_none(),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        // A newtype takes no byte, and a type may contain itself through newtypes alone: the depth
        // is the limit.
        visitor.visit_newtype_struct(Self { depth: self.depth.in_newtype().ok_or_else(too_deep)?, ..self })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
