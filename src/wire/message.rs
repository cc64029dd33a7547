//! Values to bodies and back.

use std::cell::Cell;
use std::io;

use rmp_serde::{Deserializer, Serializer};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use super::body::{self, Encoded};
use super::{DecodeError, EncodeError, payload};
use crate::config::{ATTACHMENTS_MAX, SCRATCH_BYTES_KEPT};

/// How deeply the values of a message may be nested when it is decoded.
///
/// Each level takes some kilobytes of stack in a debug build, and threads have two megabytes.
const DEPTH_MAX: usize = 128;

/// Encodes `value` and hands the body to `then`.
///
/// The body lies in place, or in a buffer that the thread keeps for the next one. `then` runs after all of the
/// value's own code, so that it may take locks; whatever encodes another value meanwhile gets
/// another buffer. Structs are written as maps of their field names, so that fields which their
/// type skips or defaults are safe.
///
/// # Errors
///
/// When the body takes over `limit` bytes (memory beyond the limit is never allocated), when it
/// carries too many payloads, or when the value's own `Serialize` fails. `then` does not run.
#[inline]
pub fn encode<T, R>(value: &T, limit: usize, then: impl FnOnce(Encoded<'_>) -> R) -> Result<R, EncodeError>
where
    T: Serialize + ?Sized,
{
    let mut scratch = Scratch::new(limit);
    let scope = payload::Encoding::begin();
    if let Err(err) = value.serialize(&mut Serializer::new(&mut scratch).with_struct_map()) {
        return Err(EncodeError::Serialize(err.to_string()));
    }
    // Most messages have none: then there is no vector that would be moved and dropped.
    let taken;
    let attachments = match scope.end() {
        None => &[][..],
        Some(attachments) => {
            taken = attachments;
            &taken
        }
    };
    if attachments.len() > ATTACHMENTS_MAX {
        return Err(EncodeError::TooManyAttachments { count: attachments.len(), limit: ATTACHMENTS_MAX });
    }
    let size = body::size(scratch.size, attachments);
    if size > limit {
        return Err(EncodeError::TooLarge { size, limit });
    }
    Ok(then(Encoded { message: scratch.bytes(), attachments }))
}

/// Decodes the value that `body` is.
///
/// # Errors
///
/// When the body does not fit the type, is nested over 128 levels deep, refers to payloads that
/// it does not carry, or goes on behind the value.
#[inline]
pub fn decode<'a, T: DeserializeOwned>(body: impl Into<Encoded<'a>>) -> Result<T, DecodeError> {
    let Encoded { message, attachments } = body.into();
    let mut deserializer = Deserializer::from_read_ref(message);
    deserializer.set_max_depth(DEPTH_MAX);
    let value = payload::attached_to(attachments, || T::deserialize(&mut deserializer));
    let value = value.map_err(|err| DecodeError::Deserialize(err.to_string()))?;
    // The deserializer does not show how far it read, but only at the end it misses a marker.
    match <()>::deserialize(&mut deserializer) {
        Err(end @ rmp_serde::decode::Error::InvalidMarkerRead(_)) => {
            // A slice that has ended is a constant error, which holds no memory. To find that out when it is
            // dropped costs as much as to decode a number.
            std::mem::forget(end);
            Ok(value)
        }
        _ => Err(DecodeError::TrailingBytes),
    }
}

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How many bytes are encoded in place: as many as most calls and replies take.
const IN_PLACE_MAX: usize = 64;

/// Where a value is encoded to: in place, or the thread's buffer once it takes more. It stores up to
/// `limit` bytes and counts all of them.
struct Scratch {
    here: [u8; IN_PLACE_MAX],
    /// Taken from the thread if it is needed.
    more: Option<Vec<u8>>,
    size: usize,
    limit: usize,
}

impl Scratch {
    #[inline]
    fn new(limit: usize) -> Self {
        Self { here: [0; IN_PLACE_MAX], more: None, size: 0, limit }
    }

    /// What was written, if it is within the limit.
    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.more {
            None => &self.here[..self.size],
            Some(bytes) => bytes,
        }
    }

    /// Writes what does not fit in place.
    fn write_more(&mut self, bytes: &[u8], size: usize) {
        if size > self.limit {
            return;
        }
        let here = &self.here[..self.size.min(IN_PLACE_MAX)];
        let more = self.more.get_or_insert_with(|| {
            let mut kept = KEPT.take();
            kept.extend_from_slice(here);
            kept
        });
        if size > more.capacity() {
            // By doubling, but never beyond the limit.
            let doubled = more.capacity().saturating_mul(2).min(self.limit);
            more.reserve_exact(doubled.max(size) - more.len());
        }
        more.extend_from_slice(bytes);
    }
}

impl io::Write for Scratch {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let size = self.size.saturating_add(bytes.len());
        match self.here.get_mut(self.size..size) {
            Some(place) if size <= self.limit => place.copy_from_slice(bytes),
            _ => self.write_more(bytes, size),
        }
        self.size = size;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut bytes) = self.more.take()
            && bytes.capacity() <= SCRATCH_BYTES_KEPT
        {
            bytes.clear();
            KEPT.set(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::wire::{Body, Payload};

    fn body_of<T: Serialize + ?Sized>(value: &T) -> Body {
        encode(value, 1 << 20, |body| Body {
            message: body.message.into(),
            attachments: body.attachments.into(),
        })
        .unwrap()
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        second: Option<u32>,
        names: BTreeMap<String, char>,
    }

    #[test]
    fn values_come_back() {
        let settings = Settings { first: None, second: Some(2), names: [("a".into(), 'ä')].into() };
        assert_eq!(decode::<Settings>(&body_of(&settings)).unwrap(), settings);
        assert_eq!(decode::<String>(&body_of("text")).unwrap(), "text");
        assert_eq!(decode::<Vec<i64>>(&body_of(&[i64::MIN, 0, i64::MAX])).unwrap(), [i64::MIN, 0, i64::MAX]);
        decode::<()>(&body_of(&())).unwrap();
    }

    #[test]
    fn body_that_does_not_fit_its_type_is_an_error() {
        assert!(matches!(decode::<u32>(&body_of("text")), Err(DecodeError::Deserialize(_))));
        assert!(matches!(decode::<()>(&Body::empty()), Err(DecodeError::Deserialize(_))));
    }

    #[test]
    fn bytes_behind_the_value_are_an_error() {
        for trailing in [&b"\x01"[..], b"\xc0", b"\x91", b"\xdc", b"\xc1", b"\x93\x01\x02\x03"] {
            let mut message = body_of("text").message.to_vec();
            message.extend_from_slice(trailing);
            let body = Body { message: message.into(), attachments: Box::default() };
            assert_eq!(decode::<String>(&body), Err(DecodeError::TrailingBytes), "{trailing:02x?}");
        }
    }

    #[derive(Debug, Deserialize)]
    struct Deep(#[expect(dead_code, reason = "only its depth matters")] Vec<Self>);

    #[test]
    fn deeply_nested_bytes_are_an_error_and_no_stack_overflow() {
        let body = Body { message: vec![0x91; 1 << 20].into(), attachments: Box::default() };
        let err = decode::<Deep>(&body).unwrap_err();
        assert_eq!(err, DecodeError::Deserialize("depth limit exceeded".into()));
    }

    #[test]
    fn body_over_the_limit_is_refused_with_its_true_size_and_takes_no_memory() {
        KEPT.set(Vec::new());
        let long = vec!["0123456789"; 10_000];
        let err = encode(&long, 1000, |_| ()).unwrap_err();
        assert_eq!(err, EncodeError::TooLarge { size: 3 + 10_000 * 11, limit: 1000 });
        assert!(KEPT.take().capacity() <= 1000);
    }

    #[test]
    fn limit_counts_payloads_and_their_table() {
        let payload = Payload::from(vec![0; 100]);
        let (size, limit) = (1 + 4 + 100, 104);
        assert_eq!(encode(&payload, limit, |_| ()), Err(EncodeError::TooLarge { size, limit }));
        assert_eq!(encode(&payload, size, |body| body.len()), Ok(size));
    }

    #[test]
    fn more_payloads_than_a_frame_counts_are_refused() {
        let payloads = vec![Payload::default(); ATTACHMENTS_MAX + 1];
        let err = encode(&payloads, 1 << 30, |_| ()).unwrap_err();
        assert_eq!(
            err,
            EncodeError::TooManyAttachments { count: ATTACHMENTS_MAX + 1, limit: ATTACHMENTS_MAX }
        );
    }

    #[test]
    fn value_is_the_same_in_place_and_beyond() {
        for length in [0, IN_PLACE_MAX - 2, IN_PLACE_MAX - 1, IN_PLACE_MAX, 3 * IN_PLACE_MAX] {
            let value = ("x".repeat(length), length as u64, vec![length as u32; length]);
            assert_eq!(decode::<(String, u64, Vec<u32>)>(&body_of(&value)).unwrap(), value);
        }
    }

    #[test]
    fn buffer_is_used_again_unless_it_grew_large() {
        KEPT.set(Vec::new());
        let text = "x".repeat(2 * IN_PLACE_MAX);
        let first = encode(&text, 1000, |body| body.message.as_ptr() as usize).unwrap();
        let second = encode(&text, 1000, |body| body.message.as_ptr() as usize).unwrap();
        assert_eq!(first, second);

        let large = "x".repeat(2 * SCRATCH_BYTES_KEPT);
        encode(&large, usize::MAX, |_| ()).unwrap();
        assert_eq!(KEPT.take().capacity(), 0);
    }

    #[test]
    fn value_encoded_while_another_is_borrowed_gets_another_buffer() {
        let (outer, inner) = encode("outer", 100, |outer| {
            let inner = encode("inner", 100, |inner| inner.message.to_vec()).unwrap();
            (outer.message.to_vec(), inner)
        })
        .unwrap();
        assert_eq!((&outer[1..], &inner[1..]), (&b"outer"[..], &b"inner"[..]));
    }
}
