//! Graceful close by either side.

use super::*;

#[test]
fn draining_session_rejects_new_messages_and_completes_open_calls() {
    let mut scripted = Scripted::attached();
    let call = scripted.call("mine");
    scripted.receive(call_frame(1, 0));
    scripted.session.drain("tired");

    assert_eq!(scripted.tell(b"tell"), Err(Rejected::Closing));
    assert_eq!(scripted.receive(call_frame(2, 0)), []);
    assert!(matches!(
        &scripted.written()[..],
        [Frame::Call(_), Frame::Failure(Failure { call: CallId(2), failure: CallFailure::Closing })]
    ));
    assert!(!scripted.session.is_drained());

    assert!(scripted.session.reply(CallId(1), encoded(b"reply")));
    assert_eq!(scripted.written(), [reply_frame(CallId(1))], "a call is open");
    assert!(!scripted.session.is_drained());
    scripted.receive(reply_frame(call));
    assert_eq!(scripted.written(), [goodbye_frame("tired")]);
    assert!(scripted.session.is_drained());
}

#[test]
fn goodbye_is_sent_once() {
    let mut scripted = Scripted::attached();
    scripted.session.drain("tired");
    scripted.session.drain("very tired");
    scripted.session.finish("gone");
    assert_eq!(scripted.written(), [goodbye_frame("tired")]);

    // The next link resends the frames that the peer has not received.
    scripted.detach();
    scripted.read = 0;
    scripted.attach();
    assert_eq!(scripted.written(), [goodbye_frame("tired")]);
    scripted.detach();
    scripted.attach();
    assert_eq!(scripted.written(), []);
}

#[test]
fn goodbye_waits_for_the_link_after_earlier_messages() {
    let mut scripted = Scripted::detached();
    scripted.tell(b"early").unwrap();
    scripted.session.drain("tired");
    scripted.attach();
    let written = scripted.written();
    assert!(matches!(&written[..], [Frame::Tell(_), Frame::Goodbye(_)]), "{written:?}");
}

#[test]
fn finished_session_sends_goodbye_before_its_last_replies() {
    let mut scripted = Scripted::attached();
    scripted.receive(call_frame(1, 0));
    scripted.session.finish("gone");
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")));
    assert_eq!(scripted.written(), [goodbye_frame("gone"), reply_frame(CallId(1))]);
}

#[test]
fn closing_peer_gets_no_more_messages_but_still_replies() {
    let mut scripted = Scripted::attached();
    let call = scripted.call("mine");
    scripted.receive(call_frame(1, 0));
    let events = scripted.receive(goodbye_frame("tired"));
    assert_eq!(events, [Event::PeerClosing { reason: "tired".into() }]);

    assert_eq!(scripted.tell(b"tell"), Err(Rejected::Closing));
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")));
    assert_eq!(scripted.receive(reply_frame(call)).len(), 1);

    scripted.reset();
    scripted.tell(b"tell").unwrap();
}
