//! Frames of a peer: the codec of an established link over arbitrary bytes in arbitrary pieces.
//!
//! Input: two bytes for the length of the pieces, then the stream.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use roadshow::internals::config::FAILURE_TEXT_CHARS_MAX;
use roadshow::internals::wire::{Failure, Frame, FrameCodec, PREFIX_BYTES};
use roadshow_fuzz::{Script, decode_in_pieces, drain_in_pieces, peak_of};
use tokio_util::codec::{Decoder, Encoder};

/// Maximum length of a frame in bytes; low enough that an input can exceed it.
const FRAME_BYTES_MAX: usize = 2048;

fuzz_target!(|input: &[u8]| {
    let codec = FrameCodec::established(FRAME_BYTES_MAX);
    let mut script = Script::new(input);
    // The network may split a stream anywhere.
    let pieces = script.short();
    let stream = script.rest();
    let whole = decode_in_pieces(&codec, stream, stream.len().max(1));
    let (in_pieces, peak) = peak_of(|| decode_in_pieces(&codec, stream, usize::from(pieces) + 1));
    assert_eq!(in_pieces.to_string(), whole.to_string(), "the pieces do not change the frames");
    let drained = drain_in_pieces(&codec, stream, usize::from(pieces) + 1);
    assert_eq!(drained.to_string(), whole.to_string(), "draining gives the same frames");
    // An attachment takes 4 bytes on the wire and about 60 while its frame is read. The shortest frame is a
    // prefix, and is stored in a list whose capacity doubles.
    let frame_bytes = 3 * size_of::<Frame>().div_ceil(PREFIX_BYTES);
    let fair = (64 + frame_bytes) * stream.len() + 4 * FRAME_BYTES_MAX + 4096;
    assert!(peak <= fair, "{peak} bytes are held for a stream of {}", stream.len());

    let mut stream = stream;
    for frame in whole.frames {
        let length = u32::from_be_bytes(*stream.first_chunk().expect("it was decoded")) as usize + 4;
        let (read, rest) = stream.split_at(length);
        stream = rest;
        check_parsed(read, &frame);
        match frame {
            // The text of a failure is cut at the limit, so its bytes may change.
            Frame::Failure(failure) => check_failure(failure),
            frame => {
                let mut written = BytesMut::new();
                assert_eq!(frame.put(&mut written), read.len(), "{frame:?}");
                assert_eq!(written, read, "{frame:?}");
            }
        }
    }
});

/// Parses the bytes of one frame alone, as they are after reassembly of chunks.
fn check_parsed(read: &[u8], frame: &Frame) {
    let parse = |bytes: &[u8]| Frame::parse(BytesMut::from(bytes), FRAME_BYTES_MAX);
    assert_eq!(parse(read).expect("as it was decoded"), *frame);
    // A reassembled frame comes from a peer as well, and must be checked as strictly.
    parse(&read[..read.len() - 1]).expect_err("it is not whole");
    parse(&[read, &[0]].concat()).expect_err("bytes follow it");
    Frame::parse(BytesMut::from(read), read.len() - 1).expect_err("it is over the limit");
}

/// Checks that a failure decodes to the value that was encoded. Several encodings have the same value.
fn check_failure(failure: Failure) {
    let Failure { call, failure } = failure;
    let sent = Failure { call, failure: failure.truncated_to(FAILURE_TEXT_CHARS_MAX) };
    let mut codec = FrameCodec::established(FRAME_BYTES_MAX + 1024);
    let mut stream = BytesMut::new();
    codec.encode(Frame::Failure(sent.clone()), &mut stream).expect("its own encoding is hardly longer");
    let read = codec.decode(&mut stream).expect("it was written here");
    assert_eq!(read, Some(Frame::Failure(sent)));
    assert!(stream.is_empty());
}
