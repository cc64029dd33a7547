//! Where the outcomes of calls wait for their callers: one slot a call, used again and again.
//!
//! They stand beside the session, under its lock: the task of the link has that when a reply comes,
//! and a caller takes it to make its call.

use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::session::{Event, Failed};
use crate::wire::Body;

/// What became of a call.
pub(crate) type Outcome = Result<Body, Failed>;

/// The slot of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(usize);

/// All slots of a peer.
#[derive(Default)]
pub(super) struct Answers {
    slots: Slab<Slot>,
}

/// A call that somebody waits for.
#[derive(Debug)]
pub(super) enum Slot {
    Awaited(Option<Waker>),
    Answered(Outcome),
}

impl Answers {
    /// A slot for a new call.
    pub(super) fn open(&mut self) -> Ticket {
        Ticket(self.slots.insert(Slot::Awaited(None)))
    }

    /// Nobody waits for the call any more. What it had is to be dropped without the lock.
    pub(super) fn close(&mut self, ticket: Ticket) -> Option<Slot> {
        self.slots.try_remove(ticket.0)
    }

    /// Takes the outcome of a call; gives who is to be woken.
    pub(super) fn put(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Waker> {
        let slot = self.slots.get_mut(ticket.0)?;
        let waker = match slot {
            Slot::Awaited(waker) => waker.take(),
            Slot::Answered(_) => return None,
        };
        *slot = Slot::Answered(outcome);
        waker
    }

    /// Takes the outcome that an event is, if it is one.
    pub(super) fn take_event(
        &mut self,
        event: Event<Ticket>,
        wake: &mut Vec<Waker>,
    ) -> Option<Event<Ticket>> {
        match event {
            Event::Replied { ticket, body } => wake.extend(self.put(ticket, Ok(body))),
            Event::Failed { ticket, failure } => wake.extend(self.put(ticket, Err(failure))),
            event => return Some(event),
        }
        None
    }

    /// Gives the outcome, and closes the slot; or notes who is to be woken. Whoever was to be woken
    /// before is left in `old`, to be dropped without the lock.
    pub(super) fn poll(
        &mut self,
        ticket: Ticket,
        task: &Context<'_>,
        old: &mut Option<Waker>,
    ) -> Poll<Option<Outcome>> {
        match self.slots.get_mut(ticket.0) {
            Some(Slot::Awaited(waker)) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
                    *old = waker.replace(task.waker().clone());
                }
                Poll::Pending
            }
            Some(Slot::Answered(_)) => match self.slots.try_remove(ticket.0) {
                Some(Slot::Answered(outcome)) => Poll::Ready(Some(outcome)),
                _ => Poll::Ready(None),
            },
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::session::LinkLoss;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Open,
        Put(usize),
        Poll(usize),
        Close(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = any::<usize>();
        prop_oneof![
            3 => Just(Step::Open),
            2 => which.prop_map(Step::Put),
            2 => which.prop_map(Step::Poll),
            1 => which.prop_map(Step::Close),
        ]
    }

    fn outcome(number: usize) -> Outcome {
        Err(Failed::OutcomeUnknown(LinkLoss::Io(number.to_string())))
    }

    proptest! {
        #[test]
        fn each_caller_gets_its_own_outcome_once(steps in proptest::collection::vec(step(), 1..120)) {
            let mut answers = Answers::default();
            // Of the calls whose callers wait: their numbers, and whether the outcome is there.
            let mut open: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
            let (mut made, mut old) = (0, None);
            let task = Context::from_waker(Waker::noop());
            for step in steps {
                let nth = |which: usize| {
                    let at = which.checked_rem(open.len())?;
                    open.iter().nth(at).map(|(slot, call)| (*slot, *call))
                };
                match step {
                    Step::Open => {
                        let Ticket(slot) = answers.open();
                        prop_assert!(open.insert(slot, (made, false)).is_none(), "the slot is taken");
                        made += 1;
                    }
                    Step::Put(which) => {
                        let Some((slot, (call, false))) = nth(which) else { continue };
                        answers.put(Ticket(slot), outcome(call));
                        open.insert(slot, (call, true));
                    }
                    Step::Poll(which) => {
                        let Some((slot, (call, there))) = nth(which) else { continue };
                        let polled = answers.poll(Ticket(slot), &task, &mut old);
                        prop_assert_eq!(polled, if there { Poll::Ready(Some(outcome(call))) } else { Poll::Pending });
                        if there {
                            open.remove(&slot);
                        }
                    }
                    Step::Close(which) => {
                        let Some((slot, (call, there))) = nth(which) else { continue };
                        match answers.close(Ticket(slot)) {
                            Some(Slot::Answered(had)) => prop_assert_eq!((had, there), (outcome(call), true)),
                            Some(Slot::Awaited(_)) => prop_assert!(!there),
                            None => prop_assert!(false, "the slot of an open call is gone"),
                        }
                        open.remove(&slot);
                    }
                }
                prop_assert_eq!(answers.slots.len(), open.len());
            }
        }
    }
}
