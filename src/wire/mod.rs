//! Wire format: frames and bodies, encoded and decoded.
//!
//! A link carries a sequence of [`Frame`]s. Every frame starts with the same eight bytes; all
//! integers are big endian:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 4 | length | bytes of the frame behind this field |
//! | 1 | kind | see [`FrameKind`] |
//! | 1 | flags | of a call, a tell and a chunk; else 0 |
//! | 2 | attachments | how many [`Payload`]s the body carries |
//!
//! The fields of the kind follow. A call, a tell, a reply, a failure and a type table end with a
//! body: the length of each attachment in 4 bytes, one MessagePack value, and the attachments in
//! order.
//!
//! This module owns the layout, and every check that needs nothing but bytes. It knows no sockets,
//! no clocks, and no order of frames beyond the two [`Phase`]s of a link.
//!
//! Invariants: a length is checked against its limit before memory is reserved for it; no bytes of
//! a peer cause a panic; payloads and bodies of frames over 4 KiB are slices of the
//! bytes read.
//!
//! # Examples
//!
//! ```
//! use bytes::BytesMut;
//! use roadshow::internals::id::{Target, TypeHash};
//! use roadshow::internals::wire::{self, Frame, FrameCodec, TellHeader};
//! use tokio_util::codec::Decoder;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let header = TellHeader { target: Target::HOST, message: TypeHash::of("greeting") };
//! let mut stream = BytesMut::new();
//! wire::encode("hello", 1024, |body| header.put(body, &mut stream))?;
//!
//! let Some(Frame::Tell(tell)) = FrameCodec::established(1024).decode(&mut stream)? else {
//!     unreachable!("a whole tell was written");
//! };
//! assert_eq!(wire::decode::<String>(&tell.body)?, "hello");
//! # Ok(())
//! # }
//! ```

mod attachments;
mod body;
mod call;
mod cancel;
mod chunk;
mod codec;
mod control;
mod error;
mod failure;
mod frame;
mod goodbye;
mod handshake;
mod inline;
mod message;
mod msgpack;
pub mod payload;
mod reader;
mod refusal;
mod reply;
mod scratch;
mod sink;
#[cfg(test)]
mod tests;

pub use attachments::Attachments;
pub use body::{Body, Encoded, IncomingBody, LongSlice, MessageBody};
pub use call::{CALL_HEADER_BYTES, Call, CallHeader, TELL_HEADER_BYTES, Tell, TellHeader};
pub use cancel::Cancel;
pub use chunk::{CHUNK_HEADER_BYTES, Chunk, ChunkHeader};
pub use codec::FrameCodec;
pub use control::{Ack, Credit, Heartbeat, Schemas, Watermark};
pub use error::{DecodeError, EncodeError, Phase, WireError};
pub use failure::CallFailure;
pub use frame::{Frame, FrameKind, FrameVisitor, PREFIX_BYTES};
pub use goodbye::Goodbye;
pub use handshake::{Challenge, Hello, Proof, Purpose, Resume, SessionParameters, Welcome};
pub use inline::{InlineBytes, ShortBytes, ShortSlice, ShortWords};
pub use message::{decode, decode_taking, encode, encode_message};
pub use payload::Payload;
pub use refusal::{Refusal, Refused};
pub use reply::{Failure, REPLY_HEADER_BYTES, Reply};
pub use sink::FrameSink;

/// First bytes of the fields of every Hello, by which strangers are detected.
pub const MAGIC: [u8; 4] = *b"RDSH";

/// Version of the protocol that this build speaks.
pub const VERSION: u16 = 2;
