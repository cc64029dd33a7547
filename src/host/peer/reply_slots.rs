//! Where the outcomes of calls wait for their callers: one slot a call, used again and again.
//!
//! They stand beside the session, under its lock: the task of the link has that when a reply comes,
//! and a caller takes it to make its call.

use std::task::{Context, Poll, Waker};

use crate::id::CallId;
use crate::session::{CallError, Event};
use crate::wire::{Body, ShortSlice, ShortWords};

/// The slot of a call.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(pub(super) u32);

/// All slots of a peer, and the first of those that are free: the number of the next one if none is.
#[derive(Default)]
pub(in crate::host) struct ReplySlots {
    slots: Vec<Slot>,
    free: u32,
}

#[derive(Debug)]
pub(super) enum Slot {
    /// With the next that is free.
    Free(u32),
    Waiting {
        call: CallId,
        waker: Option<Waker>,
    },
    /// With a short reply, as most are.
    Answered(ShortWords),
    LargeReply(Box<Body>),
    Failed(Box<CallError>),
}

/// What was in a slot.
pub(super) enum Outcome {
    Answered(ShortWords),
    LargeReply(Box<Body>),
    /// With why there is no reply, if that is known.
    Failed(Option<Box<CallError>>),
}

impl Slot {
    /// Fills a slot in which nothing is that has to be dropped: it is known here, and not to the compiler.
    #[inline(always)]
    fn fill(&mut self, slot: Self) {
        debug_assert!(match self {
            Self::Free(_) | Self::Waiting { waker: None, .. } | Self::Answered(_) => true,
            Self::Waiting { waker: Some(_), .. } | Self::LargeReply(_) | Self::Failed(_) => false,
        });
        std::mem::forget(std::mem::replace(self, slot));
    }
}

impl ReplySlots {
    /// The slot that the next call will have.
    #[inline(always)]
    pub(super) fn next(&self) -> SlotId {
        SlotId(self.free)
    }

    /// Takes the next slot for a call.
    #[inline(always)]
    pub(super) fn open(&mut self, call: CallId) {
        if let Some(slot) = self.slot(self.next())
            && let Slot::Free(next) = *slot
        {
            slot.fill(Slot::Waiting { call, waker: None });
            self.free = next;
            return;
        }
        // Free slots lead to each other, and the last of them behind the end.
        self.slots.push(Slot::Waiting { call, waker: None });
        self.free = self.slots.len() as u32;
    }

    #[inline(always)]
    fn slot(&mut self, ticket: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(ticket.0 as usize)
    }

    /// Frees a slot, and gives what was in it, to be dropped without the lock.
    pub(super) fn close(&mut self, ticket: SlotId) -> Option<Slot> {
        let free = self.free;
        let slot = self.slot(ticket)?;
        if let Slot::Free(_) = slot {
            return None;
        }
        let taken = std::mem::replace(slot, Slot::Free(free));
        self.free = ticket.0;
        Some(taken)
    }

    /// Takes the reply to a call; gives who is to be woken.
    #[inline(always)]
    pub(super) fn complete(&mut self, ticket: SlotId, body: ShortSlice<'_>) -> Option<Waker> {
        match self.slot(ticket)? {
            slot @ Slot::Waiting { waker: None, .. } => {
                slot.fill(Slot::Answered(body.into()));
                None
            }
            slot => Self::set_outcome(slot, Slot::Answered(body.into())),
        }
    }

    fn set_outcome(slot: &mut Slot, end: Slot) -> Option<Waker> {
        match slot {
            Slot::Waiting { waker, .. } => {
                let waker = waker.take();
                *slot = end;
                waker
            }
            _ => None,
        }
    }

    /// Takes the outcome that an event is, if it is one.
    pub(in crate::host) fn take_event(
        &mut self,
        event: Event<SlotId>,
        wake: &mut Vec<Waker>,
    ) -> Option<Event<SlotId>> {
        match event {
            Event::Replied { call_slot: ticket, body } => {
                let end = Slot::LargeReply(Box::new(body));
                wake.extend(self.slot(ticket).and_then(|slot| Self::set_outcome(slot, end)));
            }
            Event::Failed { call_slot: ticket, failure } => {
                let end = Slot::Failed(Box::new(failure));
                wake.extend(self.slot(ticket).and_then(|slot| Self::set_outcome(slot, end)));
            }
            event => return Some(event),
        }
        None
    }

    /// Gives what is in the slot, and frees it; or notes who is to be woken. Whoever was to be woken
    /// before is left in `old`, to be dropped without the lock.
    #[inline(always)]
    pub(super) fn poll(
        &mut self,
        ticket: SlotId,
        task: &Context<'_>,
        old: &mut Option<Waker>,
    ) -> Poll<Outcome> {
        let free = self.free;
        if let Some(slot) = self.slot(ticket) {
            if let Slot::Waiting { waker, .. } = slot {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
                    *old = waker.replace(task.waker().clone());
                }
                return Poll::Pending;
            }
            if let Slot::Answered(body) = *slot {
                slot.fill(Slot::Free(free));
                self.free = ticket.0;
                return Poll::Ready(Outcome::Answered(body));
            }
        }
        Poll::Ready(match self.close(ticket) {
            Some(Slot::LargeReply(body)) => Outcome::LargeReply(body),
            Some(Slot::Failed(failed)) => Outcome::Failed(Some(failed)),
            _ => Outcome::Failed(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::session::DisconnectReason;

    /// What a call ends with.
    #[derive(Clone, Copy, Debug)]
    enum End {
        Short,
        Long,
        Failure,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Open,
        Put(usize, End),
        Poll(usize),
        Close(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = any::<usize>();
        prop_oneof![
            3 => Just(Step::Open),
            2 => (which, prop::sample::select(vec![End::Short, End::Long, End::Failure]))
                .prop_map(|(which, end)| Step::Put(which, end)),
            2 => which.prop_map(Step::Poll),
            1 => which.prop_map(Step::Close),
        ]
    }

    fn failure(number: usize) -> CallError {
        CallError::OutcomeUnknown(DisconnectReason::Io(number.to_string()))
    }

    /// A reply to the call, short or long.
    fn reply(number: usize, repeated: usize) -> Vec<u8> {
        number.to_le_bytes().repeat(repeated)
    }

    /// Which call has such an end; none if it has not ended.
    fn call_of(had: Option<Slot>) -> Option<usize> {
        let number = |bytes: &[u8]| usize::from_le_bytes(*bytes.first_chunk().unwrap());
        match had {
            Some(Slot::Answered(body)) => Some(number(&Body::from(body).message)),
            Some(Slot::LargeReply(body)) => Some(number(&body.message)),
            Some(Slot::Failed(failed)) => {
                let CallError::OutcomeUnknown(DisconnectReason::Io(text)) = *failed else {
                    panic!("{failed:?}")
                };
                Some(text.parse().unwrap())
            }
            Some(Slot::Waiting { .. } | Slot::Free(_)) | None => None,
        }
    }

    proptest! {
        #[test]
        fn each_caller_gets_its_own_outcome_once(steps in proptest::collection::vec(step(), 1..120)) {
            let mut answers = ReplySlots::default();
            // Of the calls whose callers wait: their numbers, and whether the outcome is there.
            let mut open: BTreeMap<u32, (usize, bool)> = BTreeMap::new();
            // Those who were polled before.
            let mut polled = BTreeSet::new();
            let (mut made, mut old) = (0, None);
            let task = Context::from_waker(Waker::noop());
            for step in steps {
                let nth = |which: usize| {
                    let at = which.checked_rem(open.len())?;
                    open.iter().nth(at).map(|(slot, call)| (*slot, *call))
                };
                match step {
                    Step::Open => {
                        let SlotId(slot) = answers.next();
                        answers.open(CallId(made as u64));
                        prop_assert!(open.insert(slot, (made, false)).is_none(), "the slot is taken");
                        made += 1;
                    }
                    Step::Put(which, end) => {
                        let Some((slot, (call, false))) = nth(which) else { continue };
                        let ticket = SlotId(slot);
                        let woken = match end {
                            End::Short => answers.complete(ticket, ShortSlice::new(&reply(call, 1)).unwrap()).into_iter().collect(),
                            End::Long | End::Failure => {
                                let mut woken = Vec::new();
                                let body = Body { message: reply(call, 9).into(), ..Body::empty() };
                                let event = match end {
                                    End::Long => Event::Replied { call_slot: ticket, body },
                                    _ => Event::Failed { call_slot: ticket, failure: failure(call) },
                                };
                                prop_assert_eq!(answers.take_event(event, &mut woken), None);
                                woken
                            }
                        };
                        prop_assert!(woken.len() == usize::from(polled.remove(&slot)), "who was polled is woken");
                        open.insert(slot, (call, true));
                    }
                    Step::Poll(which) => {
                        let Some((slot, (call, there))) = nth(which) else { continue };
                        let had = match answers.poll(SlotId(slot), &task, &mut old) {
                            Poll::Ready(Outcome::Answered(body)) => Some(Slot::Answered(body)),
                            Poll::Ready(Outcome::LargeReply(body)) => Some(Slot::LargeReply(body)),
                            Poll::Ready(Outcome::Failed(had)) => had.map(Slot::Failed),
                            Poll::Pending => {
                                polled.insert(slot);
                                None
                            }
                        };
                        prop_assert_eq!(call_of(had), there.then_some(call));
                        if there {
                            open.remove(&slot);
                        }
                    }
                    Step::Close(which) => {
                        let Some((slot, (call, there))) = nth(which) else { continue };
                        let had = answers.close(SlotId(slot));
                        if let Some(Slot::Waiting { call: had, .. }) = had {
                            prop_assert_eq!((had, there), (CallId(call as u64), false));
                        } else {
                            prop_assert_eq!((call_of(had), there), (Some(call), true));
                        }
                        polled.remove(&slot);
                        open.remove(&slot);
                    }
                }
                let free = answers.slots.iter().filter(|slot| matches!(slot, Slot::Free(_))).count();
                prop_assert_eq!(answers.slots.len() - free, open.len());
            }
        }
    }
}
