//! Calls, replies, deadlines, limits and violations, frame by frame.

use super::*;

#[test]
fn call_is_written_and_its_reply_returns_the_ticket() {
    let mut scripted = Scripted::attached();
    let call = scripted.call("first");
    let written = scripted.written();

    let body = body("first");
    assert_eq!(
        written,
        [Frame::Call(Call {
            call,
            target: TARGET,
            message: MESSAGE,
            timeout_ms: 0,
            low_watermark: None,
            body
        })]
    );
    let events = scripted.receive(reply_frame(call));
    assert_eq!(events, [Event::Replied { call_slot: "first", body: super::body("reply") }]);
    assert!(scripted.session.is_drained());
}

#[test]
fn calls_are_numbered_from_one_and_end_in_any_order() {
    let mut scripted = Scripted::attached();
    let calls = [scripted.call("first"), scripted.call("second")];
    assert_eq!(calls, [CallId(1), CallId(2)]);

    let gone = failure_frame(2, CallFailure::NoSuchActor);
    assert_eq!(scripted.receive(gone), [failed("second", CallError::Remote(CallFailure::NoSuchActor))]);
    assert_eq!(scripted.receive(reply_frame(CallId(1))).len(), 1);
}

#[test]
fn outcome_of_a_call_that_is_not_open_is_dropped() {
    let mut scripted = Scripted::attached();
    let call = scripted.call("first");
    assert_eq!(scripted.session.cancel(call), Some("first"));
    assert_eq!(scripted.session.cancel(call), None);
    assert!(matches!(scripted.written()[..], [Frame::Call(_), Frame::Cancel(Cancel { call: CallId(1) })]));
    assert_eq!(scripted.receive(reply_frame(call)), []);
    assert_eq!(scripted.receive(failure_frame(77, CallFailure::Expired)), []);
}

#[test]
fn messages_of_the_peer_become_events() {
    let mut scripted = Scripted::attached();
    let (call, target, message) = (CallId(7), TARGET, MESSAGE);
    let deadline = Some(scripted.now + Duration::from_millis(50));

    let events = scripted.receive(call_frame(7, 50));
    let charge_of_call = charge(CALL_HEADER_BYTES + 4);
    let call = Event::Call { call, target, message, deadline, body: body("call"), charge: charge_of_call };
    assert_eq!(events, [call]);
    let events = scripted.receive(tell_frame("tell"));
    let charge = charge(TELL_HEADER_BYTES + 4);
    assert_eq!(events, [Event::Tell { target, message, body: body("tell"), charge }]);
    let [Event::Call { deadline: None, .. }] = scripted.receive(call_frame(8, 0))[..] else {
        panic!("a timeout of zero is none");
    };
    assert_eq!(scripted.session.inbound_calls(), 2);
}

#[test]
fn calls_of_the_peer_get_one_reply() {
    let mut scripted = Scripted::attached();
    for call in [1, 2] {
        scripted.receive(call_frame(call, 0));
    }
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")));
    assert!(!scripted.session.reply(CallId(1), encoded(b"again")));
    assert!(scripted.session.fail(CallId(2), &CallFailure::NoReply));
    assert!(!scripted.session.fail(CallId(2), &CallFailure::NoReply));

    assert_eq!(scripted.written(), [reply_frame(CallId(1)), failure_frame(2, CallFailure::NoReply)]);
}

#[test]
fn replies_are_never_rejected_for_capacity() {
    let mut scripted = Scripted::attached();
    scripted.receive(call_frame(1, 0));
    scripted.tell(&[0; OUTGOING_BYTES_MAX]).unwrap();
    assert!(!scripted.session.has_room_for(TARGET, 1, false));
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")));
    assert_eq!(scripted.written().len(), 2);
}

#[test]
fn reply_over_the_frame_limit_becomes_a_failure() {
    let mut scripted = Scripted::attached();
    scripted.receive(call_frame(1, 0));
    assert!(scripted.session.reply(CallId(1), encoded(&[0; FRAME_BYTES_MAX])));

    let (size, limit) = (FRAME_BYTES_MAX as u64 + 16, FRAME_BYTES_MAX as u64);
    assert_eq!(scripted.written(), [failure_frame(1, CallFailure::ReplyTooLarge { size, limit })]);
}

#[test]
fn a_reply_queued_without_a_link_respects_the_frame_limit_of_the_peer() {
    let mut scripted = Scripted::detached();
    scripted.terms.frame_bytes_max = 600;
    scripted.attach();
    scripted.receive(call_frame(1, 0));
    scripted.detach();
    assert!(scripted.session.reply(CallId(1), encoded(&[0; 700])));
    scripted.attach();
    let failure = CallFailure::ReplyTooLarge { size: 716, limit: 600 };
    assert_eq!(scripted.written(), [failure_frame(1, failure)]);
}

#[test]
fn failure_fits_into_every_frame_limit() {
    let limit = crate::config::HANDSHAKE_FRAME_BYTES_MAX;
    let mut scripted = Scripted::detached();
    scripted.terms.frame_bytes_max = limit as u64;
    scripted.attach();
    scripted.receive(call_frame(1, 0));
    // The worst case: two texts, and four bytes for each character.
    let text = "🎺".repeat(1000);
    scripted.session.fail(CallId(1), &CallFailure::NotHandled { actor: text.clone(), message: text });
    assert!((1..=limit).contains(&scripted.session.outgoing_bytes()));
    assert_eq!(scripted.written().len(), 1);
}

#[test]
fn message_without_capacity_is_rejected_until_bytes_are_acknowledged() {
    let mut scripted = Scripted::attached();
    scripted.tell(&[0; 500]).unwrap();
    scripted.tell(&[0; 500]).unwrap();
    let waiting = scripted.session.outgoing_bytes();
    assert_eq!(waiting, 2 * 528);
    let full = |size| Rejected::Full { size, waiting, limit: OUTGOING_BYTES_MAX };
    assert_eq!(scripted.tell(&[0; 500]), Err(full(528)));
    let (rejected, call_slot) = scripted.call_with("back", &[0; 500]).unwrap_err();
    assert_eq!((rejected, call_slot), (full(540), "back"));
    assert_eq!(scripted.session.open_calls(), 0);

    // The ACK frees capacity, not the write.
    assert_eq!(scripted.written().len(), 2);
    assert_eq!(scripted.session.outgoing_bytes(), waiting);
    assert_eq!(scripted.session.unwritten_bytes(), 0);
    scripted.acknowledge();
    assert_eq!(scripted.session.outgoing_bytes(), 0);
    scripted.tell(&[0; 500]).unwrap();
    assert_eq!(scripted.written().len(), 1);
}

#[test]
fn one_message_over_the_budget_is_accepted_by_an_empty_budget() {
    let mut scripted = Scripted::attached();
    scripted.tell(&[0; OUTGOING_BYTES_MAX + 1]).unwrap();
    assert!(matches!(scripted.tell(b"x"), Err(Rejected::Full { .. })));
    assert_eq!(scripted.written().len(), 1);
}

#[test]
fn message_over_the_frame_limit_is_rejected() {
    let mut scripted = Scripted::attached();
    // One byte over the limit, so that the boundary itself is tested below.
    let too_large = vec![0; FRAME_BYTES_MAX - CALL_HEADER_BYTES + 1];
    let (rejected, _) = scripted.call_with("back", &too_large).unwrap_err();
    assert_eq!(rejected, Rejected::TooLarge { size: FRAME_BYTES_MAX + 1, limit: FRAME_BYTES_MAX });
    let fits = &too_large[1..];
    scripted.call_with("sent", fits).unwrap();
}

#[test]
fn timeouts_are_sent_rounded_up_and_never_as_zero() {
    let mut scripted = Scripted::attached();
    // Zero on the wire means no deadline, so an expired one must not be sent as zero.
    for (nanos, want) in [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2), (u64::MAX, u32::MAX)] {
        scripted.call_until("call", Some(Duration::from_nanos(nanos)));
        let [Frame::Call(Call { timeout_ms, .. })] = scripted.written()[..] else {
            panic!("one call is written");
        };
        assert_eq!(timeout_ms, want, "{nanos} ns");
    }
}

#[test]
fn calls_end_at_their_deadlines() {
    let mut scripted = Scripted::attached();
    let start = scripted.now;
    scripted.call_until("late", Some(Duration::from_millis(20)));
    scripted.call_until("early", Some(Duration::from_millis(10)));
    scripted.call("patient");
    let answered = scripted.call_until("answered", Some(Duration::from_millis(5)));
    scripted.written();
    scripted.receive(reply_frame(answered));
    assert!(!scripted.session.has_outgoing(), "no acknowledgement is due yet");
    assert_eq!(scripted.session.poll_timeout(), Some(start + Duration::from_millis(10)));
    assert_eq!(scripted.pass(Duration::from_millis(9)), []);
    let timed_out = CallError::TimedOut { written: true };
    assert_eq!(scripted.pass(Duration::from_millis(1)), [failed("early", timed_out.clone())]);
    assert_eq!(scripted.pass(Duration::from_secs(1)), [failed("late", timed_out)]);
    assert_eq!(scripted.all_written().len(), 3, "two cancels, and an acknowledgement");
    assert_eq!(scripted.session.poll_timeout(), None);
    assert_eq!(scripted.session.open_calls(), 1);
    assert_eq!(scripted.receive(reply_frame(CallId(1))), [], "a reply after the deadline is late");
}

#[test]
fn violations_of_the_protocol_are_errors() {
    let mut scripted = Scripted::attached();
    scripted.receive(call_frame(1, 0));
    assert_eq!(scripted.receive_wrong(call_frame(1, 0)), SessionError::CallTwice { call: CallId(1) });
    let welcome = || Frame::Welcome(Welcome { resume: Resume::default() });
    assert!(matches!(scripted.receive_wrong(welcome()), SessionError::UnexpectedFrame { .. }));

    scripted.receive(goodbye_frame("done"));
    for frame in [call_frame(2, 0), tell_frame("tell"), goodbye_frame("again"), welcome()] {
        assert!(matches!(scripted.receive_wrong(frame), SessionError::AfterGoodbye { .. }));
    }
    scripted.detach();
    assert!(matches!(scripted.receive_wrong(tell_frame("tell")), SessionError::Detached { .. }));
}

#[test]
fn call_that_is_cancelled_without_a_link_is_never_sent() {
    let mut scripted = Scripted::detached();
    let call = scripted.call("forgotten");
    scripted.tell(b"tell").unwrap();
    assert_eq!(scripted.session.cancel(call), Some("forgotten"));
    scripted.attach();
    assert!(matches!(scripted.written()[..], [Frame::Tell(_)]));
}

#[test]
fn call_that_times_out_is_cancelled_at_the_peer() {
    let mut scripted = Scripted::attached();
    let call = scripted.call_until("late", Some(Duration::from_millis(5)));
    scripted.pass(Duration::from_millis(5));
    let written = scripted.written();
    assert_eq!(written.last(), Some(&Frame::Cancel(Cancel { call })), "{written:?}");
}

#[test]
fn cancelled_call_is_reported_once_and_gets_no_reply() {
    let mut scripted = Scripted::attached();
    scripted.receive(call_frame(1, 0));
    // A Cancel for a call that is not open is no violation, as it may cross the reply.
    let cancel = || Frame::Cancel(Cancel { call: CallId(1) });
    assert_eq!(scripted.receive(cancel()), [Event::Cancelled { call: CallId(1) }]);
    assert_eq!(scripted.receive(cancel()), []);
    assert!(scripted.session.is_cancelled(CallId(1)));
    assert!(!scripted.session.reply(CallId(1), encoded(b"reply")));
    assert!(!scripted.session.is_cancelled(CallId(1)), "its handler is done");
    assert_eq!(scripted.written(), []);
}

#[test]
fn id_of_a_cancelled_call_is_in_use_until_its_handler_ends() {
    let mut scripted = Scripted::attached();
    scripted.receive(call_frame(1, 0));
    scripted.receive(Frame::Cancel(Cancel { call: CallId(1) }));
    let err = scripted.receive_wrong(call_frame(1, 0));
    assert_eq!(err, SessionError::CallTwice { call: CallId(1) });

    assert!(!scripted.session.fail(CallId(1), &CallFailure::NoReply));
    assert_eq!(scripted.receive(call_frame(1, 0)).len(), 1);
}

#[test]
fn call_that_is_cancelled_before_its_delivery_is_not_delivered() {
    let mut scripted = Scripted::attached();
    let mut events = Vec::new();
    for frame in [call_frame(1, 0), call_frame(2, 0), Frame::Cancel(Cancel { call: CallId(1) })] {
        scripted.session.receive(scripted.now, frame, &mut events).unwrap();
    }
    assert!(matches!(events[..], [Event::Call { call: CallId(2), .. }]), "{events:?}");
    assert_eq!(scripted.session.cancelled_calls(), 0);
}
