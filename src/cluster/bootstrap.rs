//! What a driver and its worker tell each other over the socket pair between them.
//!
//! Driver to worker: one [`Bootstrap`], later [`STOP`], or the end of the stream, which is the
//! driver's end. Worker to driver: one [`Report`]. Each message is its length in four bytes, big
//! endian, and MessagePack. Nobody else holds an end of the pair.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Limits;
use crate::id::Identity;

/// The byte that asks a worker to end in order.
pub(super) const STOP: u8 = b's';

/// The longest message, in bytes: an error's text and its path fit well.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What a worker is to be.
#[derive(Serialize, Deserialize)]
pub(super) struct Bootstrap {
    pub(super) secret: [u8; 32],
    pub(super) limits: Limits,
    /// The host of its actors.
    pub(super) actors: Identity,
    /// The host of its tasks.
    pub(super) tasks: Identity,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Both hosts listen.
    Ready { actors_at: SocketAddr, tasks_at: SocketAddr },
    /// It cannot start.
    Failed { why: String },
}

/// Encodes a message with its length.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = rmp_serde::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// Writes a message.
pub(super) fn write(mut stream: impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads a message.
pub(super) fn read<T: DeserializeOwned>(mut stream: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; checked(length)?];
    stream.read_exact(&mut body)?;
    decode(&body)
}

/// The length that a message announces, if it may have it.
pub(super) fn checked(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    Ok(length)
}

/// Decodes a message's body.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    rmp_serde::from_slice(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
