//! Bytes that are sent beside the MessagePack part of a message.
//!
//! The sender copies a payload of less than 16 KiB once. The receiver copies those of a message up to
//! 4 KiB, and those of a message in several chunks, which by default starts at a mebibyte.
//!
//! While [`encode`](super::encode) or [`decode`](super::decode) runs, a scope on the thread holds
//! the attachments of the body. A payload that is serialized in the scope is added to it by handle,
//! and only its index goes into the MessagePack part. Outside of a scope it serializes as bytes, so
//! that types with payloads can also be written as JSON and the like.
//!
//! The functions of this module are for `#[serde(with = "roadshow::payload")]` on a [`Bytes`]
//! field; [`Payload`] is the same as a type.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Attachments;

/// Bytes that are sent beside the message, and received as a slice of the read buffer if they are long.
///
/// A payload of a message of over 4 KiB arrives as a slice, which keeps its buffer alive: that of a
/// message of 32 KiB and more alone, or 64 KiB for a shorter one. Copy a small part if it is kept for
/// long. The payloads of a shorter message share one copy of it.
///
/// A [`Bytes`] with an owner of its own is dropped with its last handle, on any thread, so the owner's
/// `Drop` must not send messages.
///
/// # Examples
///
/// ```
/// use roadshow::prelude::*;
///
/// #[derive(Message, RemoteMessage, Serialize, Deserialize)]
/// #[rtype(result = "()")]
/// struct Image {
///     width: u32,
///     pixels: Payload,
/// }
///
/// let image = Image { width: 2, pixels: vec![0, 255, 255, 0].into() };
/// assert_eq!(image.pixels.len(), 4);
/// assert_eq!(image.pixels[..2], [0, 255]);
/// ```
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

/// Name under which payloads pass through serializers, as newtype structs.
///
/// The encoder of messages recognizes a payload by it. Inside of another format (a field that holds
/// JSON, for example) a payload is written as its bytes: that text outlives the message, and a
/// reference would be meaningless there.
pub(super) const NEWTYPE: &str = "$roadshow::Payload";

/// Serializes a [`Bytes`] field as a payload.
///
/// # Errors
///
/// The serializer's.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_newtype_struct(NEWTYPE, &PayloadContent(bytes))
}

/// Deserializes a [`Bytes`] field that was serialized as a payload.
///
/// # Errors
///
/// The deserializer's, or that the message does not carry the payload.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_newtype_struct(NEWTYPE, BytesVisitor)
}

/// Bytes of a payload, or a reference to them.
struct PayloadContent<'a>(&'a Bytes);

impl Serialize for PayloadContent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match attach(self.0) {
            Some(index) => serializer.serialize_bytes(&Reference(index).to_bytes()),
            None => serializer.serialize_bytes(self.0),
        }
    }
}

/// Reference to an attachment by its index.
struct Reference(u32);

impl Reference {
    /// First bytes of every reference.
    ///
    /// Serde's buffer for untagged types drops the name of a newtype, so the bytes themselves must
    /// distinguish a reference.
    const MARK: [u8; 4] = [0xc1, b'R', b'S', b'P'];

    fn to_bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&Self::MARK);
        bytes[4..].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let index = bytes.strip_prefix(&Self::MARK)?;
        Some(Self(u32::from_be_bytes(index.try_into().ok()?)))
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_byte_buf(self)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        match referenced(bytes) {
            Some(attached) => attached.map_err(E::custom),
            None => Ok(Bytes::copy_from_slice(bytes)),
        }
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        match referenced(&bytes) {
            Some(attached) => attached.map_err(E::custom),
            None => Ok(bytes.into()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
        // The size hint comes from the peer: no memory is reserved for it.
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

/// Returns the attachment that these bytes refer to, if they are a reference in a message.
fn referenced(bytes: &[u8]) -> Option<Result<Bytes, String>> {
    let Reference(index) = Reference::from_bytes(bytes)?;
    SCOPE.get().is_decoding().then(|| attached(index))
}

/// State of the attachment scope of this thread: its mode and the number of its attachments.
///
/// ```text
/// bit  34         33        32        31 .. 0
///      expecting  decoding  encoding  number of attachments
/// ```
///
/// One word, as it changes with each message: it is loaded in the width in which it was stored.
#[derive(Clone, Copy)]
struct Scope(u64);

impl Scope {
    const NONE: Self = Self(0);
    const ENCODING: Self = Self(1 << 32);
    const DECODING: Self = Self(2 << 32);
    const EXPECTING: u64 = 4 << 32;

    #[cfg(test)]
    fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }

    /// Returns whether the next payload belongs to the message itself.
    fn is_expecting(self) -> bool {
        self.0 & Self::EXPECTING > 0
    }

    fn expecting(self, expecting: bool) -> Self {
        Self(self.0 & !Self::EXPECTING | if expecting { Self::EXPECTING } else { 0 })
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
    /// Attachments of all scopes on this thread, those of the innermost last. `None` stands for one
    /// that the value being decoded has taken.
    static ATTACHMENTS: RefCell<Vec<Option<Bytes>>> = const { RefCell::new(Vec::new()) };
}

/// Capacity above which the thread's vector of attachments is freed when it is empty.
const KEPT_MAX: usize = 64;

/// Guard of a scope inside the previous one.
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
        // Dropped last: the owner of a `Bytes` may encode another message in its `Drop`.
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

/// Adds an attachment to the scope. Returns `None`, without a change, if their number overflows or
/// the thread is being destroyed.
fn add(bytes: Bytes) -> Option<()> {
    let scope = SCOPE.get();
    // The cell is updated last: if the thread-local vector is gone already, the scope stays as it
    // is.
    let count = scope.count().checked_add(1)?;
    ATTACHMENTS.try_with(|all| all.borrow_mut().push(Some(bytes))).ok()?;
    SCOPE.set(scope.with_count(count));
    Some(())
}

/// Adds the attachments of a body to the scope.
fn add_all(attachments: Attachments) -> Option<()> {
    match attachments.into_single() {
        Ok(only) => add(only),
        Err(attachments) => attachments.into_handles().try_for_each(add),
    }
}

/// Removes the attachments of the scope.
fn take_attachments() -> Attachments {
    let scope = SCOPE.replace(SCOPE.get().with_count(0));
    let taken = ATTACHMENTS.try_with(|all| {
        let mut all = all.borrow_mut();
        if scope.count() == 1 {
            // The vector keeps its capacity, so the usual message with a payload allocates nothing.
            let taken = all.pop().flatten().map(Attachments::from).unwrap_or_default();
            shrink(&mut all);
            return taken;
        }
        let start = all.len() - scope.count() as usize;
        let taken: Vec<_> = all.drain(start..).flatten().collect();
        shrink(&mut all);
        taken.into()
    });
    taken.unwrap_or_default()
}

/// Frees the memory of a long vector that is empty.
#[inline]
fn shrink(all: &mut Vec<Option<Bytes>>) {
    if all.is_empty() && all.capacity() > KEPT_MAX {
        *all = Vec::new();
    }
}

/// Guard during which payloads that are serialized on this thread belong to one message.
pub(super) struct Encoding(Within);

impl Encoding {
    #[inline(always)]
    pub(super) fn begin() -> Self {
        Self(Within::new(Scope::ENCODING))
    }

    /// Ends the scope, and returns its attachments, if any.
    #[inline(always)]
    pub(super) fn end(self) -> Option<Attachments> {
        let Self(_within) = self;
        (SCOPE.get().count() > 0).then(take_attachments)
    }
}

/// Runs `work`, in which the payloads can be deserialized. They are taken out of `attachments`.
///
/// By reference, as moving and dropping them would cost each of the messages that have none.
#[inline(always)]
pub(super) fn with_attachments<R>(attachments: Option<&mut Attachments>, work: impl FnOnce() -> R) -> R {
    let _within = Within::new(Scope::DECODING);
    // Most messages have none. If adding fails, each reference is missing, and the decoding fails.
    if let Some(attachments) = attachments
        && !attachments.is_empty()
    {
        let _ = add_all(std::mem::take(attachments));
    }
    work()
}

/// Runs `work`, which serializes a payload directly into the message, or deserializes it directly from
/// it.
#[inline(always)]
pub(super) fn expected<R>(work: impl FnOnce() -> R) -> R {
    SCOPE.set(SCOPE.get().expecting(true));
    let done = work();
    // A payload resets the flag when it is added or found, unless the bytes went through a buffer of
    // serde.
    SCOPE.set(SCOPE.get().expecting(false));
    done
}

/// Adds `bytes` to the message of this thread, if they are a direct part of it and not of a nested
/// format.
fn attach(bytes: &Bytes) -> Option<u32> {
    let scope = SCOPE.get();
    if !scope.is_expecting() {
        return None;
    }
    SCOPE.set(scope.expecting(false));
    add(bytes.clone())?;
    Some(scope.count())
}

/// Returns the attachment with this index of the message that is being decoded on this thread.
///
/// A reference that is read directly from the message is read once, so it takes the handle. One in a
/// buffer of serde may be read again, as another variant of an untagged type.
fn attached(index: u32) -> Result<Bytes, String> {
    let scope = SCOPE.get();
    SCOPE.set(scope.expecting(false));
    let count = scope.count() as usize;
    let at = usize::try_from(index).ok().filter(|at| *at < count);
    let find = |at: usize| {
        let found = ATTACHMENTS.try_with(|all| {
            let mut all = all.borrow_mut();
            let at = all.len() - count + at;
            let place = all.get_mut(at)?;
            if scope.is_expecting() { place.take() } else { place.clone() }
        });
        found.ok().flatten()
    };
    match at {
        Some(at) => find(at).ok_or_else(|| format!("payload {index} is referred to twice")),
        None => Err(format!("payload {index} of a message that carries {count}")),
    }
}

#[cfg(test)]
mod tests;
