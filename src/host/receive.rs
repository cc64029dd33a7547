//! Messages and events that were received over a link and are not dispatched yet.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::peer::{Peer, ReplySlots, SlotId};
use crate::id::{CallId, Target, TypeHash};
use crate::registry::{Inbound, MessageBatch, PackedCharge, ReplyPath};
use crate::session::{self, Event, Events};
use crate::wire;

/// Received messages and events in order, and the wakers of callers whose replies are stored.
#[derive(Default)]
pub(super) struct ReceivedBatch {
    entries: Vec<Received>,
    pub(super) wakers: Vec<Waker>,
}

/// Entry of a received batch.
enum Received {
    /// Messages of the same type for the same actor.
    Messages((Target, TypeHash), MessageBatch),
    Event(Event<SlotId>),
}

/// Receiver of dispatched messages and events.
#[doc(hidden)]
pub trait InboundSink {
    /// Accepts messages for an actor.
    fn messages(&mut self, to: (Target, TypeHash), messages: MessageBatch);
    /// Accepts any other event.
    fn event(&mut self, event: Event<SlotId>);
}

impl ReceivedBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of messages and events that are not dispatched.
    pub(super) fn len(&self) -> usize {
        let lengths = self.entries.iter().map(|entry| match entry {
            Received::Messages(_, messages) => messages.len(),
            Received::Event(_) => 1,
        });
        lengths.sum()
    }

    /// Number of messages that are not dispatched.
    pub(super) fn messages(&self) -> usize {
        let lengths = self.entries.iter().map(|entry| match entry {
            Received::Messages(_, messages) => messages.len(),
            Received::Event(_) => 0,
        });
        lengths.sum()
    }

    /// Dispatches all entries.
    pub(super) fn dispatch_all(&mut self, to: &mut impl InboundSink) {
        // Drained in place: the vector keeps its capacity for the next read.
        for entry in self.entries.drain(..) {
            match entry {
                // Each call in the batch may have been cancelled.
                Received::Messages(_, messages) if messages.is_empty() => {}
                Received::Messages(address, messages) => to.messages(address, messages),
                Received::Event(event) => to.event(event),
            }
        }
    }

    #[inline(always)]
    fn add(
        &mut self,
        peer: &Arc<impl ReplyPath + 'static>,
        call: Option<CallId>,
        to: (Target, TypeHash),
        deadline: Option<Instant>,
        body: impl wire::IncomingBody,
        charge: session::CreditCharge,
    ) {
        let charge = to_charge(charge);
        let (body, mixed) = match self.entries.last_mut() {
            Some(Received::Messages(address, messages)) if *address == to => {
                match messages.push(call, deadline, body, charge) {
                    Ok(()) => return,
                    // Refused and not full means that the kinds differ. The next batch is then mixed
                    // from the start: alternating kinds would otherwise end up in batches of one
                    // message.
                    Err(body) => (body, !messages.is_full()),
                }
            }
            _ => (body, false),
        };
        let messages = MessageBatch::new(Arc::clone(peer) as _, call, deadline, body, charge, mixed);
        self.entries.push(Received::Messages(to, messages));
    }

    /// Removes a cancelled call, which may leave its batch empty.
    fn remove(&mut self, call: CallId) -> Option<(Target, Inbound)> {
        // Backwards: a caller that cancels mostly does so soon after its call.
        self.entries.iter_mut().rev().find_map(|entry| match entry {
            Received::Messages((target, _), messages) => Some((*target, messages.remove(call)?)),
            Received::Event(_) => None,
        })
    }
}

/// Sink of a session's events: messages go to the received batch, outcomes to the reply slots.
pub(super) struct SessionSink<'a, O = Peer> {
    pub(super) peer: &'a Arc<O>,
    pub(super) reply_slots: &'a mut ReplySlots,
    pub(super) inbox: &'a mut ReceivedBatch,
}

impl<O: ReplyPath + 'static> Events<SlotId> for SessionSink<'_, O> {
    #[inline(always)]
    fn call(
        &mut self,
        call: CallId,
        to: (Target, TypeHash),
        deadline: Option<Instant>,
        body: impl wire::IncomingBody,
        charge: session::CreditCharge,
    ) {
        self.inbox.add(self.peer, Some(call), to, deadline, body, charge);
    }

    #[inline(always)]
    fn tell(&mut self, to: (Target, TypeHash), body: impl wire::IncomingBody, charge: session::CreditCharge) {
        self.inbox.add(self.peer, None, to, None, body, charge);
    }

    /// Stores an outcome in its slot right here, since the lock is held anyway.
    fn push(&mut self, event: Event<SlotId>) {
        if let Some(event) = self.reply_slots.take_event(event, &mut self.inbox.wakers) {
            self.inbox.entries.push(Received::Event(event));
        }
    }

    fn cancel_undelivered(&mut self, call: CallId) -> Option<session::CreditCharge> {
        let (target, message) = self.inbox.remove(call)?;
        let (bytes, epoch) =
            message.charge().map_or((0, 0), |charge| (charge.bytes().get(), charge.session_epoch()));
        Some(session::CreditCharge { target, bytes, epoch })
    }
}

/// Converts the session's charge into the form that the actor's side releases.
#[inline(always)]
fn to_charge(charge: session::CreditCharge) -> Option<PackedCharge> {
    NonZeroU64::new(charge.bytes).map(|bytes| PackedCharge::new(charge.target, charge.epoch, bytes))
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::super::peer::DetachedReplyPath;
    use super::*;
    use crate::id::{ActorId, ActorIncarnation};
    use crate::wire::{Body, ShortSlice};

    fn to(actor: u64) -> (Target, TypeHash) {
        (Target { actor: ActorId(actor), incarnation: ActorIncarnation(0) }, TypeHash(7))
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        ShortCall,
        LongCall,
        ShortTell,
        LongTell,
    }

    impl Kind {
        fn is_call(self) -> bool {
            matches!(self, Self::ShortCall | Self::LongCall)
        }
    }

    /// Adds a message with a number, which is also its credit charge.
    fn add(inbox: &mut ReceivedBatch, actor: u64, number: u64, kind: Kind) {
        let (to, call) = (to(actor), kind.is_call().then_some(CallId(number)));
        let charge = session::CreditCharge { target: to.0, bytes: number, epoch: 3 };
        let bytes = number.to_be_bytes();
        match kind {
            Kind::ShortCall | Kind::ShortTell => {
                inbox.add(
                    &Arc::new(DetachedReplyPath),
                    call,
                    to,
                    None,
                    ShortSlice::new(&bytes).unwrap(),
                    charge,
                );
            }
            Kind::LongCall | Kind::LongTell => {
                let body = Body { message: (&bytes[..]).into(), ..Body::empty() };
                inbox.add(&Arc::new(DetachedReplyPath), call, to, None, body, charge);
            }
        }
    }

    /// Dispatched entries: each batch as its actor and numbers, and the number of a cancelled call.
    #[derive(Debug, Default, PartialEq)]
    struct Dispatched(Vec<(u64, Vec<u64>)>);

    impl InboundSink for Dispatched {
        fn messages(&mut self, (target, _): (Target, TypeHash), messages: MessageBatch) {
            let numbers = messages.map(|message| {
                let charge = message.charge().unwrap();
                let number = charge.bytes().get();
                assert!(message.call().is_none_or(|call| call == CallId(number)));
                assert_eq!((charge.target(), charge.session_epoch()), (target, 3));
                assert_eq!(*message.body.message, number.to_be_bytes());
                number
            });
            self.0.push((target.actor.0, numbers.collect()));
        }

        fn event(&mut self, event: Event<SlotId>) {
            let Event::Cancelled { call } = event else { panic!("{event:?}") };
            self.0.push((0, vec![call.0]));
        }
    }

    fn dispatched(inbox: &mut ReceivedBatch) -> Vec<(u64, Vec<u64>)> {
        let mut seen = Dispatched::default();
        inbox.dispatch_all(&mut seen);
        assert!(inbox.is_empty());
        seen.0
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A number of messages of a kind to an actor.
        Messages(u64, Kind, u64),
        Event,
        Cancel(usize),
        Dispatch,
    }

    fn step() -> impl Strategy<Value = Step> {
        let kinds = [Kind::ShortCall, Kind::LongCall, Kind::ShortTell, Kind::LongTell];
        let kind = prop::sample::select(kinds.to_vec());
        prop_oneof![
            8 => (1_u64..4, kind, prop_oneof![3 => Just(1_u64), 1 => 1_u64..150])
                .prop_map(|(actor, kind, count)| Step::Messages(actor, kind, count)),
            1 => Just(Step::Event),
            3 => any::<usize>().prop_map(Step::Cancel),
            1 => Just(Step::Dispatch),
        ]
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn messages_are_dispatched_in_order_except_for_cancelled_calls(
            steps in prop::collection::vec(step(), 0..100),
        ) {
            let (mut inbox, mut expected, mut number) = (ReceivedBatch::default(), Vec::new(), 0);
            for step in steps.into_iter().chain([Step::Dispatch]) {
                let mut next = || {
                    number += 1;
                    number
                };
                match step {
                    Step::Messages(actor, kind, count) => {
                        for _ in 0..count {
                            let number = next();
                            add(&mut inbox, actor, number, kind);
                            expected.push((actor, number, kind.is_call()));
                        }
                    }
                    Step::Event => {
                        let number = next();
                        inbox.entries.push(Received::Event(Event::Cancelled { call: CallId(number) }));
                        expected.push((0, number, false));
                    }
                    Step::Cancel(which) => {
                        let calls = expected.iter().filter(|(_, _, is_call)| *is_call);
                        let Some(at) = which.checked_rem(calls.clone().count()) else { continue };
                        let (actor, number, _) = *calls.clone().nth(at).unwrap();
                        let (target, message) = inbox.remove(CallId(number)).unwrap();
                        prop_assert_eq!((target, message.call()), (to(actor).0, Some(CallId(number))));
                        prop_assert_eq!(message.charge().unwrap().bytes().get(), number);
                        prop_assert!(inbox.remove(CallId(number)).is_none());
                        expected.retain(|(_, sent, _)| *sent != number);
                    }
                    Step::Dispatch => {
                        let batches = dispatched(&mut inbox);
                        prop_assert!(batches.iter().all(|(_, numbers)| (1..=64).contains(&numbers.len())));
                        let received = batches.iter().flat_map(|(actor, all)| all.iter().map(|number| (*actor, *number)));
                        let expected = std::mem::take(&mut expected).into_iter();
                        let expected: Vec<_> = expected.map(|(actor, number, _)| (actor, number)).collect();
                        prop_assert_eq!(received.collect::<Vec<_>>(), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn order_is_kept_and_batches_are_bounded() {
        for kind in [Kind::ShortCall, Kind::LongTell] {
            let mut inbox = ReceivedBatch::default();
            (1..=70).for_each(|number| add(&mut inbox, 1, number, kind));
            add(&mut inbox, 2, 71, kind);
            inbox.entries.push(Received::Event(Event::Cancelled { call: CallId(9) }));
            add(&mut inbox, 2, 72, kind);
            let expected = [
                (1, (1..=64).collect()),
                (1, (65..=70).collect()),
                (2, vec![71]),
                (0, vec![9]),
                (2, vec![72]),
            ];
            assert_eq!(dispatched(&mut inbox), expected);
        }
    }

    #[test]
    fn a_cancelled_call_is_not_dispatched() {
        let mut inbox = ReceivedBatch::default();
        for (actor, number) in [(1, 1), (1, 2), (2, 3), (1, 4), (1, 5)] {
            add(&mut inbox, actor, number, Kind::ShortCall);
        }
        for number in [2, 3, 5] {
            assert_eq!(
                inbox.remove(CallId(number)).and_then(|(_, message)| message.call()),
                Some(CallId(number))
            );
        }
        assert!(inbox.remove(CallId(3)).is_none());
        add(&mut inbox, 1, 6, Kind::ShortCall);
        assert_eq!(dispatched(&mut inbox), [(1, vec![1]), (1, vec![4, 6])]);
    }
}
