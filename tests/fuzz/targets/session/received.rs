//! Model of the frames that a session received, and of the answers that its handlers owe.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use roadshow::internals::host::{InboundSink, SlotId};
use roadshow::internals::id::{CallId, Target, TypeHash};
use roadshow::internals::registry::{Inbound, MessageBatch};
use roadshow::internals::session::{CreditCharge, Event};
use roadshow::internals::wire::{Body, CallFailure, Chunk, Frame, Reply};

use super::message::{Number, is_intact, number_of};

/// Call that a handler works on.
#[derive(Debug)]
pub(crate) struct RunningCall {
    pub(crate) call: CallId,
    pub(crate) number: Number,
    /// Charge of the call until it is released.
    charge: Option<CreditCharge>,
}

/// Answer of a handler that ran.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Reply(Body),
    NoReply,
}

impl Answer {
    /// Tests if the caller may receive `failure` for this answer.
    pub(crate) fn may_be_reported_as(&self, failure: &CallFailure) -> bool {
        match (self, failure) {
            (Self::NoReply, CallFailure::NoReply) => true,
            (Self::Reply(body), CallFailure::ReplyTooLarge { size, limit }) => {
                *size == Reply::frame_bytes(body.as_encoded()) as u64 && size > limit
            }
            _ => false,
        }
    }
}

/// Model of everything received from the peer.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Set if the peer is known to keep the protocol.
    strict: bool,
    /// Calls and tells received, in order.
    pub(crate) seen: Vec<(Target, Number)>,
    /// Answers of the calls whose handlers ran.
    pub(crate) answers: BTreeMap<Number, Answer>,
    /// Calls whose handlers run or ran.
    taken: BTreeSet<Number>,
    running: Vec<RunningCall>,
    /// Charges of tells that are not handled yet.
    unhandled: Vec<CreditCharge>,
    /// Calls that the peer waits for.
    owed: BTreeSet<CallId>,
    /// Calls that the peer has cancelled and that have no answer.
    cancelled: BTreeSet<CallId>,
    /// Sum of the charges of the current epoch that are not released, in bytes.
    accepted: u64,
    epoch: u32,
    /// Number of sequenced frames received.
    received: u64,
    /// Frames received in part, by the number of their message.
    unfinished: BTreeMap<u64, BytesMut>,
    /// Schema table of the peer, if it was received in this epoch.
    pub(crate) table: Option<Body>,
    pub(crate) peer_closing: bool,
}

/// Numbers of queued messages and events, of owed calls, and of cancelled calls.
pub(crate) type Counts = [usize; 3];

impl Received {
    pub(crate) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Updates the model by a frame that the session has accepted, with its counters before and after.
    pub(crate) fn frame(&mut self, frame: Frame, before: Counts, after: Counts) {
        self.received += u64::from(frame.is_sequenced());
        let frame = match frame {
            Frame::Chunk(chunk) => self.whole(&chunk),
            frame => Some(frame),
        };
        match frame {
            // Only if the session counts it: a retry of an owed call is not owed twice.
            Some(Frame::Call(call)) if after[1] > before[1] => {
                self.owed.insert(call.call);
                if after[0] == before[0] {
                    // The reused call id belongs to a call whose handler already runs.
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
        // The sender has cancelled the message, so the rest never arrives.
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

    /// Handles an event about the peer, and returns any other event.
    pub(crate) fn event<T>(&mut self, event: Event<T>) -> Option<Event<T>> {
        match event {
            Event::Cancelled { call } => {
                assert!(self.running.iter().any(|running| running.call == call), "it was handed over");
            }
            Event::Schemas { body } => {
                assert!(self.table.replace(body).is_none(), "a table is sent once");
            }
            Event::PeerClosing { .. } => {
                assert!(!self.peer_closing, "a peer says goodbye once");
                self.peer_closing = true;
            }
            event => return Some(event),
        }
        None
    }

    /// Records a message handed to its actor.
    fn message(&mut self, target: Target, message: &Inbound) {
        assert!(!self.peer_closing, "no message follows a goodbye");
        let charge = message.charge().expect("every message is charged to its window");
        let charge = CreditCharge {
            target: charge.target(),
            bytes: charge.bytes().get(),
            epoch: charge.session_epoch(),
        };
        self.accept(target, charge);
        let number = self.see(target, &message.body);
        let Some(call) = message.call() else { return self.unhandled.push(charge) };
        // A hostile peer may send bodies without a number.
        let number = number.unwrap_or(0);
        // A hostile peer may send the same number twice.
        if self.strict {
            assert!(self.taken.insert(number), "call {number} has a handler, or had one");
        }
        self.running.push(RunningCall { call, number, charge: Some(charge) });
    }

    fn accept(&mut self, target: Target, charge: CreditCharge) {
        assert_eq!((charge.target, charge.epoch), (target, self.epoch));
        self.accepted += charge.bytes;
    }

    fn see(&mut self, target: Target, body: &Body) -> Option<Number> {
        assert!(!self.strict || is_intact(body), "bytes got lost on the way");
        let number = number_of(body);
        self.seen.extend(number.map(|number| (target, number)));
        number
    }

    /// Returns the number of calls with a running handler.
    pub(crate) fn handlers(&self) -> usize {
        self.running.len()
    }

    /// Takes a call from its handler, with its charge if it is not released.
    pub(crate) fn finish(&mut self, which: usize) -> (RunningCall, Option<CreditCharge>) {
        let mut running = self.running.swap_remove(which);
        let charge = running.charge.take();
        (running, charge)
    }

    /// Records the answer of a handler, and returns true if the peer waits for it.
    pub(crate) fn answered(&mut self, running: &RunningCall, answer: Option<Answer>) -> bool {
        match answer {
            Some(answer) if self.strict => drop(self.answers.insert(running.number, answer)),
            Some(_) => {}
            // Without an answer the call counts as not handled, so its number may come again.
            None => drop(self.taken.remove(&running.number)),
        }
        self.owed.remove(&running.call) || {
            self.cancelled.remove(&running.call);
            false
        }
    }

    /// Takes a charge that is not released, of a handler or of a tell.
    pub(crate) fn take_charge(&mut self, which: usize) -> Option<CreditCharge> {
        let charges = self.running.iter().filter(|running| running.charge.is_some()).count();
        let which = which % (charges + self.unhandled.len()).max(1);
        if which < charges {
            let running = self.running.iter_mut().filter(|running| running.charge.is_some()).nth(which)?;
            return running.charge.take();
        }
        (!self.unhandled.is_empty()).then(|| self.unhandled.remove(which - charges))
    }

    /// Records the release of a charge.
    pub(crate) fn on_released(&mut self, charge: CreditCharge) {
        // The credit of an earlier epoch ended with it.
        if charge.epoch == self.epoch {
            self.accepted -= charge.bytes;
        }
    }

    /// Resets the model with the session: no call is owed any more. Handlers keep running, and those of
    /// cancelled calls may still receive the cancellation.
    pub(crate) fn reset(&mut self) {
        self.owed.clear();
        self.unfinished.clear();
        self.accepted = 0;
        self.epoch += 1;
        self.table = None;
        self.peer_closing = false;
    }

    /// Records a rejected frame.
    pub(crate) fn on_rejected(&mut self, received: u64) {
        // A rejected frame may count as received, but only once.
        assert!(received - self.received <= 1);
        self.received = received;
    }

    pub(crate) fn check(&self, received: u64, counts: Counts, accepted: u64) {
        assert_eq!(self.received, received);
        assert_eq!((self.owed.len(), self.cancelled.len()), (counts[1], counts[2]));
        assert_eq!(self.accepted, accepted);
    }

    /// Returns true if every message received is handled and answered.
    pub(crate) fn is_done(&self) -> bool {
        self.running.is_empty()
            && self.unhandled.is_empty()
            && self.owed.is_empty()
            && self.cancelled.is_empty()
    }
}

impl InboundSink for Received {
    fn messages(&mut self, (target, _): (Target, TypeHash), run: MessageBatch) {
        run.for_each(|message| self.message(target, &message));
    }

    fn event(&mut self, event: Event<SlotId>) {
        assert!(Self::event(self, event).is_none(), "a read brings nothing else");
    }
}
