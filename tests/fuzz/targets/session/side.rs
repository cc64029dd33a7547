//! One session, what its user did with it, and what must hold of it at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use roadshow::config::FAILURE_TEXT_CHARS_MAX;
use roadshow::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};
use roadshow::session::{Batch, Event, Failed, LinkLoss, Rejected, Session, SessionLimits, Written};
use roadshow::wire::{CallFailure, CallHeader, Encoded, Frame, TellHeader};
use roadshow_fuzz::Script;

/// The number of a call or a tell, which comes first in its message and is its ticket.
pub(crate) type Number = u32;

const TARGET: Target = Target { actor: ActorId(9), incarnation: ActorIncarnation(1) };
const MESSAGE: TypeHash = TypeHash(11);

/// The least limit that a handshake lets pass.
const FRAME_BYTES_MIN: usize = 512;

/// How a call ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With a reply that begins with this number.
    Replied(Option<Number>),
    Failed(Failed),
    Forgotten,
}

/// One session and what its user knows.
pub(crate) struct Side {
    pub(crate) limits: SessionLimits,
    pub(crate) session: Session<Number>,
    batch: Batch,
    /// What the kernel has, and the peer has not read.
    pub(crate) pipe: BytesMut,
    pub(crate) calls: BTreeMap<Number, CallId>,
    pub(crate) ends: BTreeMap<Number, End>,
    pub(crate) tells: BTreeSet<Number>,
    /// The calls and tells that have come, in their order.
    pub(crate) seen: Vec<Number>,
    unanswered: Vec<(CallId, Number)>,
    /// Of those, the ones that the peer waits for no longer.
    cancelled: BTreeSet<CallId>,
    pub(crate) dead_letters: u64,
    peer_left: bool,
    leaving: bool,
    attached: bool,
}

impl Side {
    pub(crate) fn new(script: &mut Script<'_>) -> Self {
        let limits = SessionLimits {
            outgoing_bytes_max: 8 * usize::from(script.byte()),
            frame_bytes_max: FRAME_BYTES_MIN + 16 * usize::from(script.short()),
        };
        Self {
            limits,
            session: Session::new(limits),
            batch: Batch::default(),
            pipe: BytesMut::new(),
            calls: BTreeMap::new(),
            ends: BTreeMap::new(),
            tells: BTreeSet::new(),
            seen: Vec::new(),
            unanswered: Vec::new(),
            cancelled: BTreeSet::new(),
            dead_letters: 0,
            peer_left: false,
            leaving: false,
            attached: false,
        }
    }

    /// Does one of the things that a session's user may do at any time.
    pub(crate) fn act(&mut self, now: Instant, number: Number, script: &mut Script<'_>) {
        match script.one_of(16) {
            0..=4 => self.call(now, number, script),
            5..=6 => self.tell(number, script),
            7..=10 => self.answer(script),
            11 => self.forget(now, script),
            12 => self.leave(script),
            _ => self.write(script),
        }
    }

    fn call(&mut self, now: Instant, number: Number, script: &mut Script<'_>) {
        let deadline = match script.byte() {
            timeout @ 1..=100 => Some(now + Duration::from_micros(300 * u64::from(timeout))),
            // Longer than a frame can say.
            101 => Some(now + Duration::from_secs(1 << 33)),
            _ => None,
        };
        let (message, attachments) = message(number, script);
        let body = Encoded { message: &message, attachments: &attachments };
        let (frame_bytes, before) = (CallHeader::frame_bytes(body), self.session.outgoing_bytes());
        match self.session.call(now, TARGET, MESSAGE, deadline, body, number) {
            Ok(call) => {
                assert!(!self.calls.values().any(|other| *other == call), "numbers are not used again");
                self.calls.insert(number, call);
                self.check_accepted(frame_bytes, before);
            }
            Err((rejected, ticket)) => {
                assert_eq!(ticket, number);
                self.check_rejected(&rejected, frame_bytes, before);
            }
        }
    }

    fn tell(&mut self, number: Number, script: &mut Script<'_>) {
        let (message, attachments) = message(number, script);
        let body = Encoded { message: &message, attachments: &attachments };
        let (frame_bytes, before) = (TellHeader::frame_bytes(body), self.session.outgoing_bytes());
        match self.session.tell(TARGET, MESSAGE, body) {
            Ok(()) => {
                self.tells.insert(number);
                self.check_accepted(frame_bytes, before);
            }
            Err(rejected) => self.check_rejected(&rejected, frame_bytes, before),
        }
    }

    fn check_accepted(&self, frame_bytes: usize, before: usize) {
        let waiting = self.session.outgoing_bytes();
        assert_eq!(waiting, before + frame_bytes);
        assert!(before == 0 || waiting <= self.limits.outgoing_bytes_max, "{waiting} bytes wait");
        assert!(frame_bytes <= self.limits.frame_bytes_max);
        assert!(!self.leaving && !self.peer_left);
    }

    fn check_rejected(&self, rejected: &Rejected, frame_bytes: usize, before: usize) {
        assert_eq!(self.session.outgoing_bytes(), before, "what is rejected takes no room");
        match *rejected {
            Rejected::Full { size, waiting, limit } => {
                assert_eq!((size, waiting), (frame_bytes, before));
                assert!(waiting > 0 && waiting + size > limit);
            }
            Rejected::TooLarge { size, limit } => assert!(size > limit),
            Rejected::Closing => assert!(self.leaving || self.peer_left),
            _ => {}
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let (how, which) = (script.byte(), script.one_of(self.unanswered.len()));
        if self.unanswered.is_empty() {
            assert!(!self.session.fail(CallId(how.into()), &CallFailure::NoReply), "it never came");
            return;
        }
        let (call, number) = self.unanswered.swap_remove(which);
        let answered = match how % 4 {
            0 => {
                let text = "ä".repeat(usize::from(how) * FAILURE_TEXT_CHARS_MAX / 128);
                self.session.fail(call, &CallFailure::NotHandled { actor: text.clone(), message: text })
            }
            1 => self.session.fail(call, &CallFailure::NoReply),
            _ => {
                let (message, attachments) = message(number, script);
                self.session.reply(call, Encoded { message: &message, attachments: &attachments })
            }
        };
        let owed = !self.cancelled.remove(&call);
        assert_eq!(answered, owed, "call {number} came over this link");
        assert!(!self.session.fail(call, &CallFailure::NoReply), "call {number} is answered");
    }

    fn forget(&mut self, now: Instant, script: &mut Script<'_>) {
        let which = script.one_of(self.calls.len());
        let Some((&number, &call)) = self.calls.iter().nth(which) else { return };
        match self.session.forget(call) {
            Some(ticket) => {
                assert_eq!(ticket, number);
                self.end(number, End::Forgotten);
            }
            None => assert!(self.ends.contains_key(&number) || self.is_due(now), "call {number} was open"),
        }
    }

    fn leave(&mut self, script: &mut Script<'_>) {
        // Rarely, since it is the end of most that can happen.
        match script.byte() {
            0..=7 => self.session.drain(&"ö".repeat(300)),
            8..=11 => self.session.finish("done"),
            _ => return,
        }
        self.leaving = true;
    }

    fn write(&mut self, script: &mut Script<'_>) {
        let bytes = usize::from(script.short());
        self.write_bytes(bytes);
    }

    /// The writer takes what is queued if it has nothing, and writes so many bytes of what it has.
    pub(crate) fn write_bytes(&mut self, bytes: usize) {
        if !self.batch.has_remaining() {
            self.session.take_outgoing(&mut self.batch);
            if self.attached {
                assert_eq!(self.batch.remaining(), self.session.outgoing_bytes());
                assert!(!self.session.has_outgoing());
            }
        }
        let bytes = self.write_untold(bytes);
        self.session.wrote(bytes);
    }

    /// Writes of what the writer has, and does not tell the session. Returns how many bytes.
    pub(crate) fn write_untold(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.batch.remaining());
        self.pipe.extend_from_slice(&self.batch.copy_to_bytes(bytes));
        bytes
    }

    pub(crate) fn attach(&mut self, now: Instant, peer_frame_bytes_max: usize) {
        self.attached = true;
        self.session.attach(now, peer_frame_bytes_max);
    }

    pub(crate) fn detach(&mut self, known: Written) {
        let mut events = Vec::new();
        self.session.detach(LinkLoss::Closed, known, &mut events);
        self.batch.clear();
        self.pipe.clear();
        self.unanswered.clear();
        self.cancelled.clear();
        self.peer_left = false;
        self.attached = false;
        self.note(events);
        assert!(self.session.is_drained());
        assert_eq!(self.ends.len(), self.calls.len(), "every call ends with its link");
    }

    /// Takes the frames of one read. Returns whether the link goes on.
    #[must_use]
    pub(crate) fn receive(&mut self, now: Instant, frames: impl IntoIterator<Item = Frame>) -> bool {
        let mut events = Vec::new();
        let received = frames.into_iter().try_for_each(|frame| self.session.receive(now, frame, &mut events));
        self.note(events);
        received.is_ok()
    }

    pub(crate) fn pass(&mut self, now: Instant) {
        let mut events = Vec::new();
        self.session.on_timeout(now, &mut events);
        self.note(events);
        assert!(self.session.poll_timeout().is_none_or(|due| due > now));
    }

    fn note(&mut self, events: Vec<Event<Number>>) {
        for event in events {
            match event {
                Event::Call { call, body, .. } => {
                    assert!(!self.leaving && !self.peer_left, "nothing is called after a goodbye");
                    let number = number_of(&body.message);
                    assert!(!self.unanswered.iter().any(|(open, _)| *open == call), "{call} is open");
                    self.unanswered.push((call, number.unwrap_or(0)));
                    self.seen.extend(number);
                }
                Event::Cancelled { call } => {
                    assert!(self.unanswered.iter().any(|(open, _)| *open == call), "it was handed over");
                    assert!(self.session.is_cancelled(call));
                    assert!(self.cancelled.insert(call), "a call is cancelled once");
                }
                Event::Tell { body, .. } => {
                    assert!(!self.peer_left, "nothing is told after a goodbye");
                    self.seen.extend(number_of(&body.message));
                }
                Event::Replied { ticket, body } => {
                    self.end(ticket, End::Replied(number_of(&body.message)));
                }
                Event::Failed { ticket, failure } => self.end(ticket, End::Failed(failure)),
                Event::DeadLetters { count } => self.dead_letters += count,
                Event::PeerLeaves { .. } => {
                    assert!(!self.peer_left, "a peer leaves a link once");
                    self.peer_left = true;
                }
                other => panic!("{other:?} is new to this target"),
            }
        }
    }

    fn end(&mut self, number: Number, end: End) {
        assert!(self.calls.contains_key(&number), "call {number} was never accepted");
        let text = format!("{end:?}");
        let before = self.ends.insert(number, end);
        assert!(before.is_none(), "call {number} ends twice: {before:?}, {text}");
    }

    /// Whether the session has something to tell as soon as it is asked.
    fn is_due(&self, now: Instant) -> bool {
        self.session.poll_timeout().is_some_and(|due| due <= now)
    }

    /// What holds between any two steps.
    pub(crate) fn check(&self, now: Instant) {
        let session = &self.session;
        let (open, untold) = (session.open_calls(), self.calls.len() - self.ends.len());
        assert!(open == untold || (open < untold && self.is_due(now)), "{open} calls of {untold}");
        assert_eq!(session.inbound_calls(), self.unanswered.len() - self.cancelled.len());
        assert_eq!(session.cancelled_calls(), self.cancelled.len());
        let (waiting, taken) = (session.outgoing_bytes(), self.batch.remaining());
        assert!(waiting >= taken, "{taken} bytes are taken, and {waiting} wait");
        assert_eq!(session.has_outgoing(), self.attached && waiting > taken);
        assert_eq!(session.has_room_for(0), waiting == 0 || waiting <= self.limits.outgoing_bytes_max);
        let idle = session.open_calls() == 0 && session.inbound_calls() == 0 && waiting == 0;
        assert_eq!(session.is_drained(), idle);
        assert!(self.dead_letters <= self.tells.len() as u64);
    }

    /// Whether no answer is owed.
    pub(crate) fn has_answered(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Answers all the peer's calls.
    pub(crate) fn answer_all(&mut self) {
        for (call, number) in std::mem::take(&mut self.unanswered) {
            let message = number.to_be_bytes();
            let owed = !self.cancelled.remove(&call);
            assert_eq!(self.session.reply(call, Encoded { message: &message, attachments: &[] }), owed);
        }
    }
}

/// A message of some length that begins with its number, and may have bytes beside it.
fn message(number: Number, script: &mut Script<'_>) -> (Vec<u8>, Vec<Bytes>) {
    let (kind, length) = (script.byte(), usize::from(script.byte()));
    let mut message = number.to_be_bytes().to_vec();
    message.resize(4 + length, kind);
    let attachments = match kind % 16 {
        0 => vec![Bytes::from(vec![kind; length]), Bytes::new()],
        // Long enough to be written where it lies.
        1 => vec![Bytes::from(vec![kind; 80 * length])],
        _ => Vec::new(),
    };
    (message, attachments)
}

/// The number with which a message begins.
fn number_of(message: &[u8]) -> Option<Number> {
    message.first_chunk().map(|number| Number::from_be_bytes(*number))
}
