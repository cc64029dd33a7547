//! What these programs send: messages that begin with their number, and whose other bytes follow from
//! it.

use bytes::Bytes;
use roadshow::id::{ActorId, ActorIncarnation, Target, TypeHash};
use roadshow::wire::{Body, Encoded};
use roadshow_fuzz::Script;

/// The number of a call or a tell. A call that is made again keeps it.
pub(crate) type Number = u32;

/// The actors that are called and told something.
pub(crate) const TARGETS: [Target; 3] = [
    Target::HOST,
    Target { actor: ActorId(9), incarnation: ActorIncarnation(1) },
    Target { actor: ActorId(9), incarnation: ActorIncarnation(2) },
];

pub(crate) const MESSAGE: TypeHash = TypeHash(11);

/// The longest frame in one piece here: short, so that little makes several.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// The longest part of a message.
const PART_BYTES_MAX: usize = 3 * CHUNK_BYTES;

/// Where a message's bytes begin in the pattern, by its number.
const PERIOD: usize = 251;

/// Whence the bytes of all messages are.
static PATTERN: [u8; PERIOD + PART_BYTES_MAX] = {
    let mut pattern = [0; PERIOD + PART_BYTES_MAX];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at % PERIOD) as u8;
        at += 1;
    }
    pattern
};

/// A message, ready to be sent.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    attachments: Vec<Bytes>,
}

impl Message {
    /// The message of that number, of some length; or the reply to the call of that number.
    ///
    /// Most are short. Few are cut into chunks, and none while `large_left` is used up.
    pub(crate) fn new(number: Number, large_left: &mut u32, script: &mut Script<'_>) -> Self {
        let (kind, length) = (script.byte(), usize::from(script.byte()));
        let part = |length: usize| Bytes::from_static(&pattern_of(number)[..length]);
        let (length, attachments) = match kind % 32 {
            0 | 1 => (length, vec![part(length), Bytes::new()]),
            // From some length on they are written where they lie.
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

    /// As it is to come to the peer.
    pub(crate) fn into_body(self) -> Body {
        Body { message: self.bytes.into(), attachments: self.attachments.into() }
    }
}

/// The number with which a message begins.
pub(crate) fn number_of(body: &Body) -> Option<Number> {
    body.message.first_chunk().map(|number| Number::from_be_bytes(*number))
}

/// Whether a message is as its number says.
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
