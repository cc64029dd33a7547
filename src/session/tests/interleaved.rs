//! Two sessions joined back to back, in random interleavings, against a simple model.
//!
//! Received bytes take the production path: from the bytes of a link to the inbox of a host and the
//! reply slots of callers.

mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::property_tests;
use proptest::prelude::*;

use self::waiting::Waiting;
use super::*;
use crate::host::{InboundSink, ReceivePath, SlotId};
use crate::registry::{Inbound, MessageBatch};
use crate::wire;

/// Number of a message, which is also its content. A retry keeps it.
type Number = u32;

/// Outcome of a call, as far as the model predicts it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Replied(Number),
    Failed(CallError),
}

/// A small window, so that messages are queued; capacity for a few messages in chunks.
const LIMITS: SessionLimits = SessionLimits {
    chunk_bytes: CHUNK_BYTES,
    outgoing_bytes_max: 300_000,
    frame_bytes_max: 400_000,
    window_bytes: 4_000,
    send_queue_bytes_max: 250_000,
    calls_open_max: 40,
    injected_bug: None,
};

/// Attempt at a call, which is also its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    number: Number,
    nth: u32,
}

/// A call of the peer whose handler runs.
struct Handling {
    call: CallId,
    number: Number,
    charge: CreditCharge,
}

/// A session and the knowledge of its user.
struct Side {
    session: Session<SlotId>,
    path: ReceivePath,
    /// Attempts without an outcome, by their slots.
    open: BTreeMap<SlotId, Attempt>,
    batch: WriteBatch,
    /// Bytes that the kernel has accepted and the peer has not read.
    pipe: BytesMut,
    sent_calls: BTreeMap<Attempt, CallId>,
    /// Calls that may be retried.
    retryable: BTreeSet<Number>,
    ends: BTreeMap<Attempt, End>,
    forgotten: BTreeSet<Attempt>,
    /// Calls of the peer that it has cancelled and whose handlers still run.
    cancelled: BTreeSet<CallId>,
    seen_calls: BTreeSet<Number>,
    unanswered: VecDeque<Handling>,
    unhandled: VecDeque<CreditCharge>,
    sent_tells: Vec<Number>,
    seen_tells: Vec<Number>,
    dead_letters: u64,
    attached: bool,
    /// Senders of one-way messages that wait for capacity.
    waiting: Vec<Waiting>,
}

impl Side {
    fn new() -> Self {
        Self {
            session: Session::new(LIMITS),
            path: ReceivePath::default(),
            open: BTreeMap::new(),
            batch: WriteBatch::default(),
            pipe: BytesMut::new(),
            sent_calls: BTreeMap::new(),
            retryable: BTreeSet::new(),
            ends: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            seen_calls: BTreeSet::new(),
            unanswered: VecDeque::new(),
            unhandled: VecDeque::new(),
            sent_tells: Vec::new(),
            seen_tells: Vec::new(),
            dead_letters: 0,
            attached: false,
            waiting: Vec::new(),
        }
    }

    /// Takes every whole frame of `bytes` in one read.
    fn receive(&mut self, now: Instant, codec: &FrameCodec, mut bytes: BytesMut) {
        self.path.receive(&mut self.session, now, codec, &mut bytes).unwrap();
        assert!(bytes.is_empty());
        let mut output = ReadOutput::default();
        self.path.end_read(&mut self.session, now, &mut output);
        for message in output.messages {
            self.take(message);
        }
        self.note(output.events);
    }

    fn take(&mut self, message: Inbound) {
        let (number, _): (Number, String) = wire::decode(&message.body).unwrap();
        let charge = message.charge().unwrap();
        let charge = CreditCharge {
            target: charge.target(),
            bytes: charge.bytes().get(),
            epoch: charge.session_epoch(),
        };
        match message.call() {
            Some(call) => {
                assert!(self.seen_calls.insert(number), "call {number} was delivered twice");
                self.unanswered.push_back(Handling { call, number, charge });
            }
            None => {
                self.seen_tells.push(number);
                self.unhandled.push_back(charge);
            }
        }
    }

    /// Records the session's other events, and the outcomes available by now.
    fn note(&mut self, events: Vec<Event<SlotId>>) {
        for event in self.path.settle(events) {
            match event {
                Event::Cancelled { call } => {
                    assert!(self.unanswered.iter().any(|handling| handling.call == call));
                    assert!(self.cancelled.insert(call), "call {call} is cancelled twice");
                }
                Event::DeadLetters { count } => self.dead_letters += count,
                other => panic!("neither side closes, and both have the same types: {other:?}"),
            }
        }
        let outcomes =
            self.open.keys().filter_map(|call_slot| Some((*call_slot, self.path.outcome(*call_slot)?)));
        for (call_slot, outcome) in outcomes.collect::<Vec<_>>() {
            let attempt = self.open.remove(&call_slot).unwrap();
            match outcome {
                Ok(body) => self.end(attempt, End::Replied(wire::decode(&body).unwrap())),
                Err(failed) => self.end(attempt, End::Failed(failed)),
            }
        }
    }

    fn end(&mut self, attempt: Attempt, end: End) {
        assert!(!self.forgotten.contains(&attempt), "{attempt:?} was cancelled and ends with {end:?}");
        assert_eq!(self.ends.insert(attempt, end), None, "{attempt:?} ends twice");
    }

    /// Returns whether an attempt at the call may have been executed.
    fn may_have_run(&self, number: Number) -> bool {
        // All attempts at one call: any of them may have run the handler.
        let attempts = Attempt { number, nth: 0 }..=Attempt { number, nth: u32::MAX };
        let safe = |end: &End| matches!(end, End::Failed(failed) if failed.is_safe_to_retry());
        self.ends.range(attempts).any(|(_, end)| !safe(end))
    }

    fn has_space(&self) -> bool {
        self.session.outgoing_bytes() <= LIMITS.outgoing_bytes_max + LIMITS.frame_bytes_max
            && self.session.send_queue_bytes() <= LIMITS.outgoing_bytes_max + LIMITS.frame_bytes_max
    }
}

/// Messages and events of one read.
#[derive(Default)]
struct ReadOutput {
    messages: Vec<Inbound>,
    events: Vec<Event<SlotId>>,
}

impl InboundSink for ReadOutput {
    fn messages(&mut self, to: (Target, TypeHash), batch: MessageBatch) {
        assert_eq!(to, (TARGET, MESSAGE));
        self.messages.extend(batch);
    }

    fn event(&mut self, event: Event<SlotId>) {
        self.events.push(event);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Call {
        side: usize,
        padding: usize,
        timeout_ms: Option<u64>,
        retryable: bool,
    },
    Again {
        side: usize,
        nth: usize,
    },
    Tell {
        side: usize,
        padding: usize,
    },
    /// A sender that can wait sends a tell, or waits for capacity.
    LineUp {
        side: usize,
        padding: usize,
        spares_queue: bool,
    },
    PollTurn {
        side: usize,
        nth: usize,
    },
    DropWaiter {
        side: usize,
        nth: usize,
    },
    Forget {
        side: usize,
        nth: usize,
    },
    Answer {
        side: usize,
        fail: bool,
    },
    Handle {
        side: usize,
    },
    Write {
        side: usize,
        bytes: usize,
    },
    Read {
        side: usize,
        frames: usize,
    },
    Pass {
        ms: u64,
    },
    Break {
        known: bool,
    },
    Join,
    Reset {
        side: usize,
    },
    /// A side forgets the other, as if they had never been connected.
    ForgetPeer {
        side: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let side = || 0..2_usize;
    let padding = || prop_oneof![9 => 0..150_usize, 1 => 60_000..200_000_usize];
    prop_oneof![
        6 => (side(), padding(), proptest::option::of(1..50_u64), any::<bool>()).prop_map(
            |(side, padding, timeout_ms, retryable)| Step::Call { side, padding, timeout_ms, retryable }
        ),
        2 => (side(), 0..20_usize).prop_map(|(side, nth)| Step::Again { side, nth }),
        6 => (side(), padding()).prop_map(|(side, padding)| Step::Tell { side, padding }),
        6 => (side(), padding(), any::<bool>())
            .prop_map(|(side, padding, spares_queue)| Step::LineUp { side, padding, spares_queue }),
        4 => (side(), 0..5_usize).prop_map(|(side, nth)| Step::PollTurn { side, nth }),
        1 => (side(), 0..5_usize).prop_map(|(side, nth)| Step::DropWaiter { side, nth }),
        1 => (side(), 0..20_usize).prop_map(|(side, nth)| Step::Forget { side, nth }),
        5 => (side(), any::<bool>()).prop_map(|(side, fail)| Step::Answer { side, fail }),
        5 => side().prop_map(|side| Step::Handle { side }),
        9 => (side(), prop_oneof![3 => 1..400_usize, 1 => 1..300_000_usize])
            .prop_map(|(side, bytes)| Step::Write { side, bytes }),
        9 => (side(), 1..9_usize).prop_map(|(side, frames)| Step::Read { side, frames }),
        2 => (0..40_u64).prop_map(|ms| Step::Pass { ms }),
        2 => any::<bool>().prop_map(|known| Step::Break { known }),
        4 => Just(Step::Join),
        1 => prop_oneof![
            6 => Just(Step::Join),
            1 => side().prop_map(|side| Step::Reset { side }),
            1 => side().prop_map(|side| Step::ForgetPeer { side }),
        ],
    ]
}

struct World {
    now: Instant,
    joined: bool,
    sides: [Side; 2],
    last: Number,
    resets: u32,
    /// Number of times that a side has forgotten the other.
    generation: u32,
}

impl World {
    fn new() -> Self {
        let sides = [Side::new(), Side::new()];
        Self { now: Instant::now(), joined: false, sides, last: 0, resets: 0, generation: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call { side, padding, timeout_ms, retryable } => {
                self.call(side, padding, timeout_ms, retryable);
            }
            Step::Again { side, nth } => self.call_again(side, nth),
            Step::Tell { side, padding } => self.tell(side, padding),
            Step::LineUp { side, padding, spares_queue } => self.tell_or_line_up(side, padding, spares_queue),
            Step::PollTurn { side, nth } => self.poll_turn(side, nth),
            Step::DropWaiter { side, nth } => self.drop_waiter(side, nth),
            Step::Forget { side, nth } => {
                let side = &mut self.sides[side];
                if let Some((attempt, call)) = side.sent_calls.iter().nth(nth)
                    && !side.ends.contains_key(attempt)
                    && let Some(call_slot) = side.path.forget(&mut side.session, *call)
                {
                    side.forgotten.extend(side.open.remove(&call_slot));
                }
            }
            Step::Answer { side, fail } => self.answer(side, fail),
            Step::Handle { side } => self.handle(side),
            Step::Write { side, bytes } => self.write(side, bytes),
            Step::Read { side, frames } => self.read(side, frames),
            Step::Pass { ms } => self.pass(Duration::from_millis(ms)),
            Step::Break { known } => {
                self.break_link(if known { WriteCertainty::Exact } else { WriteCertainty::AtMost })
            }
            Step::Join => self.join(),
            Step::Reset { side } => self.reset(side),
            Step::ForgetPeer { side } => self.forget_peer(side),
        }
        self.serve();
        for side in &self.sides {
            assert!(side.has_space());
        }
    }

    fn call(&mut self, side: usize, padding: usize, timeout_ms: Option<u64>, retryable: bool) {
        self.last += 1;
        let attempt = Attempt { number: self.last, nth: 0 };
        let retry = if retryable { Retryable::First } else { Retryable::Never };
        self.attempt(side, attempt, padding, timeout_ms, retry);
    }

    fn call_again(&mut self, side: usize, nth: usize) {
        let by = &self.sides[side];
        let Some(number) = by.retryable.iter().nth(nth).copied() else { return };
        let mut made = by.sent_calls.range(Attempt { number, nth: 0 }..=Attempt { number, nth: u32::MAX });
        let Some((last, call)) = made.next_back().map(|(last, call)| (*last, *call)) else { return };
        match by.ends.get(&last) {
            // A call that was never delivered may be sent as a new one when its id is forgotten.
            Some(End::Failed(CallError::NotDelivered(DisconnectReason::Forgotten)))
                if !by.may_have_run(number) =>
            {
                let attempt = Attempt { number, nth: last.nth + 1 };
                self.attempt(side, attempt, 0, None, Retryable::First);
            }
            Some(End::Failed(CallError::NotDelivered(_) | CallError::OutcomeUnknown(_))) => {
                let attempt = Attempt { number, nth: last.nth + 1 };
                self.attempt(side, attempt, 0, None, Retryable::Again(call));
            }
            Some(_) => {
                let by = &mut self.sides[side];
                by.retryable.remove(&number);
                by.session.end_retries(call);
            }
            None => {}
        }
    }

    fn attempt(
        &mut self,
        side: usize,
        attempt: Attempt,
        padding: usize,
        timeout_ms: Option<u64>,
        retry: Retryable,
    ) {
        let (now, side) = (self.now, &mut self.sides[side]);
        let deadline = timeout_ms.map(|ms| now + Duration::from_millis(ms));
        let message = (attempt.number, "x".repeat(padding));
        let called = wire::encode(&message, 1 << 20, |body| {
            side.path.call(&mut side.session, now, TARGET, MESSAGE, deadline, retry, body.into())
        });
        match called.unwrap() {
            Ok((call, call_slot)) => {
                assert!(side.passes_none(), "{attempt:?} passes a waiter");
                assert_eq!(side.open.insert(call_slot, attempt), None, "a slot has one call");
                if let Retryable::Again(first) = retry {
                    assert_eq!(call, first);
                }
                if retry != Retryable::Never {
                    side.retryable.insert(attempt.number);
                }
                assert_eq!(side.sent_calls.insert(attempt, call), None);
            }
            Err(Rejected::Forgotten) => {
                assert!(self.generation > 0 && matches!(retry, Retryable::Again(_)), "{attempt:?}");
                side.retryable.remove(&attempt.number);
            }
            Err(rejected) => assert!(matches!(rejected, Rejected::Full { .. }), "{rejected}"),
        }
    }

    fn tell(&mut self, side: usize, padding: usize) {
        self.last += 1;
        let (number, side) = (self.last, &mut self.sides[side]);
        if side.try_tell(number, padding).is_ok() {
            assert!(side.passes_none(), "{number} passes a waiter");
        } else if side.session.begin_passing(TARGET) {
            let _ = side.try_tell(number, padding);
            side.session.end_turn(TARGET);
        }
    }

    fn answer(&mut self, side: usize, fail: bool) {
        let side = &mut self.sides[side];
        if let Some(Handling { call, number, charge }) = side.unanswered.pop_front() {
            let before = side.session.resume().epoch;
            side.session.release_credit(charge);
            let answered = if fail {
                side.session.fail(call, &CallFailure::NoReply)
            } else {
                wire::encode(&number, 100, |body| side.session.reply(call, body)).unwrap()
            };
            // A cancelled call gets no reply, whatever its handler returns.
            let owed = !side.cancelled.remove(&call);
            if self.resets == 0 {
                assert_eq!((answered, before), (owed, 0), "call {number} arrived in this session");
            }
        }
    }

    fn handle(&mut self, side: usize) {
        let side = &mut self.sides[side];
        if let Some(charge) = side.unhandled.pop_front() {
            side.session.release_credit(charge);
        }
    }

    fn write(&mut self, side: usize, bytes: usize) {
        let side = &mut self.sides[side];
        if !side.batch.has_remaining() {
            side.session.take_outgoing(&mut side.batch);
        }
        let bytes = bytes.min(side.batch.remaining());
        side.pipe.extend_from_slice(&side.batch.copy_to_bytes(bytes));
        side.session.on_written(bytes);
    }

    /// Lets the peer of `side` read the bytes that `side` has written.
    fn read(&mut self, side: usize, frames: usize) {
        let codec = FrameCodec::established(LIMITS.frame_bytes_max);
        let pipe = &mut self.sides[side].pipe;
        let mut end = 0;
        for _ in 0..frames {
            match codec.frame_bytes(&pipe[end..]).unwrap() {
                Some(bytes) if bytes <= pipe.len() - end => end += bytes,
                _ => break,
            }
        }
        // Whole frames only: the receiving path is given what one read of the socket completes.
        let bytes = pipe.split_to(end);
        self.sides[1 - side].receive(self.now, &codec, bytes);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            let mut events = Vec::new();
            side.session.on_timeout(self.now, &mut events);
            side.note(events);
            assert!(side.session.poll_timeout().is_none_or(|due| due > self.now));
        }
    }

    fn join(&mut self) {
        if self.joined {
            return;
        }
        self.joined = true;
        let terms = SessionParameters {
            frame_bytes_max: LIMITS.frame_bytes_max as u64,
            outgoing_bytes_max: LIMITS.outgoing_bytes_max as u64,
            window_bytes: LIMITS.window_bytes as u64,
            schema: 0,
        };
        // As in the handshake: the acceptor states its position after the initiator's, when it has
        // attached the link.
        let [dialler, listener] = &mut self.sides;
        let hello = dialler.session.resume();
        assert!(!listener.session.is_stale(hello));
        listener.attach(&terms, hello);
        let welcome = listener.session.resume();
        dialler.attach(&terms, welcome);
    }

    fn break_link(&mut self, known: WriteCertainty) {
        if !std::mem::take(&mut self.joined) {
            return;
        }
        for side in &mut self.sides {
            side.session.detach(known);
            side.attached = false;
            side.batch.clear();
            // The bytes between the two kernels are lost with the connection.
            side.pipe.clear();
        }
    }

    fn reset(&mut self, side: usize) {
        self.break_link(WriteCertainty::Exact);
        self.resets += 1;
        let side = &mut self.sides[side];
        let mut events = Vec::new();
        side.session.reset(&DisconnectReason::Closed, &mut events);
        side.cancelled.clear();
        side.note(events);
    }

    /// Lets a side forget the other, which does not learn of it.
    fn forget_peer(&mut self, side: usize) {
        self.break_link(WriteCertainty::Exact);
        self.resets += 1;
        self.generation += 1;
        let side = &mut self.sides[side];
        let mut events = Vec::new();
        side.session.forget_peer(self.generation, &DisconnectReason::Forgotten, &mut events);
        side.note(events);
    }

    /// Runs both sides until nothing more can happen.
    fn settle(&mut self) {
        self.join();
        let is_busy = |side: &Side| {
            let is_drained = side.session.is_drained() && side.pipe.is_empty() && side.waiting.is_empty();
            !is_drained || !side.unhandled.is_empty()
        };
        // A livelock would otherwise hang the test instead of failing it.
        for round in 0.. {
            if !self.sides.iter().any(is_busy) {
                break;
            }
            assert!(round < 10_000, "the sides do not become idle");
            self.poll_all_turns();
            for side in [0, 1] {
                self.write(side, usize::MAX);
                self.read(side, usize::MAX);
                self.answer(side, false);
                self.handle(side);
            }
        }
        while self.sides.iter().any(|side| !side.unanswered.is_empty()) {
            self.answer(0, false);
            self.answer(1, false);
        }
        // Flushes the delayed ACKs and the credit that is due.
        for _ in 0..3 {
            self.pass(ACK_DELAY);
            for side in [0, 1] {
                self.write(side, usize::MAX);
                self.read(side, usize::MAX);
            }
        }
    }

    fn check(&self) {
        for (side, peer) in [(&self.sides[0], &self.sides[1]), (&self.sides[1], &self.sides[0])] {
            for attempt in side.sent_calls.keys() {
                let seen = peer.seen_calls.contains(&attempt.number);
                match side.ends.get(attempt) {
                    None => assert!(side.forgotten.contains(attempt), "{attempt:?} has no outcome"),
                    Some(End::Replied(reply)) => assert_eq!((*reply, seen), (attempt.number, true)),
                    Some(End::Failed(failed)) => {
                        let again =
                            side.sent_calls.contains_key(&Attempt { nth: attempt.nth + 1, ..*attempt });
                        assert!(
                            !failed.is_safe_to_retry() || !seen || again || attempt.nth > 0,
                            "{attempt:?}: {failed} and was delivered"
                        );
                        // Only a reset ends calls: a link failure must be invisible to callers.
                        let of_the_link =
                            matches!(failed, CallError::NotDelivered(_) | CallError::OutcomeUnknown(_));
                        assert!(
                            self.resets > 0 || !of_the_link,
                            "{attempt:?}: {failed}, and links only broke"
                        );
                    }
                }
            }
            let mut sent = side.sent_tells.iter();
            assert!(
                peer.seen_tells.iter().all(|seen| sent.any(|sent| sent == seen)),
                "tells keep their order"
            );
            let accounted = peer.seen_tells.len() as u64 + side.dead_letters;
            assert!(accounted <= side.sent_tells.len() as u64, "no tell is both delivered and a dead letter");
            if self.resets == 0 {
                assert_eq!(peer.seen_tells, side.sent_tells, "a break loses nothing");
            }
            assert_eq!(side.session.outgoing_bytes(), 0, "everything is acknowledged");
            assert_eq!(side.session.charged_bytes(), peer.session.owed_bytes(), "credit is conserved");
            assert_eq!(peer.session.accepted_bytes(), 0);
        }
    }
}

impl Side {
    fn attach(&mut self, terms: &SessionParameters, resume: Resume) {
        self.attached = true;
        let before = self.session.resume().epoch;
        let mut events = Vec::new();
        self.session.attach(terms, resume, None, &mut events).unwrap();
        assert_eq!(self.session.resume().epoch, before);
        if events.iter().any(|event| matches!(event, Event::Failed { .. } | Event::DeadLetters { .. }))
            || self.session.inbound_calls() == 0
        {
            self.cancelled.retain(|call| self.session.is_cancelled(*call));
        }
        self.note(events);
    }
}

proptest! {
    #![proptest_config(property_tests::cases(150))]

    #[test]
    fn every_call_ends_exactly_once_with_a_true_outcome(steps in proptest::collection::vec(any_step(), 0..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
