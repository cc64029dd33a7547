//! Bytes that travel beside the MessagePack part of a message, without a copy on either side. Where
//! the message takes several chunks, over a mebibyte by default, the receiver copies them once.
//!
//! While [`encode`](super::encode) or [`decode`](super::decode) runs, a scope on the thread holds
//! the attachments of its body. A payload that is serialized there goes into the scope by handle,
//! and only its index into the MessagePack part. Anywhere else it serializes as bytes, so that
//! types with payloads can also be written as JSON and the like.
//!
//! The functions of this module are for `#[serde(with = "roadshow::payload")]` on a [`Bytes`]
//! field; [`Payload`] is the same as a type.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are sent from where they lie, and arrive as a slice of what was read.
///
/// A slice keeps what it was read with alive: of a long message that message alone, of a short one
/// 64 KiB or more. Copy a small part out if it is to be kept for long. A [`Bytes`] with an owner of its own is dropped wherever its last handle goes, so that
/// owner's `Drop` must not send messages.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Payload(Bytes);

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        payload.0
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

/// Serializes a [`Bytes`] field as a payload.
///
/// # Errors
///
/// The serializer's.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    // A text format inside a message (a field that holds JSON, say) outlives the message, so an
    // index into its attachments would mean nothing there.
    let index = if serializer.is_human_readable() { None } else { attach(bytes) };
    match index {
        Some(index) => serializer.serialize_u32(index),
        None => serializer.serialize_bytes(bytes),
    }
}

/// Deserializes a [`Bytes`] field that was serialized as a payload.
///
/// # Errors
///
/// The deserializer's, or that the message does not carry the payload.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    // What serde buffers for an untagged enum calls itself human readable, so only the value
    // itself tells an index from bytes.
    if SCOPE.get().is_decoding() {
        deserializer.deserialize_any(BytesVisitor)
    } else {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload")
    }

    fn visit_u64<E: de::Error>(self, index: u64) -> Result<Bytes, E> {
        attached(index).map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
        // The hint is the peer's word: no memory is reserved for it.
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

/// Whose attachments a payload belongs to that is serialized or deserialized on this thread now, and how
/// many it has.
///
/// In one word: it is changed for each message, and a word is read as it was written.
#[derive(Clone, Copy)]
struct Scope(u64);

impl Scope {
    const NONE: Self = Self(0);
    const ENCODING: Self = Self(1 << 32);
    const DECODING: Self = Self(2 << 32);

    fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }

    fn is_encoding(self) -> bool {
        self.0 & Self::ENCODING.0 > 0
    }

    fn is_decoding(self) -> bool {
        self.0 & Self::DECODING.0 > 0
    }

    fn count(self) -> u32 {
        self.0 as u32
    }

    fn with_count(self, count: u32) -> Self {
        Self(self.0 >> 32 << 32 | u64::from(count))
    }
}

thread_local! {
    static SCOPE: Cell<Scope> = const { Cell::new(Scope::NONE) };
    /// The attachments of all scopes, those of the innermost last.
    static ATTACHMENTS: RefCell<Vec<Bytes>> = const { RefCell::new(Vec::new()) };
}

/// A scope within the one that was there, until it is dropped.
struct Within {
    outer: Scope,
}

impl Within {
    #[inline(always)]
    fn new(scope: Scope) -> Self {
        Self { outer: SCOPE.replace(scope) }
    }

    #[cold]
    fn drop_attachments(&self) {
        let left = take_attachments();
        SCOPE.set(self.outer);
        // Last: to drop what somebody else owns may encode something in turn.
        drop(left);
    }
}

impl Drop for Within {
    #[inline(always)]
    fn drop(&mut self) {
        if SCOPE.get().count() > 0 {
            return self.drop_attachments();
        }
        SCOPE.set(self.outer);
    }
}

/// Adds to the attachments of the scope. `None`, and nothing is added, where they cannot be counted any
/// more, or the thread is at its end.
fn add(bytes: &[Bytes]) -> Option<()> {
    let scope = SCOPE.get();
    let count = scope.count().checked_add(u32::try_from(bytes.len()).ok()?)?;
    ATTACHMENTS.try_with(|all| all.borrow_mut().extend_from_slice(bytes)).ok()?;
    SCOPE.set(scope.with_count(count));
    Some(())
}

/// Takes the attachments of the scope.
#[cold]
fn take_attachments() -> Vec<Bytes> {
    let scope = SCOPE.replace(SCOPE.get().with_count(0));
    let taken = ATTACHMENTS.try_with(|all| {
        let mut all = all.borrow_mut();
        match all.len() - scope.count() as usize {
            0 => std::mem::take(&mut *all),
            start => all.split_off(start),
        }
    });
    taken.unwrap_or_default()
}

/// While it lives, payloads that are serialized on this thread belong to one message.
pub(super) struct Encoding(Within);

impl Encoding {
    #[inline(always)]
    pub(super) fn begin() -> Self {
        Self(Within::new(Scope::ENCODING))
    }

    /// Gives the payloads that were serialized meanwhile, if there are any.
    #[inline(always)]
    pub(super) fn end(self) -> Option<Vec<Bytes>> {
        let Self(_within) = self;
        (SCOPE.get().count() > 0).then(take_attachments)
    }
}

/// Runs `work`, which may deserialize these payloads.
#[inline(always)]
pub(super) fn attached_to<R>(attachments: &[Bytes], work: impl FnOnce() -> R) -> R {
    // Most messages have none, and there is nothing around them that they could take for theirs.
    if attachments.is_empty() && SCOPE.get().is_none() {
        return work();
    }
    let _within = Within::new(Scope::DECODING);
    // Where that is not possible none is found, and the value is not decoded.
    let _ = add(attachments);
    work()
}

/// Adds `bytes` to the message that is encoded on this thread; `None` outside of any.
fn attach(bytes: &Bytes) -> Option<u32> {
    let scope = SCOPE.get();
    if !scope.is_encoding() {
        return None;
    }
    add(std::slice::from_ref(bytes))?;
    Some(scope.count())
}

/// The payload with this index of the message that is decoded on this thread.
fn attached(index: u64) -> Result<Bytes, String> {
    let scope = SCOPE.get();
    if !scope.is_decoding() {
        return Err(format!("payload {index} outside of a message"));
    }
    let count = scope.count() as usize;
    let at = usize::try_from(index).ok().filter(|at| *at < count);
    let find = |at: usize| {
        let found = ATTACHMENTS.try_with(|all| {
            let all = all.borrow();
            all.get(all.len() - count + at).cloned()
        });
        found.ok().flatten()
    };
    at.and_then(find).ok_or_else(|| format!("payload {index} of a message that carries {count}"))
}

#[cfg(test)]
mod tests {
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
        })
        .unwrap()
    }

    #[test]
    fn payloads_travel_beside_the_message_by_handle() {
        let parcel = parcel();
        let body = body_of(&parcel);

        assert_eq!(body.attachments.len(), 3);
        assert_eq!(body.attachments[0].as_ptr(), parcel.content.as_ptr());
        assert!(body.message.len() < 50, "{} bytes", body.message.len());
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

    /// A type that holds a text format inside of a message.
    struct Json(Parcel);

    impl Serialize for Json {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&serde_json::to_string(&self.0).unwrap())
        }
    }

    #[test]
    fn text_formats_inside_of_a_message_hold_the_bytes_themselves() {
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
    fn payloads_arrive_inside_of_untagged_enums() {
        let value = Untagged::Parcel(parcel());
        assert_eq!(decode::<Untagged>(&body_of(&value)).unwrap(), value);
    }

    #[test]
    fn payload_that_the_message_does_not_carry_is_an_error() {
        let mut body = body_of(&parcel());
        let mut attachments = std::mem::take(&mut body.attachments).into_vec();
        attachments.pop();
        body.attachments = attachments.into();
        let err = decode::<Parcel>(&body).unwrap_err();
        let DecodeError::Deserialize(text) = err else { panic!("{err:?}") };
        assert!(text.contains("payload 2 of a message that carries 2"), "{text}");
    }

    #[test]
    fn index_outside_of_a_message_is_an_error() {
        let err = rmp_serde::from_slice::<Payload>(&body_of(&Payload::default()).message).unwrap_err();
        assert!(err.to_string().contains("invalid type") || err.to_string().contains("outside"), "{err}");
    }

    /// Encodes and decodes another message while it is encoded itself.
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
}
