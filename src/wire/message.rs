//! Encoding of values into bodies, and decoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body::{self, Encoded};
use super::msgpack::{self, SerializerOutput};
use super::{Attachments, DecodeError, EncodeError, payload};
use crate::config::ATTACHMENTS_MAX;

/// Encodes `value`, and passes the body to `then`.
///
/// The body lies on the stack, or in a buffer that the thread reuses. `then` runs after all code of
/// the value, so it may take locks. A value that is encoded meanwhile gets another buffer. Structs
/// are written as maps from field names, so fields that their type skips or defaults are supported.
///
/// Use [`encode_message`] for a value that another process reads.
///
/// # Errors
///
/// When the body takes over `limit` bytes, nests over
/// [`MESSAGE_DEPTH_MAX`](crate::config::MESSAGE_DEPTH_MAX) levels deep, or has too many payloads, or
/// when the value's own `Serialize` fails. `then` does not run. Memory beyond the limit is never
/// allocated.
#[inline]
pub fn encode<T, R>(value: &T, limit: usize, then: impl FnOnce(Encoded<'_>) -> R) -> Result<R, EncodeError>
where
    T: Serialize + ?Sized,
{
    encode_and_check(value, limit, |_| Ok(()), then)
}

/// As [`encode`], but fails if the value could not be decoded again.
///
/// This concerns 128-bit integers. Serde cannot read them where it has to buffer: in untagged,
/// internally tagged and flattened types. Only a value with such an integer is decoded as a check.
///
/// # Errors
///
/// As [`encode`], and when the value could not be decoded.
#[inline]
pub fn encode_message<T, R>(
    value: &T,
    limit: usize,
    then: impl FnOnce(Encoded<'_>) -> R,
) -> Result<R, EncodeError>
where
    T: Serialize + DeserializeOwned,
{
    encode_and_check(value, limit, |body| decode::<T>(body).map(drop), then)
}

#[inline]
fn encode_and_check<T, R>(
    value: &T,
    limit: usize,
    check: impl FnOnce(Encoded<'_>) -> Result<(), DecodeError>,
    then: impl FnOnce(Encoded<'_>) -> R,
) -> Result<R, EncodeError>
where
    T: Serialize + ?Sized,
{
    let mut out = SerializerOutput::new(limit);
    // The scope ends before `then` runs: a message that `then` encodes must not add to these
    // attachments.
    let scope = payload::Encoding::begin();
    msgpack::write(value, &mut out)?;
    // Most messages have none: without this branch an empty vector would be moved and dropped for
    // each.
    let taken;
    let attachments = match scope.end() {
        None => &[][..],
        Some(attachments) => {
            taken = attachments;
            &taken[..]
        }
    };
    if attachments.len() > ATTACHMENTS_MAX {
        return Err(EncodeError::TooManyAttachments { count: attachments.len(), limit: ATTACHMENTS_MAX });
    }
    let size = body::size(out.bytes.size(), attachments);
    if size > limit {
        return Err(EncodeError::TooLarge { size, limit });
    }
    let body = Encoded { message: out.bytes.bytes(), attachments };
    // Decoding every message as a check would double the cost of sending. Only wide integers can
    // fail.
    if out.has_wide_integer {
        check(body).map_err(unreadable)?;
    }
    Ok(then(body))
}

#[cold]
fn unreadable(error: DecodeError) -> EncodeError {
    EncodeError::Serialize(format!(
        "it could not be decoded again ({error}); serde has no 128-bit integers in untagged, internally tagged \
         and flattened types: send them as two halves or as text"
    ))
}

/// Decodes the value in `body`.
///
/// # Errors
///
/// When the body does not match the type, nests over
/// [`MESSAGE_DEPTH_MAX`](crate::config::MESSAGE_DEPTH_MAX) levels deep, refers to missing payloads,
/// or has bytes after the value.
#[inline]
pub fn decode<'a, T: DeserializeOwned>(body: impl Into<Encoded<'a>>) -> Result<T, DecodeError> {
    let Encoded { message, attachments } = body.into();
    match attachments {
        [] => decode_taking(message, None),
        attachments => decode_taking(message, Some(&mut attachments.into())),
    }
}

/// As [`decode`], with attachments that the value takes: a payload then needs no reference count.
///
/// # Errors
///
/// As [`decode`].
#[inline]
pub fn decode_taking<T: DeserializeOwned>(
    message: &[u8],
    attachments: Option<&mut Attachments>,
) -> Result<T, DecodeError> {
    payload::with_attachments(attachments, || msgpack::read(message))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::config::ENCODE_BUFFER_RETAINED_BYTES;
    use crate::wire::scratch::{ENCODE_BUFFER, STACK_BUFFER_BYTES};
    use crate::wire::{Body, Payload};

    fn body_of<T: Serialize + ?Sized>(value: &T) -> Body {
        encode(value, 1 << 20, |body| Body {
            message: body.message.into(),
            attachments: body.attachments.into(),
            trace: None,
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
    fn values_round_trip() {
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
    fn bytes_after_the_value_are_an_error() {
        for trailing in [&b"\x01"[..], b"\xc0", b"\x91", b"\xdc", b"\xc1", b"\x93\x01\x02\x03"] {
            let mut message = body_of("text").message.to_vec();
            message.extend_from_slice(trailing);
            let body = Body { message: message.into(), ..Body::empty() };
            assert_eq!(decode::<String>(&body), Err(DecodeError::TrailingBytes), "{trailing:02x?}");
        }
    }

    #[derive(Debug, Deserialize)]
    struct Deep(#[expect(dead_code, reason = "only its depth matters")] Vec<Self>);

    #[test]
    fn deeply_nested_bytes_are_an_error_and_no_stack_overflow() {
        // A mebibyte of nested arrays, as a peer may send it.
        let body = Body { message: vec![0x91; 1 << 20].into(), ..Body::empty() };
        let err = decode::<Deep>(&body).unwrap_err();
        assert_eq!(err, DecodeError::TooDeep { limit: 128 });
    }

    #[test]
    fn body_over_the_limit_is_rejected_with_its_size_and_allocates_no_more_than_the_limit() {
        ENCODE_BUFFER.set(Vec::new());
        let long = vec!["0123456789"; 10_000];
        let err = encode(&long, 1000, |_| ()).unwrap_err();
        assert_eq!(err, EncodeError::TooLarge { size: 3 + 10_000 * 11, limit: 1000 });
        assert!(ENCODE_BUFFER.take().capacity() <= 1000);
    }

    #[test]
    fn limit_counts_payloads_and_their_table() {
        let payload = Payload::from(vec![0; 100]);
        let (size, limit) = (10 + 4 + 100, 113);
        assert_eq!(encode(&payload, limit, |_| ()), Err(EncodeError::TooLarge { size, limit }));
        assert_eq!(encode(&payload, size, |body| body.len()), Ok(size));
    }

    #[test]
    fn more_payloads_than_a_frame_can_count_are_rejected() {
        let payloads = vec![Payload::default(); ATTACHMENTS_MAX + 1];
        let err = encode(&payloads, 1 << 30, |_| ()).unwrap_err();
        assert_eq!(
            err,
            EncodeError::TooManyAttachments { count: ATTACHMENTS_MAX + 1, limit: ATTACHMENTS_MAX }
        );
    }

    #[test]
    fn values_round_trip_on_the_stack_and_on_the_heap() {
        for length in
            [0, STACK_BUFFER_BYTES - 2, STACK_BUFFER_BYTES - 1, STACK_BUFFER_BYTES, 3 * STACK_BUFFER_BYTES]
        {
            let value = ("x".repeat(length), length as u64, vec![length as u32; length]);
            assert_eq!(decode::<(String, u64, Vec<u32>)>(&body_of(&value)).unwrap(), value);
        }
    }

    #[test]
    fn buffer_is_reused_unless_it_grew_large() {
        ENCODE_BUFFER.set(Vec::new());
        let text = "x".repeat(2 * STACK_BUFFER_BYTES);
        let first = encode(&text, 1000, |body| body.message.as_ptr() as usize).unwrap();
        let second = encode(&text, 1000, |body| body.message.as_ptr() as usize).unwrap();
        assert_eq!(first, second);

        let large = "x".repeat(2 * ENCODE_BUFFER_RETAINED_BYTES);
        encode(&large, usize::MAX, |_| ()).unwrap();
        assert_eq!(ENCODE_BUFFER.take().capacity(), 0);
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
