//! What has come over a link and is not handed over yet.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::peer::{Peer, ReplySlots, SlotId};
use crate::id::{CallId, Target, TypeHash};
use crate::registry::{CreditCharge, Inbound, MessageBatch, ReplyPath};
use crate::session::{self, Event, Events};
use crate::wire;

/// Messages and other events in their order. Callers have their answers already, and are to be woken.
#[derive(Default)]
pub(super) struct ReceivedBatch {
    entries: Vec<Received>,
    pub(super) wakers: Vec<Waker>,
}

/// What came next.
enum Received {
    /// Messages to one actor and of one type.
    Run((Target, TypeHash), MessageBatch),
    Event(Event<SlotId>),
}

/// Consumer of an inbox.
#[doc(hidden)]
pub trait InboundSink {
    /// Takes messages.
    fn run(&mut self, to: (Target, TypeHash), run: MessageBatch);
    /// Takes another event.
    fn event(&mut self, event: Event<SlotId>);
}

impl ReceivedBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages and events that are not handed over yet.
    pub(super) fn len(&self) -> usize {
        let lengths = self.entries.iter().map(|came| match came {
            Received::Run(_, run) => run.len(),
            Received::Event(_) => 1,
        });
        lengths.sum()
    }

    /// Hands over all that has come.
    pub(super) fn dispatch_all(&mut self, to: &mut impl InboundSink) {
        for came in self.entries.drain(..) {
            match came {
                // All of them may have been withdrawn.
                Received::Run(_, run) if run.is_empty() => {}
                Received::Run(address, run) => to.run(address, run),
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
        claim: session::CreditCharge,
    ) {
        let claim = to_charge(claim);
        let (body, mixed) = match self.entries.last_mut() {
            Some(Received::Run(address, run)) if *address == to => {
                match run.push(call, deadline, body, claim) {
                    Ok(()) => return,
                    Err(body) => (body, !run.is_full()),
                }
            }
            _ => (body, false),
        };
        let run = MessageBatch::new(Arc::clone(peer) as _, call, deadline, body, claim, mixed);
        self.entries.push(Received::Run(to, run));
    }

    /// Takes a call out again. Its run may be empty then.
    fn remove(&mut self, call: CallId) -> Option<(Target, Inbound)> {
        self.entries.iter_mut().rev().find_map(|came| match came {
            Received::Run((target, _), run) => Some((*target, run.remove(call)?)),
            Received::Event(_) => None,
        })
    }
}

/// The events of a peer's session on their way to the inbox, and to callers.
pub(super) struct SessionSink<'a, O = Peer> {
    pub(super) peer: &'a Arc<O>,
    pub(super) answers: &'a mut ReplySlots,
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
        claim: session::CreditCharge,
    ) {
        self.inbox.add(self.peer, Some(call), to, deadline, body, claim);
    }

    #[inline(always)]
    fn tell(&mut self, to: (Target, TypeHash), body: impl wire::IncomingBody, claim: session::CreditCharge) {
        self.inbox.add(self.peer, None, to, None, body, claim);
    }

    /// An outcome goes to its caller at once, while the lock is held in any case.
    fn push(&mut self, event: Event<SlotId>) {
        if let Some(event) = self.answers.take_event(event, &mut self.inbox.wakers) {
            self.inbox.entries.push(Received::Event(event));
        }
    }

    fn cancel_undelivered(&mut self, call: CallId) -> Option<session::CreditCharge> {
        let (target, message) = self.inbox.remove(call)?;
        let (bytes, life) =
            message.claim().map_or((0, 0), |claim| (claim.bytes().get(), claim.session_epoch()));
        Some(session::CreditCharge { target, bytes, epoch: life })
    }
}

/// What a message takes, as its actor's host gives it back.
#[inline(always)]
fn to_charge(claim: session::CreditCharge) -> Option<CreditCharge> {
    NonZeroU64::new(claim.bytes).map(|bytes| CreditCharge::new(claim.target, claim.epoch, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::peer::DetachedOrigin;
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

    /// Adds a message with that number, which is also what it takes of its actor's window.
    fn add(inbox: &mut ReceivedBatch, actor: u64, number: u64, kind: Kind) {
        let (to, call) = (to(actor), kind.is_call().then_some(CallId(number)));
        let claim = session::CreditCharge { target: to.0, bytes: number, epoch: 3 };
        let bytes = number.to_be_bytes();
        match kind {
            Kind::ShortCall | Kind::ShortTell => {
                inbox.add(&Arc::new(DetachedOrigin), call, to, None, ShortSlice::new(&bytes).unwrap(), claim);
            }
            Kind::LongCall | Kind::LongTell => {
                let body = Body { message: (&bytes[..]).into(), ..Body::empty() };
                inbox.add(&Arc::new(DetachedOrigin), call, to, None, body, claim);
            }
        }
    }

    /// What was handed over: each run as its actor and the numbers, and the number of a cancelled call.
    #[derive(Debug, Default, PartialEq)]
    struct Seen(Vec<(u64, Vec<u64>)>);

    impl InboundSink for Seen {
        fn run(&mut self, (target, _): (Target, TypeHash), run: MessageBatch) {
            let numbers = run.map(|message| {
                let claim = message.claim().unwrap();
                let number = claim.bytes().get();
                assert!(message.call().is_none_or(|call| call == CallId(number)));
                assert_eq!((claim.target(), claim.session_epoch()), (target, 3));
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

    fn handed_over(inbox: &mut ReceivedBatch) -> Vec<(u64, Vec<u64>)> {
        let mut seen = Seen::default();
        inbox.dispatch_all(&mut seen);
        assert!(inbox.is_empty());
        seen.0
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// So many messages of a kind to an actor.
        Messages(u64, Kind, u64),
        Event,
        Withdraw(usize),
        HandOver,
    }

    fn step() -> impl Strategy<Value = Step> {
        let kinds = [Kind::ShortCall, Kind::LongCall, Kind::ShortTell, Kind::LongTell];
        let kind = prop::sample::select(kinds.to_vec());
        prop_oneof![
            8 => (1_u64..4, kind, prop_oneof![3 => Just(1_u64), 1 => 1_u64..150])
                .prop_map(|(actor, kind, count)| Step::Messages(actor, kind, count)),
            1 => Just(Step::Event),
            3 => any::<usize>().prop_map(Step::Withdraw),
            1 => Just(Step::HandOver),
        ]
    }

    proptest! {
        #[test]
        fn what_came_is_handed_over_in_its_order_but_for_what_was_withdrawn(
            steps in prop::collection::vec(step(), 0..100),
        ) {
            let (mut inbox, mut expected, mut number) = (ReceivedBatch::default(), Vec::new(), 0);
            for step in steps.into_iter().chain([Step::HandOver]) {
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
                    Step::Withdraw(which) => {
                        let calls = expected.iter().filter(|(_, _, is_call)| *is_call);
                        let Some(at) = which.checked_rem(calls.clone().count()) else { continue };
                        let (actor, number, _) = *calls.clone().nth(at).unwrap();
                        let (target, message) = inbox.remove(CallId(number)).unwrap();
                        prop_assert_eq!((target, message.call()), (to(actor).0, Some(CallId(number))));
                        prop_assert_eq!(message.claim().unwrap().bytes().get(), number);
                        prop_assert!(inbox.remove(CallId(number)).is_none());
                        expected.retain(|(_, came, _)| *came != number);
                    }
                    Step::HandOver => {
                        let runs = handed_over(&mut inbox);
                        prop_assert!(runs.iter().all(|(_, numbers)| (1..=64).contains(&numbers.len())));
                        let came = runs.iter().flat_map(|(actor, all)| all.iter().map(|number| (*actor, *number)));
                        let expected = std::mem::take(&mut expected).into_iter();
                        let expected: Vec<_> = expected.map(|(actor, number, _)| (actor, number)).collect();
                        prop_assert_eq!(came.collect::<Vec<_>>(), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn order_is_kept_and_runs_have_an_end() {
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
            assert_eq!(handed_over(&mut inbox), expected);
        }
    }

    #[test]
    fn a_call_that_is_withdrawn_is_not_handed_over() {
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
        assert_eq!(handed_over(&mut inbox), [(1, vec![1]), (1, vec![4, 6])]);
    }
}
