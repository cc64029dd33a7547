//! Values as one piece of bytes: the message, then its payloads, each with its length before it.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{self, Attachments, DecodeError, EncodeError};

/// Encodes a value.
///
/// # Errors
///
/// As [`wire::encode_message`].
pub fn encode<T: Serialize + DeserializeOwned>(value: &T, limit: usize) -> Result<Bytes, EncodeError> {
    wire::encode_message(value, limit, |body| {
        let parts = || std::iter::once(body.message).chain(body.attachments.iter().map(|part| &part[..]));
        let mut bytes = BytesMut::with_capacity(parts().map(|part| 4 + part.len()).sum());
        for part in parts() {
            // A frame, and so a part of one, has less than 4 GiB.
            bytes.put_u32_le(part.len() as u32);
            bytes.put_slice(part);
        }
        bytes.freeze()
    })
}

/// Decodes a value. Its payloads share the memory of `bytes`.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are not those of such a value.
pub fn decode<T: DeserializeOwned>(mut bytes: Bytes) -> Result<T, DecodeError> {
    let message = take_part(&mut bytes)?;
    if bytes.is_empty() {
        return wire::decode_taking(&message, None);
    }
    let mut attachments = Vec::new();
    while !bytes.is_empty() {
        attachments.push(take_part(&mut bytes)?);
    }
    wire::decode_taking(&message, Some(&mut Attachments::from(attachments)))
}

fn take_part(bytes: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = bytes
        .split_to_checked(4)
        .map(|length| u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
    length.and_then(|length| bytes.split_to_checked(length as usize)).ok_or_else(cut_short)
}

fn cut_short() -> DecodeError {
    DecodeError::Deserialize("the bytes end within a value".to_owned())
}

/// [`Bytes::split_to`] that checks the length.
trait SplitChecked: Sized {
    fn split_to_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_to(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Payload;

    #[test]
    fn a_value_with_payloads_is_one_piece_of_bytes() {
        let value = (7_u32, Payload::from(vec![1; 5000]), "text".to_owned(), Payload::from(vec![2; 10]));
        let bytes = encode(&value, 1 << 20).unwrap();
        assert_eq!(decode::<(u32, Payload, String, Payload)>(bytes.clone()).unwrap(), value);
        for length in 0..bytes.len() {
            decode::<(u32, Payload, String, Payload)>(bytes.slice(..length)).unwrap_err();
        }
    }
}
