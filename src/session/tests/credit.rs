//! Windows of actors, and the messages queued for credit.

use super::*;
use crate::config::QUEUE_OVERHEAD_BYTES;

const OTHER: Target = Target { actor: ActorId(10), incarnation: ActorIncarnation(1) };

/// A tell of 100 bytes occupies 384 of a window of 2000 bytes.
const SMALL_WINDOW: u64 = 2000;
const BODY: [u8; 100] = [0; 100];
const COST: u64 = 384;

fn with_small_window() -> Scripted {
    let mut scripted = Scripted::with(SessionLimits {
        outgoing_bytes_max: 10_000,
        send_queue_bytes_max: QUEUE_OVERHEAD_BYTES + 600,
        ..LIMITS
    });
    scripted.terms.window_bytes = SMALL_WINDOW;
    scripted.attach();
    scripted
}

fn credit(bytes: u64) -> Frame {
    Frame::Credit(Credit { target: TARGET, bytes })
}

#[test]
fn messages_without_credit_are_queued_in_order_and_others_pass_them() {
    let mut scripted = with_small_window();
    for _ in 0..5 {
        scripted.tell(&BODY).unwrap();
    }
    // Five times 384 bytes are 1920 of 2000: a sixth message lacks credit.
    assert_eq!(scripted.session.charged_bytes(), 5 * COST);
    scripted.tell(b"queued first").unwrap();
    scripted.tell(b"").unwrap();
    scripted.session.tell(OTHER, MESSAGE, encoded(b"other")).unwrap();
    let written = scripted.written();
    assert_eq!(written.len(), 6);
    assert!(matches!(&written[5], Frame::Tell(Tell { target: OTHER, .. })));

    assert_eq!(scripted.receive(credit(2 * COST)), []);
    let written = scripted.written();
    let [Frame::Tell(first), Frame::Tell(_)] = &written[..] else { panic!("{written:?}") };
    assert_eq!(first.body, body("queued first"));
    assert_eq!(scripted.session.send_queue_bytes(), 0);
}

#[test]
fn no_smaller_message_passes_one_with_credit_that_waits_for_the_link() {
    const THIRD: Target = Target { actor: ActorId(11), incarnation: ActorIncarnation(1) };
    let limits = SessionLimits { outgoing_bytes_max: 1700, send_queue_bytes_max: 1000, ..LIMITS };
    let mut scripted = Scripted::with(limits);
    scripted.terms.window_bytes = SMALL_WINDOW;
    scripted.attach();
    for _ in 0..5 {
        scripted.tell(&BODY).unwrap();
        scripted.written();
        scripted.acknowledge();
    }
    scripted.tell(&BODY).unwrap();
    // 1628 bytes in flight leave capacity for a small message, but not for the queued one of 128
    // bytes.
    for body in [900, 672] {
        scripted.session.tell(OTHER, MESSAGE, encoded(&vec![0; body])).unwrap();
    }
    assert_eq!(scripted.written().len(), 2, "one tell waits for credit");
    scripted.receive(credit(COST));
    scripted.session.tell(THIRD, MESSAGE, encoded(b"small")).unwrap();
    assert_eq!(scripted.written(), [], "there is credit but no capacity");
    scripted.acknowledge();
    let written = scripted.written();
    assert!(
        matches!(
            &written[..],
            [Frame::Tell(Tell { target: TARGET, .. }), Frame::Tell(Tell { target: THIRD, .. })]
        ),
        "{written:?}"
    );
}

#[test]
fn queued_messages_have_a_limit_for_each_actor() {
    let mut scripted = with_small_window();
    for _ in 0..8 {
        scripted.tell(&BODY).unwrap();
    }
    // Three messages with 128 + 64 bytes each, the queue with 640, and the overhead of this one.
    assert!(matches!(scripted.tell(&BODY), Err(Rejected::Full { waiting: 1280, limit: 1240, .. })));
    assert!(scripted.session.has_room_for(OTHER, 128, false), "another actor is not affected");
    scripted.written();
    scripted.receive(credit(COST));
    scripted.tell(&BODY).unwrap();
}

#[test]
fn a_rejection_names_the_exhausted_budget() {
    const QUEUE: usize = QUEUE_OVERHEAD_BYTES;
    let limits =
        SessionLimits { outgoing_bytes_max: 1100 + 2 * QUEUE, send_queue_bytes_max: 700 + QUEUE, ..LIMITS };
    let mut scripted = Scripted::with(limits);
    scripted.tell(&[0; 472]).unwrap();
    scripted.session.tell(OTHER, MESSAGE, encoded(&[0; 372])).unwrap();
    let full = |waiting, limit| Err(Rejected::Full { size: 128, waiting, limit });
    assert_eq!(scripted.tell(&BODY), full(QUEUE + 564 + 64, 700 + QUEUE));
    assert_eq!(
        scripted.session.tell(OTHER, MESSAGE, encoded(&BODY)),
        full(2 * QUEUE + 564 + 464 + 64, 1100 + 2 * QUEUE)
    );
}

#[test]
fn the_largest_message_passes_while_the_receiver_defers_the_rest_of_the_window() {
    let mut scripted = with_small_window();
    scripted.tell(&BODY).unwrap();
    // Over half of the window, so its cost is capped at the half.
    scripted.tell(&[0; 900]).unwrap();
    assert_eq!(scripted.session.charged_bytes(), COST + SMALL_WINDOW / 2);
    assert_eq!(scripted.written().len(), 2);
}

#[test]
fn credit_that_was_never_charged_is_a_violation() {
    let mut scripted = with_small_window();
    let wrong = scripted.receive_wrong(credit(1));
    assert_eq!(wrong, SessionError::Credit { target: TARGET, bytes: 1 });
    scripted.tell(&BODY).unwrap();
    scripted.receive_wrong(credit(COST + 1));
}

#[test]
fn credit_is_returned_by_the_quarter_of_the_window() {
    let mut scripted = Scripted::with(SessionLimits { window_bytes: 2000, ..LIMITS });
    scripted.attach();
    let charges: Vec<_> = (0..4)
        .flat_map(|_| scripted.receive(tell_frame("tell")))
        .map(|event| match event {
            Event::Tell { charge, .. } => charge,
            event => panic!("{event:?}"),
        })
        .collect();
    // Two of four messages are over a quarter of the window.
    let cost = charges[0].bytes;
    assert_eq!(scripted.session.accepted_bytes(), 4 * cost);
    assert!(!scripted.session.release_credit(charges[0]));
    assert_eq!((scripted.session.accepted_bytes(), scripted.session.owed_bytes()), (3 * cost, cost));
    assert!(scripted.session.release_credit(charges[1]));
    assert_eq!(scripted.written(), [credit(2 * cost)]);
    assert_eq!(scripted.session.owed_bytes(), 0);

    // Charges of an earlier epoch return no credit.
    scripted.reset();
    assert!(!scripted.session.release_credit(charges[2]));
    assert_eq!(scripted.session.owed_bytes(), 0);
}

#[test]
fn credit_is_deferred_for_a_peer_that_does_not_read_its_replies() {
    let mut scripted =
        Scripted::with(SessionLimits { outgoing_bytes_max: 200, window_bytes: 2000, ..LIMITS });
    scripted.attach();
    let mut charges = Vec::new();
    for number in 1..=4 {
        for event in scripted.receive(call_frame(number, 0)) {
            let Event::Call { call, charge, .. } = event else { panic!("{event:?}") };
            assert!(scripted.session.reply(call, encoded(&BODY)));
            charges.push(charge);
        }
    }
    // The unread replies exceed 200 bytes, so nothing is returned although a quarter is free.
    for charge in &charges {
        assert!(!scripted.session.release_credit(*charge));
    }
    assert_eq!(scripted.written().len(), 4, "the replies alone");
    let owed = scripted.session.owed_bytes();
    assert_eq!(owed, 4 * charges[0].bytes);
    scripted.acknowledge();
    assert_eq!(scripted.written(), [credit(owed)]);
    assert_eq!(scripted.session.owed_bytes(), 0);
}

#[test]
fn a_message_without_credit_is_a_violation() {
    let mut scripted = Scripted::with(SessionLimits { window_bytes: 1000, ..LIMITS });
    scripted.attach();
    for _ in 0..3 {
        scripted.receive(tell_frame("tell"));
    }
    assert_eq!(scripted.receive_wrong(tell_frame("tell")), SessionError::NoCredit { target: TARGET });
}

#[test]
fn a_call_cancelled_before_it_had_credit_costs_nothing() {
    let mut scripted = with_small_window();
    for _ in 0..5 {
        scripted.tell(&BODY).unwrap();
    }
    let call = scripted.call("queued");
    assert_eq!(scripted.session.cancel(call), Some("queued"));
    assert_eq!(scripted.session.send_queue_bytes(), 0);
    assert_eq!(scripted.written().len(), 5, "no Cancel is sent");
    scripted.receive(credit(5 * COST));
    assert_eq!(scripted.session.charged_bytes(), 0);
}

#[test]
fn an_undelivered_cancelled_call_returns_its_credit() {
    let mut scripted = Scripted::with(SessionLimits { window_bytes: 1000, ..LIMITS });
    scripted.attach();
    let mut events = Vec::new();
    for frame in [call_frame(1, 0), Frame::Cancel(Cancel { call: CallId(1) })] {
        scripted.session.receive(scripted.now, frame, &mut events).unwrap();
    }
    assert_eq!(events, []);
    assert_eq!(scripted.session.accepted_bytes(), 0);
    assert!(matches!(scripted.written()[..], [Frame::Credit(_)]));
}

#[test]
fn idle_flows_are_removed_when_there_are_many() {
    let mut scripted = Scripted::attached();
    // Each actor is owed less than a quarter of its window, and would be remembered for ever.
    for actor in 0..3000 {
        let target = Target { actor: ActorId(actor), incarnation: ActorIncarnation(0) };
        let tell = Tell { target, message: MESSAGE, body: body("tell") };
        for event in scripted.receive(Frame::Tell(tell)) {
            let Event::Tell { charge, .. } = event else { panic!("{event:?}") };
            scripted.session.release_credit(charge);
        }
    }
    let credit_frames = scripted.written().len();
    assert!(credit_frames >= 2 * 1024, "{credit_frames}");
    let cost = charge(TELL_HEADER_BYTES + 4).bytes;
    assert_eq!(scripted.session.owed_bytes(), (3000 - credit_frames as u64) * cost);
}
