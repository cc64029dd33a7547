//! Two sessions joined back to back, in random interleavings, against a simple model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::wire;

/// The number of a call or a tell, which is also its message.
type Number = u32;

/// How a call ended, as far as the model has an opinion.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Replied(Number),
    Failed(Failed),
}

/// One side, and what its user knows.
struct Side {
    session: Session<Number>,
    batch: Batch,
    /// What the kernel has, and the peer has not read.
    pipe: BytesMut,
    sent_calls: BTreeMap<Number, CallId>,
    ends: BTreeMap<Number, End>,
    forgotten: BTreeSet<Number>,
    /// Of those that the peer made and cancelled, the ones that are not answered yet.
    cancelled: BTreeSet<Number>,
    seen_calls: BTreeSet<Number>,
    unanswered: VecDeque<(CallId, Number)>,
    sent_tells: Vec<Number>,
    seen_tells: Vec<Number>,
    dead_letters: u64,
}

impl Side {
    fn new() -> Self {
        let limits =
            SessionLimits { outgoing_bytes_max: OUTGOING_BYTES_MAX, frame_bytes_max: FRAME_BYTES_MAX };
        Self {
            session: Session::new(limits),
            batch: Batch::default(),
            pipe: BytesMut::new(),
            sent_calls: BTreeMap::new(),
            ends: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            seen_calls: BTreeSet::new(),
            unanswered: VecDeque::new(),
            sent_tells: Vec::new(),
            seen_tells: Vec::new(),
            dead_letters: 0,
        }
    }

    fn note(&mut self, events: Vec<Event<Number>>) {
        for event in events {
            match event {
                Event::Call { call, body, .. } => {
                    let (number, _): (Number, String) = wire::decode(&body).unwrap();
                    assert!(self.seen_calls.insert(number), "call {number} came twice");
                    self.unanswered.push_back((call, number));
                }
                Event::Cancelled { call } => {
                    let (_, number) = self.unanswered.iter().find(|(open, _)| *open == call).unwrap();
                    assert!(self.cancelled.insert(*number), "call {number} is cancelled twice");
                }
                Event::Tell { body, .. } => {
                    self.seen_tells.push(wire::decode::<(Number, String)>(&body).unwrap().0)
                }
                Event::Replied { ticket, body } => {
                    self.end(ticket, End::Replied(wire::decode(&body).unwrap()))
                }
                Event::Failed { ticket, failure } => self.end(ticket, End::Failed(failure)),
                Event::DeadLetters { count } => self.dead_letters += count,
                Event::PeerLeaves { reason } => panic!("nobody leaves: {reason}"),
            }
        }
    }

    fn end(&mut self, number: Number, end: End) {
        assert!(!self.forgotten.contains(&number), "call {number} was forgotten and ends with {end:?}");
        assert_eq!(self.ends.insert(number, end), None, "call {number} ends twice");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Call { side: usize, padding: usize, timeout_ms: Option<u64> },
    Tell { side: usize, padding: usize },
    Forget { side: usize, nth: usize },
    Answer { side: usize, fail: bool },
    Write { side: usize, bytes: usize },
    Read { side: usize },
    Pass { ms: u64 },
    Break,
    Join,
}

fn any_step() -> impl Strategy<Value = Step> {
    let side = || 0..2_usize;
    prop_oneof![
        6 => (side(), 0..150_usize, proptest::option::of(1..50_u64))
            .prop_map(|(side, padding, timeout_ms)| Step::Call { side, padding, timeout_ms }),
        3 => (side(), 0..150_usize).prop_map(|(side, padding)| Step::Tell { side, padding }),
        1 => (side(), 0..20_usize).prop_map(|(side, nth)| Step::Forget { side, nth }),
        5 => (side(), any::<bool>()).prop_map(|(side, fail)| Step::Answer { side, fail }),
        9 => (side(), 1..400_usize).prop_map(|(side, bytes)| Step::Write { side, bytes }),
        9 => side().prop_map(|side| Step::Read { side }),
        2 => (0..20_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Break),
        2 => Just(Step::Join),
    ]
}

struct World {
    now: Instant,
    joined: bool,
    sides: [Side; 2],
    last: Number,
}

impl World {
    fn new() -> Self {
        Self { now: Instant::now(), joined: false, sides: [Side::new(), Side::new()], last: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call { side, padding, timeout_ms } => self.call(side, padding, timeout_ms),
            Step::Tell { side, padding } => self.tell(side, padding),
            Step::Forget { side, nth } => {
                let side = &mut self.sides[side];
                if let Some((number, call)) = side.sent_calls.iter().nth(nth)
                    && let Some(ticket) = side.session.forget(*call)
                {
                    assert_eq!(ticket, *number);
                    side.forgotten.insert(ticket);
                }
            }
            Step::Answer { side, fail } => self.answer(side, fail),
            Step::Write { side, bytes } => self.write(side, bytes),
            Step::Read { side } => self.read(side),
            Step::Pass { ms } => self.pass(Duration::from_millis(ms)),
            Step::Break => self.break_link(),
            Step::Join => self.join(),
        }
    }

    fn call(&mut self, side: usize, padding: usize, timeout_ms: Option<u64>) {
        self.last += 1;
        let (now, number, side) = (self.now, self.last, &mut self.sides[side]);
        let deadline = timeout_ms.map(|ms| now + Duration::from_millis(ms));
        let message = (number, "x".repeat(padding));
        let called = wire::encode(&message, 1000, |body| {
            side.session.call(now, TARGET, MESSAGE, deadline, body, number)
        });
        match called.unwrap() {
            Ok(call) => assert_eq!(side.sent_calls.insert(number, call), None),
            Err((rejected, ticket)) => {
                assert_eq!(ticket, number);
                assert!(matches!(rejected, Rejected::Full { .. }), "{rejected}");
            }
        }
    }

    fn tell(&mut self, side: usize, padding: usize) {
        self.last += 1;
        let (number, side) = (self.last, &mut self.sides[side]);
        let message = (number, "x".repeat(padding));
        if wire::encode(&message, 1000, |body| side.session.tell(TARGET, MESSAGE, body)).unwrap().is_ok() {
            side.sent_tells.push(number);
        }
    }

    fn answer(&mut self, side: usize, fail: bool) {
        let side = &mut self.sides[side];
        if let Some((call, number)) = side.unanswered.pop_front() {
            let answered = if fail {
                side.session.fail(call, &CallFailure::NoReply)
            } else {
                wire::encode(&number, 100, |body| side.session.reply(call, body)).unwrap()
            };
            let owed = !side.cancelled.remove(&number);
            assert_eq!(answered, owed, "call {number} came over this link");
        }
    }

    fn write(&mut self, side: usize, bytes: usize) {
        let side = &mut self.sides[side];
        if !side.batch.has_remaining() {
            side.session.take_outgoing(&mut side.batch);
        }
        let bytes = bytes.min(side.batch.remaining());
        side.pipe.extend_from_slice(&side.batch.copy_to_bytes(bytes));
        side.session.wrote(bytes);
    }

    /// The peer of `side` reads what `side` has written.
    fn read(&mut self, side: usize) {
        let mut codec = FrameCodec::established(FRAME_BYTES_MAX);
        while let Some(frame) = codec.decode(&mut self.sides[side].pipe).unwrap() {
            let reader = &mut self.sides[1 - side];
            let mut events = Vec::new();
            reader.session.receive(self.now, frame, &mut events).unwrap();
            reader.note(events);
        }
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
        if !self.joined {
            self.joined = true;
            for side in &mut self.sides {
                side.session.attach(self.now, FRAME_BYTES_MAX);
            }
        }
    }

    fn break_link(&mut self) {
        self.joined = false;
        for side in &mut self.sides {
            let mut events = Vec::new();
            side.session.detach(LinkLoss::Closed, Written::Told, &mut events);
            side.note(events);
            side.batch.clear();
            side.pipe.clear();
            side.unanswered.clear();
            side.cancelled.clear();
            assert!(side.session.is_drained());
        }
    }

    /// Lets everything that can still happen happen.
    fn settle(&mut self) {
        self.join();
        while self.sides.iter().any(|side| !side.session.is_drained() || !side.pipe.is_empty()) {
            for side in [0, 1] {
                self.write(side, usize::MAX);
                self.read(side);
                self.answer(side, false);
            }
        }
    }

    fn check(&self) {
        for (side, peer) in [(&self.sides[0], &self.sides[1]), (&self.sides[1], &self.sides[0])] {
            for number in side.sent_calls.keys() {
                let seen = peer.seen_calls.contains(number);
                match side.ends.get(number) {
                    None => assert!(side.forgotten.contains(number), "call {number} has no end"),
                    Some(End::Replied(reply)) => assert_eq!((reply, seen), (number, true)),
                    Some(End::Failed(failed)) => {
                        assert!(
                            !(failed.is_safe_to_retry() && seen),
                            "call {number}: {failed} and was delivered"
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
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_call_ends_exactly_once_and_as_it_is_said(steps in proptest::collection::vec(any_step(), 0..150)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
