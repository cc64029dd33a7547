//! Two sessions joined back to back, in random interleavings, against a simple model.
//!
//! What a side reads takes the way of production: from the bytes of a link to the inbox of a host and the
//! slots of callers.

mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use self::waiting::Waiting;
use super::*;
use crate::host::{InboundSink, ReceivePath, SlotId};
use crate::registry::{Inbound, MessageBatch};
use crate::wire;

/// The number of a message, which is also its content. A call that is made again keeps it.
type Number = u32;

/// How a call ended, as far as the model has an opinion.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Replied(Number),
    Failed(CallError),
}

/// A small window, so that messages are parked; room for a few messages in chunks.
const LIMITS: SessionLimits = SessionLimits {
    chunk_bytes: CHUNK_BYTES,
    outgoing_bytes_max: 300_000,
    frame_bytes_max: 400_000,
    window_bytes: 4_000,
    parked_bytes_max: 250_000,
    calls_open_max: 40,
    injected_bug: None,
};

/// One attempt at a call, which is also its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DialAttempt {
    number: Number,
    nth: u32,
}

/// A call of the peer that a handler has.
struct Handling {
    call: CallId,
    number: Number,
    claim: CreditCharge,
}

/// One side, and what its user knows.
struct Side {
    session: Session<SlotId>,
    path: ReceivePath,
    /// The attempts that have no outcome, by their slots.
    open: BTreeMap<SlotId, DialAttempt>,
    batch: WriteBatch,
    /// What the kernel has, and the peer has not read.
    pipe: BytesMut,
    sent_calls: BTreeMap<DialAttempt, CallId>,
    /// The calls that may be made again.
    repeatable: BTreeSet<Number>,
    ends: BTreeMap<DialAttempt, End>,
    forgotten: BTreeSet<DialAttempt>,
    /// Of those that the peer made and cancelled, the ones that are not answered yet.
    cancelled: BTreeSet<CallId>,
    seen_calls: BTreeSet<Number>,
    unanswered: VecDeque<Handling>,
    unhandled: VecDeque<CreditCharge>,
    sent_tells: Vec<Number>,
    seen_tells: Vec<Number>,
    dead_letters: u64,
    attached: bool,
    /// Senders of one-way messages that wait for room.
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
            repeatable: BTreeSet::new(),
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
        let mut came = Came::default();
        self.path.end_read(&mut self.session, now, &mut came);
        for message in came.messages {
            self.take(message);
        }
        self.note(came.events);
    }

    fn take(&mut self, message: Inbound) {
        let (number, _): (Number, String) = wire::decode(&message.body).unwrap();
        let claim = message.charge().unwrap();
        let claim =
            CreditCharge { target: claim.target(), bytes: claim.bytes().get(), epoch: claim.session_epoch() };
        match message.call() {
            Some(call) => {
                assert!(self.seen_calls.insert(number), "call {number} came twice");
                self.unanswered.push_back(Handling { call, number, claim });
            }
            None => {
                self.seen_tells.push(number);
                self.unhandled.push_back(claim);
            }
        }
    }

    /// Takes what the session says beside messages, and the outcomes that there are by now.
    fn note(&mut self, events: Vec<Event<SlotId>>) {
        for event in self.path.settle(events) {
            match event {
                Event::Cancelled { call } => {
                    assert!(self.unanswered.iter().any(|handling| handling.call == call));
                    assert!(self.cancelled.insert(call), "call {call} is cancelled twice");
                }
                Event::DeadLetters { count } => self.dead_letters += count,
                other => panic!("nobody leaves, and both have the same types: {other:?}"),
            }
        }
        let outcomes = self.open.keys().filter_map(|ticket| Some((*ticket, self.path.outcome(*ticket)?)));
        for (ticket, outcome) in outcomes.collect::<Vec<_>>() {
            let attempt = self.open.remove(&ticket).unwrap();
            match outcome {
                Ok(body) => self.end(attempt, End::Replied(wire::decode(&body).unwrap())),
                Err(failed) => self.end(attempt, End::Failed(failed)),
            }
        }
    }

    fn end(&mut self, attempt: DialAttempt, end: End) {
        assert!(!self.forgotten.contains(&attempt), "{attempt:?} was forgotten and ends with {end:?}");
        assert_eq!(self.ends.insert(attempt, end), None, "{attempt:?} ends twice");
    }

    /// Whether an attempt at the call may have been handled.
    fn may_have_run(&self, number: Number) -> bool {
        let attempts = DialAttempt { number, nth: 0 }..=DialAttempt { number, nth: u32::MAX };
        let safe = |end: &End| matches!(end, End::Failed(failed) if failed.is_safe_to_retry());
        self.ends.range(attempts).any(|(_, end)| !safe(end))
    }

    fn has_space(&self) -> bool {
        self.session.outgoing_bytes() <= LIMITS.outgoing_bytes_max + LIMITS.frame_bytes_max
            && self.session.parked_bytes() <= LIMITS.outgoing_bytes_max + LIMITS.frame_bytes_max
    }
}

/// What one read has brought.
#[derive(Default)]
struct Came {
    messages: Vec<Inbound>,
    events: Vec<Event<SlotId>>,
}

impl InboundSink for Came {
    fn messages(&mut self, to: (Target, TypeHash), run: MessageBatch) {
        assert_eq!(to, (TARGET, MESSAGE));
        self.messages.extend(run);
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
        repeatable: bool,
    },
    Again {
        side: usize,
        nth: usize,
    },
    Tell {
        side: usize,
        padding: usize,
    },
    /// A sender that can wait tells, or lines up for room.
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
    /// A side forgets the other, as if it had never heard of it.
    ForgetPeer {
        side: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let side = || 0..2_usize;
    let padding = || prop_oneof![9 => 0..150_usize, 1 => 60_000..200_000_usize];
    prop_oneof![
        6 => (side(), padding(), proptest::option::of(1..50_u64), any::<bool>()).prop_map(
            |(side, padding, timeout_ms, repeatable)| Step::Call { side, padding, timeout_ms, repeatable }
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
    /// How often a side has forgotten the other.
    generation: u32,
}

impl World {
    fn new() -> Self {
        let sides = [Side::new(), Side::new()];
        Self { now: Instant::now(), joined: false, sides, last: 0, resets: 0, generation: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call { side, padding, timeout_ms, repeatable } => {
                self.call(side, padding, timeout_ms, repeatable);
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
                    && let Some(ticket) = side.path.forget(&mut side.session, *call)
                {
                    side.forgotten.extend(side.open.remove(&ticket));
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

    fn call(&mut self, side: usize, padding: usize, timeout_ms: Option<u64>, repeatable: bool) {
        self.last += 1;
        let attempt = DialAttempt { number: self.last, nth: 0 };
        let repeat = if repeatable { Retryable::First } else { Retryable::Never };
        self.attempt(side, attempt, padding, timeout_ms, repeat);
    }

    fn call_again(&mut self, side: usize, nth: usize) {
        let by = &self.sides[side];
        let Some(number) = by.repeatable.iter().nth(nth).copied() else { return };
        let mut made =
            by.sent_calls.range(DialAttempt { number, nth: 0 }..=DialAttempt { number, nth: u32::MAX });
        let Some((last, call)) = made.next_back().map(|(last, call)| (*last, *call)) else { return };
        match by.ends.get(&last) {
            // What was never delivered may be made anew where the number is of no use any more.
            Some(End::Failed(CallError::NotDelivered(DisconnectReason::Forgotten)))
                if !by.may_have_run(number) =>
            {
                let attempt = DialAttempt { number, nth: last.nth + 1 };
                self.attempt(side, attempt, 0, None, Retryable::First);
            }
            Some(End::Failed(CallError::NotDelivered(_) | CallError::OutcomeUnknown(_))) => {
                let attempt = DialAttempt { number, nth: last.nth + 1 };
                self.attempt(side, attempt, 0, None, Retryable::Again(call));
            }
            Some(_) => {
                let by = &mut self.sides[side];
                by.repeatable.remove(&number);
                by.session.end_retries(call);
            }
            None => {}
        }
    }

    fn attempt(
        &mut self,
        side: usize,
        attempt: DialAttempt,
        padding: usize,
        timeout_ms: Option<u64>,
        repeat: Retryable,
    ) {
        let (now, side) = (self.now, &mut self.sides[side]);
        let deadline = timeout_ms.map(|ms| now + Duration::from_millis(ms));
        let message = (attempt.number, "x".repeat(padding));
        let called = wire::encode(&message, 1 << 20, |body| {
            side.path.call(&mut side.session, now, TARGET, MESSAGE, deadline, repeat, body)
        });
        match called.unwrap() {
            Ok((call, ticket)) => {
                assert!(side.passes_none(), "{attempt:?} passes a waiter");
                assert_eq!(side.open.insert(ticket, attempt), None, "a slot has one call");
                if let Retryable::Again(first) = repeat {
                    assert_eq!(call, first);
                }
                if repeat != Retryable::Never {
                    side.repeatable.insert(attempt.number);
                }
                assert_eq!(side.sent_calls.insert(attempt, call), None);
            }
            Err(Rejected::Forgotten) => {
                assert!(self.generation > 0 && matches!(repeat, Retryable::Again(_)), "{attempt:?}");
                side.repeatable.remove(&attempt.number);
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
        if let Some(Handling { call, number, claim }) = side.unanswered.pop_front() {
            let before = side.session.resume().epoch;
            side.session.release_credit(claim);
            let answered = if fail {
                side.session.fail(call, &CallFailure::NoReply)
            } else {
                wire::encode(&number, 100, |body| side.session.reply(call, body)).unwrap()
            };
            let owed = !side.cancelled.remove(&call);
            if self.resets == 0 {
                assert_eq!((answered, before), (owed, 0), "call {number} came in this session");
            }
        }
    }

    fn handle(&mut self, side: usize) {
        let side = &mut self.sides[side];
        if let Some(claim) = side.unhandled.pop_front() {
            side.session.release_credit(claim);
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

    /// The peer of `side` reads what `side` has written.
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
        // As the handshake has it: the dialler says where it is, and the listener answers after it
        // has taken the link.
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

    /// A side forgets the other, of which nobody tells that.
    fn forget_peer(&mut self, side: usize) {
        self.break_link(WriteCertainty::Exact);
        self.resets += 1;
        self.generation += 1;
        let side = &mut self.sides[side];
        let mut events = Vec::new();
        side.session.forget_peer(self.generation, &DisconnectReason::Forgotten, &mut events);
        side.note(events);
    }

    /// Lets everything that can still happen happen.
    fn settle(&mut self) {
        self.join();
        let is_busy = |side: &Side| {
            let is_drained = side.session.is_drained() && side.pipe.is_empty() && side.waiting.is_empty();
            !is_drained || !side.unhandled.is_empty()
        };
        for round in 0.. {
            if !self.sides.iter().any(is_busy) {
                break;
            }
            assert!(round < 10_000, "it does not come to rest");
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
        // Acknowledgements and credit that were due go out.
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
                    None => assert!(side.forgotten.contains(attempt), "{attempt:?} has no end"),
                    Some(End::Replied(reply)) => assert_eq!((*reply, seen), (attempt.number, true)),
                    Some(End::Failed(failed)) => {
                        let again =
                            side.sent_calls.contains_key(&DialAttempt { nth: attempt.nth + 1, ..*attempt });
                        assert!(
                            !failed.is_safe_to_retry() || !seen || again || attempt.nth > 0,
                            "{attempt:?}: {failed} and was delivered"
                        );
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
            let told = peer.seen_tells.len() as u64 + side.dead_letters;
            assert!(told <= side.sent_tells.len() as u64, "no tell is both delivered and a dead letter");
            if self.resets == 0 {
                assert_eq!(peer.seen_tells, side.sent_tells, "a break loses nothing");
            }
            assert_eq!(side.session.outgoing_bytes(), 0, "all is acknowledged");
            assert_eq!(side.session.charged_bytes(), peer.session.owed_bytes(), "credit is conserved");
            assert_eq!(peer.session.accepted_bytes(), 0);
        }
    }
}

impl Side {
    fn attach(&mut self, terms: &SessionParameters, resume: Resume) {
        self.attached = true;
        let resets = self.session.resume().epoch;
        let mut events = Vec::new();
        self.session.attach(terms, resume, None, &mut events).unwrap();
        assert_eq!(self.session.resume().epoch, resets);
        if events.iter().any(|event| matches!(event, Event::Failed { .. } | Event::DeadLetters { .. }))
            || self.session.inbound_calls() == 0
        {
            self.cancelled.retain(|call| self.session.is_cancelled(*call));
        }
        self.note(events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_call_ends_exactly_once_and_as_it_is_said(steps in proptest::collection::vec(any_step(), 0..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
