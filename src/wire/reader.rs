//! Reads the fields of one frame, and cannot overrun it.

use bytes::{Buf, Bytes};

use super::{FrameKind, WireError};
use crate::id::{CallId, HostId, Identity, Incarnation, LinkId};

/// The fields of one whole frame, from behind its prefix on.
#[derive(Debug)]
pub(super) struct Reader {
    kind: FrameKind,
    bytes: Bytes,
}

impl Reader {
    pub(super) fn new(kind: FrameKind, bytes: Bytes) -> Self {
        Self { kind, bytes }
    }

    pub(super) fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed { frame: self.kind.name(), what }
    }

    /// Takes the next `count` bytes, as a slice of the frame.
    pub(super) fn take(&mut self, count: usize) -> Result<Bytes, WireError> {
        if count > self.bytes.len() {
            return Err(self.malformed("it ends inside a field"));
        }
        Ok(self.bytes.split_to(count))
    }

    /// Takes everything that is left, as a slice of the frame.
    pub(super) fn rest(self) -> Bytes {
        self.bytes
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Ends a frame that has nothing behind its fields.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("bytes are left over behind its fields"))
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        if self.bytes.try_copy_to_slice(&mut array).is_err() {
            return Err(self.malformed("it ends inside a field"));
        }
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn identity(&mut self) -> Result<Identity, WireError> {
        Ok(Identity { host: HostId(self.u64()?), incarnation: Incarnation(self.u64()?) })
    }

    pub(super) fn link(&mut self) -> Result<LinkId, WireError> {
        self.u64().map(LinkId)
    }

    pub(super) fn call(&mut self) -> Result<CallId, WireError> {
        self.u64().map(CallId)
    }

    /// Takes everything that is left as text of at most [`TEXT_BYTES_MAX`] bytes.
    pub(super) fn text(self) -> Result<String, WireError> {
        if self.bytes.len() > TEXT_BYTES_MAX {
            return Err(self.malformed("its text is over 256 bytes"));
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.malformed("its text is not UTF-8")),
        }
    }
}

/// The longest text of a refusal or a goodbye: one sentence for a log.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// The longest head of `text` that is whole characters and at most [`TEXT_BYTES_MAX`] bytes.
pub(super) fn short(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
