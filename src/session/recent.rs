//! A table of calls by their numbers, for numbers that grow.
//!
//! Most calls end soon after they were made. So what is open lies in a row that begins with the oldest
//! of them, where the place of a number needs no hashing. A call that stays open for long leaves the
//! row for a hash table, lest the row grow with every call that passes it.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::id::CallId;

/// A row is not looked at for calls that should leave it before it is so long.
const ROW_MIN: usize = 1024;

/// How many places in a row there may be for each that is taken.
const PLACES_PER_CALL: usize = 8;

#[derive(Debug)]
pub(super) struct Recent<T> {
    /// The number of the row's first place.
    first: u64,
    row: VecDeque<Option<T>>,
    /// How many places are taken.
    taken: usize,
    others: FxHashMap<CallId, T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { first: 0, row: VecDeque::new(), taken: 0, others: FxHashMap::default() }
    }
}

impl<T> Recent<T> {
    pub(super) fn len(&self) -> usize {
        self.taken + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0 && self.others.is_empty()
    }

    #[inline]
    fn place(&self, call: CallId) -> Option<usize> {
        usize::try_from(call.0.checked_sub(self.first)?).ok().filter(|place| *place < self.row.len())
    }

    #[inline]
    pub(super) fn contains(&self, call: CallId) -> bool {
        self.get(call).is_some()
    }

    #[inline]
    fn get(&self, call: CallId) -> Option<&T> {
        let here = self.place(call).and_then(|place| self.row[place].as_ref());
        // The row may have grown over the number of a call that is not in it.
        here.or_else(|| if self.others.is_empty() { None } else { self.others.get(&call) })
    }

    pub(super) fn get_mut(&mut self, call: CallId) -> Option<&mut T> {
        let place = self.place(call).filter(|place| self.row[*place].is_some());
        match place {
            Some(place) => self.row[place].as_mut(),
            None => self.others.get_mut(&call),
        }
    }

    /// Adds a call, which is to be new. `false`, and nothing changes, if it is not.
    ///
    /// The value is made where it goes: to move it there would cost more than to make it.
    #[inline(always)]
    #[must_use]
    pub(super) fn insert(&mut self, call: CallId, make: impl FnOnce() -> T) -> bool {
        if self.row.is_empty() {
            self.first = call.0;
        }
        let place = call.0.wrapping_sub(self.first);
        if place == self.row.len() as u64 && self.others.is_empty() {
            self.row.push_back(Some(make()));
            self.taken += 1;
            return true;
        }
        self.insert_elsewhere(call, make())
    }

    #[inline(never)]
    fn insert_elsewhere(&mut self, call: CallId, value: T) -> bool {
        if self.contains(call) {
            return false;
        }
        let Some(place) = call.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok()) else {
            self.others.insert(call, value);
            return true;
        };
        // A number far ahead is not worth a long row that is empty.
        if place >= self.row.len() + ROW_MIN {
            self.others.insert(call, value);
            return true;
        }
        if place >= self.row.len() {
            self.row.resize_with(place + 1, || None);
        }
        self.row[place] = Some(value);
        self.taken += 1;
        self.shorten();
        true
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, call: CallId) -> Option<T> {
        let here = match self.place(call) {
            // Most calls end in the order in which they were made.
            Some(0) => {
                self.first = self.first.wrapping_add(1);
                self.row.pop_front().flatten()
            }
            Some(place) => self.row[place].take(),
            None => None,
        };
        let Some(value) = here else {
            return if self.others.is_empty() { None } else { self.others.remove(&call) };
        };
        self.taken -= 1;
        self.shorten();
        Some(value)
    }

    /// Sees to it that the row begins with an open call, and is not much longer than what it holds.
    #[inline]
    fn shorten(&mut self) {
        while let Some(first) = self.row.front() {
            if first.is_some() && (self.row.len() < ROW_MIN || self.row.len() / PLACES_PER_CALL < self.taken)
            {
                return;
            }
            if let Some(Some(value)) = self.row.pop_front() {
                self.taken -= 1;
                self.others.insert(CallId(self.first), value);
            }
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Takes all of them, in the order of their numbers.
    pub(super) fn take_all(&mut self) -> Vec<(CallId, T)> {
        let Self { first, row, others, .. } = std::mem::take(self);
        let row = row.into_iter().enumerate();
        let row = row.filter_map(|(place, value)| Some((CallId(first.wrapping_add(place as u64)), value?)));
        let mut all: Vec<_> = others.into_iter().chain(row).collect();
        all.sort_unstable_by_key(|(call, _)| *call);
        all
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn it_is_a_table(steps in prop::collection::vec((0_u64..4, 0_u64..3000), 0..60)) {
            let (mut recent, mut table, mut last) = (Recent::default(), BTreeMap::new(), 0);
            for (what, number) in steps {
                match what {
                    0 => {
                        prop_assert_eq!(recent.remove(CallId(number)), table.remove(&CallId(number)));
                    }
                    1 => {
                        let fresh = !table.contains_key(&CallId(number));
                        prop_assert_eq!(recent.insert(CallId(number), || number), fresh);
                        table.entry(CallId(number)).or_insert(number);
                    }
                    _ => {
                        // A run of calls, of which few stay open.
                        for number in last..last + number {
                            if recent.insert(CallId(number), || number) {
                                table.insert(CallId(number), number);
                            }
                            if number % 97 > 0 {
                                prop_assert_eq!(recent.remove(CallId(number)), table.remove(&CallId(number)));
                            }
                        }
                        last += number;
                    }
                }
                prop_assert_eq!(recent.len(), table.len());
                prop_assert_eq!(recent.contains(CallId(number)), table.contains_key(&CallId(number)));
                prop_assert_eq!(recent.get_mut(CallId(number)), table.get_mut(&CallId(number)));
                prop_assert!(recent.row.len() <= ROW_MIN + 1 + 2 * PLACES_PER_CALL * table.len().max(ROW_MIN));
            }
            let all: Vec<_> = table.into_iter().collect();
            prop_assert_eq!(recent.take_all(), all);
        }
    }

    #[test]
    fn a_call_that_stays_open_keeps_no_row() {
        let mut recent = Recent::default();
        assert!(recent.insert(CallId(1), || 1));
        for number in 2..1_000_000 {
            assert!(recent.insert(CallId(number), || number));
            assert_eq!(recent.remove(CallId(number)), Some(number));
        }
        assert!(recent.row.len() <= ROW_MIN, "{} places", recent.row.len());
        assert_eq!(recent.remove(CallId(1)), Some(1));
    }

    #[test]
    fn the_row_may_grow_over_a_number_that_came_far_ahead() {
        let mut recent = Recent::default();
        let ahead = 3 * ROW_MIN as u64;
        assert!(recent.insert(CallId(1), || 1));
        assert!(recent.insert(CallId(ahead), || ahead));
        for number in (2..ahead).chain(ahead + 1..ahead + 9) {
            assert!(recent.insert(CallId(number), || number));
        }
        assert!(!recent.insert(CallId(ahead), || 0), "it is there");
        assert_eq!(recent.get_mut(CallId(ahead)), Some(&mut ahead.clone()));
        assert_eq!(recent.remove(CallId(ahead)), Some(ahead));
        assert!(!recent.contains(CallId(ahead)));
        assert_eq!(recent.len(), recent.take_all().len());
    }

    #[test]
    fn a_number_far_ahead_costs_nothing() {
        let mut recent = Recent::default();
        for number in [5, u64::MAX, 0, 1 << 40] {
            assert!(recent.insert(CallId(number), || number));
            assert!(!recent.insert(CallId(number), || number));
        }
        assert!(recent.row.len() <= ROW_MIN);
        assert_eq!(recent.take_all().len(), 4);
    }
}
