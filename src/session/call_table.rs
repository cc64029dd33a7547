//! Table of calls by id, for ids that mostly increase.
//!
//! ```text
//! window    ring over the ids first..end; slot = id modulo its length
//!
//!            first                       end
//!              |                          |
//!   .  .  .  [ 7 ] [ - ] [ 9 ] [ - ] [ 11 ]  .  .  .
//!
//! overflow  ordered map: calls that stay open for long, and ids far ahead
//! ```
//!
//! The lowest call is at the front of either part. Most calls end soon, in the order of their ids, so a lookup in the window needs no hashing. A
//! call that stays open for long moves to the overflow map: the window would otherwise grow with
//! every later call.

use std::collections::BTreeMap;

use crate::id::CallId;

/// Ids that the window may span before it is checked for old calls.
const WINDOW_MIN: usize = 1024;

/// Smallest number of slots of a window that is not empty.
const CAPACITY_MIN: usize = 8;

/// Highest number of ids in the window for each open call in it.
const SPARSITY_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct CallTable<T> {
    /// Ring of slots, indexed by id modulo its length, which is a power of two or zero.
    window: Vec<Option<T>>,
    /// First id of the window, and the id after the last one.
    first: u64,
    end: u64,
    /// Number of occupied slots.
    len: usize,
    overflow: BTreeMap<CallId, T>,
}

impl<T> Default for CallTable<T> {
    fn default() -> Self {
        Self { window: Vec::new(), first: 0, end: 0, len: 0, overflow: BTreeMap::new() }
    }
}

impl<T> CallTable<T> {
    pub(super) fn len(&self) -> usize {
        self.len + self.overflow.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.overflow.is_empty()
    }

    /// Number of ids that the window spans.
    #[inline(always)]
    fn span(&self) -> usize {
        self.end.wrapping_sub(self.first) as usize
    }

    /// Distance of an id from the start of the window.
    #[inline(always)]
    fn offset(&self, number: u64) -> usize {
        usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Slot of an id that the window spans.
    #[inline(always)]
    fn slot(&mut self, number: u64) -> Option<&mut Option<T>> {
        // An empty window gives a mask of ones, with which `get` finds no slot: no extra branch.
        let mask = self.window.len().wrapping_sub(1);
        self.window.get_mut(number as usize & mask)
    }

    /// Returns whether the window holds the call. A window that has grown may span ids in
    /// `overflow`.
    #[inline]
    fn is_in_window(&self, call: CallId) -> bool {
        let mask = self.window.len().wrapping_sub(1);
        self.offset(call.0) < self.span() && matches!(self.window.get(call.0 as usize & mask), Some(Some(_)))
    }

    #[inline]
    pub(super) fn contains(&self, call: CallId) -> bool {
        self.is_in_window(call) || self.overflow.contains_key(&call)
    }

    pub(super) fn get(&self, call: CallId) -> Option<&T> {
        if self.is_in_window(call) {
            return self.window.get(call.0 as usize & (self.window.len() - 1))?.as_ref();
        }
        self.overflow.get(&call)
    }

    /// Lowest call.
    pub(super) fn first(&self) -> Option<CallId> {
        // The front of a window that is not empty is occupied.
        let in_window = (self.len > 0).then_some(CallId(self.first));
        in_window.into_iter().chain(self.overflow.first_key_value().map(|(call, _)| *call)).min()
    }

    pub(super) fn get_mut(&mut self, call: CallId) -> Option<&mut T> {
        match self.is_in_window(call) {
            true => self.slot(call.0)?.as_mut(),
            false => self.overflow.get_mut(&call),
        }
    }

    /// Inserts a new call. Returns `false`, without a change, if the id is present.
    ///
    /// `make` builds the value in its slot: moving it there costs more than building it.
    #[inline(always)]
    #[must_use]
    pub(super) fn insert(&mut self, call: CallId, make: impl FnOnce() -> T) -> bool {
        // An empty window restarts at the new id instead of spanning the gap before it.
        if self.len == 0 {
            (self.first, self.end) = (call.0, call.0);
        }
        // The next id with a free slot, as for nearly every call: it cannot be present, so nothing
        // is searched. With an overflow it could be there.
        if call.0 == self.end
            && self.overflow.is_empty()
            && self.span() < self.window.len()
            && let Some(slot) = self.slot(call.0)
        {
            *slot = Some(make());
            self.end = self.end.wrapping_add(1);
            self.len += 1;
            return true;
        }
        self.insert_slow(call, make())
    }

    #[inline(never)]
    fn insert_slow(&mut self, call: CallId, value: T) -> bool {
        if self.contains(call) {
            return false;
        }
        let offset = self.offset(call.0);
        // An id far ahead would make a long, empty window; an earlier id wraps to a huge offset.
        if offset >= self.span() + WINDOW_MIN {
            self.overflow.insert(call, value);
            return true;
        }
        if offset >= self.window.len() {
            self.grow(offset + 1);
        }
        if offset >= self.span() {
            self.end = call.0.wrapping_add(1);
        }
        if let Some(slot) = self.slot(call.0) {
            *slot = Some(value);
            self.len += 1;
        }
        self.evict_front();
        true
    }

    /// Resizes the window to span `span` ids.
    fn grow(&mut self, span: usize) {
        let mut window: Vec<Option<T>> = Vec::new();
        window.resize_with(span.next_power_of_two().max(CAPACITY_MIN), || None);
        let mask = window.len() - 1;
        let mut number = self.first;
        while number != self.end {
            window[number as usize & mask] = self.slot(number).and_then(Option::take);
            number = number.wrapping_add(1);
        }
        self.window = window;
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, call: CallId) -> Option<T> {
        // Local copies: reading a field that was just written waits for the store, on the hottest
        // path.
        let (mut first, end, mask) = (self.first, self.end, self.window.len().wrapping_sub(1));
        let slots = &mut self.window[..];
        if call.0.wrapping_sub(first) >= end.wrapping_sub(first) {
            return self.remove_slow(call);
        }
        let Some(value) = slots.get_mut(call.0 as usize & mask).and_then(Option::take) else {
            return self.remove_slow(call);
        };
        self.len -= 1;
        if call.0 == first {
            // Most calls end in the order of their ids.
            first = first.wrapping_add(1);
            while first != end && matches!(slots.get(first as usize & mask), Some(None)) {
                first = first.wrapping_add(1);
            }
            self.first = first;
        }
        if end.wrapping_sub(first) as usize >= WINDOW_MIN {
            self.evict_front();
        }
        Some(value)
    }

    #[inline(never)]
    fn remove_slow(&mut self, call: CallId) -> Option<T> {
        if self.overflow.is_empty() { None } else { self.overflow.remove(&call) }
    }

    /// Removes empty slots at the front, and moves old calls to `overflow` if the window is too
    /// sparse.
    #[inline(never)]
    fn evict_front(&mut self) {
        while self.first != self.end {
            let (span, taken) = (self.span(), self.len);
            let Some(first) = self.slot(self.first) else { return };
            if first.is_some() && (span < WINDOW_MIN || span / SPARSITY_MAX < taken) {
                return;
            }
            if let Some(value) = first.take() {
                self.overflow.insert(CallId(self.first), value);
                self.len -= 1;
            }
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Removes all calls, in the order of their ids.
    pub(super) fn take_all(&mut self) -> Vec<(CallId, T)> {
        let mut all = std::mem::take(self);
        let mut taken: Vec<_> = std::mem::take(&mut all.overflow).into_iter().collect();
        while all.first != all.end {
            let value = all.slot(all.first).and_then(Option::take);
            taken.extend(value.map(|value| (CallId(all.first), value)));
            all.first = all.first.wrapping_add(1);
        }
        taken.sort_unstable_by_key(|(call, _)| *call);
        taken
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(property_tests::cases(32))]

        #[test]
        fn table_behaves_like_a_map(steps in prop::collection::vec((0_u64..4, 0_u64..3000), 0..60)) {
            let (mut calls, mut table, mut last) = (CallTable::default(), BTreeMap::new(), 0);
            for (what, number) in steps {
                match what {
                    0 => {
                        prop_assert_eq!(calls.remove(CallId(number)), table.remove(&CallId(number)));
                        let lowest = calls.first();
                        prop_assert_eq!(lowest.and_then(|call| calls.remove(call)), table.pop_first().map(|(_, number)| number));
                    }
                    1 => {
                        let fresh = !table.contains_key(&CallId(number));
                        prop_assert_eq!(calls.insert(CallId(number), || number), fresh);
                        table.entry(CallId(number)).or_insert(number);
                    }
                    _ => {
                        // A run of calls, few of which stay open.
                        for number in last..last + number {
                            if calls.insert(CallId(number), || number) {
                                table.insert(CallId(number), number);
                            }
                            if number % 97 > 0 {
                                prop_assert_eq!(calls.remove(CallId(number)), table.remove(&CallId(number)));
                            }
                        }
                        last += number;
                    }
                }
                prop_assert_eq!(calls.len(), table.len());
                prop_assert_eq!(calls.contains(CallId(number)), table.contains_key(&CallId(number)));
                prop_assert_eq!(calls.get(CallId(number)), table.get(&CallId(number)));
                prop_assert_eq!(calls.get_mut(CallId(number)), table.get_mut(&CallId(number)));
                prop_assert_eq!(calls.first(), table.keys().next().copied());
                prop_assert!(calls.span() <= WINDOW_MIN + 1 + 2 * SPARSITY_MAX * table.len().max(WINDOW_MIN));
            }
            let all: Vec<_> = table.into_iter().collect();
            prop_assert_eq!(calls.take_all(), all);
        }
    }

    #[test]
    fn a_call_that_stays_open_does_not_keep_the_window_large() {
        let mut calls = CallTable::default();
        assert!(calls.insert(CallId(1), || 1));
        for number in 2..1_000_000 {
            assert!(calls.insert(CallId(number), || number));
            assert_eq!(calls.remove(CallId(number)), Some(number));
        }
        assert!(calls.span() <= WINDOW_MIN, "{} places", calls.span());
        assert_eq!(calls.remove(CallId(1)), Some(1));
    }

    #[test]
    fn the_window_may_grow_over_an_id_in_the_overflow() {
        let mut calls = CallTable::default();
        let ahead = 3 * WINDOW_MIN as u64;
        assert!(calls.insert(CallId(1), || 1));
        assert!(calls.insert(CallId(ahead), || ahead));
        for number in (2..ahead).chain(ahead + 1..ahead + 9) {
            assert!(calls.insert(CallId(number), || number));
        }
        assert!(!calls.insert(CallId(ahead), || 0), "it is there");
        assert_eq!(calls.get_mut(CallId(ahead)), Some(&mut ahead.clone()));
        assert_eq!(calls.remove(CallId(ahead)), Some(ahead));
        assert!(!calls.contains(CallId(ahead)));
        assert_eq!(calls.len(), calls.take_all().len());
    }

    #[test]
    fn an_id_far_ahead_does_not_enlarge_the_window() {
        let mut calls = CallTable::default();
        for number in [5, u64::MAX, 0, 1 << 40] {
            assert!(calls.insert(CallId(number), || number));
            assert!(!calls.insert(CallId(number), || number));
        }
        assert!(calls.span() <= WINDOW_MIN);
        assert_eq!(calls.take_all().len(), 4);
    }
}
