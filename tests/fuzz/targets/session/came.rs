//! What has come from the peer of a session, and what its handlers owe.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use roadshow::host::{InboundSink, SlotId};
use roadshow::id::{CallId, Target, TypeHash};
use roadshow::registry::{Inbound, MessageBatch};
use roadshow::session::{CreditCharge, Event};
use roadshow::wire::{Body, CallFailure, Chunk, Frame, Reply};

use super::message::{Number, is_intact, number_of};

/// A call that a handler has.
#[derive(Debug)]
pub(crate) struct Handling {
    pub(crate) call: CallId,
    pub(crate) number: Number,
    /// Until it is given back.
    claim: Option<CreditCharge>,
}

/// How a call was answered whose handler ran.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Reply(Body),
    NoReply,
}

impl Answer {
    /// Whether the caller may be told of it with that failure.
    pub(crate) fn may_be_told_as(&self, failure: &CallFailure) -> bool {
        match (self, failure) {
            (Self::NoReply, CallFailure::NoReply) => true,
            (Self::Reply(body), CallFailure::ReplyTooLarge { size, limit }) => {
                *size == Reply::frame_bytes(body.as_encoded()) as u64 && size > limit
            }
            _ => false,
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Came {
    /// Whether the peer is known to keep the protocol.
    strict: bool,
    /// The calls and tells that have come, in their order.
    pub(crate) seen: Vec<(Target, Number)>,
    /// Of the calls whose handlers ran.
    pub(crate) answers: BTreeMap<Number, Answer>,
    /// Of the calls that are with a handler, or were and it ran.
    taken: BTreeSet<Number>,
    handling: Vec<Handling>,
    /// Of tells that are not handled.
    unhandled: Vec<CreditCharge>,
    /// The peer's calls that it waits for.
    owed: BTreeSet<CallId>,
    /// Those that it has cancelled, and that are not answered.
    cancelled: BTreeSet<CallId>,
    /// What is left of the claims of this life of the session.
    accepted: u64,
    life: u32,
    /// How many numbered frames have come.
    received: u64,
    /// The frames that come in chunks.
    unfinished: BTreeMap<u64, BytesMut>,
    /// The peer's table of types, if it was told in this life.
    pub(crate) table: Option<Body>,
    pub(crate) peer_closing: bool,
}

/// How many messages and events wait, calls that are owed an end, and cancelled ones.
pub(crate) type Counts = [usize; 3];

impl Came {
    pub(crate) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// The session has taken a frame, by which the counts came to be others.
    pub(crate) fn frame(&mut self, frame: Frame, before: Counts, after: Counts) {
        self.received += u64::from(frame.is_sequenced());
        let frame = match frame {
            Frame::Chunk(chunk) => self.whole(&chunk),
            frame => Some(frame),
        };
        match frame {
            Some(Frame::Call(call)) if after[1] > before[1] => {
                self.owed.insert(call.call);
                if after[0] == before[0] {
                    // Its handler has it already.
                    self.cancelled.remove(&call.call);
                }
            }
            Some(Frame::Cancel(cancel)) => {
                if self.owed.remove(&cancel.call) && after[2] > before[2] {
                    self.cancelled.insert(cancel.call);
                }
            }
            _ => {}
        }
    }

    fn whole(&mut self, chunk: &Chunk) -> Option<Frame> {
        if chunk.abandoned {
            self.unfinished.remove(&chunk.message);
            return None;
        }
        let bytes = self.unfinished.entry(chunk.message).or_default();
        bytes.extend_from_slice(&chunk.bytes);
        if !chunk.last {
            return None;
        }
        let whole = self.unfinished.remove(&chunk.message)?;
        Some(Frame::parse(whole, usize::MAX).expect("the session has read it"))
    }

    /// Takes what the session tells of the peer's doings; gives back the rest.
    pub(crate) fn event<T>(&mut self, event: Event<T>) -> Option<Event<T>> {
        match event {
            Event::Cancelled { call } => {
                assert!(self.handling.iter().any(|handling| handling.call == call), "it was handed over");
            }
            Event::Schemas { body } => {
                assert!(self.table.replace(body).is_none(), "a table is told once");
            }
            Event::PeerClosing { .. } => {
                assert!(!self.peer_closing, "a peer leaves once");
                self.peer_closing = true;
            }
            event => return Some(event),
        }
        None
    }

    /// Takes a message that was handed over.
    fn message(&mut self, target: Target, message: &Inbound) {
        assert!(!self.peer_closing, "nothing comes after a goodbye");
        let claim = message.charge().expect("a message takes some of its window");
        let claim =
            CreditCharge { target: claim.target(), bytes: claim.bytes().get(), epoch: claim.session_epoch() };
        self.accept(target, claim);
        let number = self.see(target, &message.body);
        let Some(call) = message.call() else { return self.unhandled.push(claim) };
        let number = number.unwrap_or(0);
        if self.strict {
            assert!(self.taken.insert(number), "call {number} has a handler, or had one");
        }
        self.handling.push(Handling { call, number, claim: Some(claim) });
    }

    fn accept(&mut self, target: Target, claim: CreditCharge) {
        assert_eq!((claim.target, claim.epoch), (target, self.life));
        self.accepted += claim.bytes;
    }

    fn see(&mut self, target: Target, body: &Body) -> Option<Number> {
        assert!(!self.strict || is_intact(body), "bytes got lost on the way");
        let number = number_of(body);
        self.seen.extend(number.map(|number| (target, number)));
        number
    }

    /// How many calls have handlers.
    pub(crate) fn handlers(&self) -> usize {
        self.handling.len()
    }

    /// Takes a call from its handler, with what it has still to give back.
    pub(crate) fn finish(&mut self, which: usize) -> (Handling, Option<CreditCharge>) {
        let mut handling = self.handling.swap_remove(which);
        let claim = handling.claim.take();
        (handling, claim)
    }

    /// A handler has answered. Says whether the peer waits for it.
    pub(crate) fn answered(&mut self, handling: &Handling, answer: Option<Answer>) -> bool {
        match answer {
            Some(answer) if self.strict => drop(self.answers.insert(handling.number, answer)),
            Some(_) => {}
            None => drop(self.taken.remove(&handling.number)),
        }
        self.owed.remove(&handling.call) || {
            self.cancelled.remove(&handling.call);
            false
        }
    }

    /// A claim that is not given back yet: of a handler, or of a tell.
    pub(crate) fn begin(&mut self, which: usize) -> Option<CreditCharge> {
        let claims = self.handling.iter().filter(|handling| handling.claim.is_some()).count();
        let which = which % (claims + self.unhandled.len()).max(1);
        if which < claims {
            let handling = self.handling.iter_mut().filter(|handling| handling.claim.is_some()).nth(which)?;
            return handling.claim.take();
        }
        (!self.unhandled.is_empty()).then(|| self.unhandled.remove(which - claims))
    }

    /// A claim is given back.
    pub(crate) fn gave_back(&mut self, claim: CreditCharge) {
        if claim.epoch == self.life {
            self.accepted -= claim.bytes;
        }
    }

    /// The session was reset: nothing of it is owed any more. Handlers go on, and those of cancelled
    /// calls may still learn of it.
    pub(crate) fn reset(&mut self) {
        self.owed.clear();
        self.unfinished.clear();
        self.accepted = 0;
        self.life += 1;
        self.table = None;
        self.peer_closing = false;
    }

    /// A frame came that was refused.
    pub(crate) fn refused(&mut self, received: u64) {
        assert!(received - self.received <= 1);
        self.received = received;
    }

    pub(crate) fn check(&self, received: u64, counts: Counts, accepted: u64) {
        assert_eq!(self.received, received);
        assert_eq!((self.owed.len(), self.cancelled.len()), (counts[1], counts[2]));
        assert_eq!(self.accepted, accepted);
    }

    /// Whether all that came is handled and answered.
    pub(crate) fn is_done(&self) -> bool {
        self.handling.is_empty()
            && self.unhandled.is_empty()
            && self.owed.is_empty()
            && self.cancelled.is_empty()
    }
}

impl InboundSink for Came {
    fn messages(&mut self, (target, _): (Target, TypeHash), run: MessageBatch) {
        run.for_each(|message| self.message(target, &message));
    }

    fn event(&mut self, event: Event<SlotId>) {
        assert!(Self::event(self, event).is_none(), "a read brings nothing else");
    }
}
