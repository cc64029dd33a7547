//! A side that forgets the other, which remembers it.

use super::*;

/// Position of a new half of the peer, which has forgotten this side.
const NEW_HALF: Resume = Resume { generation: 3, epoch: 0, peer_generation: 0, received: 0 };

fn make(scripted: &mut Scripted, retry: Retryable) -> Result<CallId, (Rejected, &'static str)> {
    scripted.session.call(scripted.now, TARGET, MESSAGE, None, retry, encoded(b"call"), "repeated")
}

fn retryable(call: u64) -> Frame {
    let Frame::Call(made) = call_frame(call, 0) else { unreachable!() };
    Frame::Call(Call { low_watermark: Some(CallId(call)), ..made })
}

fn forget(scripted: &mut Scripted, generation: u32) -> Vec<Event<&'static str>> {
    scripted.detach();
    let mut events = Vec::new();
    scripted.session.forget_peer(generation, &DisconnectReason::Forgotten, &mut events);
    scripted.read = 0;
    events
}

#[test]
fn calls_in_flight_to_a_peer_that_forgot_this_side_have_an_unknown_outcome_and_queued_ones_are_sent() {
    let mut scripted = Scripted::attached();
    scripted.call("written");
    scripted.tell(b"written").unwrap();
    scripted.written();
    scripted.detach();
    scripted.call("queued");
    scripted.tell(b"queued").unwrap();
    let events = scripted.attach_to(NEW_HALF);
    assert_eq!(events, [failed("written", CallError::OutcomeUnknown(DisconnectReason::Forgotten))]);
    let written = scripted.written();
    assert!(matches!(written[..], [Frame::Call(_), Frame::Tell(_)]), "{written:?}");
}

#[test]
fn unacknowledged_tells_are_not_sent_again_to_a_peer_that_forgot_this_side() {
    let mut scripted = Scripted::attached();
    scripted.tell(b"once").unwrap();
    assert_eq!(scripted.written().len(), 1);
    scripted.detach();
    // Neither side has reset, and the peer's new half has received nothing.
    assert_eq!(scripted.attach_to(NEW_HALF), []);
    assert_eq!(scripted.written(), []);
    scripted.tell(b"next").unwrap();
    assert_eq!(scripted.written(), [tell_frame("next")]);
    scripted.receive(Frame::Ack(Ack { received: 1 }));
    assert_eq!(scripted.session.outgoing_bytes(), 0);
}

#[test]
fn a_call_that_the_peer_may_have_executed_and_forgotten_is_not_retried() {
    let mut scripted = Scripted::attached();
    let call = make(&mut scripted, Retryable::First).unwrap();
    scripted.written();
    scripted.reset();
    scripted.attach_to(NEW_HALF);
    assert_eq!(make(&mut scripted, Retryable::Again(call)), Err((Rejected::Forgotten, "repeated")));
    scripted.session.end_retries(call);
    let next = make(&mut scripted, Retryable::First).unwrap();
    let written = scripted.written();
    assert!(matches!(&written[..], [Frame::Call(it)] if it.call == next && it.low_watermark == Some(next)));

    // The same for a retry that is already queued.
    scripted.reset();
    assert_eq!(make(&mut scripted, Retryable::Again(next)), Ok(next));
    let events = scripted.attach_to(Resume { generation: 4, ..NEW_HALF });
    assert_eq!(events, [failed("repeated", CallError::NotDelivered(DisconnectReason::Forgotten))]);
    assert_eq!(scripted.written(), []);
}

#[test]
fn calls_of_a_peer_that_forgot_this_side_are_no_retries() {
    let mut scripted = Scripted::attached();
    assert_eq!(scripted.receive(retryable(1)).len(), 1);
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")));
    scripted.written();
    scripted.detach();
    scripted.attach_to(NEW_HALF);
    assert_eq!(scripted.session.resume(), Resume { peer_generation: 3, ..Resume::default() });
    assert_eq!(scripted.receive(retryable(1)).len(), 1, "it is another");
}

#[test]
fn a_side_that_forgot_the_peer_announces_it_and_reuses_no_call_id() {
    let mut scripted = Scripted::attached();
    let call = make(&mut scripted, Retryable::First).unwrap();
    scripted.receive(call_frame(1, 0));
    scripted.written();
    assert_eq!(
        forget(&mut scripted, 2),
        [failed("repeated", CallError::OutcomeUnknown(DisconnectReason::Forgotten))]
    );
    assert_eq!(scripted.session.resume(), Resume { generation: 2, ..Resume::default() });
    assert_eq!(make(&mut scripted, Retryable::Again(call)), Err((Rejected::Forgotten, "repeated")));

    // The peer counts frames of the earlier half, none of which belong to this one.
    let peer = Resume { generation: 0, epoch: 0, peer_generation: 0, received: 7 };
    assert_eq!(scripted.attach_to(peer), []);
    assert!(!scripted.session.reply(CallId(1), encoded(b"reply")), "it is of the half before");
    let next = scripted.call("next");
    assert!(next > call && next.0 >= 2 << 40, "{next}");
    assert_eq!(scripted.written().len(), 1);
    scripted.receive(Frame::Ack(Ack { received: 1 }));
    assert_eq!(scripted.session.outgoing_bytes(), 0);
}

#[test]
fn a_position_from_before_the_peer_forgot_this_side_is_stale() {
    let mut scripted = Scripted::attached();
    scripted.detach();
    scripted.attach_to(NEW_HALF);
    scripted.tell(b"1").unwrap();
    scripted.written();
    scripted.receive(Frame::Ack(Ack { received: 1 }));
    let late = |resume| scripted.session.is_stale(resume);
    assert!(late(Resume { generation: 2, epoch: 9, received: 9, ..NEW_HALF }));
    assert!(!late(Resume { received: 1, ..NEW_HALF }) && late(NEW_HALF));
    assert!(!late(Resume { generation: 4, ..NEW_HALF }));
    assert!(scripted.session.is_forgotten_by(Resume { generation: 4, ..NEW_HALF }));
    assert!(!scripted.session.is_forgotten_by(NEW_HALF));
}

#[test]
fn cached_replies_are_dropped_with_the_peer() {
    let mut scripted = Scripted::with(SessionLimits { frame_bytes_max: 2 << 20, ..LIMITS });
    scripted.attach();
    let large = vec![0; 1 << 20];
    for call in 1..=3 {
        scripted.receive(retryable(call));
        assert!(scripted.session.reply(CallId(call), encoded(&large)));
        scripted.written();
        scripted.acknowledge();
    }
    forget(&mut scripted, 1);
    scripted.attach_to(Resume { epoch: 1, ..Resume::default() });
    assert_eq!(scripted.receive(retryable(3)).len(), 1, "nothing is known of it");
}
