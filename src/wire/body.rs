//! What a frame carries behind its header: a MessagePack value and the bytes beside it.

use bytes::{Buf, Bytes};

use super::WireError;
use super::reader::Reader;
use super::sink::{Fields, FrameSink};

/// What each attachment takes in the table of lengths before the MessagePack part.
const TABLE_ENTRY_BYTES: usize = 4;

/// A body as it was read: slices of the read buffer.
///
/// [`decode`](super::decode) makes a value of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// One value as MessagePack.
    pub message: Bytes,
    /// The payloads that the value refers to by their index.
    pub attachments: Vec<Bytes>,
}

impl Body {
    /// A body without a byte, which no type decodes from.
    #[must_use]
    pub const fn empty() -> Self {
        Self { message: Bytes::new(), attachments: Vec::new() }
    }

    /// The bytes on the wire, the table of attachments included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_encoded().len()
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same body, borrowed for writing.
    #[must_use]
    pub fn as_encoded(&self) -> Encoded<'_> {
        Encoded { message: &self.message, attachments: &self.attachments }
    }

    pub(super) fn read(mut reader: Reader, attachments: u16) -> Result<Self, WireError> {
        if attachments == 0 {
            return Ok(Self { message: reader.rest(), attachments: Vec::new() });
        }
        let count = usize::from(attachments);
        let mut table = reader.take(count * TABLE_ENTRY_BYTES)?;
        let mut lengths = Vec::with_capacity(count);
        let mut total = 0_usize;
        while let Ok(length) = table.try_get_u32() {
            lengths.push(length as usize);
            total = total.saturating_add(length as usize);
        }
        let Some(message) = reader.remaining().checked_sub(total) else {
            return Err(reader.malformed("its attachments are longer than the frame"));
        };
        let message = reader.take(message)?;
        let attachments = lengths.into_iter().map(|length| reader.take(length)).collect::<Result<_, _>>()?;
        Ok(Self { message, attachments })
    }
}

/// A freshly encoded body, borrowed from where [`encode`](super::encode) keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// One value as MessagePack.
    pub message: &'a [u8],
    /// The payloads that the value refers to by their index.
    pub attachments: &'a [Bytes],
}

impl Encoded<'_> {
    /// The bytes on the wire, the table of attachments included.
    #[must_use]
    pub fn len(&self) -> usize {
        size(self.message.len(), self.attachments)
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn put(&self, out: &mut impl FrameSink) {
        for attachment in self.attachments {
            out.put_u32(attachment.len() as u32);
        }
        out.put_slice(self.message);
        for attachment in self.attachments {
            out.put_bytes(attachment);
        }
    }
}

/// The bytes on the wire of a MessagePack part of `message` bytes with these attachments.
pub(super) fn size(message: usize, attachments: &[Bytes]) -> usize {
    message + attachments.iter().map(|attachment| TABLE_ENTRY_BYTES + attachment.len()).sum::<usize>()
}
