//! Waiting for capacity: in order, without starvation, and without spurious wake-ups.

use super::*;
use crate::config::{QUEUE_OVERHEAD_BYTES, QUEUED_OVERHEAD_BYTES, RESERVED_FOR};
use crate::session::{Waiter, WaiterId};

const STUCK: Target = Target { actor: ActorId(20), incarnation: ActorIncarnation(1) };
const OTHER: Target = Target { actor: ActorId(21), incarnation: ActorIncarnation(1) };

/// Frame length of a tell with a body of `body` bytes.
const fn frame(body: usize) -> usize {
    28 + body
}

/// Capacity of the link, and of all queues together.
const LINK: usize = 30 * frame(100);

/// Bytes that such a tell is accounted with in a queue.
const fn queued(body: usize) -> usize {
    frame(body) + QUEUED_OVERHEAD_BYTES
}

/// Waiter for such a tell.
const fn tell_of(body: usize) -> Waiter {
    Waiter { frame_bytes: frame(body), is_call: false, spares_queue: false }
}

/// Capacity for 4 tells of 100 bytes in a window, for 8 in a queue, and for 30 on the link.
fn small_budgets() -> Scripted {
    let mut scripted = Scripted::with(SessionLimits {
        outgoing_bytes_max: LINK,
        send_queue_bytes_max: QUEUE_OVERHEAD_BYTES + 8 * queued(100),
        frame_bytes_max: LINK,
        ..LIMITS
    });
    // A tell of 100 bytes costs its frame of 128 bytes and 256 of overhead.
    scripted.terms.window_bytes = 4 * 384;
    scripted.attach();
    scripted
}

impl Scripted {
    fn tell_to(&mut self, target: Target, body: usize) -> Result<(), Rejected> {
        self.session.tell(target, MESSAGE, encoded(&vec![0; body]))
    }

    /// Waits for capacity for a tell that is rejected.
    fn wait_to_tell(&mut self, target: Target, body: usize) -> WaiterId {
        assert!(matches!(self.tell_to(target, body), Err(Rejected::Full { .. })));
        self.session.line_up(target, tell_of(body), None)
    }

    fn serve(&mut self) -> Vec<WaiterId> {
        self.session.serve(self.now)
    }

    /// Sends the tell of a waiter in its turn.
    fn tell_in_turn(&mut self, number: WaiterId, target: Target, body: usize) -> Result<(), Rejected> {
        assert!(self.session.has_turn(number));
        self.session.begin_turn(number, target);
        let sent = self.tell_to(target, body);
        if sent.is_err() {
            self.session.line_up(target, tell_of(body), Some(number));
        }
        self.session.end_turn(target);
        sent
    }

    /// Fills the window and the queue of an actor.
    fn fill(&mut self, target: Target) {
        // Four use up the window, and eight more fill the queue.
        (0..12).for_each(|_| self.tell_to(target, 100).unwrap());
        self.written();
        self.acknowledge();
    }

    /// Returns the credit of one small message.
    fn handle_one(&mut self, target: Target) {
        self.receive(Frame::Credit(Credit { target, bytes: 384 }));
    }
}

#[test]
fn no_waiter_for_a_stuck_actor_is_woken_while_another_actor_proceeds() {
    let mut scripted = small_budgets();
    scripted.fill(STUCK);
    // Many, since the cost of a spurious wake-up grows with the number of waiters.
    let waiters: Vec<_> = (0..10_000).map(|_| scripted.wait_to_tell(STUCK, 100)).collect();
    assert_eq!(scripted.serve(), []);
    for _ in 0..1000 {
        scripted.tell_to(OTHER, 100).unwrap();
        assert_eq!(scripted.written().len(), 1);
        scripted.acknowledge();
        scripted.handle_one(OTHER);
        assert_eq!(scripted.serve(), []);
    }
    assert!(waiters.iter().all(|waiter| !scripted.session.has_turn(*waiter)));
}

#[test]
fn capacity_is_granted_in_order_and_only_granted_waiters_are_woken() {
    let mut scripted = small_budgets();
    scripted.fill(STUCK);
    let waiters: Vec<_> = (0..100).map(|_| scripted.wait_to_tell(STUCK, 100)).collect();
    assert_eq!(scripted.serve(), []);
    // Credit returns in steps that free space for two messages.
    for pair in waiters.chunks(2) {
        scripted.handle_one(STUCK);
        scripted.handle_one(STUCK);
        scripted.written();
        scripted.acknowledge();
        for waiter in pair {
            assert_eq!(scripted.serve(), [*waiter]);
            assert!(
                scripted.tell_to(STUCK, 100).is_err() || *waiter == waiters[99],
                "a new message passes no waiter"
            );
            scripted.tell_in_turn(*waiter, STUCK, 100).unwrap();
        }
        assert_eq!(scripted.serve(), []);
    }
    assert!(!scripted.session.has_waiters());
}

#[test]
fn the_grant_of_a_dropped_waiter_passes_to_the_next() {
    let mut scripted = small_budgets();
    scripted.fill(STUCK);
    let [first, second, third] = [(); 3].map(|()| scripted.wait_to_tell(STUCK, 100));
    scripted.session.stop_waiting(first);
    assert_eq!(scripted.serve(), []);
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve(), [second]);
    scripted.session.stop_waiting(second);
    assert_eq!(scripted.serve(), [third]);
    scripted.session.stop_waiting(third);
    assert_eq!(scripted.serve(), []);
    scripted.tell_to(STUCK, 100).unwrap();
}

#[test]
fn an_expired_grant_passes_to_the_next_and_its_waiter_resumes_its_position() {
    let mut scripted = small_budgets();
    scripted.fill(STUCK);
    let [first, second, third] = [(); 3].map(|()| scripted.wait_to_tell(STUCK, 100));
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve(), [first]);
    assert_eq!(scripted.session.poll_timeout(), Some(scripted.now + RESERVED_FOR));
    // The first waiter is not polled in time, as if its thread were blocked.
    scripted.pass(RESERVED_FOR);
    assert_eq!(scripted.serve(), [second]);
    scripted.tell_in_turn(second, STUCK, 100).unwrap();
    assert!(matches!(scripted.tell_in_turn(first, STUCK, 100), Err(Rejected::Full { .. })));
    assert_eq!(scripted.serve(), []);
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve(), [first]);
    assert!(!scripted.session.has_turn(third));
}

#[test]
fn a_message_as_large_as_the_budget_is_sent_in_turn_despite_a_stream_of_small_ones() {
    let mut scripted = small_budgets();
    // Fits only into an empty budget, so that every smaller message ahead delays it.
    let large = LINK - frame(0);
    scripted.tell_to(OTHER, 10).unwrap();
    scripted.written();
    let waiter = scripted.wait_to_tell(STUCK, large);
    assert_eq!(scripted.serve(), []);
    assert!(scripted.tell_to(OTHER, 10).is_err(), "nothing new goes before it");
    scripted.acknowledge();
    assert_eq!(scripted.serve(), [waiter]);
    scripted.tell_in_turn(waiter, STUCK, large).unwrap();
    assert_eq!(scripted.serve(), []);
}

#[test]
fn replies_do_not_starve_a_large_message() {
    // Both lines have a head with a mark: that of the waiters, and that of the queued messages.
    for is_queued in [false, true] {
        let mut scripted = small_budgets();
        let large = LINK - frame(0);
        scripted.tell_to(OTHER, 10).unwrap();
        scripted.receive(call_frame(1, 0));
        if is_queued {
            // Initially it has no credit.
            (0..4).for_each(|_| scripted.tell_to(STUCK, 0).unwrap());
            scripted.tell_to(STUCK, large).unwrap();
            (0..4)
                .for_each(|_| scripted.receive(Frame::Credit(Credit { target: STUCK, bytes: 284 })).clear());
        } else {
            let _ = scripted.wait_to_tell(STUCK, large);
            assert_eq!(scripted.serve(), []);
        }
        let before = scripted.written();
        scripted.session.reply(CallId(1), encoded(b"sent after it"));
        scripted.session.take_outgoing(&mut scripted.batch);
        // The peer acknowledges the frames before the reply, but not the reply.
        assert!(!before.is_empty());
        scripted.acknowledge();
        let has_gone =
            if is_queued { scripted.session.send_queue_bytes() == 0 } else { scripted.serve().len() == 1 };
        assert!(has_gone, "queued {is_queued}");
    }
}

#[test]
fn a_full_queue_of_one_actor_blocks_no_other_actor() {
    let mut scripted = small_budgets();
    scripted.fill(STUCK);
    scripted.wait_to_tell(STUCK, 100);
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve().len(), 1);
    // The grant is in the queue of one actor, and the other needs capacity on the link.
    for _ in 0..4 {
        scripted.tell_to(OTHER, 100).unwrap();
    }
}

#[test]
fn a_new_message_waits_behind_granted_waiters() {
    let mut scripted = small_budgets();
    scripted.fill(STUCK);
    let first = scripted.wait_to_tell(STUCK, 100);
    let last = scripted.session.line_up(STUCK, tell_of(0), None);
    scripted.handle_one(STUCK);
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve(), [first]);
    scripted.tell_in_turn(first, STUCK, 100).unwrap();
    assert_eq!(scripted.serve(), [last]);
}

#[test]
fn all_waiters_are_woken_when_the_session_is_reset_or_closes() {
    for ends in [false, true] {
        let mut scripted = small_budgets();
        scripted.fill(STUCK);
        let waiters = [(); 3].map(|()| scripted.wait_to_tell(STUCK, 100));
        if ends {
            scripted.session.drain("it is over");
        } else {
            scripted.reset();
        }
        assert_eq!(scripted.serve(), waiters);
        assert!(waiters.iter().all(|waiter| scripted.session.has_turn(*waiter)));
        assert_eq!(scripted.tell_to(STUCK, 100).is_err(), ends);
        assert!(!scripted.session.has_waiters());
    }
}

/// Queues more than the back-pressure threshold for an actor, but far less than the queue's capacity.
fn with_long_queue() -> Scripted {
    let mut scripted = Scripted::with(SessionLimits {
        outgoing_bytes_max: 1 << 20,
        send_queue_bytes_max: 1 << 20,
        ..LIMITS
    });
    scripted.terms.window_bytes = 4 * 384;
    scripted.attach();
    // Four in the window and a hundred in the queue, which is over 16 KiB with their overhead.
    (0..104).for_each(|_| scripted.tell_to(STUCK, 100).unwrap());
    scripted.written();
    assert!(
        scripted.session.over_soft_limit(STUCK).is_some()
            && scripted.session.over_soft_limit(OTHER).is_none()
    );
    scripted
}

impl Scripted {
    fn wait_to_spare(&mut self, target: Target) -> WaiterId {
        self.session.line_up(target, Waiter { spares_queue: true, ..tell_of(100) }, None)
    }
}

#[test]
fn one_queue_sparing_sender_proceeds_for_each_message_sent_from_the_queue() {
    let mut scripted = with_long_queue();
    // As many as are queued: each message that leaves the queue lets one of them proceed.
    let waiters: Vec<_> = (0..100).map(|_| scripted.wait_to_spare(STUCK)).collect();
    scripted.acknowledge();
    assert_eq!(scripted.serve(), []);
    for waiter in waiters {
        scripted.handle_one(STUCK);
        assert_eq!(scripted.serve(), [waiter]);
        scripted.tell_in_turn(waiter, STUCK, 100).unwrap();
        assert_eq!(scripted.serve(), []);
        scripted.written();
        scripted.acknowledge();
    }
    assert!(!scripted.session.has_waiters());
}

#[test]
fn later_waiters_stay_behind_a_queue_sparing_one_but_new_messages_need_only_capacity() {
    let mut scripted = with_long_queue();
    let first = scripted.wait_to_spare(STUCK);
    let second = scripted.wait_to_tell(STUCK, 100);
    assert_eq!(scripted.serve(), []);
    assert!(!scripted.session.begin_passing(OTHER), "no sender waits for it");
    assert!(scripted.session.begin_passing(STUCK));
    scripted.tell_to(STUCK, 100).unwrap();
    scripted.session.end_turn(STUCK);
    assert_eq!(scripted.serve(), []);
    // The queue is short again, so its waiters wait for capacity only.
    scripted.written();
    scripted.acknowledge();
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve(), [first]);
    // A waiter that does not spare the queue has no capacity, so nothing may pass it.
    assert!(!scripted.session.begin_passing(STUCK), "the next one needs only capacity");
    scripted.tell_in_turn(first, STUCK, 100).unwrap();
    assert_eq!(scripted.serve(), [second]);
}

/// The waiter's thread may not run for a while. A call must be sent on its first poll nevertheless.
#[test]
fn a_message_that_needs_only_capacity_passes_waiters_for_the_turn_of_another() {
    let mut scripted = with_long_queue();
    let [first, second] = [(); 2].map(|()| scripted.wait_to_spare(STUCK));
    scripted.acknowledge();
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve(), [first]);
    scripted.written();
    scripted.acknowledge();
    scripted.handle_one(STUCK);
    assert_eq!(scripted.serve(), []);
    let pass = |scripted: &mut Scripted| {
        assert!(scripted.session.begin_passing(STUCK));
        scripted.tell_to(STUCK, 100).unwrap();
        scripted.session.end_turn(STUCK);
    };
    pass(&mut scripted);
    // Also with credit and an empty queue.
    // Sends all messages of the queue, and returns their credit.
    for _ in 0..101 {
        scripted.written();
        scripted.acknowledge();
        scripted.handle_one(STUCK);
    }
    assert_eq!((scripted.serve(), scripted.session.over_soft_limit(STUCK)), (vec![], None));
    pass(&mut scripted);
    scripted.tell_in_turn(first, STUCK, 100).unwrap();
    assert_eq!(scripted.serve(), [second]);
}

#[test]
fn without_a_link_no_sender_waits_to_spare_a_queue() {
    let mut scripted = with_long_queue();
    let waiter = scripted.wait_to_spare(STUCK);
    assert_eq!(scripted.serve(), []);
    // There is no credit to wait for any more, so sparing the queue would wait for ever.
    scripted.session.detach(WriteCertainty::Exact);
    assert_eq!(scripted.serve(), [waiter]);
}

/// A message with credit that waits for the link makes all others queue, also those to an idle actor.
/// Once it is sent they need no capacity in the queues.
#[test]
fn a_waiter_for_an_idle_actor_proceeds_when_the_link_is_free_again() {
    let mut scripted = small_budgets();
    let actor = |number| Target { actor: ActorId(number), incarnation: ActorIncarnation(1) };
    let (without_credit, idle) = (actor(30), actor(31));
    (0..4).for_each(|_| scripted.tell_to(without_credit, 100).unwrap());
    scripted.fill(STUCK);
    // The queues have capacity for one more small message.
    (0..9).for_each(|_| scripted.tell_to(OTHER, 100).unwrap());
    scripted.written();
    scripted.acknowledge();
    (0..30).for_each(|sent| scripted.tell_to(actor(40 + sent / 4), 100).unwrap());
    scripted.handle_one(STUCK);
    let first = scripted.wait_to_tell(without_credit, 400);
    let second = scripted.wait_to_tell(idle, 100);
    assert_eq!(scripted.serve(), []);

    scripted.written();
    scripted.acknowledge();
    assert_eq!(scripted.serve(), [second], "its actor has credit, and the link is free");
    assert!(!scripted.session.has_turn(first));
    scripted.tell_in_turn(second, idle, 100).unwrap();
}
