//! Frames of the token RPC: a length of four bytes, big-endian, and a message in MessagePack.

use std::io::{self, ErrorKind};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::{self, EncodeError, Encoded};

/// Failure to read or write a frame.
#[derive(Debug, Error)]
pub(in crate::cluster) enum TokenRpcFrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a message has {bytes} bytes, and the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    /// The frame was complete but its message cannot be decoded; the next frame can be read.
    #[error("a message is not understood: {0}")]
    Undecodable(String),
    #[error("a message cannot be encoded: {0}")]
    Unencodable(String),
}

impl From<EncodeError> for TokenRpcFrameError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge { size, limit } => Self::TooLong { bytes: size, limit },
            other => Self::Unencodable(other.to_string()),
        }
    }
}

/// Reads the next message; `None` if the peer closed the stream between two frames.
pub(in crate::cluster) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<Option<T>, TokenRpcFrameError> {
    let bytes = match stream.read_u32().await {
        Ok(bytes) => bytes as usize,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if bytes > limit {
        return Err(TokenRpcFrameError::TooLong { bytes, limit });
    }
    // The buffer grows with the bytes received: an unauthenticated peer that announces a long frame and sends
    // nothing must not make this process allocate it.
    let mut frame = Vec::new();
    if stream.take(bytes as u64).read_to_end(&mut frame).await? < bytes {
        return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
    }
    let body = Encoded::of(&frame);
    wire::decode(body).map(Some).map_err(|error| TokenRpcFrameError::Undecodable(error.to_string()))
}

/// Writes one message and flushes the stream.
pub(in crate::cluster) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
    limit: usize,
) -> Result<(), TokenRpcFrameError> {
    // The length prefix has 32 bits; the conversion below cannot truncate.
    let limit = limit.min(u32::MAX as usize);
    let frame = wire::encode(message, limit, |body| {
        let length = body.message.len() as u32;
        [&length.to_be_bytes(), body.message].concat()
    })?;
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn message_arrives_as_it_was_written_and_the_end_is_no_error() {
        let (mut near, mut far) = tokio::io::duplex(64);
        write(&mut near, &("hello", 7), 16).await.unwrap();
        drop(near);
        let read_next = read::<(String, u32)>(&mut far, 16).await.unwrap();
        assert_eq!(read_next, Some(("hello".to_owned(), 7)));
        assert!(read::<(String, u32)>(&mut far, 16).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn message_beyond_the_limit_is_neither_read_nor_written() {
        let mut out = Vec::new();
        let error = write(&mut out, &"hello, world", 5).await.unwrap_err();
        assert!(matches!(error, TokenRpcFrameError::TooLong { bytes: 13, limit: 5 }), "{error}");
        assert!(out.is_empty());
        let error = read::<String>(&mut &[0xff; 100][..], 5).await.unwrap_err();
        assert!(matches!(error, TokenRpcFrameError::TooLong { bytes: 0xffff_ffff, limit: 5 }), "{error}");
    }

    #[tokio::test]
    async fn truncated_or_malformed_frame_is_an_error() {
        assert!(matches!(read::<u32>(&mut &[0, 0, 0, 9, 1][..], 16).await, Err(TokenRpcFrameError::Io(_))));
        let mut bytes = &[0, 0, 0, 1, 0xc1, 0, 0, 0, 1, 7][..];
        assert!(matches!(read::<u32>(&mut bytes, 16).await, Err(TokenRpcFrameError::Undecodable(_))));
        assert_eq!(read::<u32>(&mut bytes, 16).await.unwrap(), Some(7));
    }
}
