//! Bounds-checked reader of the fields of one frame.

use bytes::Bytes;

use super::inline::InlineBytes;
use super::{FrameKind, WireError};
use crate::id::{CallId, HostId, HostUid, Incarnation, LinkId};

/// Reader of the fields of one whole frame, after its prefix.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    kind: FrameKind,
    /// Buffer that contains the frame, from which parts are taken by handle. `None` if all parts are
    /// to be copied.
    whole: Option<&'a Bytes>,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Creates a reader of `fields`, which lie in `whole` if there is one.
    #[inline]
    pub(super) fn new(kind: FrameKind, whole: Option<&'a Bytes>, fields: &'a [u8]) -> Self {
        Self { kind, whole, rest: fields }
    }

    #[cold]
    pub(super) fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed { frame: self.kind.name(), what }
    }

    #[inline]
    fn split(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        // The only place that takes a part of variable length: no length of a peer can overrun the
        // frame.
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.malformed("it ends inside a field"));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Takes the next `count` bytes by handle, or as a copy without a buffer.
    pub(super) fn take(&mut self, count: usize) -> Result<Bytes, WireError> {
        self.split(count).map(|taken| self.handle(taken))
    }

    fn handle(&self, part: &[u8]) -> Bytes {
        match self.whole {
            Some(whole) => whole.slice_ref(part),
            None => Bytes::copy_from_slice(part),
        }
    }

    /// Takes the next `count` bytes: a short part is copied, a long one taken by handle.
    #[inline]
    pub(super) fn take_inline(&mut self, count: usize) -> Result<InlineBytes, WireError> {
        self.split(count).map(|taken| InlineBytes::part_of(self.whole, taken))
    }

    /// Takes the next `count` bytes for inspection.
    pub(super) fn peek(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        self.split(count)
    }

    /// Takes all remaining bytes: a short part is copied, a long one taken by handle.
    #[inline]
    pub(super) fn rest_inline(self) -> InlineBytes {
        InlineBytes::part_of(self.whole, self.rest)
    }

    /// Takes all remaining bytes by handle, or as a copy without a buffer.
    pub(super) fn rest(self) -> Bytes {
        self.handle(self.rest)
    }

    #[inline]
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Checks that no bytes follow the fields.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes follow after its fields")) }
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((array, rest)) = self.rest.split_first_chunk() else {
            return Err(self.malformed("it ends inside a field"));
        };
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn identity(&mut self) -> Result<HostUid, WireError> {
        Ok(HostUid { host: HostId(self.u64()?), incarnation: Incarnation(self.u64()?) })
    }

    pub(super) fn link(&mut self) -> Result<LinkId, WireError> {
        self.u64().map(LinkId)
    }

    #[inline]
    pub(super) fn call(&mut self) -> Result<CallId, WireError> {
        self.u64().map(CallId)
    }

    /// Takes all remaining bytes as text of at most [`TEXT_BYTES_MAX`] bytes without control
    /// characters.
    ///
    /// The text is shown in errors and logs, and may come from an unauthenticated peer.
    pub(super) fn text(self) -> Result<String, WireError> {
        // A writer cuts its texts, so a longer one is not from this implementation.
        if self.rest.len() > TEXT_BYTES_MAX {
            return Err(self.malformed("its text is over 256 bytes"));
        }
        match std::str::from_utf8(self.rest) {
            // Terminal control sequences of a stranger must not reach an operator's terminal.
            Ok(text) if text.contains(is_control) => Err(self.malformed("its text has control characters")),
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.malformed("its text is not UTF-8")),
        }
    }
}

/// Longest text of a refusal or a goodbye in bytes, enough for a sentence in a log.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// Returns the longest prefix of `text` with at most [`TEXT_BYTES_MAX`] bytes, cut between
/// characters and with spaces instead of control characters.
pub(super) fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Replaced by a space, which is never longer, so the limit still holds.
    text[..end].replace(is_control, " ")
}

/// Returns whether a character moves the cursor of a terminal, or changes the direction of text.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}
