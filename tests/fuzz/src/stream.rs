//! Decodes a stream in pieces, as a codec reads it.

use std::fmt;

use bytes::BytesMut;
use roadshow::internals::id::CallId;
use roadshow::internals::wire::{
    Call, CallHeader, Frame, FrameCodec, FrameVisitor, IncomingBody, Reply, Tell, TellHeader, WireError,
};
use tokio_util::codec::Decoder;

/// Outcome of decoding a stream.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Frames before the first error or the end.
    pub frames: Vec<Frame>,
    /// Error of a malformed stream.
    pub err: Option<WireError>,
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and then {:?}", self.frames, self.err)
    }
}

/// Decodes a stream that arrives in pieces of `piece_bytes` bytes, one frame at a time.
#[must_use]
pub fn decode_in_pieces(codec: &FrameCodec, stream: &[u8], piece_bytes: usize) -> Decoded {
    // A codec keeps the state of a frame that is read in part.
    let mut codec = codec.clone();
    let mut decoded = Decoded::default();
    let mut read = BytesMut::new();
    for piece in stream.chunks(piece_bytes) {
        read.extend_from_slice(piece);
        loop {
            match codec.decode(&mut read) {
                Ok(Some(frame)) => decoded.frames.push(frame),
                Ok(None) => break,
                Err(err) => return Decoded { err: Some(err), ..decoded },
            }
        }
    }
    match codec.decode_eof(&mut read) {
        Ok(None) => decoded,
        // A frame that needs the end of the stream would delay every message.
        Ok(Some(frame)) => panic!("{frame:?} comes only at the end of the stream"),
        Err(err) => Decoded { err: Some(err), ..decoded },
    }
}

/// Decodes a stream like [`decode_in_pieces`], but all frames of a piece in one step, as a link reads them.
#[must_use]
pub fn drain_in_pieces(codec: &FrameCodec, stream: &[u8], piece_bytes: usize) -> Decoded {
    let mut drained = Drained::default();
    let mut read = BytesMut::new();
    for piece in stream.chunks(piece_bytes) {
        read.extend_from_slice(piece);
        if let Err(err) = codec.drain(&mut read, &mut drained) {
            return Decoded { frames: drained.0, err: Some(err) };
        }
    }
    let err = codec.clone().decode_eof(&mut read).err();
    Decoded { frames: drained.0, err }
}

#[derive(Default)]
struct Drained(Vec<Frame>);

impl FrameVisitor for Drained {
    type Error = WireError;

    fn call(&mut self, call: CallHeader, _: usize, body: impl IncomingBody) -> Result<(), WireError> {
        let CallHeader { call, target, message, timeout_ms, low_watermark } = call;
        self.other(Frame::Call(Call { call, target, message, timeout_ms, low_watermark, body: body.into() }))
    }

    fn tell(&mut self, tell: TellHeader, _: usize, body: impl IncomingBody) -> Result<(), WireError> {
        let TellHeader { target, message } = tell;
        self.other(Frame::Tell(Tell { target, message, body: body.into() }))
    }

    fn reply(&mut self, call: CallId, _: usize, body: impl IncomingBody) -> Result<(), WireError> {
        self.other(Frame::Reply(Reply { call, body: body.into() }))
    }

    fn other(&mut self, frame: Frame) -> Result<(), WireError> {
        self.0.push(frame);
        Ok(())
    }
}
