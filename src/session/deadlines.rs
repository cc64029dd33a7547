//! Deadlines of open calls, the earliest first.
//!
//! ```text
//! in_order   ring of deadlines that only rise, with a gap for each call that has ended
//!
//!            base
//!              |
//!            [ 7 ] [ - ] [ 9 ] [ - ] [ 11 ]     `-` is never at an end
//!
//! others     ordered set: deadlines that are out of order, and old ones
//! ```
//!
//! Calls mostly have the same time limit and end in their order, so a deadline is appended to the ring
//! and leaves it at the front. Each takes an index and a comparison, where an ordered set and a hash
//! table take a search each. Two kinds move to the set: a call that stays open for long, since the ring
//! would otherwise grow with every later call; and a deadline far behind the next ones, since none of
//! them could be appended to the ring.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::id::CallId;

/// Gaps of the ring that are tolerated beside one for each open call.
const GAPS_MAX: usize = 64;

/// Deadlines that move to the set for one that is removed.
///
/// A removal is done under the peer's lock. If all calls at the front are old, the ring shrinks over several.
const MOVES_MAX: usize = 4;

/// Bits of a ticket that are a position.
const POSITION_MASK: u32 = u32::MAX >> 1;

/// Place of a call's deadline, or the note that it has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadlineTicket(u32);

impl DeadlineTicket {
    /// Ticket of a call without a deadline.
    pub(super) const NONE: Self = Self(u32::MAX);

    #[inline]
    pub(super) fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }
}

/// Deadlines of open calls.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    in_order: VecDeque<Option<(Instant, CallId)>>,
    /// Position of the front of `in_order`, which counts all that were appended.
    base: u32,
    /// Number of deadlines in `in_order`.
    live: usize,
    others: BTreeSet<(Instant, CallId)>,
    other_of: FxHashMap<CallId, Instant>,
}

impl Deadlines {
    /// Adds the deadline of a call that has none here.
    pub(super) fn insert(&mut self, deadline: Instant, call: CallId) -> DeadlineTicket {
        // At most one move: deadlines that fall are no reason to empty the ring.
        if self.last().is_some_and(|last| deadline < last) {
            self.move_last();
        }
        let position = self.base.wrapping_add(self.in_order.len() as u32) & POSITION_MASK;
        if self.last().is_some_and(|last| deadline < last) {
            self.insert_other(deadline, call);
        } else {
            self.in_order.push_back(Some((deadline, call)));
            self.live += 1;
        }
        DeadlineTicket(position)
    }

    /// Last deadline of the ring.
    fn last(&self) -> Option<Instant> {
        // No gap is at the end, either.
        self.in_order.back().copied().flatten().map(|(last, _)| last)
    }

    /// Moves the last deadline of the ring to the set. Its ticket remains valid.
    fn move_last(&mut self) {
        if let Some(Some((deadline, call))) = self.in_order.pop_back() {
            self.live -= 1;
            self.insert_other(deadline, call);
            self.trim_end();
        }
    }

    fn insert_other(&mut self, deadline: Instant, call: CallId) {
        self.others.insert((deadline, call));
        self.other_of.insert(call, deadline);
    }

    /// Removes the deadline of a call.
    pub(super) fn remove(&mut self, call: CallId, DeadlineTicket(position): DeadlineTicket) {
        let at = position.wrapping_sub(self.base) & POSITION_MASK;
        // Another call has the place if this one's deadline is in the set.
        match self.in_order.get_mut(at as usize) {
            Some(place) if place.is_some_and(|(_, other)| other == call) => {
                *place = None;
                self.live -= 1;
                self.trim();
            }
            _ => {
                if let Some(deadline) = self.other_of.remove(&call) {
                    self.others.remove(&(deadline, call));
                }
            }
        }
    }

    fn trim_end(&mut self) {
        while let Some(None) = self.in_order.back() {
            self.in_order.pop_back();
        }
    }

    /// Removes the gaps at both ends, and moves some of the oldest deadlines to the set if there are too
    /// many gaps behind them.
    fn trim(&mut self) {
        self.trim_end();
        let mut moves = 0;
        while let Some(front) = self.in_order.front() {
            match *front {
                Some((deadline, call))
                    if moves < MOVES_MAX && self.in_order.len() > 2 * self.live + GAPS_MAX =>
                {
                    moves += 1;
                    self.live -= 1;
                    self.insert_other(deadline, call);
                }
                Some(_) => break,
                None => {}
            }
            self.in_order.pop_front();
            self.base = self.base.wrapping_add(1) & POSITION_MASK;
        }
    }

    /// Earliest deadline, and its call.
    pub(super) fn first(&self) -> Option<(Instant, CallId)> {
        let in_order = self.in_order.front().copied().flatten();
        in_order.into_iter().chain(self.others.first().copied()).min()
    }

    /// Removes all deadlines.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn first_is_the_earliest_deadline(
            steps in prop::collection::vec((0_u8..5, 0_u64..4, any::<prop::sample::Index>()), 0..400),
        ) {
            let start = Instant::now();
            let (mut deadlines, mut model) = (Deadlines::default(), BTreeMap::new());
            for (number, (step, late, which)) in steps.into_iter().enumerate() {
                let call = CallId(number as u64);
                if step > 1 || model.is_empty() {
                    // Most deadlines rise, and the last kind is far behind the others.
                    let deadline = start + Duration::from_millis(number as u64 + if late == 3 { 1000 } else { late });
                    model.insert(call, (deadline, deadlines.insert(deadline, call)));
                } else {
                    let (call, (_, ticket)) = model.iter().nth(which.index(model.len())).map(|(call, at)| (*call, *at)).unwrap();
                    deadlines.remove(call, ticket);
                    model.remove(&call);
                }
                let first = model.iter().map(|(call, (deadline, _))| (*deadline, *call)).min();
                prop_assert_eq!(deadlines.first(), first);
                prop_assert_eq!(deadlines.live + deadlines.others.len(), model.len());
            }
        }
    }

    #[test]
    fn a_call_that_stays_open_does_not_keep_the_ring_large() {
        let (mut deadlines, start) = (Deadlines::default(), Instant::now());
        let long = deadlines.insert(start, CallId(0));
        let mut previous = deadlines.insert(start, CallId(1));
        for number in 2..100_000 {
            // The next call begins before the previous one ends, so gaps remain between them.
            let next = deadlines.insert(start + Duration::from_micros(number), CallId(number));
            deadlines.remove(CallId(number - 1), std::mem::replace(&mut previous, next));
            assert!(deadlines.in_order.len() <= 2 * 3 + GAPS_MAX, "{} places", deadlines.in_order.len());
        }
        assert_eq!(deadlines.first(), Some((start, CallId(0))));
        assert_eq!(deadlines.others.len(), 1, "only the old call has moved");
        deadlines.remove(CallId(0), long);
        assert_eq!(deadlines.first().map(|(_, call)| call), Some(CallId(99_999)));
    }

    #[test]
    fn many_old_calls_leave_the_ring_a_few_at_a_time() {
        const OLD: u64 = 10_000;
        let (mut deadlines, start) = (Deadlines::default(), Instant::now());
        let insert = |deadlines: &mut Deadlines, number| {
            deadlines.insert(start + Duration::from_micros(number), CallId(number))
        };
        for number in 0..OLD {
            insert(&mut deadlines, number);
        }
        let mut previous = insert(&mut deadlines, OLD);
        for number in OLD + 1..4 * OLD {
            let next = insert(&mut deadlines, number);
            let before = deadlines.others.len();
            deadlines.remove(CallId(number - 1), std::mem::replace(&mut previous, next));
            assert!(deadlines.others.len() <= before + MOVES_MAX);
        }
        assert!(deadlines.in_order.len() <= GAPS_MAX + 4, "{} places", deadlines.in_order.len());
        assert_eq!(deadlines.others.len() as u64, OLD);
    }

    #[test]
    fn a_long_timeout_leaves_the_ring_to_the_others() {
        let (mut deadlines, start) = (Deadlines::default(), Instant::now());
        let hour = deadlines.insert(start + Duration::from_secs(3600), CallId(0));
        for number in 1..1000 {
            deadlines.insert(start + Duration::from_micros(number), CallId(number));
        }
        assert_eq!((deadlines.in_order.len(), deadlines.others.len()), (999, 1));
        deadlines.remove(CallId(0), hour);
        assert_eq!((deadlines.in_order.len(), deadlines.others.len()), (999, 0));
    }

    #[test]
    fn positions_wrap_around() {
        let (mut deadlines, start) =
            (Deadlines { base: POSITION_MASK - 2, ..Deadlines::default() }, Instant::now());
        let tickets = (0..6).map(|number| (CallId(number), deadlines.insert(start, CallId(number))));
        for (call, ticket) in tickets.collect::<Vec<_>>() {
            assert_eq!(deadlines.first(), Some((start, call)));
            assert!(!ticket.is_none());
            deadlines.remove(call, ticket);
        }
        assert_eq!(deadlines.first(), None);
    }
}
