//! Frames of an unauthenticated peer: the handshake codec over arbitrary bytes in arbitrary pieces.
//!
//! Input: one byte for the length of the pieces, then the stream.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use roadshow::internals::config::HANDSHAKE_FRAME_BYTES_MAX;
use roadshow::internals::wire::{Frame, FrameCodec, PREFIX_BYTES, VERSION};
use roadshow_fuzz::{Script, decode_in_pieces, peak_of};

/// Offset of the purpose in a hello, in bytes.
const PURPOSE_AT: usize = 62;

/// End of the hello's fields that every version has, in bytes.
const COMMON_END: usize = 95;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let pieces = script.byte();
    let stream = script.rest();
    let whole = decode_in_pieces(&FrameCodec::handshake(), stream, stream.len().max(1));
    let (in_pieces, peak) =
        peak_of(|| decode_in_pieces(&FrameCodec::handshake(), stream, usize::from(pieces) + 1));
    assert_eq!(in_pieces.to_string(), whole.to_string(), "the pieces do not change the frames");
    // The shortest frame is little more than a prefix, and is stored in a list whose capacity doubles.
    let frame_bytes = 3 * size_of::<Frame>().div_ceil(PREFIX_BYTES);
    let fair = (8 + frame_bytes) * stream.len() + 4 * HANDSHAKE_FRAME_BYTES_MAX + 4096;
    assert!(peak <= fair, "{peak} bytes are held for a stream of {}", stream.len());

    let mut stream = stream;
    for frame in whole.frames {
        let mut written = BytesMut::new();
        assert_eq!(frame.put(&mut written), written.len());
        let length = u32::from_be_bytes(*stream.first_chunk().expect("it was decoded")) as usize + 4;
        let (read, rest) = stream.split_at(length);
        stream = rest;
        if is_of_a_later_version(&frame) {
            // Of a later version only the common fields are decoded. The rest is left out, and so is a
            // purpose that this version does not know.
            if read[PURPOSE_AT] > 1 {
                written[PURPOSE_AT] = read[PURPOSE_AT];
            }
            assert_eq!(read[4..COMMON_END], written[4..COMMON_END], "{frame:?}");
        } else {
            assert_eq!(written, read, "{frame:?}");
        }
        assert!((PREFIX_BYTES..=HANDSHAKE_FRAME_BYTES_MAX).contains(&read.len()));
    }
});

fn is_of_a_later_version(frame: &Frame) -> bool {
    matches!(frame, Frame::Hello(hello) if hello.version != VERSION)
}
