//! Tests of payloads: attachments, scopes and formats without attachments.

use super::*;
use crate::wire::{Body, DecodeError, decode, encode};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Parcel {
    label: String,
    #[serde(with = "crate::wire::payload")]
    content: Bytes,
    more: Vec<Payload>,
}

fn parcel() -> Parcel {
    let more = vec![Payload::default(), Payload::from(vec![4; 1000])];
    Parcel { label: "parcel".into(), content: Bytes::from_static(b"content"), more }
}

fn body_of<T: Serialize>(value: &T) -> Body {
    encode(value, 1 << 20, |body| Body {
        message: body.message.into(),
        attachments: body.attachments.into(),
        trace: None,
    })
    .unwrap()
}

#[test]
fn payloads_are_sent_beside_the_message_by_handle() {
    let parcel = parcel();
    let body = body_of(&parcel);

    assert_eq!(body.attachments.len(), 3);
    assert_eq!(body.attachments[0].as_ptr(), parcel.content.as_ptr());
    // References only: the payloads themselves are not in the MessagePack part.
    assert!(body.message.len() < 60, "{} bytes", body.message.len());
    let read: Parcel = decode(&body).unwrap();
    assert_eq!(read.content.as_ptr(), parcel.content.as_ptr());
    assert_eq!(read, parcel);
}

#[test]
fn payloads_are_plain_bytes_outside_of_messages() {
    let parcel = parcel();
    let json = serde_json::to_string(&parcel).unwrap();
    assert_eq!(serde_json::from_str::<Parcel>(&json).unwrap(), parcel);
    let packed = rmp_serde::to_vec(&parcel).unwrap();
    assert_eq!(rmp_serde::from_slice::<Parcel>(&packed).unwrap(), parcel);
}

/// A type that embeds a text format in a message.
struct Json(Parcel);

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&serde_json::to_string(&self.0).unwrap())
    }
}

#[test]
fn text_formats_inside_of_a_message_contain_the_payload_bytes() {
    let body = body_of(&Json(parcel()));
    assert!(body.attachments.is_empty());
    let json: String = decode(&body).unwrap();
    assert_eq!(serde_json::from_str::<Parcel>(&json).unwrap(), parcel());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Text(String),
    Parcel(Parcel),
}

#[test]
fn payloads_round_trip_inside_of_untagged_enums() {
    let value = Untagged::Parcel(parcel());
    assert_eq!(decode::<Untagged>(&body_of(&value)).unwrap(), value);
}

#[test]
fn missing_payload_is_an_error() {
    let mut body = body_of(&parcel());
    body.attachments = body.attachments[..2].into();
    let err = decode::<Parcel>(&body).unwrap_err();
    let DecodeError::Deserialize(text) = err else { panic!("{err:?}") };
    assert!(text.contains("payload 2 of a message that carries 2"), "{text}");
}

#[test]
fn decoded_payload_is_the_only_handle_if_the_message_gives_it_away() {
    let Body { message, mut attachments, .. } = body_of(&Payload::from(vec![7; 1000]));
    let payload: Payload = crate::wire::decode_taking(&message, Some(&mut attachments)).unwrap();
    assert!(payload.0.is_unique());
}

#[test]
fn second_reference_to_a_payload_is_an_error() {
    let mut body = body_of(&(Payload::from(vec![1]), Payload::from(vec![2])));
    let mut message = body.message.to_vec();
    *message.last_mut().unwrap() = 0;
    body.message = message.into();
    let err = decode::<(Payload, Payload)>(&body).unwrap_err();
    assert_eq!(err, DecodeError::Deserialize("payload 0 is referred to twice".into()));
}

#[test]
fn vector_of_the_thread_is_kept_small() {
    let many: Vec<_> = (0..10 * KEPT_MAX).map(|at| Payload::from(vec![at as u8])).collect();
    assert_eq!(decode::<Vec<Payload>>(&body_of(&many)).unwrap(), many);
    assert!(ATTACHMENTS.with_borrow(|all| all.is_empty() && all.capacity() <= KEPT_MAX));
}

#[test]
fn reference_in_a_message_without_payloads_is_an_error() {
    let body = Body { message: body_of(&Payload::default()).message, ..Body::empty() };
    let err = decode::<Payload>(&body).unwrap_err();
    let DecodeError::Deserialize(text) = err else { panic!("{err:?}") };
    assert!(text.contains("payload 0 of a message that carries 0"), "{text}");
    assert!(SCOPE.get().is_none());
}

#[test]
fn bytes_that_look_like_a_reference_are_plain_bytes_outside_of_a_message() {
    let read: Payload = rmp_serde::from_slice(&body_of(&Payload::default()).message).unwrap();
    assert_eq!(*read, Reference(0).to_bytes());
}

/// Encodes and decodes another message during its own serialization.
struct Nested(Payload);

impl Serialize for Nested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner: Parcel = decode(&body_of(&parcel())).unwrap();
        assert_eq!(inner, parcel());
        (inner.label, &self.0).serialize(serializer)
    }
}

#[test]
fn message_encoded_inside_of_another_keeps_its_own_payloads() {
    let body = body_of(&(Payload::from(vec![1]), Nested(Payload::from(vec![2]))));
    assert_eq!(*body.attachments, [&[1_u8][..], &[2]]);
    let (first, (label, second)): (Payload, (String, Payload)) = decode(&body).unwrap();
    assert_eq!((&*first, label.as_str(), &*second), (&[1_u8][..], "parcel", &[2_u8][..]));
}

struct Failing;

impl Serialize for Failing {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

struct Panicking;

impl Serialize for Panicking {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("not today either")
    }
}

#[test]
fn scope_closes_after_errors_and_panics() {
    let failed = encode(&(Payload::from(vec![1]), Failing), 100, |_| ());
    assert_eq!(failed, Err(crate::wire::EncodeError::Serialize("not today".into())));
    let panicked = std::panic::catch_unwind(|| encode(&(Payload::from(vec![1]), Panicking), 100, |_| ()));
    assert!(panicked.is_err());

    assert!(SCOPE.get().is_none());
    assert_eq!(serde_json::to_string(&Payload::from(vec![1, 2])).unwrap(), "[1,2]");
}

#[test]
fn debug_shows_the_length_alone() {
    assert_eq!(format!("{:?}", Payload::from(vec![1, 2])), "Payload(2 bytes)");
}
