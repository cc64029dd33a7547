//! Sessions that continue over several links.

use super::*;

#[test]
fn unreceived_frames_are_sent_again_from_the_first_one() {
    let mut scripted = Scripted::attached();
    for tell in [&b"1"[..], b"2", b"3"] {
        scripted.tell(tell).unwrap();
    }
    let frames = scripted.written();
    scripted.detach();
    scripted.tell(b"4").unwrap();
    // The peer has received one of three frames.
    scripted.read = 1;
    assert_eq!(scripted.attach(), []);
    let again = scripted.written();
    assert_eq!((&again[..2], again.len()), (&frames[1..], 3));
}

#[test]
fn calls_survive_a_link_failure_and_get_their_reply_on_the_next_link() {
    let mut scripted = Scripted::attached();
    let call = scripted.call("call");
    scripted.written();
    scripted.receive(call_frame(1, 0));
    scripted.detach();
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")), "it is retained for the next link");
    assert_eq!(scripted.attach(), []);
    assert_eq!(scripted.written(), [reply_frame(CallId(1))]);
    assert_eq!(scripted.receive(reply_frame(call)).len(), 1);
}

#[test]
fn received_frames_are_acknowledged() {
    let mut scripted = Scripted::attached();
    scripted.receive(tell_frame("1"));
    scripted.receive(tell_frame("2"));
    scripted.receive(Frame::Ack(Ack { received: 0 }));
    assert_eq!(
        scripted.session.resume(),
        Resume { epoch: 0, received: 2, ..Resume::default() },
        "an ack has no number"
    );

    // Piggybacked, or after the delay.
    let due = scripted.now + ACK_DELAY;
    assert_eq!(scripted.session.poll_timeout(), Some(due));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written()[0], Frame::Ack(Ack { received: 2 }));
    assert_eq!(scripted.session.poll_timeout(), None);
    scripted.receive(tell_frame("3"));
    assert_eq!(scripted.all_written(), []);
    scripted.pass(ACK_DELAY);
    assert_eq!(scripted.all_written(), [Frame::Ack(Ack { received: 3 })]);
}

#[test]
fn not_every_reply_carries_an_ack() {
    let mut scripted = Scripted::attached();
    scripted.receive(tell_frame("1"));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written()[0], Frame::Ack(Ack { received: 1 }));

    scripted.receive(tell_frame("2"));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written().len(), 1, "the last ACK is recent");
    scripted.pass(ACK_PIGGYBACK_INTERVAL);
    scripted.receive(tell_frame("3"));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written()[0], Frame::Ack(Ack { received: 3 }));

    // Unless the peer retains many bytes.
    scripted.receive(tell_frame("4".repeat(ACK_BYTES / 4).leak()));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written()[0], Frame::Ack(Ack { received: 4 }));

    scripted.receive(tell_frame("5"));
    scripted.pass(ACK_DELAY);
    assert_eq!(scripted.all_written(), [Frame::Ack(Ack { received: 5 })]);
}

#[test]
fn many_received_bytes_are_acknowledged_immediately() {
    let mut scripted = Scripted::detached();
    // A quarter of 200 bytes is far below `ACK_BYTES`.
    scripted.terms.outgoing_bytes_max = 200;
    scripted.attach();
    scripted.receive(tell_frame("1"));
    assert!(!scripted.session.has_outgoing());
    scripted.receive(tell_frame("over a quarter of the peer's send buffer"));
    assert_eq!(scripted.all_written(), [Frame::Ack(Ack { received: 2 })]);
}

#[test]
fn impossible_acks_are_violations() {
    let mut scripted = Scripted::attached();
    scripted.tell(b"1").unwrap();
    let wrong = |received| SessionError::Ack { received };
    // An ACK ahead of the frames would release what no link has carried yet.
    assert_eq!(scripted.receive_wrong(Frame::Ack(Ack { received: 1 })), wrong(1), "it was not written");
    scripted.written();
    scripted.acknowledge();
    assert_eq!(scripted.receive_wrong(Frame::Ack(Ack { received: 2 })), wrong(2));
    assert_eq!(scripted.receive_wrong(Frame::Ack(Ack { received: 0 })), wrong(0));
}

#[test]
fn an_impossible_position_of_the_peer_resets_the_session() {
    let mut scripted = Scripted::attached();
    scripted.call("call");
    scripted.written();
    scripted.detach();
    let mut events = Vec::new();
    let resume = Resume { epoch: 0, received: 5, ..Resume::default() };
    assert!(scripted.session.attach(&TERMS, resume, None, &mut events).is_err());
    assert!(
        matches!(events[..], [Event::Failed { failure: CallError::OutcomeUnknown(_), .. }]),
        "{events:?}"
    );
    assert_eq!(scripted.session.resume().epoch, 1, "the peer must learn of it");
}

#[test]
fn messages_queued_since_survive_a_protocol_error_reset() {
    let mut scripted = Scripted::attached();
    scripted.call("written");
    scripted.written();
    scripted.detach();
    scripted.call("queued");
    scripted.tell(b"queued").unwrap();
    let (mut events, resume) = (Vec::new(), Resume { received: 5, ..Resume::default() });
    assert!(scripted.session.attach(&TERMS, resume, None, &mut events).is_err());
    assert!(matches!(events[..], [Event::Failed { call_slot: "written", .. }]), "{events:?}");
    assert_eq!(scripted.attach_to(Resume { epoch: 1, ..Resume::default() }), []);
    let written = scripted.written();
    assert!(matches!(written[..], [Frame::Call(_), Frame::Tell(_)]), "{written:?}");
}

#[test]
fn a_reset_by_the_peer_fails_the_open_calls() {
    let mut scripted = Scripted::attached();
    scripted.call("written");
    scripted.receive(call_frame(1, 0));
    scripted.written();
    scripted.detach();
    scripted.call("queued");
    let events = scripted.attach_to(Resume { epoch: 1, received: 1, ..Resume::default() });
    assert_eq!(events, [failed("written", CallError::OutcomeUnknown(DisconnectReason::Reset))]);
    assert!(!scripted.session.reply(CallId(1), encoded(b"reply")));
    assert_eq!(scripted.session.resume(), Resume { epoch: 0, received: 1, ..Resume::default() });

    // Messages queued since were never in flight: they are sent, numbered from the peer's count.
    let written = scripted.written();
    assert!(matches!(&written[..], [Frame::Call(call)] if call.call == CallId(2)), "{written:?}");
    scripted.receive(Frame::Ack(Ack { received: 2 }));
    assert_eq!(scripted.session.outgoing_bytes(), 0);
    scripted.detach();
    assert_eq!(scripted.attach_to(Resume { epoch: 1, received: 2, ..Resume::default() }), [], "once");
}

#[test]
fn frames_received_on_an_older_link_count_although_another_link_followed() {
    let mut scripted = Scripted::attached();
    scripted.call("call");
    scripted.tell(b"1").unwrap();
    scripted.written();
    scripted.detach();

    // The peer has dialled twice, and its first Hello arrives last.
    scripted.attach_to(Resume { epoch: 0, received: 0, ..Resume::default() });
    scripted.detach();
    assert_eq!(scripted.attach_to(Resume { epoch: 0, received: 2, ..Resume::default() }), []);
    assert_eq!((scripted.written(), scripted.session.outgoing_bytes()), (vec![], 0));
}

#[test]
fn frames_taken_but_not_written_are_sent_once() {
    let mut scripted = Scripted::attached();
    scripted.call("partly");
    scripted.write(10);
    scripted.detach();
    scripted.attach();
    assert_eq!(scripted.written().len(), 1);
    assert!(!scripted.session.has_outgoing());
}

#[test]
fn a_type_table_precedes_the_queued_messages_and_is_sent_once() {
    let mut scripted = Scripted::detached();
    scripted.tell(b"queued").unwrap();
    let attach = |scripted: &mut Scripted, table: &[u8]| {
        let (mut events, resume) =
            (Vec::new(), Resume { epoch: 0, received: scripted.read, ..Resume::default() });
        scripted.session.attach(&TERMS, resume, Some(encoded(table)), &mut events).unwrap();
        assert_eq!(events, []);
    };
    attach(&mut scripted, b"table");
    let written = scripted.written();
    assert!(matches!(written[..], [Frame::Schemas(_), Frame::Tell(_)]), "{written:?}");
    scripted.detach();
    attach(&mut scripted, b"table");
    assert_eq!(scripted.written(), []);

    // A table over the frame limit would be a violation and is omitted.
    let mut scripted = Scripted::detached();
    attach(&mut scripted, &[0; FRAME_BYTES_MAX]);
    assert_eq!(scripted.written(), []);
}
