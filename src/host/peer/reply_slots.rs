//! Reply slots: storage for the outcomes of calls until their callers take them.
//!
//! A call has one slot, and slots are reused through a free list in the vector itself:
//!
//! ```text
//!   index   0         1         2          3         4
//!   slots   Waiting   Free(3)   Replied   Free(5)   Waiting
//!   free    1 ──▶ 3 ──▶ 5, which is the length: there the next slot is appended
//! ```
//! They are locked together with the session. The link's task holds that lock when a reply arrives, and a
//! caller takes it to send its call.

use std::task::{Context, Poll, Waker};

use crate::id::CallId;
use crate::session::{CallError, Event};
use crate::wire::{Body, IncomingBody, ShortWords};

/// Index of a call's reply slot.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(pub(super) u32);

/// All reply slots of a peer, and the index of the first free one, or the length if none is free.
#[derive(Default)]
pub(in crate::host) struct ReplySlots {
    slots: Vec<ReplySlot>,
    free: u32,
}

/// State of one slot.
#[derive(Debug)]
pub(super) enum ReplySlot {
    /// Unused, with the index of the next free slot.
    Free(u32),
    Waiting {
        call: CallId,
        waker: Option<Waker>,
    },
    /// Holds a short reply, the common case.
    Replied(ShortWords),
    /// Holds a longer reply without payloads, of up to 4 KiB.
    LongReply(Box<[u8]>),
    LargeReply(Box<Body>),
    Failed(Box<CallError>),
}

/// Content of a completed slot.
pub(super) enum CallOutcome {
    Replied(ShortWords),
    LongReply(Box<[u8]>),
    LargeReply(Box<Body>),
    /// No reply, with the cause if it is known.
    Failed(Option<Box<CallError>>),
}

impl ReplySlot {
    /// Overwrites a slot without running its drop glue.
    ///
    /// Invariant: the old value owns nothing, so it is free, has no waker, or holds inline bytes. Each
    /// caller has just matched that, which the compiler does not carry over. If the invariant breaks, a
    /// waker or a box leaks, which is not undefined behaviour; debug builds assert it. With drop glue, a
    /// call takes 1.04 times the time with 1,024 in flight.
    #[inline(always)]
    fn fill(&mut self, slot: Self) {
        debug_assert!(match self {
            Self::Free(_) | Self::Waiting { waker: None, .. } | Self::Replied(_) => true,
            Self::Waiting { waker: Some(_), .. }
            | Self::LongReply(_)
            | Self::LargeReply(_)
            | Self::Failed(_) => false,
        });
        std::mem::forget(std::mem::replace(self, slot));
    }
}

impl ReplySlots {
    /// Index of the slot that the next call will take.
    #[inline(always)]
    pub(super) fn next(&self) -> SlotId {
        SlotId(self.free)
    }

    /// Takes the next slot for a call.
    #[inline(always)]
    pub(super) fn open(&mut self, call: CallId) {
        if let Some(slot) = self.slot(self.next())
            && let ReplySlot::Free(next) = *slot
        {
            slot.fill(ReplySlot::Waiting { call, waker: None });
            self.free = next;
            return;
        }
        // The free list ends with the index after the last slot, so the vector grows there.
        self.slots.push(ReplySlot::Waiting { call, waker: None });
        self.free = self.slots.len() as u32;
    }

    #[inline(always)]
    fn slot(&mut self, slot_id: SlotId) -> Option<&mut ReplySlot> {
        self.slots.get_mut(slot_id.0 as usize)
    }

    /// Frees a slot; the caller drops the returned content without the lock.
    pub(super) fn close(&mut self, slot_id: SlotId) -> Option<ReplySlot> {
        let free = self.free;
        let slot = self.slot(slot_id)?;
        // Freeing it twice would put it into the free list twice.
        if let ReplySlot::Free(_) = slot {
            return None;
        }
        let taken = std::mem::replace(slot, ReplySlot::Free(free));
        self.free = slot_id.0;
        Some(taken)
    }

    /// Stores the reply to a call; returns the waker of the caller.
    #[inline(always)]
    pub(super) fn complete(&mut self, slot_id: SlotId, body: impl IncomingBody) -> Option<Waker> {
        let outcome = match (body.as_short(), body.as_uncopied()) {
            (Some(short), _) => ReplySlot::Replied(short),
            (None, Some(message)) => ReplySlot::LongReply(message.into()),
            // Boxed, so that large replies do not enlarge every slot.
            (None, None) => ReplySlot::LargeReply(Box::new(body.into())),
        };
        match self.slot(slot_id)? {
            slot @ ReplySlot::Waiting { waker: None, .. } => {
                slot.fill(outcome);
                None
            }
            slot => Self::set_outcome(slot, outcome),
        }
    }

    fn set_outcome(slot: &mut ReplySlot, end: ReplySlot) -> Option<Waker> {
        match slot {
            ReplySlot::Waiting { waker, .. } => {
                let waker = waker.take();
                *slot = end;
                waker
            }
            _ => None,
        }
    }

    /// Stores the outcome in an event; returns any other event.
    pub(in crate::host) fn take_event(
        &mut self,
        event: Event<SlotId>,
        wake: &mut Vec<Waker>,
    ) -> Option<Event<SlotId>> {
        match event {
            Event::Replied { call_slot: slot_id, body } => wake.extend(self.complete(slot_id, body)),
            Event::Failed { call_slot: slot_id, failure } => {
                let end = ReplySlot::Failed(Box::new(failure));
                wake.extend(self.slot(slot_id).and_then(|slot| Self::set_outcome(slot, end)));
            }
            event => return Some(event),
        }
        None
    }

    /// Takes the outcome and frees the slot, or registers the waker of `task`.
    ///
    /// A replaced waker is moved to `old`, which the caller drops without the lock.
    #[inline(always)]
    pub(super) fn poll(
        &mut self,
        slot_id: SlotId,
        task: &Context<'_>,
        old: &mut Option<Waker>,
    ) -> Poll<CallOutcome> {
        let free = self.free;
        if let Some(slot) = self.slot(slot_id) {
            if let ReplySlot::Waiting { waker, .. } = slot {
                // Mostly the same task polls again, and a clone costs an atomic increment.
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
                    *old = waker.replace(task.waker().clone());
                }
                return Poll::Pending;
            }
            if let ReplySlot::Replied(body) = *slot {
                slot.fill(ReplySlot::Free(free));
                self.free = slot_id.0;
                return Poll::Ready(CallOutcome::Replied(body));
            }
        }
        Poll::Ready(match self.close(slot_id) {
            Some(ReplySlot::LongReply(message)) => CallOutcome::LongReply(message),
            Some(ReplySlot::LargeReply(body)) => CallOutcome::LargeReply(body),
            Some(ReplySlot::Failed(failed)) => CallOutcome::Failed(Some(failed)),
            _ => CallOutcome::Failed(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;
    use crate::session::DisconnectReason;
    use crate::wire::ShortSlice;

    /// Body whose bytes a slot copies.
    struct Uncopied(Vec<u8>);

    impl From<Uncopied> for Body {
        fn from(Uncopied(message): Uncopied) -> Self {
            Self { message: message.into(), ..Self::empty() }
        }
    }

    impl IncomingBody for Uncopied {
        fn as_short(&self) -> Option<ShortWords> {
            None
        }

        fn as_uncopied(&self) -> Option<&[u8]> {
            Some(&self.0)
        }
    }

    /// Kind of outcome of a call.
    #[derive(Clone, Copy, Debug)]
    enum End {
        Short,
        Uncopied,
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
            2 => (which, prop::sample::select(vec![End::Short, End::Uncopied, End::Long, End::Failure]))
                .prop_map(|(which, end)| Step::Put(which, end)),
            2 => which.prop_map(Step::Poll),
            1 => which.prop_map(Step::Close),
        ]
    }

    fn failure(number: usize) -> CallError {
        CallError::OutcomeUnknown(DisconnectReason::Io(number.to_string()))
    }

    /// Content of the reply to a call, short or long.
    fn reply(number: usize, repeated: usize) -> Vec<u8> {
        number.to_le_bytes().repeat(repeated)
    }

    /// Number of the call with that outcome; `None` if it has none.
    fn call_of(had: Option<ReplySlot>) -> Option<usize> {
        let number = |bytes: &[u8]| usize::from_le_bytes(*bytes.first_chunk().unwrap());
        match had {
            Some(ReplySlot::Replied(body)) => Some(number(&Body::from(body).message)),
            Some(ReplySlot::LongReply(message)) => Some(number(&message)),
            Some(ReplySlot::LargeReply(body)) => Some(number(&body.message)),
            Some(ReplySlot::Failed(failed)) => {
                let CallError::OutcomeUnknown(DisconnectReason::Io(text)) = *failed else {
                    panic!("{failed:?}")
                };
                Some(text.parse().unwrap())
            }
            Some(ReplySlot::Waiting { .. } | ReplySlot::Free(_)) | None => None,
        }
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn each_caller_gets_its_own_outcome_once(steps in proptest::collection::vec(step(), 1..120)) {
            let mut reply_slots = ReplySlots::default();
            // Calls whose callers wait, by slot: their numbers, and whether the outcome is stored.
            let mut open: BTreeMap<u32, (usize, bool)> = BTreeMap::new();
            // Slots that were polled before.
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
                        let SlotId(slot) = reply_slots.next();
                        reply_slots.open(CallId(made as u64));
                        prop_assert!(open.insert(slot, (made, false)).is_none(), "the slot is taken");
                        made += 1;
                    }
                    Step::Put(which, end) => {
                        let Some((slot, (call, false))) = nth(which) else { continue };
                        let slot_id = SlotId(slot);
                        let woken = match end {
                            End::Short => reply_slots.complete(slot_id, ShortSlice::new(&reply(call, 1)).unwrap()).into_iter().collect(),
                            End::Uncopied => reply_slots.complete(slot_id, Uncopied(reply(call, 9))).into_iter().collect(),
                            End::Long | End::Failure => {
                                let mut woken = Vec::new();
                                let body = Body { message: reply(call, 9).into(), ..Body::empty() };
                                let event = match end {
                                    End::Long => Event::Replied { call_slot: slot_id, body },
                                    _ => Event::Failed { call_slot: slot_id, failure: failure(call) },
                                };
                                prop_assert_eq!(reply_slots.take_event(event, &mut woken), None);
                                woken
                            }
                        };
                        prop_assert!(woken.len() == usize::from(polled.remove(&slot)), "a polled caller is woken");
                        open.insert(slot, (call, true));
                    }
                    Step::Poll(which) => {
                        let Some((slot, (call, there))) = nth(which) else { continue };
                        let had = match reply_slots.poll(SlotId(slot), &task, &mut old) {
                            Poll::Ready(CallOutcome::Replied(body)) => Some(ReplySlot::Replied(body)),
                            Poll::Ready(CallOutcome::LongReply(message)) => Some(ReplySlot::LongReply(message)),
                            Poll::Ready(CallOutcome::LargeReply(body)) => Some(ReplySlot::LargeReply(body)),
                            Poll::Ready(CallOutcome::Failed(had)) => had.map(ReplySlot::Failed),
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
                        let had = reply_slots.close(SlotId(slot));
                        if let Some(ReplySlot::Waiting { call: had, .. }) = had {
                            prop_assert_eq!((had, there), (CallId(call as u64), false));
                        } else {
                            prop_assert_eq!((call_of(had), there), (Some(call), true));
                        }
                        polled.remove(&slot);
                        open.remove(&slot);
                    }
                }
                let free = reply_slots.slots.iter().filter(|slot| matches!(slot, ReplySlot::Free(_))).count();
                prop_assert_eq!(reply_slots.slots.len() - free, open.len());
            }
        }
    }
}
