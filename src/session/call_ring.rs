//! Ordered map of calls whose ids mostly rise.
//!
//! ```text
//! in_order   ring of entries by id, with a gap for each that was removed
//!
//!            [ 7 ] [ - ] [ 9 ] [ 12 ] [ - ] [ 14 ]     `-` is never at an end
//!
//! others     ordered map: calls that arrived out of order, and old ones
//! ```
//!
//! Calls mostly begin and end in the order of their ids. An entry is then appended to the ring, found by the distance
//! of its id from the first one, and leaves the ring at the front, where a tree would search, split and merge nodes.
//! A call that stays for long moves to the ordered map, since the ring would otherwise grow with every later call.

use std::collections::{BTreeMap, VecDeque};

use crate::id::CallId;

/// Gaps of the ring that are tolerated beside one for each entry.
const GAPS_MAX: usize = 64;

/// Maximum capacity of an empty ring; a larger one is freed.
const KEPT_MAX: usize = 4096;

/// Entries that move to the ordered map for one that is removed.
///
/// A removal is done under the peer's lock. If all entries at the front are old, the ring shrinks over several.
const MOVES_MAX: usize = 4;

/// Ordered map of calls.
#[derive(Debug)]
pub(super) struct CallRing<V> {
    in_order: VecDeque<(CallId, Option<V>)>,
    /// Number of entries in `in_order`, without gaps.
    live: usize,
    others: BTreeMap<CallId, V>,
}

impl<V> Default for CallRing<V> {
    fn default() -> Self {
        Self { in_order: VecDeque::new(), live: 0, others: BTreeMap::new() }
    }
}

impl<V> CallRing<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0 && self.others.is_empty()
    }

    /// Adds a call that is not in the map.
    pub(super) fn insert(&mut self, call: CallId, value: V) {
        // No gap is at the end, so a call that was removed from there can come back.
        if self.in_order.back().is_none_or(|(last, _)| *last < call) {
            self.in_order.push_back((call, Some(value)));
            self.live += 1;
        } else {
            self.others.insert(call, value);
        }
    }

    /// Place of a call in the ring, which may be a gap.
    fn place(&self, call: CallId) -> Option<usize> {
        let (first, _) = self.in_order.front()?;
        // Each place has another id, so the place is at most as far from the first as the id.
        let distance = usize::try_from(call.0.checked_sub(first.0)?).unwrap_or(usize::MAX);
        let guess = distance.min(self.in_order.len() - 1);
        if self.in_order[guess].0 == call {
            return Some(guess);
        }
        self.in_order.binary_search_by_key(&call, |(call, _)| *call).ok()
    }

    pub(super) fn get(&self, call: CallId) -> Option<&V> {
        let in_order = self.place(call).and_then(|place| self.in_order[place].1.as_ref());
        in_order.or_else(|| self.others.get(&call))
    }

    pub(super) fn get_mut(&mut self, call: CallId) -> Option<&mut V> {
        match self.place(call) {
            Some(place) if self.in_order[place].1.is_some() => self.in_order[place].1.as_mut(),
            _ => self.others.get_mut(&call),
        }
    }

    pub(super) fn contains(&self, call: CallId) -> bool {
        self.get(call).is_some()
    }

    pub(super) fn remove(&mut self, call: CallId) -> Option<V> {
        let in_order = self.place(call).and_then(|place| self.in_order[place].1.take());
        if in_order.is_some() {
            self.live -= 1;
            self.trim();
            return in_order;
        }
        self.others.remove(&call)
    }

    /// Lowest call.
    pub(super) fn first(&self) -> Option<CallId> {
        let in_order = self.in_order.front().map(|(call, _)| *call);
        in_order.into_iter().chain(self.others.first_key_value().map(|(call, _)| *call)).min()
    }

    /// Removes all calls.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes the gaps at both ends, and moves some of the oldest entries if there are too many gaps behind them.
    fn trim(&mut self) {
        while let Some((_, None)) = self.in_order.back() {
            self.in_order.pop_back();
        }
        if self.in_order.is_empty() && self.in_order.capacity() > KEPT_MAX {
            self.in_order = VecDeque::new();
        }
        let mut moves = 0;
        while let Some((_, value)) = self.in_order.front() {
            if value.is_some() {
                if moves == MOVES_MAX || self.in_order.len() <= 2 * self.live + GAPS_MAX {
                    return;
                }
                moves += 1;
                self.live -= 1;
            }
            if let Some((call, Some(value))) = self.in_order.pop_front() {
                self.others.insert(call, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::btree_map::Entry;

    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn ring_is_an_ordered_map(
            steps in prop::collection::vec((0_u8..8, 0_u64..6, any::<prop::sample::Index>()), 0..600),
        ) {
            let (mut ring, mut model, mut last) = (CallRing::default(), BTreeMap::new(), 100);
            for (number, (step, distance, which)) in steps.into_iter().enumerate() {
                match step {
                    // Ids rise with gaps, and sometimes one is late.
                    0..=3 => {
                        let call = CallId(if step == 3 { last - 10 * distance } else { last + distance });
                        last = last.max(call.0);
                        if let Entry::Vacant(unknown) = model.entry(call) {
                            ring.insert(call, number);
                            unknown.insert(number);
                        }
                    }
                    // Mostly the lowest leaves.
                    4 | 5 => {
                        let lowest = ring.first();
                        prop_assert_eq!(lowest.and_then(|call| ring.remove(call)), model.pop_first().map(|(_, value)| value));
                    }
                    6 if !model.is_empty() => {
                        let call = *model.keys().nth(which.index(model.len())).unwrap();
                        prop_assert_eq!(ring.remove(call), model.remove(&call));
                    }
                    _ => {
                        let call = CallId(last - distance);
                        prop_assert_eq!(ring.get(call), model.get(&call));
                        prop_assert_eq!(ring.get_mut(call), model.get_mut(&call));
                        prop_assert_eq!(ring.contains(call), model.contains_key(&call));
                    }
                }
                prop_assert_eq!(ring.first(), model.keys().next().copied());
                prop_assert_eq!(ring.is_empty(), model.is_empty());
                prop_assert_eq!(ring.live + ring.others.len(), model.len());
            }
        }
    }

    #[test]
    fn a_call_that_stays_does_not_keep_the_ring_large() {
        let mut ring = CallRing::default();
        ring.insert(CallId(0), ());
        ring.insert(CallId(1), ());
        for call in 2..100_000 {
            ring.insert(CallId(call), ());
            ring.remove(CallId(call - 1));
            assert!(ring.in_order.len() <= 2 * 2 + GAPS_MAX, "{} places", ring.in_order.len());
        }
        assert_eq!((ring.first(), ring.others.len()), (Some(CallId(0)), 1));
    }
}
