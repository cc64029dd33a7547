//! Server: one task for each connection.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes};
use peers_harness::{ACTORS, REPLY_BYTE};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::frame::{Frame, FrameReader, FrameWriter, Kind};

/// Counters in the place of actors.
pub(crate) type Actors = Arc<[AtomicU64; ACTORS]>;

/// Answers the frames of a connection until it ends.
pub(crate) async fn serve(reader: impl AsyncRead + Unpin, writer: impl AsyncWrite + Unpin, actors: Actors) {
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    // A client ends without a goodbye, which TLS reports as an unexpected end.
    match answer_all(&mut reader, &mut writer, &actors).await {
        Err(error) if !is_end(&error) => eprintln!("error: a connection failed: {error:#}"),
        _ => {}
    }
}

fn is_end(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(io::Error::kind);
    matches!(kind, Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

async fn answer_all<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    actors: &Actors,
) -> Result<()> {
    while reader.fill().await? {
        while let Some(frame) = reader.next()? {
            if let Some(answer) = handle(frame, actors)? {
                writer.feed(answer).await?;
            }
        }
        writer.flush().await?;
    }
    Ok(())
}

fn handle(frame: Frame, actors: &Actors) -> Result<Option<Frame>> {
    let counter = actors.get(usize::from(frame.actor)).context("there is no such actor")?;
    if frame.kind != Kind::Count {
        counter.fetch_add(1, Relaxed);
    }
    Ok(Some(match frame.kind {
        Kind::Call => Frame { number: frame.number + 1, ..frame },
        Kind::Count => Frame { number: counter.load(Relaxed), ..frame },
        Kind::Tell => return Ok(None),
        Kind::Echo => frame,
        Kind::Reply => Frame { bytes: vec![REPLY_BYTE; frame.number as usize].into(), ..frame },
        Kind::Words => Frame { number: words(frame.bytes)?.len() as u64, bytes: Bytes::new(), ..frame },
    }))
}

/// Decodes words into strings of their own, as a handler takes them.
fn words(mut bytes: Bytes) -> Result<Vec<String>> {
    let mut words = Vec::with_capacity(bytes.try_get_u32()? as usize);
    while bytes.has_remaining() {
        let length = bytes.try_get_u32()? as usize;
        let word = bytes.get(..length).context("a word is cut off")?;
        words.push(str::from_utf8(word)?.to_owned());
        bytes.advance(length);
    }
    Ok(words)
}
