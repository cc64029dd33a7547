//! Outcomes of messages when a session ends, and before its first link.

use super::*;
use crate::config::QUEUED_CALL_OVERHEAD_BYTES;

#[test]
fn reset_separates_calls_that_were_written_from_calls_that_were_not() {
    let mut scripted = Scripted::attached();
    for call_slot in ["written", "partly", "taken"] {
        scripted.call(call_slot);
    }
    // The first call, and the second one without its body.
    scripted.write(CALL_HEADER_BYTES + "written".len() + CALL_HEADER_BYTES);
    scripted.call("queued");

    let lost = DisconnectReason::Closed;
    assert_eq!(
        scripted.reset(),
        [
            failed("written", CallError::OutcomeUnknown(lost.clone())),
            failed("partly", CallError::NotDelivered(lost.clone())),
            failed("taken", CallError::NotDelivered(lost.clone())),
            failed("queued", CallError::NotDelivered(lost)),
        ]
    );
    assert_eq!((scripted.session.open_calls(), scripted.session.outgoing_bytes()), (0, 0));
    scripted.session.on_written(10);
    assert_eq!(scripted.session.outgoing_bytes(), 0, "a late write report changes nothing");
}

#[test]
fn call_counts_as_written_with_its_last_byte() {
    let mut scripted = Scripted::attached();
    scripted.call("call");
    scripted.write(CALL_HEADER_BYTES + "call".len() - 1);
    scripted.write(1);
    assert_eq!(scripted.reset(), [failed("call", CallError::OutcomeUnknown(DisconnectReason::Closed))]);
}

#[test]
fn unwritten_tells_become_dead_letters() {
    let mut scripted = Scripted::attached();
    for _ in 0..3 {
        scripted.tell(b"tell").unwrap();
    }
    // One whole tell of 32 bytes; the kernel never had the other two.
    scripted.write(32);
    assert_eq!(scripted.reset(), [Event::DeadLetters { count: 2 }]);
    assert_eq!(scripted.reset(), []);
}

#[test]
fn calls_of_a_reset_session_get_no_reply() {
    let mut scripted = Scripted::attached();
    scripted.receive(call_frame(1, 0));
    scripted.reset();
    scripted.attach();
    assert!(!scripted.session.reply(CallId(1), encoded(b"reply")));
    assert_eq!(scripted.written(), []);
}

#[test]
fn messages_are_queued_until_a_link_is_attached() {
    let mut scripted = Scripted::detached();
    scripted.call("early");
    scripted.tell(b"tell").unwrap();
    assert!(!scripted.session.has_outgoing());
    assert_eq!(scripted.written(), []);

    scripted.attach();
    assert!(scripted.session.has_outgoing());
    assert_eq!(scripted.written().len(), 2);
}

#[test]
fn call_that_times_out_without_a_link_is_never_sent() {
    let mut scripted =
        Scripted::with(SessionLimits { outgoing_bytes_max: 2000, send_queue_bytes_max: 2000, ..LIMITS });
    scripted.tell(b"first").unwrap();
    scripted.call_until("early", Some(Duration::from_millis(10)));
    scripted.tell(b"second").unwrap();
    let before = scripted.session.send_queue_bytes();

    let timed_out = CallError::TimedOut { written: false };
    assert!(timed_out.is_safe_to_retry());
    assert_eq!(scripted.pass(Duration::from_millis(10)), [failed("early", timed_out)]);
    assert_eq!(
        scripted.session.send_queue_bytes(),
        before - CALL_HEADER_BYTES - "early".len() - QUEUED_CALL_OVERHEAD_BYTES
    );
    scripted.attach();
    let written = scripted.written();
    assert!(matches!(&written[..], [Frame::Tell(_), Frame::Tell(_)]), "{written:?}");
}

#[test]
fn messages_over_the_frame_limit_of_the_peer_fail_when_it_is_known() {
    let limit = 100;
    let mut scripted =
        Scripted::with(SessionLimits { outgoing_bytes_max: 2000, send_queue_bytes_max: 2000, ..LIMITS });
    let large = [0; 200];
    scripted.call("small");
    scripted.call_with("large", &large).unwrap();
    scripted.tell(&[0; 150]).unwrap();
    // Known only now: both messages were accepted by the local limit.
    scripted.terms.frame_bytes_max = limit;

    let events = scripted.attach();
    let [Event::Failed { call_slot: "large", failure }, Event::DeadLetters { count: 1 }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(failure.is_safe_to_retry());
    assert_eq!(scripted.written().len(), 1);
    assert!(matches!(scripted.tell(&large), Err(Rejected::TooLarge { limit: 100, .. })));
}

#[test]
fn call_ids_are_not_reused_after_a_reset() {
    let mut scripted = Scripted::attached();
    let first = scripted.call("first");
    scripted.written();
    scripted.reset();
    scripted.attach();
    let second = scripted.call("second");
    assert_ne!(first, second);
    assert_eq!(scripted.receive(reply_frame(first)), []);
    assert_eq!(scripted.receive(reply_frame(second)).len(), 1);
}

#[test]
fn bytes_held_by_the_writer_count_as_written_when_the_link_is_replaced() {
    let mut scripted = Scripted::attached();
    scripted.call("taken");
    scripted.tell(b"taken").unwrap();
    let mut batch = WriteBatch::default();
    scripted.session.take_outgoing(&mut batch);
    scripted.call("queued");
    scripted.tell(b"queued").unwrap();

    let mut events = Vec::new();
    scripted.session.detach(WriteCertainty::AtMost);
    scripted.session.reset(&DisconnectReason::Superseded, &mut events);
    let expect = [
        failed("taken", CallError::OutcomeUnknown(DisconnectReason::Superseded)),
        failed("queued", CallError::NotDelivered(DisconnectReason::Superseded)),
        Event::DeadLetters { count: 1 },
    ];
    assert_eq!(events, expect);
    assert_eq!(scripted.session.outgoing_bytes(), 0);
}
