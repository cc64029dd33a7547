//! Links that break, and sessions that go on.

use super::*;

#[test]
fn what_the_peer_has_not_received_is_written_again_from_the_first_such_frame() {
    let mut scripted = Scripted::attached();
    for tell in [&b"1"[..], b"2", b"3"] {
        scripted.tell(tell).unwrap();
    }
    let frames = scripted.written();
    scripted.detach();
    scripted.tell(b"4").unwrap();
    scripted.read = 1;
    assert_eq!(scripted.attach(), []);
    let again = scripted.written();
    assert_eq!((&again[..2], again.len()), (&frames[1..], 3));
}

#[test]
fn a_break_ends_no_call_and_its_reply_may_come_over_another_link() {
    let mut scripted = Scripted::attached();
    let call = scripted.call("call");
    scripted.written();
    scripted.receive(call_frame(1, 0));
    scripted.detach();
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")), "it is kept for the next link");
    assert_eq!(scripted.attach(), []);
    assert_eq!(scripted.written(), [reply_frame(CallId(1))]);
    assert_eq!(scripted.receive(reply_frame(call)).len(), 1);
}

#[test]
fn the_peer_is_told_what_has_come() {
    let mut scripted = Scripted::attached();
    scripted.receive(tell_frame("1"));
    scripted.receive(tell_frame("2"));
    scripted.receive(Frame::Ack(Ack { received: 0 }));
    assert_eq!(
        scripted.session.resume(),
        Resume { epoch: 0, received: 2, ..Resume::default() },
        "an ack has no number"
    );

    // With what goes out anyway, or after a while.
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
fn the_peer_is_not_told_with_each_reply() {
    let mut scripted = Scripted::attached();
    scripted.receive(tell_frame("1"));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written()[0], Frame::Ack(Ack { received: 1 }));

    scripted.receive(tell_frame("2"));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written().len(), 1, "it was told just now");
    scripted.pass(ACK_PIGGYBACK_INTERVAL);
    scripted.receive(tell_frame("3"));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written()[0], Frame::Ack(Ack { received: 3 }));

    // Unless it keeps much for it.
    scripted.receive(tell_frame("4".repeat(ACK_BYTES / 4).leak()));
    scripted.tell(b"mine").unwrap();
    assert_eq!(scripted.all_written()[0], Frame::Ack(Ack { received: 4 }));

    scripted.receive(tell_frame("5"));
    scripted.pass(ACK_DELAY);
    assert_eq!(scripted.all_written(), [Frame::Ack(Ack { received: 5 })]);
}

#[test]
fn the_peer_is_told_at_once_when_much_has_come() {
    let mut scripted = Scripted::detached();
    scripted.terms.outgoing_bytes_max = 200;
    scripted.attach();
    scripted.receive(tell_frame("1"));
    assert!(!scripted.session.has_outgoing());
    scripted.receive(tell_frame("a quarter of what the peer may keep is over"));
    assert_eq!(scripted.all_written(), [Frame::Ack(Ack { received: 2 })]);
}

#[test]
fn acknowledgements_that_cannot_be_are_violations() {
    let mut scripted = Scripted::attached();
    scripted.tell(b"1").unwrap();
    let wrong = |received| SessionError::Ack { received };
    assert_eq!(scripted.receive_wrong(Frame::Ack(Ack { received: 1 })), wrong(1), "it was not written");
    scripted.written();
    scripted.acknowledge();
    assert_eq!(scripted.receive_wrong(Frame::Ack(Ack { received: 2 })), wrong(2));
    assert_eq!(scripted.receive_wrong(Frame::Ack(Ack { received: 0 })), wrong(0));
}

#[test]
fn a_peer_that_cannot_be_where_it_says_ends_the_session() {
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
    assert_eq!(scripted.session.resume().epoch, 1, "the peer is to learn of it");
}

#[test]
fn what_was_parked_since_survives_an_error_by_which_the_session_is_reset() {
    let mut scripted = Scripted::attached();
    scripted.call("written");
    scripted.written();
    scripted.detach();
    scripted.call("parked");
    scripted.tell(b"parked").unwrap();
    let (mut events, resume) = (Vec::new(), Resume { received: 5, ..Resume::default() });
    assert!(scripted.session.attach(&TERMS, resume, None, &mut events).is_err());
    assert!(matches!(events[..], [Event::Failed { call_slot: "written", .. }]), "{events:?}");
    assert_eq!(scripted.attach_to(Resume { epoch: 1, ..Resume::default() }), []);
    let written = scripted.written();
    assert!(matches!(written[..], [Frame::Call(_), Frame::Tell(_)]), "{written:?}");
}

#[test]
fn a_peer_that_has_dropped_the_session_takes_what_is_open_with_it() {
    let mut scripted = Scripted::attached();
    scripted.call("written");
    scripted.receive(call_frame(1, 0));
    scripted.written();
    scripted.detach();
    scripted.call("parked");
    let events = scripted.attach_to(Resume { epoch: 1, received: 1, ..Resume::default() });
    assert_eq!(events, [failed("written", CallError::OutcomeUnknown(DisconnectReason::Reset))]);
    assert!(!scripted.session.reply(CallId(1), encoded(b"reply")));
    assert_eq!(scripted.session.resume(), Resume { epoch: 0, received: 1, ..Resume::default() });

    // What was parked since was never under way: it goes, and the numbers go on from where the peer is.
    let written = scripted.written();
    assert!(matches!(&written[..], [Frame::Call(call)] if call.call == CallId(2)), "{written:?}");
    scripted.receive(Frame::Ack(Ack { received: 2 }));
    assert_eq!(scripted.session.outgoing_bytes(), 0);
    scripted.detach();
    assert_eq!(scripted.attach_to(Resume { epoch: 1, received: 2, ..Resume::default() }), [], "once");
}

#[test]
fn what_the_peer_has_of_a_link_counts_also_if_another_link_was_there_since() {
    let mut scripted = Scripted::attached();
    scripted.call("call");
    scripted.tell(b"1").unwrap();
    scripted.written();
    scripted.detach();

    // The peer has dialled twice, and what it said first comes last.
    scripted.attach_to(Resume { epoch: 0, received: 0, ..Resume::default() });
    scripted.detach();
    assert_eq!(scripted.attach_to(Resume { epoch: 0, received: 2, ..Resume::default() }), []);
    assert_eq!((scripted.written(), scripted.session.outgoing_bytes()), (vec![], 0));
}

#[test]
fn frames_that_were_taken_and_not_written_are_written_once() {
    let mut scripted = Scripted::attached();
    scripted.call("partly");
    scripted.write(10);
    scripted.detach();
    scripted.attach();
    assert_eq!(scripted.written().len(), 1);
    assert!(!scripted.session.has_outgoing());
}

#[test]
fn a_table_of_types_goes_ahead_of_what_waits_for_the_link_and_once() {
    let mut scripted = Scripted::detached();
    scripted.tell(b"parked").unwrap();
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

    // One that the peer would take for a violation is left out.
    let mut scripted = Scripted::detached();
    attach(&mut scripted, &[0; FRAME_BYTES_MAX]);
    assert_eq!(scripted.written(), []);
}
