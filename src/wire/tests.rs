//! Encoding tests of every frame kind: golden bytes, truncation and random input.

use crate::property_tests;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

use super::*;
use crate::config::HANDSHAKE_FRAME_BYTES_MAX;
use crate::id::{
    ActorId, ActorIncarnation, CallId, HostId, HostUid, Incarnation, LinkId, Target, TraceContext, TypeHash,
};

const FRAME_BYTES_MAX: usize = 64 << 10;

fn codec(phase: Phase) -> FrameCodec {
    match phase {
        Phase::Handshake => FrameCodec::handshake(),
        Phase::Established => FrameCodec::established(FRAME_BYTES_MAX),
    }
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut stream = BytesMut::new();
    codec(frame.kind().phase()).encode(frame.clone(), &mut stream).unwrap();
    stream
}

fn identity(host: u64, incarnation: u64) -> HostUid {
    HostUid { host: HostId(host), incarnation: Incarnation(incarnation) }
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        from: identity(1, 2),
        to: identity(3, 4),
        link: LinkId(5),
        replaces: LinkId(6),
        purpose: Purpose::Heartbeat,
        terms: terms(),
        resume: resume(),
        nonce: [8; 32],
    }
}

// Every field has another value, so that a swap of two fields changes the golden bytes.
fn terms() -> SessionParameters {
    SessionParameters { frame_bytes_max: 7, outgoing_bytes_max: 12, window_bytes: 13, schema: 14 }
}

fn resume() -> Resume {
    Resume { generation: 17, epoch: 15, peer_generation: 18, received: 16 }
}

// The same parameters as bytes, written by hand and not by the encoder.
const TERMS: &str = "0000000000000007 000000000000000c 000000000000000d 000000000000000e";
const RESUME: &str = "00000011 0000000f 00000012 0000000000000010";

fn target() -> Target {
    Target { actor: ActorId(9), incarnation: ActorIncarnation(10) }
}

fn body(message: &'static [u8], attachments: &[&'static [u8]]) -> Body {
    let attachments: Vec<_> = attachments.iter().map(|bytes| Bytes::from_static(bytes)).collect();
    Body { message: message.into(), attachments: attachments.into(), trace: None }
}

fn check_golden(frame: Frame, hex: &str) {
    let hex: String = hex.split_whitespace().collect();
    let stream = encoded(&frame);
    let written: String = stream.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, hex, "{frame:?}");
    // Golden bytes bind both directions: an encoder and a decoder may be wrong in the same way.
    let read = codec(frame.kind().phase()).decode(&mut stream.clone()).unwrap();
    assert_eq!(read, Some(frame));
}

#[test]
fn hello_has_its_golden_bytes() {
    let nonce = "08".repeat(32);
    check_golden(
        Frame::Hello(Box::new(hello())),
        &format!(
            "0000008f 01 00 0000  52445348 0002
             0000000000000001 0000000000000002  0000000000000003 0000000000000004
             0000000000000005 0000000000000006 01 {TERMS} {RESUME} {nonce}"
        ),
    );
}

#[test]
fn challenge_and_proof_have_their_golden_bytes() {
    let (nonce, proof) = ("08".repeat(32), "09".repeat(32));
    let challenge =
        Challenge { version: VERSION, from: identity(1, 2), terms: terms(), nonce: [8; 32], proof: [9; 32] };
    check_golden(
        Frame::Challenge(challenge),
        &format!("00000076 02 00 0000  0002 0000000000000001 0000000000000002 {TERMS} {nonce} {proof}"),
    );
    check_golden(Frame::Proof(Proof { proof: [9; 32] }), &format!("00000024 03 00 0000  {proof}"));
}

#[test]
fn welcome_and_refused_have_their_golden_bytes() {
    check_golden(Frame::Welcome(Welcome { resume: resume() }), &format!("00000018 04 00 0000 {RESUME}"));
    let refused = Refused { reason: Refusal::Secret, text: "no".into() };
    check_golden(Frame::Refused(refused), "00000007 05 00 0000  03 6e6f");
}

#[test]
fn call_and_tell_have_their_golden_bytes() {
    let call = Call {
        call: CallId(1),
        target: target(),
        message: TypeHash(11),
        timeout_ms: 12,
        low_watermark: None,
        // An empty attachment needs its entry in the table of lengths.
        body: body(b"\x92\x00\x01", &[b"ab", b""]),
    };
    check_golden(
        Frame::Call(call.clone()),
        "00000031 10 00 0002  0000000000000001 0000000000000009 0000000a 000000000000000b 0000000c
         00000002 00000000  920001  6162",
    );
    check_golden(
        Frame::Call(Call { low_watermark: Some(CallId(1)), body: body(b"\xc0", &[]), ..call }),
        "0000002d 10 01 0000  0000000000000001 0000000000000009 0000000a 000000000000000b 0000000c
         0000000000000001  c0",
    );
    let tell = Tell { target: target(), message: TypeHash(11), body: body(b"\xa2hi", &[]) };
    check_golden(
        Frame::Tell(tell),
        "0000001b 11 00 0000  0000000000000009 0000000a 000000000000000b  a26869",
    );
}

#[test]
fn traced_messages_have_their_golden_bytes() {
    let body = Body { trace: TraceContext::new(0x21, 0x22, 1).map(Box::new), ..body(b"\xc0", &[b"ab"]) };
    let context = "00000000000000000000000000000021 0000000000000022 01";
    let call = Call {
        call: CallId(1),
        target: target(),
        message: TypeHash(11),
        timeout_ms: 12,
        low_watermark: Some(CallId(1)),
        body: body.clone(),
    };
    check_golden(
        Frame::Call(call),
        &format!(
            "0000004c 10 03 0001  0000000000000001 0000000000000009 0000000a 000000000000000b 0000000c
             0000000000000001 {context} 00000002 c0 6162"
        ),
    );
    check_golden(
        Frame::Tell(Tell { target: target(), message: TypeHash(11), body }),
        &format!(
            "00000038 11 02 0001  0000000000000009 0000000a 000000000000000b {context} 00000002 c0 6162"
        ),
    );
}

#[test]
fn reply_failure_goodbye_and_cancel_have_their_golden_bytes() {
    let reply = Reply { call: CallId(1), body: body(b"\xc0", &[]) };
    check_golden(Frame::Reply(reply), "0000000d 12 00 0000  0000000000000001 c0");
    let closing = Failure { call: CallId(1), failure: CallFailure::Closing };
    check_golden(Frame::Failure(closing), "00000014 13 00 0000  0000000000000001  a7 436c6f73696e67");
    let panicked = Failure { call: CallId(1), failure: CallFailure::Panicked { text: "x".into() } };
    check_golden(
        Frame::Failure(panicked),
        "0000001e 13 00 0000  0000000000000001  81 a8 50616e69636b6564 81 a4 74657874 a1 78",
    );
    check_golden(Frame::Goodbye(Goodbye { reason: "bye".into() }), "00000007 14 00 0000  627965");
    check_golden(Frame::Cancel(Cancel { call: CallId(7) }), "0000000c 15 00 0000  0000000000000007");
}

#[test]
fn session_maintenance_frames_have_their_golden_bytes() {
    check_golden(Frame::Ack(Ack { received: 7 }), "0000000c 16 00 0000  0000000000000007");
    check_golden(
        Frame::Credit(Credit { target: target(), bytes: 7 }),
        "00000018 17 00 0000  0000000000000009 0000000a 0000000000000007",
    );
    check_golden(Frame::Watermark(Watermark { call: CallId(7) }), "0000000c 19 00 0000  0000000000000007");
    check_golden(Frame::Schemas(Schemas { body: body(b"\x80", &[]) }), "00000005 1a 00 0000  80");
    check_golden(Frame::Heartbeat(Heartbeat), "00000004 1b 00 0000");
}

#[test]
fn chunks_have_their_golden_bytes() {
    let chunk = |first, last, abandoned, bytes: &'static [u8]| {
        Frame::Chunk(Chunk { message: 3, first, last, abandoned, bytes: Bytes::from_static(bytes) })
    };
    check_golden(chunk(Some(9), false, false, b"ab"), "00000012 18 01 0000  0000000000000003 00000009 6162");
    check_golden(chunk(None, true, false, b"ab"), "0000000e 18 02 0000  0000000000000003 6162");
    check_golden(chunk(None, false, true, b""), "0000000c 18 04 0000  0000000000000003");
}

#[test]
fn chunked_frame_has_its_announced_length() {
    let tell = Frame::Tell(Tell { target: target(), message: TypeHash(11), body: body(b"\xa2hi", &[]) });
    let whole = encoded(&tell);
    assert_eq!(Frame::parse(whole.clone(), 100).unwrap(), tell);
    // A byte too many, a part of the frame, and nothing at all.
    let mut longer = whole.clone();
    longer.extend_from_slice(b"x");
    for wrong in [longer, BytesMut::from(&whole[..10]), BytesMut::new()] {
        assert!(matches!(Frame::parse(wrong, 100), Err(WireError::Malformed { .. })));
    }
    // The limits hold for reassembled frames as well, and so does the phase.
    assert!(matches!(Frame::parse(whole, 20), Err(WireError::TooLong { .. })));
    let hello = encoded(&Frame::Hello(Box::new(hello())));
    assert!(matches!(Frame::parse(hello, 1000), Err(WireError::Unexpected { .. })));
}

#[test]
fn long_texts_of_refusals_are_cut_between_characters() {
    // Two bytes a character, and a one-byte prefix, so that the limit of 256 falls into a
    // character.
    let text = "ä".repeat(400);
    let frames = [
        Frame::Refused(Refused { reason: Refusal::Busy, text: format!("x{text}") }),
        Frame::Goodbye(Goodbye { reason: format!("x{text}") }),
    ];
    for frame in frames {
        let read = codec(frame.kind().phase()).decode(&mut encoded(&frame)).unwrap().unwrap();
        let (Frame::Refused(Refused { text: read, .. }) | Frame::Goodbye(Goodbye { reason: read })) = read
        else {
            panic!("{read:?}");
        };
        assert_eq!(read, format!("x{}", "ä".repeat(127)));
    }
}

fn check_refused(phase: Phase, bytes: &[u8], want: &str) {
    let mut stream = BytesMut::from(bytes);
    let capacity = stream.capacity();
    let err = codec(phase).decode(&mut stream).unwrap_err();
    assert_eq!(err.to_string(), want, "{bytes:02x?}");
    assert_eq!(stream.capacity(), capacity, "no memory is reserved for a rejected frame");
}

#[test]
fn stranger_is_detected_by_its_first_bytes() {
    let long = |length: u64| {
        format!(
            "a frame of {length} bytes is over the limit of 512; \
             check that the peer is a roadshow host with the same limits"
        )
    };
    // An HTTP request, and the hello of TLS: the usual strangers on a port.
    check_refused(Phase::Handshake, b"GET ", &long(0x4745_5420 + 4));
    check_refused(Phase::Handshake, b"\x16\x03\x01\x02\x00\x01", &long(0x1603_0102 + 4));
    check_refused(
        Phase::Handshake,
        b"\0\0\0\x87\x01\0\0\0RDX",
        "the peer does not speak the roadshow protocol; check its address and port",
    );
}

#[test]
fn hello_too_short_for_the_magic_is_checked_by_its_own_bytes() {
    // The frame ends inside its magic. The byte after it belongs to another frame.
    for stream in [&b"\0\0\0\x07\x01\0\0\0RDS"[..], b"\0\0\0\x07\x01\0\0\0RDS\0\0\0\x04"] {
        let err = FrameCodec::handshake().decode(&mut BytesMut::from(stream)).unwrap_err();
        assert_eq!(err.to_string(), "a hello frame is malformed: it ends inside a field", "{stream:02x?}");
    }
}

#[test]
fn frame_out_of_phase_is_rejected_by_its_kind() {
    check_refused(
        Phase::Handshake,
        b"\0\0\0\x40\x10",
        "a call frame is not allowed in the handshake phase of a link",
    );
    check_refused(
        Phase::Established,
        b"\0\0\0\x62\x01",
        "a hello frame is not allowed in the established phase of a link",
    );
}

#[test]
fn malformed_prefix_is_rejected() {
    // Each input ends with the first wrong byte, at which it must be rejected already.
    let refused = |bytes: &[u8], want: &str| check_refused(Phase::Established, bytes, want);
    refused(b"\0\0\0\x03", "a nameless frame is malformed: it is shorter than the header of a frame");
    refused(b"\0\0\0\x40\x7f", "a nameless frame is malformed: its kind is unknown");
    refused(b"\0\0\0\x40\x10\x04", "a call frame is malformed: its flags are unknown");
}

#[test]
fn malformed_fields_are_rejected() {
    let refused = |bytes: &[u8], want: &str| {
        let err = FrameCodec::established(FRAME_BYTES_MAX).decode(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!(err.to_string(), want, "{bytes:02x?}");
    };
    refused(b"\0\0\0\x05\x12\0\0\0\0", "a reply frame is malformed: it ends inside a field");
    refused(
        b"\0\0\0\x0c\x12\0\0\x01\0\0\0\0\0\0\0\x01",
        "a reply frame is malformed: it ends inside a field",
    );
    refused(
        b"\0\0\0\x10\x12\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x01",
        "a reply frame is malformed: its attachments are longer than the frame",
    );
    refused(b"\0\0\0\x05\x14\0\0\0\xff", "a goodbye frame is malformed: its text is not UTF-8");
    refused(b"\0\0\0\x04\x14\0\0\x01", "a goodbye frame is malformed: its kind has no attachments");
    refused(
        b"\0\0\0\x0d\x13\0\0\0\0\0\0\0\0\0\0\x01\xc0",
        "a failure frame is malformed: its body is not a known failure",
    );
    let mut long = b"\0\0\x01\x05\x14\0\0\0".to_vec();
    long.extend([b'x'; 257]);
    refused(&long, "a goodbye frame is malformed: its text is over 256 bytes");
    // Terminal escapes in both encodings, line breaks, and characters that reverse the direction of
    // text.
    for text in ["\x1b[2J", "two\nlines", "\u{9b}31m", "\u{202e}", "\u{61c}", "\u{2069}"] {
        let mut frame = vec![0, 0, 0, 4 + text.len() as u8, 0x14, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        refused(&frame, "a goodbye frame is malformed: its text has control characters");
    }
}

#[test]
fn texts_are_written_without_control_characters() {
    let frame =
        Frame::Refused(Refused { reason: Refusal::Closing, text: "one\r\ntwo \x1b[31m\u{202e}".into() });
    let read = FrameCodec::handshake().decode(&mut encoded(&frame)).unwrap();
    assert_eq!(
        read,
        Some(Frame::Refused(Refused { reason: Refusal::Closing, text: "one  two  [31m ".into() }))
    );
}

#[test]
fn hello_of_another_version_is_decoded_with_more_or_fewer_fields() {
    let mut stream = encoded(&Frame::Hello(Box::new(Hello { version: 3, ..hello() })));
    stream.extend_from_slice(b"more");
    stream[3] += 4;
    let purpose = PREFIX_BYTES + MAGIC.len() + 2 + 4 * 8 + 2 * 8;
    assert_eq!(stream[purpose], Purpose::Heartbeat as u8);
    // A later version may define further purposes.
    stream[purpose] = 9;
    let read = FrameCodec::handshake().decode(&mut stream).unwrap();
    let common = Hello { purpose: Purpose::Link, resume: Resume::default(), nonce: [0; 32], ..hello() };
    let later = Hello { version: 3, ..common.clone() };
    assert_eq!(read, Some(Frame::Hello(Box::new(later))), "its purpose is unknown to this version");

    // Version 1 has 8 bytes fewer.
    let mut stream =
        encoded(&Frame::Hello(Box::new(Hello { version: 1, purpose: Purpose::Link, ..hello() })));
    stream.truncate(139);
    stream[3] -= 8;
    let read = FrameCodec::handshake().decode(&mut stream).unwrap();
    assert_eq!(read, Some(Frame::Hello(Box::new(Hello { version: 1, ..common }))));

    let mut stream = encoded(&Frame::Hello(Box::new(hello())));
    stream.extend_from_slice(b"more");
    stream[3] += 4;
    assert!(matches!(FrameCodec::handshake().decode(&mut stream), Err(WireError::Malformed { .. })));
}

#[test]
fn encoder_respects_its_phase_and_limit() {
    let mut stream = BytesMut::from("before".as_bytes());
    let call = Frame::Goodbye(Goodbye { reason: "x".repeat(200) });
    let err = FrameCodec::handshake().encode(call.clone(), &mut stream).unwrap_err();
    assert!(matches!(err, WireError::Unexpected { kind: FrameKind::Goodbye, phase: Phase::Handshake }));
    let err = FrameCodec::established(100).encode(call, &mut stream).unwrap_err();
    assert!(matches!(err, WireError::TooLong { length: 208, limit: 100 }));
    // A rejected frame leaves no partial bytes in the stream.
    assert_eq!(stream, "before");
}

#[test]
fn decoder_reserves_the_rest_of_the_frame() {
    let mut stream = BytesMut::from(&b"\0\0\xff\xf0\x11\0\0\0"[..]);
    assert!(FrameCodec::established(FRAME_BYTES_MAX).decode(&mut stream).unwrap().is_none());
    assert!((0xfff4..=FRAME_BYTES_MAX).contains(&stream.capacity()), "{}", stream.capacity());
}

#[test]
fn payloads_and_long_bodies_are_slices_of_the_bytes_read() {
    // A short body is copied, so that it does not keep the read buffer alive.
    for (text_bytes, is_slice) in [(4, false), (8 << 10, true)] {
        let header = TellHeader { target: target(), message: TypeHash(11) };
        let payload = Payload::from(vec![1, 2, 3]);
        let mut stream = BytesMut::new();
        encode(&("x".repeat(text_bytes), payload), 10 << 10, |body| header.put(body, &mut stream)).unwrap();
        let read = stream.as_ptr_range();

        let Some(Frame::Tell(tell)) = FrameCodec::established(10 << 10).decode(&mut stream).unwrap() else {
            panic!("a whole tell was written");
        };
        let (_, payload): (String, Payload) = decode(&tell.body).unwrap();
        let at = read.start.wrapping_add(TELL_HEADER_BYTES + 4);
        assert_eq!(tell.body.message.as_ptr() == at, is_slice, "{text_bytes} bytes of text");
        assert_eq!(payload.as_ptr_range().end, read.end);
        assert_eq!(*payload, [1, 2, 3]);
    }
}

#[test]
fn stream_that_ends_inside_a_frame_is_truncated() {
    let mut stream = encoded(&Frame::Welcome(Welcome { resume: resume() }));
    stream.truncate(5);
    let err = FrameCodec::handshake().decode_eof(&mut stream).unwrap_err();
    assert!(matches!(err, WireError::Truncated { have: 5 }));
    assert!(FrameCodec::handshake().decode_eof(&mut BytesMut::new()).unwrap().is_none());
}

fn any_identity() -> impl Strategy<Value = HostUid> {
    any::<(u64, u64)>().prop_map(|(host, incarnation)| identity(host, incarnation))
}

fn any_target() -> impl Strategy<Value = Target> {
    any::<(u64, u32)>().prop_map(|(actor, incarnation)| Target {
        actor: ActorId(actor),
        incarnation: ActorIncarnation(incarnation),
    })
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    // Around the limits of what is stored in place, and of what is copied.
    let length = prop_oneof![9 => 0..64_usize, 1 => inline::COPY_MAX - 64..inline::COPY_MAX + 64];
    (any::<u8>(), length)
        .prop_map(|(first, length)| (0..length).map(|at| first.wrapping_add(at as u8)).collect())
}

fn any_body() -> impl Strategy<Value = Body> {
    (any_bytes(), proptest::collection::vec(any_bytes(), 0..4)).prop_map(|(message, attachments)| Body {
        message: message.into(),
        attachments: attachments.into(),
        trace: None,
    })
}

/// Body of a message, which may have a trace context.
fn any_message_body() -> impl Strategy<Value = Body> {
    let trace = proptest::option::of((1_u128.., 1_u64.., any::<u8>()).prop_map(|(trace, span, flags)| {
        Box::new(TraceContext::new(trace, span, flags).expect("no id is zero"))
    }));
    (any_body(), trace).prop_map(|(body, trace)| Body { trace, ..body })
}

fn any_failure() -> impl Strategy<Value = CallFailure> {
    prop_oneof![
        Just(CallFailure::Closing),
        Just(CallFailure::NoSuchActor),
        Just(CallFailure::ActorStopped),
        (".{0,9}", ".{0,9}").prop_map(|(actor, message)| CallFailure::NotHandled { actor, message }),
        ".{0,9}".prop_map(|text| CallFailure::Undecodable { text }),
        Just(CallFailure::Expired),
        ".{0,9}".prop_map(|text| CallFailure::Mismatch { text }),
        ".{0,9}".prop_map(|text| CallFailure::Refused { text }),
        ".{0,9}".prop_map(|text| CallFailure::Panicked { text }),
        Just(CallFailure::NoReply),
        Just(CallFailure::IncarnationEnded),
        any::<(u64, u64)>().prop_map(|(size, limit)| CallFailure::ReplyTooLarge { size, limit }),
        ".{0,9}".prop_map(|text| CallFailure::ReplyUnencodable { text }),
    ]
}

fn any_terms() -> impl Strategy<Value = SessionParameters> {
    any::<[u64; 4]>().prop_map(|[frame_bytes_max, outgoing_bytes_max, window_bytes, schema]| {
        SessionParameters { frame_bytes_max, outgoing_bytes_max, window_bytes, schema }
    })
}

fn any_resume() -> impl Strategy<Value = Resume> {
    any::<(u32, u32, u32, u64)>().prop_map(|(generation, epoch, peer_generation, received)| Resume {
        generation,
        epoch,
        peer_generation,
        received,
    })
}

fn any_chunk() -> impl Strategy<Value = Frame> {
    (any::<(u64, Option<u32>)>(), 0..3_u8, any_bytes()).prop_map(|((message, first), end, bytes)| {
        Frame::Chunk(Chunk { message, first, last: end == 1, abandoned: end == 2, bytes })
    })
}

fn any_handshake_frame() -> impl Strategy<Value = Frame> {
    // Only valid values: malformed ones have tests of their own.
    let purpose = prop_oneof![Just(Purpose::Link), Just(Purpose::Heartbeat)];
    let hello = (
        (any_identity(), any_identity(), any::<(u64, u64)>(), purpose),
        (any_terms(), any_resume(), any::<[u8; 32]>()),
    )
        .prop_map(|((from, to, (link, replaces), purpose), (terms, resume, nonce))| {
            let (link, replaces) = (LinkId(link), LinkId(replaces));
            Frame::Hello(Box::new(Hello {
                version: VERSION,
                from,
                to,
                link,
                replaces,
                purpose,
                terms,
                resume,
                nonce,
            }))
        });
    let challenge = (any_identity(), any_terms(), any::<(u16, [u8; 32], [u8; 32])>()).prop_map(
        |(from, terms, (version, nonce, proof))| {
            Frame::Challenge(Challenge { version, from, terms, nonce, proof })
        },
    );
    prop_oneof![
        hello,
        challenge,
        any::<[u8; 32]>().prop_map(|proof| Frame::Proof(Proof { proof })),
        any_resume().prop_map(|resume| Frame::Welcome(Welcome { resume })),
        (any::<u8>(), "\\PC{0,60}").prop_map(|(reason, text)| {
            Frame::Refused(Refused { reason: Refusal::from_number(reason), text })
        }),
    ]
}

fn any_established_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<(u64, u64, u32, Option<u64>)>(), any_target(), any_message_body()).prop_map(
            |((call, message, timeout_ms, watermark), target, body)| {
                let (call, message, watermark) = (CallId(call), TypeHash(message), watermark.map(CallId));
                Frame::Call(Call { call, target, message, timeout_ms, low_watermark: watermark, body })
            }
        ),
        (any::<u64>(), any_target(), any_message_body()).prop_map(|(message, target, body)| Frame::Tell(
            Tell { target, message: TypeHash(message), body }
        )),
        (any::<u64>(), any_body()).prop_map(|(call, body)| Frame::Reply(Reply { call: CallId(call), body })),
        (any::<u64>(), any_failure())
            .prop_map(|(call, failure)| Frame::Failure(Failure { call: CallId(call), failure })),
        "\\PC{0,60}".prop_map(|reason| Frame::Goodbye(Goodbye { reason })),
        any::<u64>().prop_map(|call| Frame::Cancel(Cancel { call: CallId(call) })),
        any::<u64>().prop_map(|received| Frame::Ack(Ack { received })),
        (any_target(), any::<u64>()).prop_map(|(target, bytes)| Frame::Credit(Credit { target, bytes })),
        any_chunk(),
        any::<u64>().prop_map(|call| Frame::Watermark(Watermark { call: CallId(call) })),
        any_body().prop_map(|body| Frame::Schemas(Schemas { body })),
        Just(Frame::Heartbeat(Heartbeat)),
    ]
}

/// Encodes `frames`, delivers them in pieces of these lengths in turn, and decodes them.
fn delivered(phase: Phase, frames: &[Frame], pieces: &[usize]) -> Vec<Frame> {
    let mut sent: BytesMut = frames.iter().flat_map(encoded).collect();
    let mut stream = BytesMut::new();
    let mut read = Vec::new();
    let mut pieces = pieces.iter().cycle();
    while !sent.is_empty() {
        let piece = sent.split_to(sent.len().min(*pieces.next().unwrap()));
        stream.extend_from_slice(&piece);
        while let Some(frame) = codec(phase).decode(&mut stream).unwrap() {
            read.push(frame);
        }
    }
    assert!(stream.is_empty(), "{} bytes are left over", stream.len());
    read
}

fn check_every_truncation(frame: &Frame) {
    let whole = encoded(frame);
    for end in 0..whole.len() {
        let read = codec(frame.kind().phase()).decode(&mut BytesMut::from(&whole[..end])).unwrap();
        assert_eq!(read, None, "{end} bytes of {frame:?}");
    }
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1_usize..200, 1..8)
}

proptest! {
    #![proptest_config(property_tests::cases(256))]

    #[test]
    fn handshake_frames_round_trip_in_random_pieces(
        frames in proptest::collection::vec(any_handshake_frame(), 1..6),
        pieces in pieces(),
    ) {
        prop_assert_eq!(delivered(Phase::Handshake, &frames, &pieces), frames);
    }

    #[test]
    fn established_frames_round_trip_in_random_pieces(
        frames in proptest::collection::vec(any_established_frame(), 1..6),
        pieces in pieces(),
    ) {
        prop_assert_eq!(delivered(Phase::Established, &frames, &pieces), frames);
    }

    #[test]
    fn truncated_frames_wait_for_more(
        handshake in any_handshake_frame(),
        established in any_established_frame(),
    ) {
        check_every_truncation(&handshake);
        check_every_truncation(&established);
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_reserve_beyond_the_limit(
        // Mostly plausible values: purely random bytes would rarely pass the first checks.
        kind in prop_oneof![any::<u8>(), 0x01_u8..0x06, 0x10_u8..0x1d],
        length in prop_oneof![any::<u32>(), 0_u32..600],
        attachments in prop_oneof![Just(0_u16), 0_u16..4, any::<u16>()],
        rest in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([kind, 0]);
        bytes.extend(attachments.to_be_bytes());
        bytes.extend(rest);
        for mut codec in [FrameCodec::handshake(), FrameCodec::established(HANDSHAKE_FRAME_BYTES_MAX)] {
            let mut stream = BytesMut::from(&bytes[..]);
            // `BytesMut` may double its capacity when it grows.
            let reserved = stream.capacity().max(2 * HANDSHAKE_FRAME_BYTES_MAX);
            while let Ok(Some(_)) = codec.decode(&mut stream) {}
            prop_assert!(stream.capacity() <= reserved, "{} bytes are reserved", stream.capacity());
        }
    }

    #[test]
    fn modified_frames_do_not_panic(
        frame in prop_oneof![any_handshake_frame(), any_established_frame()],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut stream = encoded(&frame);
        let at = at.index(stream.len());
        stream[at] = byte;
        while let Ok(Some(_)) = codec(frame.kind().phase()).decode(&mut stream) {}
    }
}

/// Drained frames, each with the length passed to the visitor.
#[derive(Default)]
struct Drained(Vec<(Frame, usize)>);

impl FrameVisitor for Drained {
    type Error = WireError;

    fn call(
        &mut self,
        call: CallHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), WireError> {
        let CallHeader { call, target, message, timeout_ms, low_watermark: watermark } = call;
        let call = Call { call, target, message, timeout_ms, low_watermark: watermark, body: body.into() };
        self.0.push((Frame::Call(call), frame_bytes));
        Ok(())
    }

    fn tell(
        &mut self,
        tell: TellHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), WireError> {
        let TellHeader { target, message } = tell;
        self.0.push((Frame::Tell(Tell { target, message, body: body.into() }), frame_bytes));
        Ok(())
    }

    fn reply(&mut self, call: CallId, frame_bytes: usize, body: impl IncomingBody) -> Result<(), WireError> {
        self.0.push((Frame::Reply(Reply { call, body: body.into() }), frame_bytes));
        Ok(())
    }

    fn other(&mut self, frame: Frame) -> Result<(), WireError> {
        let frame_bytes = encoded(&frame).len();
        self.0.push((frame, frame_bytes));
        Ok(())
    }
}

/// Decodes the frames of `stream` one by one, and returns the error after them, if any.
fn decoded(codec: &FrameCodec, stream: &[u8]) -> (Vec<Frame>, Option<WireError>) {
    let (mut codec, mut stream, mut frames) = (codec.clone(), BytesMut::from(stream), Vec::new());
    loop {
        match codec.decode(&mut stream) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(err) => return (frames, Some(err)),
        }
    }
}

proptest! {
    #![proptest_config(property_tests::cases(1000))]

    #[test]
    fn drained_frames_equal_decoded_frames(
        frames in prop::collection::vec(any_established_frame(), 1..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        lengths in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..48), 0..2),
        cut in prop::option::of(any::<prop::sample::Index>()),
        pieces in pieces(),
        // A small limit as well, at which both decoders must reject the same frame.
        limit in prop_oneof![Just(1_usize << 20), PREFIX_BYTES..120],
    ) {
        let frames: Vec<_> = frames.iter().map(encoded).collect();
        let starts: Vec<_> = frames.iter().scan(0, |at, frame| Some(std::mem::replace(at, *at + frame.len()))).collect();
        let mut bytes = frames.concat();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (frame, length) in lengths {
            bytes[starts[frame.index(starts.len())]..][..4].copy_from_slice(&length.to_be_bytes());
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
        for codec in [FrameCodec::established(limit), FrameCodec::handshake()] {
            let (expected, wrong) = decoded(&codec, &bytes);
            // In one read, and in random pieces: frames that arrive in parts take other paths.
            for pieces in [&[bytes.len().max(1)], &pieces[..]] {
                let (mut drained, mut stream, mut rest, mut err) = (Drained::default(), BytesMut::new(), &bytes[..], None);
                for piece in pieces.iter().cycle() {
                    let piece = rest.split_off(..rest.len().min(*piece)).unwrap_or_default();
                    stream.extend_from_slice(piece);
                    err = codec.drain(&mut stream, &mut drained).err();
                    if rest.is_empty() || err.is_some() {
                        break;
                    }
                }
                // The errors must be equal, too, as they end up in the same logs.
                prop_assert_eq!(format!("{err:?}"), format!("{wrong:?}"));
                prop_assert!(drained.0.iter().all(|(frame, bytes)| encoded(frame).len() == *bytes));
                let drained: Vec<_> = drained.0.into_iter().map(|(frame, _)| frame).collect();
                prop_assert_eq!(&drained, &expected);
            }
        }
    }
}
