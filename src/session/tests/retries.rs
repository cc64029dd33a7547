//! Retried calls, which are executed once.

use super::*;

fn retryable(call: u64, watermark: u64) -> Frame {
    Frame::Call(Call {
        call: CallId(call),
        target: TARGET,
        message: MESSAGE,
        timeout_ms: 0,
        low_watermark: Some(CallId(watermark)),
        body: body("call"),
    })
}

fn make(scripted: &mut Scripted, retry: Retryable) -> CallId {
    scripted.session.call(scripted.now, TARGET, MESSAGE, None, retry, encoded(b"call"), "call").unwrap()
}

#[test]
fn a_retry_has_the_id_of_the_first_attempt() {
    let mut scripted = Scripted::attached();
    make(&mut scripted, Retryable::Never);
    let call = make(&mut scripted, Retryable::First);
    scripted.written();
    assert_eq!(scripted.reset().len(), 2);
    scripted.attach();
    assert_eq!(make(&mut scripted, Retryable::Again(call)), call);
    let [Frame::Call(again)] = &scripted.written()[..] else { panic!("one call is written") };
    assert_eq!((again.call, again.low_watermark), (call, Some(call)));
}

#[test]
fn a_retry_of_an_open_or_ended_call_gets_a_new_id() {
    let mut scripted = Scripted::attached();
    let call = make(&mut scripted, Retryable::First);
    assert_eq!(make(&mut scripted, Retryable::Again(call)), CallId(2), "it is open");
    scripted.receive(reply_frame(call));
    scripted.session.end_retries(call);
    assert_eq!(make(&mut scripted, Retryable::Again(call)), CallId(3), "its retries have ended");
    assert_eq!(make(&mut scripted, Retryable::Again(CallId(5))), CallId(4), "it was never made");
    scripted.session.end_retries(CallId(2));
    scripted.session.end_retries(CallId(3));
    assert_eq!(make(&mut scripted, Retryable::Never), CallId(5));
}

#[test]
fn the_reply_to_an_earlier_attempt_withdraws_a_queued_retry() {
    let mut scripted = Scripted::with(SessionLimits { outgoing_bytes_max: 10_000, ..LIMITS });
    scripted.terms.window_bytes = 2000;
    scripted.attach();
    let call = make(&mut scripted, Retryable::First);
    for _ in 0..4 {
        scripted.tell(&[0; 100]).unwrap();
    }
    assert_eq!(scripted.session.cancel(call), Some("call"));
    scripted.written();
    assert_eq!(make(&mut scripted, Retryable::Again(call)), call);
    assert!(scripted.session.send_queue_bytes() > 0, "it has no credit");

    assert_eq!(scripted.receive(reply_frame(call)).len(), 1);
    assert_eq!(scripted.session.send_queue_bytes(), 0);
    let bytes = scripted.session.charged_bytes();
    scripted.receive(Frame::Credit(Credit { target: TARGET, bytes }));
    assert_eq!(scripted.written(), [], "no caller waits for another reply");
}

#[test]
fn the_watermark_is_sent_when_no_call_is_retryable() {
    let mut scripted = Scripted::attached();
    let calls = [make(&mut scripted, Retryable::First), make(&mut scripted, Retryable::First)];
    scripted.written();
    scripted.session.end_retries(calls[0]);
    assert_eq!(scripted.written(), [], "one is left");
    scripted.session.end_retries(calls[1]);
    assert_eq!(scripted.written(), [Frame::Watermark(Watermark { call: CallId(3) })]);
    scripted.session.end_retries(calls[1]);
    assert_eq!(scripted.written(), []);
}

#[test]
fn the_watermark_is_sent_again_after_a_reset_and_not_after_a_goodbye() {
    let mut scripted = Scripted::attached();
    let call = make(&mut scripted, Retryable::First);
    let next = make(&mut scripted, Retryable::First);
    scripted.session.end_retries(call);
    scripted.session.end_retries(next);
    let watermark = Frame::Watermark(Watermark { call: CallId(3) });
    assert_eq!(scripted.written().last(), Some(&watermark));
    scripted.reset();
    scripted.attach();
    assert_eq!(scripted.written(), [watermark], "it may not have come");

    let last = make(&mut scripted, Retryable::First);
    scripted.session.finish("done");
    scripted.session.end_retries(last);
    let written = scripted.written();
    assert!(matches!(written[..], [Frame::Call(_), Frame::Goodbye(_)]), "{written:?}");
}

#[test]
fn a_retry_gets_the_outcome_of_the_first_attempt() {
    let mut scripted = Scripted::attached();
    assert_eq!(scripted.receive(retryable(1, 1)).len(), 1);
    assert_eq!(scripted.receive(retryable(2, 1)).len(), 1);
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")));
    scripted.written();

    assert!(!scripted.session.fail(CallId(1), &CallFailure::NoReply), "it is answered");

    // The peer has reset the session, and retries.
    scripted.detach();
    scripted.attach_to(Resume { epoch: 1, received: 1, ..Resume::default() });
    assert_eq!(scripted.receive(retryable(1, 1)), []);
    assert_eq!(scripted.written(), [reply_frame(CallId(1))]);

    // A retry of a running call gets its reply when the handler ends.
    assert_eq!(scripted.receive(retryable(2, 1)), []);
    assert!(scripted.session.reply(CallId(2), encoded(b"reply")));
    assert_eq!(scripted.written(), [reply_frame(CallId(2))]);
}

#[test]
fn a_retry_runs_if_the_handler_of_the_first_attempt_did_not() {
    let mut scripted = Scripted::attached();
    scripted.receive(retryable(1, 1));
    assert!(scripted.session.fail(CallId(1), &CallFailure::ActorStopped));
    assert_eq!(scripted.receive(retryable(1, 1)).len(), 1);
    assert!(scripted.session.fail(CallId(1), &CallFailure::NoReply));
    scripted.written();
    assert_eq!(scripted.receive(retryable(1, 1)), []);
    assert_eq!(scripted.written(), [failure_frame(1, CallFailure::NoReply)]);
}

#[test]
fn outcomes_below_the_watermark_are_forgotten() {
    let mut scripted = Scripted::attached();
    for call in 1..=3 {
        scripted.receive(retryable(call, 1));
        scripted.session.reply(CallId(call), encoded(b"reply"));
    }
    scripted.receive(Frame::Watermark(Watermark { call: CallId(3) }));
    assert_eq!(scripted.receive(retryable(3, 3)), []);
    assert_eq!(scripted.receive(retryable(2, 3)).len(), 1, "it is a new call");
}

#[test]
fn an_open_call_does_not_make_the_dedup_cache_grow_without_limit() {
    let mut scripted = Scripted::attached();
    scripted.receive(retryable(1, 1));
    let last = 2 + crate::config::DEDUP_CACHE_ENTRIES_MAX as u64;
    for call in 2..=last {
        for event in scripted.receive(retryable(call, 1)) {
            let Event::Call { charge, .. } = event else { panic!("{event:?}") };
            scripted.session.release_credit(charge);
        }
        assert!(scripted.session.fail(CallId(call), &CallFailure::NoReply));
        scripted.written();
        scripted.acknowledge();
    }
    assert_eq!(scripted.receive(retryable(2, 1)), [], "it is not executed again, and its outcome is evicted");
    assert_eq!(scripted.written(), [failure_frame(2, CallFailure::NoReply)]);
    assert!(scripted.session.reply(CallId(1), encoded(b"reply")), "the first one is still open");
}

#[test]
fn an_evicted_reply_makes_a_retry_fail() {
    let limits = SessionLimits { frame_bytes_max: 16 << 20, ..LIMITS };
    let mut scripted = Scripted::with(limits);
    scripted.attach();
    // Two of them exceed the 16 MiB of the cache.
    let large = vec![0; 9 << 20];
    for call in [1, 2] {
        scripted.receive(retryable(call, 1));
        assert!(scripted.session.reply(CallId(call), encoded(&large)));
    }
    scripted.written();
    scripted.receive(retryable(1, 1));
    assert_eq!(scripted.written(), [failure_frame(1, CallFailure::NoReply)]);
}
