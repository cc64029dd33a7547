//! Messages of the fuzzed sessions; each begins with its number, and the number determines its other bytes.

use bytes::Bytes;
use roadshow::internals::id::{ActorId, ActorIncarnation, Target, TypeHash};
use roadshow::internals::wire::{Body, Encoded};
use roadshow_fuzz::Script;

/// Number of a call or a tell. A retried call keeps it.
pub(crate) type Number = u32;

/// Actors that receive the calls and tells.
pub(crate) const TARGETS: [Target; 3] = [
    Target::HOST,
    Target { actor: ActorId(9), incarnation: ActorIncarnation(1) },
    Target { actor: ActorId(9), incarnation: ActorIncarnation(2) },
];

pub(crate) const MESSAGE: TypeHash = TypeHash(11);

/// Maximum length of a frame in one piece, in bytes. It is short, so that small inputs make several chunks.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Maximum length of a part of a message, in bytes.
const PART_BYTES_MAX: usize = 3 * CHUNK_BYTES;

/// Period of the byte pattern; a message's number modulo this is its offset in the pattern.
const PERIOD: usize = 251;

/// Source of the bytes of all messages.
static PATTERN: [u8; PERIOD + PART_BYTES_MAX] = {
    let mut pattern = [0; PERIOD + PART_BYTES_MAX];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at % PERIOD) as u8;
        at += 1;
    }
    pattern
};

/// Message ready to be sent.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    attachments: Vec<Bytes>,
}

impl Message {
    /// Creates the message with this number, or the reply to the call with this number.
    ///
    /// Most are short. Few are long enough for chunks, and none once `large_left` is 0.
    pub(crate) fn new(number: Number, large_left: &mut u32, script: &mut Script<'_>) -> Self {
        let (kind, length) = (script.byte(), usize::from(script.byte()));
        let part = |length: usize| Bytes::from_static(&pattern_of(number)[..length]);
        let (length, attachments) = match kind % 32 {
            0 | 1 => (length, vec![part(length), Bytes::new()]),
            // Attachments above a minimum length are written from their own buffer, without a copy.
            2 | 3 => (4, vec![part(80 * length)]),
            4..=7 if *large_left > 0 => {
                *large_left -= 1;
                match kind % 4 {
                    0 => (CHUNK_BYTES - 128 + length, Vec::new()),
                    1 => (length, vec![part(CHUNK_BYTES - 128 + length)]),
                    2 => (length, vec![part(512 * length), part(256 * length)]),
                    _ => (CHUNK_BYTES, vec![part(512 * length)]),
                }
            }
            _ => (length, Vec::new()),
        };
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend_from_slice(&pattern_of(number)[..length]);
        Self { bytes, attachments }
    }

    pub(crate) fn as_encoded(&self) -> Encoded<'_> {
        Encoded { message: &self.bytes, attachments: &self.attachments }
    }

    /// Returns the body that the peer must receive.
    pub(crate) fn into_body(self) -> Body {
        Body { message: self.bytes.into(), attachments: self.attachments.into(), trace: None }
    }
}

/// Returns the number at the start of a message.
pub(crate) fn number_of(body: &Body) -> Option<Number> {
    body.message.first_chunk().map(|number| Number::from_be_bytes(*number))
}

/// Checks that all bytes of a message match its number.
pub(crate) fn is_intact(body: &Body) -> bool {
    number_of(body).is_some_and(|number| {
        let pattern = pattern_of(number);
        pattern.starts_with(&body.message[4..])
            && body.attachments.iter().all(|part| pattern.starts_with(part))
    })
}

fn pattern_of(number: Number) -> &'static [u8] {
    &PATTERN[number as usize % PERIOD..][..PART_BYTES_MAX]
}
