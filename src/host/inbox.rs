//! What has come over a link and is not handed over yet.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::peer::{Answers, Peer, Ticket};
use crate::id::{CallId, Target, TypeHash};
use crate::registry::{Claim, Inbound, Run};
use crate::session::{self, Event, Events};
use crate::wire::Body;

/// So many messages for one actor are handed over at once: it may be at the first of them by then, on
/// another thread.
const RUN_MESSAGES: usize = 64;

/// Messages and other events in their order. Callers have their answers already, and are to be woken.
#[derive(Default)]
pub(super) struct Inbox {
    messages: Vec<Inbound>,
    order: Vec<Came>,
    pub(super) wake: Vec<Waker>,
}

/// What came next.
enum Came {
    /// So many messages to one actor and of one type.
    Run((Target, TypeHash), usize),
    Event(Event<Ticket>),
}

/// Who takes it.
pub(super) trait Handover {
    /// Takes all of the messages of a run.
    fn run(&mut self, to: (Target, TypeHash), run: Run<'_, '_>);
    /// Takes another event.
    fn event(&mut self, event: Event<Ticket>);
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Hands over all that has come.
    pub(super) fn hand_over(&mut self, to: &mut impl Handover) {
        let mut messages = self.messages.drain(..);
        for came in self.order.drain(..) {
            match came {
                Came::Run(_, 0) => {}
                Came::Run(address, count) => {
                    let behind = messages.len() - count;
                    to.run(address, messages.by_ref().take(count));
                    // Whoever takes a run takes all of it, or the next one would get its rest.
                    debug_assert_eq!(messages.len(), behind, "a run is taken as a whole");
                }
                Came::Event(event) => to.event(event),
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, to: (Target, TypeHash), message: Inbound) {
        match self.order.last_mut() {
            Some(Came::Run(address, count)) if *address == to && *count < RUN_MESSAGES => *count += 1,
            _ => self.order.push(Came::Run(to, 1)),
        }
        self.messages.push(message);
    }

    /// Takes a call out again. Its run may be empty then.
    fn remove(&mut self, call: CallId) -> Option<(Target, Inbound)> {
        let at = self.messages.iter().rposition(|message| message.call() == Some(call))?;
        let mut behind = 0;
        let (target, run) = self.order.iter_mut().find_map(|came| match came {
            Came::Run((target, _), count) => {
                behind += *count;
                (at < behind).then_some((*target, count))
            }
            Came::Event(_) => None,
        })?;
        *run -= 1;
        Some((target, self.messages.remove(at)))
    }
}

/// The events of a peer's session on their way to the inbox, and to callers.
pub(super) struct Arriving<'a> {
    pub(super) peer: &'a Arc<Peer>,
    pub(super) answers: &'a mut Answers,
    pub(super) inbox: &'a mut Inbox,
}

impl Events<Ticket> for Arriving<'_> {
    #[inline(always)]
    fn call(
        &mut self,
        call: CallId,
        to: (Target, TypeHash),
        deadline: Option<Instant>,
        body: Body,
        claim: session::Claim,
    ) {
        let origin = Arc::clone(self.peer) as _;
        self.inbox.add(to, Inbound::new(origin, Some(call), deadline, body, claimed(claim)));
    }

    #[inline(always)]
    fn tell(&mut self, to: (Target, TypeHash), body: Body, claim: session::Claim) {
        let origin = Arc::clone(self.peer) as _;
        self.inbox.add(to, Inbound::new(origin, None, None, body, claimed(claim)));
    }

    /// An outcome goes to its caller at once, while the lock is held in any case.
    fn push(&mut self, event: Event<Ticket>) {
        if let Some(event) = self.answers.take_event(event, &mut self.inbox.wake) {
            self.inbox.order.push(Came::Event(event));
        }
    }

    fn withdraw(&mut self, call: CallId) -> Option<session::Claim> {
        let (target, message) = self.inbox.remove(call)?;
        let (bytes, life) = message.into_claim().map_or((0, 0), |claim| (claim.bytes().get(), claim.life()));
        Some(session::Claim { target, bytes, life })
    }
}

/// What a message takes, as its actor's host gives it back.
#[inline(always)]
fn claimed(claim: session::Claim) -> Option<Claim> {
    NonZeroU64::new(claim.bytes).map(|bytes| Claim::new(claim.target, claim.life, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{ActorId, ActorIncarnation, Identity};
    use crate::registry::Origin;
    use crate::wire::{CallFailure, Encoded};

    /// Who sends in a test, and hears nothing.
    struct Nobody;

    impl Origin for Nobody {
        fn host(&self) -> Identity {
            unreachable!("nobody asks")
        }

        fn body_bytes_max(&self) -> usize {
            0
        }

        fn turn(&self, waiting: usize) -> usize {
            waiting
        }

        fn reply(&self, _: CallId, _: Encoded<'_>, _: Option<Claim>) {}

        fn fail(&self, _: CallId, _: &CallFailure, _: Option<Claim>) {}

        fn is_cancelled(&self, _: CallId) -> bool {
            false
        }

        fn wake_when_cancelled(&self, _: CallId, _: &Waker) -> bool {
            false
        }

        fn handled(&self, _: Claim) {}

        fn dead_letter(&self, _: &CallFailure) {}
    }

    fn to(actor: u64) -> (Target, TypeHash) {
        (Target { actor: ActorId(actor), incarnation: ActorIncarnation(0) }, TypeHash(7))
    }

    fn call(number: u64) -> Inbound {
        Inbound::new(Arc::new(Nobody), Some(CallId(number)), None, Body::empty(), None)
    }

    /// What was handed over: each run as its actor and its calls, and the number of a cancelled call.
    #[derive(Debug, Default, PartialEq)]
    struct Seen(Vec<(u64, Vec<u64>)>);

    impl Handover for Seen {
        fn run(&mut self, (target, _): (Target, TypeHash), messages: Run<'_, '_>) {
            let calls = messages.filter_map(|message| message.call()).map(|call| call.0).collect();
            self.0.push((target.actor.0, calls));
        }

        fn event(&mut self, event: Event<Ticket>) {
            let Event::Cancelled { call } = event else { panic!("{event:?}") };
            self.0.push((0, vec![call.0]));
        }
    }

    fn handed_over(inbox: &mut Inbox) -> Vec<(u64, Vec<u64>)> {
        let mut seen = Seen::default();
        inbox.hand_over(&mut seen);
        assert!(inbox.is_empty() && inbox.messages.is_empty());
        seen.0
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Message(u64),
        Event,
        Withdraw(usize),
        HandOver,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (1_u64..4).prop_map(Step::Message),
            1 => Just(Step::Event),
            3 => any::<usize>().prop_map(Step::Withdraw),
            1 => Just(Step::HandOver),
        ]
    }

    proptest! {
        #[test]
        fn what_came_is_handed_over_in_its_order_but_for_what_was_withdrawn(
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let (mut inbox, mut expected) = (Inbox::default(), Vec::new());
            for (number, step) in (0..).zip(steps.into_iter().chain([Step::HandOver])) {
                match step {
                    Step::Message(actor) => {
                        inbox.add(to(actor), call(number));
                        expected.push((actor, number));
                    }
                    Step::Event => {
                        inbox.order.push(Came::Event(Event::Cancelled { call: CallId(number) }));
                        expected.push((0, number));
                    }
                    Step::Withdraw(which) => {
                        let messages = expected.iter().filter(|(actor, _)| *actor > 0);
                        let Some(at) = which.checked_rem(messages.clone().count()) else { continue };
                        let (actor, number) = *messages.clone().nth(at).unwrap();
                        let (target, message) = inbox.remove(CallId(number)).unwrap();
                        prop_assert_eq!((target, message.call()), (to(actor).0, Some(CallId(number))));
                        prop_assert!(inbox.remove(CallId(number)).is_none());
                        expected.retain(|came| *came != (actor, number));
                    }
                    Step::HandOver => {
                        let runs = handed_over(&mut inbox);
                        prop_assert!(runs.iter().all(|(_, calls)| (1..=RUN_MESSAGES).contains(&calls.len())));
                        let came = runs.iter().flat_map(|(actor, calls)| calls.iter().map(|call| (*actor, *call)));
                        prop_assert_eq!(came.collect::<Vec<_>>(), std::mem::take(&mut expected));
                    }
                }
            }
        }
    }

    #[test]
    fn order_is_kept_and_runs_have_an_end() {
        let mut inbox = Inbox::default();
        (1..=70).for_each(|number| inbox.add(to(1), call(number)));
        inbox.add(to(2), call(71));
        inbox.order.push(Came::Event(Event::Cancelled { call: CallId(9) }));
        inbox.add(to(2), call(72));
        let expected =
            [(1, (1..=64).collect()), (1, (65..=70).collect()), (2, vec![71]), (0, vec![9]), (2, vec![72])];
        assert_eq!(handed_over(&mut inbox), expected);
    }

    #[test]
    fn a_call_that_is_withdrawn_is_not_handed_over() {
        let mut inbox = Inbox::default();
        for (actor, number) in [(1, 1), (1, 2), (2, 3), (1, 4), (1, 5)] {
            inbox.add(to(actor), call(number));
        }
        for number in [2, 3, 5] {
            assert_eq!(
                inbox.remove(CallId(number)).and_then(|(_, message)| message.call()),
                Some(CallId(number))
            );
        }
        assert!(inbox.remove(CallId(3)).is_none());
        inbox.add(to(1), call(6));
        assert_eq!(handed_over(&mut inbox), [(1, vec![1]), (1, vec![4, 6])]);
    }
}
