//! Large frames in chunks, and the frames between them.

use super::*;

const LIMITS: SessionLimits = SessionLimits {
    outgoing_bytes_max: 64 << 20,
    frame_bytes_max: 8 << 20,
    window_bytes: 1 << 20,
    ..super::LIMITS
};
const OTHER: Target = Target { actor: ActorId(10), incarnation: ActorIncarnation(1) };

fn with_large_budgets() -> Scripted {
    let mut scripted = Scripted::with(LIMITS);
    scripted.terms.window_bytes = 1 << 20;
    scripted.attach();
    scripted
}

// 300 bytes less than whole chunks, so that the headers fit as well.
fn large(chunks: usize) -> Vec<u8> {
    (0..chunks * CHUNK_BYTES - 300).map(|at| at as u8).collect()
}

/// Takes the frames that would be written next.
fn next(scripted: &mut Scripted) -> Vec<Frame> {
    let mut batch = WriteBatch::default();
    scripted.session.take_outgoing(&mut batch);
    let bytes = batch.copy_to_bytes(batch.remaining());
    scripted.session.on_written(bytes.len());
    scripted.stream.extend_from_slice(&bytes);
    let mut codec = FrameCodec::established(1 << 20);
    std::iter::from_fn(|| codec.decode(&mut scripted.stream).unwrap()).collect()
}

#[test]
fn a_large_message_is_reassembled_at_the_receiver() {
    let (mut sender, mut receiver) = (with_large_budgets(), with_large_budgets());
    let message = large(3);
    sender.call_with("large", &message).unwrap();
    let frames = sender.written();
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|frame| matches!(frame, Frame::Chunk(_))));
    let mut events: Vec<_> = frames.into_iter().flat_map(|frame| receiver.receive(frame)).collect();
    let Some(Event::Call { body, charge, .. }) = events.pop() else { panic!("no call") };
    assert_eq!((&body.message[..], events.len()), (&message[..], 0));
    assert_eq!(sender.session.charged_bytes(), charge.bytes);

    assert!(receiver.session.reply(CallId(1), encoded(&message)));
    let events: Vec<_> = receiver.written().into_iter().flat_map(|frame| sender.receive(frame)).collect();
    assert!(
        matches!(&events[..], [Event::Replied { body, .. }] if *body.message == *message),
        "replies are cut as well"
    );
}

#[test]
fn no_chunk_exceeds_the_frame_limit_of_the_peer() {
    let mut scripted = with_large_budgets();
    scripted.detach();
    // The message is one byte too long for one chunk, but not for the peer's frame limit.
    scripted.terms.frame_bytes_max = CHUNK_BYTES as u64 + 1;
    scripted.attach();
    scripted.tell(&vec![0; CHUNK_BYTES + 1 - TELL_HEADER_BYTES]).unwrap();
    let frames = scripted.written();
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(|frame| frame.put(&mut BytesMut::new()) <= CHUNK_BYTES));
}

#[test]
fn small_messages_to_other_actors_are_interleaved_and_those_to_the_same_actor_wait() {
    let mut scripted = with_large_budgets();
    // More than one burst, so that other frames can be queued between its chunks.
    scripted.tell(&large(12)).unwrap();
    let first = next(&mut scripted);
    assert!(matches!(first[..], [Frame::Chunk(Chunk { last: false, .. }), ..]));
    scripted.tell(b"behind").unwrap();
    scripted.session.tell(OTHER, MESSAGE, encoded(b"between")).unwrap();
    let second = next(&mut scripted);
    assert!(matches!(second[..], [Frame::Tell(Tell { target: OTHER, .. }), Frame::Chunk(_), ..]));
    let rest = scripted.written();
    assert!(matches!(
        rest[..],
        [.., Frame::Chunk(Chunk { last: true, .. }), Frame::Tell(Tell { target: TARGET, .. })]
    ));
}

#[test]
fn large_messages_alternate_chunk_by_chunk() {
    let mut scripted = with_large_budgets();
    scripted.tell(&large(3)).unwrap();
    scripted.session.tell(OTHER, MESSAGE, encoded(&large(3))).unwrap();
    let turns: Vec<_> = scripted
        .written()
        .into_iter()
        .map(|frame| match frame {
            Frame::Chunk(chunk) => chunk.message,
            frame => panic!("{frame:?}"),
        })
        .collect();
    assert_eq!(turns, [1, 2, 1, 2, 1, 2]);
}

#[test]
fn a_cancelled_large_call_is_abandoned() {
    let (mut sender, mut receiver) = (with_large_budgets(), with_large_budgets());
    // Cancelled before any chunk is sent.
    let fresh = sender.call_with("fresh", &large(10)).unwrap();
    assert_eq!(sender.session.cancel(fresh), Some("fresh"));
    assert_eq!(sender.written(), [], "the peer never learns of it");

    // Cancelled between its chunks: the peer must free what it has received.
    let call = sender.call_with("large", &large(10)).unwrap();
    sender.tell(b"behind").unwrap();
    let mut frames = next(&mut sender);
    sender.session.cancel(call);
    frames.extend(sender.written());
    assert!(frames.len() < 10);
    let events: Vec<_> = frames.into_iter().flat_map(|frame| receiver.receive(frame)).collect();
    let [Event::Tell { charge, .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!(sender.session.charged_bytes(), charge.bytes, "an abandoned frame costs nothing");
}

#[test]
fn cancelling_a_large_retry_abandons_it_and_not_the_earlier_attempt() {
    let (mut sender, mut receiver) = (with_large_budgets(), with_large_budgets());
    let make = |sender: &mut Scripted, target, retry| {
        let (now, message) = (sender.now, large(10));
        sender.session.call(now, target, MESSAGE, None, retry, encoded(&message), "large").unwrap()
    };
    let call = make(&mut sender, TARGET, Retryable::First);
    let mut frames = next(&mut sender);
    assert!(sender.session.cancel(call).is_some());
    make(&mut sender, OTHER, Retryable::Again(call));
    assert!(sender.session.cancel(call).is_some());
    frames.extend(sender.written());
    let events: Vec<_> = frames.into_iter().flat_map(|frame| receiver.receive(frame)).collect();
    assert_eq!((events, sender.session.charged_bytes()), (vec![], 0));
}

#[test]
fn chunks_resume_on_the_next_link() {
    let (mut sender, mut receiver) = (with_large_budgets(), with_large_budgets());
    sender.call_with("large", &large(10)).unwrap();
    let first = next(&mut sender);
    assert!(first.len() < 10);
    // The last chunk of the burst is lost with the link.
    let got = first.len() as u64 - 1;
    for frame in first.into_iter().take(got as usize) {
        receiver.receive(frame);
    }
    sender.detach();
    receiver.detach();
    receiver.attach();
    sender.attach_to(Resume { epoch: 0, received: got, ..Resume::default() });
    let events: Vec<_> = sender.written().into_iter().flat_map(|frame| receiver.receive(frame)).collect();
    assert!(matches!(&events[..], [Event::Call { body, .. }] if *body.message == *large(10)));
}

#[test]
fn chunks_that_do_not_fit_their_frame_are_violations() {
    let chunk = |message, first: Option<usize>, last, bytes: &'static [u8]| {
        let first = first.map(|length| length as u32);
        Frame::Chunk(Chunk { message, first, last, abandoned: false, bytes: Bytes::from_static(bytes) })
    };
    let begun = || {
        let mut scripted = with_large_budgets();
        scripted.receive(chunk(1, Some(5), false, b"123"));
        scripted
    };
    assert!(matches!(
        with_large_budgets().receive_wrong(chunk(1, None, false, b"1")),
        SessionError::Chunk { .. }
    ));
    assert!(matches!(begun().receive_wrong(chunk(1, Some(5), false, b"1")), SessionError::Chunk { .. }));
    assert!(matches!(begun().receive_wrong(chunk(1, None, false, b"123")), SessionError::Chunk { .. }));
    assert!(matches!(begun().receive_wrong(chunk(1, None, true, b"1")), SessionError::Chunk { .. }));
    assert!(matches!(begun().receive_wrong(chunk(1, None, true, b"45")), SessionError::Wire(_)));
    // Rejected by its announcement, before any of its data is stored.
    let over = LIMITS.frame_bytes_max + 1;
    assert!(matches!(
        with_large_budgets().receive_wrong(chunk(1, Some(over), false, b"")),
        SessionError::Chunk { .. }
    ));
    let mut many = with_large_budgets();
    for message in 0..crate::config::CHUNKED_SENDS_MAX as u64 {
        many.receive(chunk(message, Some(5), false, b"1"));
    }
    assert!(matches!(many.receive_wrong(chunk(99, Some(5), false, b"1")), SessionError::Chunk { .. }));
}

#[test]
fn only_messages_and_replies_may_be_chunked() {
    let mut inner = BytesMut::new();
    Frame::Cancel(Cancel { call: CallId(1) }).put(&mut inner);
    let first = Some(inner.len() as u32);
    let chunk = Chunk { message: 1, first, last: true, abandoned: false, bytes: inner.freeze() };
    let error = with_large_budgets().receive_wrong(Frame::Chunk(chunk));
    assert!(matches!(error, SessionError::UnexpectedFrame { .. }), "{error}");
}
