//! Records of decisions in groups, and what waits until they are stored. Without input and output.
//!
//! ```text
//!   add, hold ---> open group ---take---> in flight ---stored---> what waited, in order
//!                  `-- fills meanwhile --'
//! ```
//! One group at a time is in flight. So the delay of the store sets the size of the groups: a slow store gets fewer and
//! larger ones.

use std::collections::VecDeque;

use bytes::Bytes;

/// Records that are stored together, in the order of their numbers.
///
/// A group without records is a barrier: it stores nothing, and is refused if a later configuration has the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Number of its first record.
    pub(super) first: u64,
    pub(super) records: Vec<Bytes>,
}

/// Journal of one incarnation. `W` waits until a position is stored.
#[derive(Debug)]
pub(super) struct Journal<W> {
    /// Number of the next record.
    next: u64,
    /// Records that are not in flight yet.
    open: VecDeque<Bytes>,
    /// Number of the first record that is not stored.
    stored: u64,
    /// True while a group is in flight, which ends before `open` begins.
    in_flight: bool,
    /// Waiters whose position is `first of the open group` or later; each is released once all records before its
    /// position are stored, and a group that was taken after it has passed.
    waiting: VecDeque<(u64, W)>,
    /// Number of waiters at the front that the group in flight releases.
    released_by_flight: usize,
    /// Bytes of records since the last snapshot.
    bytes: u64,
}

impl<W> Journal<W> {
    /// Journal of an actor with `next` records.
    pub(super) fn new(next: u64, bytes: u64) -> Self {
        Self {
            next,
            open: VecDeque::new(),
            stored: next,
            in_flight: false,
            waiting: VecDeque::new(),
            released_by_flight: 0,
            bytes,
        }
    }

    /// Number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Number of the first record that is not stored.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// True while something waits, or is not stored.
    pub(super) fn has_unstored(&self) -> bool {
        self.in_flight || !self.open.is_empty() || !self.waiting.is_empty()
    }

    /// Bytes of the records since the last snapshot.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts the bytes of records from a snapshot on.
    pub(super) fn restart_bytes(&mut self) {
        self.bytes = 0;
    }

    /// Adds a record; returns its number.
    pub(super) fn add(&mut self, record: Bytes) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += record.len() as u64;
        self.open.push_back(record);
        number
    }

    /// Keeps a waiter until everything that was added before is stored, and the incarnation is not replaced.
    pub(super) fn hold(&mut self, waiter: W) {
        self.waiting.push_back((self.next, waiter));
    }

    /// Next group to store, of at most about `bytes_max` bytes; `None` while one is in flight, or if nothing waits.
    pub(super) fn take(&mut self, bytes_max: usize) -> Option<Group> {
        if self.in_flight || self.open.is_empty() && self.waiting.is_empty() {
            return None;
        }
        let first = self.next - self.open.len() as u64;
        let (mut bytes, mut count) = (0, 0);
        // At least one record, however large.
        for record in &self.open {
            if count > 0 && bytes + record.len() > bytes_max {
                break;
            }
            bytes += record.len();
            count += 1;
        }
        let records: Vec<_> = self.open.drain(..count).collect();
        let end = first + records.len() as u64;
        self.in_flight = true;
        self.released_by_flight = self.waiting.iter().take_while(|(at, _)| *at <= end).count();
        Some(Group { first, records })
    }

    /// The group in flight is stored. Returns what waited for it, in order.
    pub(super) fn on_stored(&mut self) -> impl Iterator<Item = W> + '_ {
        self.in_flight = false;
        self.stored = self.next - self.open.len() as u64;
        let released = std::mem::take(&mut self.released_by_flight);
        self.waiting.drain(..released).map(|(_, waiter)| waiter)
    }

    /// Ends the journal. Returns what still waits: its records may be stored or not.
    pub(super) fn end(&mut self) -> impl Iterator<Item = W> + '_ {
        self.open.clear();
        self.in_flight = false;
        self.waiting.drain(..).map(|(_, waiter)| waiter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A decision with a record, and a waiter for its reply.
        Write(usize),
        /// A decision without one.
        Read,
        Take,
        Stored,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..20_usize).prop_map(Step::Write),
            Just(Step::Read),
            Just(Step::Take),
            Just(Step::Stored),
        ]
    }

    proptest! {
        #![proptest_config(property_tests::cases(512))]

        /// A waiter is released in order, after all records that were added before it, by a group that was taken after
        /// it began to wait.
        #[test]
        fn nothing_leaves_before_its_records_are_stored(
            steps in prop::collection::vec(step(), 1..200),
            bytes_max in 1..60_usize,
        ) {
            let mut journal = Journal::new(7, 0);
            // Model: the log, and for each waiter the records before it and the groups taken before it.
            let (mut log, mut added, mut groups, mut in_flight) = (7, 7, 0_u64, None::<u64>);
            let mut expected = VecDeque::new();
            let mut number = 0;
            for step in steps {
                match step {
                    Step::Write(size) => {
                        prop_assert_eq!(journal.add(Bytes::from(vec![0; size])), added);
                        added += 1;
                        journal.hold(number);
                        expected.push_back((number, added, groups));
                        number += 1;
                    }
                    Step::Read => {
                        journal.hold(number);
                        expected.push_back((number, added, groups));
                        number += 1;
                    }
                    Step::Take => match journal.take(bytes_max) {
                        Some(group) => {
                            prop_assert!(in_flight.is_none());
                            prop_assert_eq!(group.first, log);
                            let bytes: usize = group.records.iter().map(Bytes::len).sum();
                            prop_assert!(bytes <= bytes_max || group.records.len() == 1);
                            groups += 1;
                            in_flight = Some(group.first + group.records.len() as u64);
                        }
                        None => prop_assert!(in_flight.is_some() || log == added && expected.is_empty()),
                    },
                    Step::Stored => {
                        let Some(end) = in_flight.take() else { continue };
                        log = end;
                        let released: Vec<_> = journal.on_stored().collect();
                        for waiter in released {
                            let (expected, after, group) = expected.pop_front().unwrap();
                            prop_assert_eq!(waiter, expected);
                            prop_assert!(after <= log && group < groups);
                        }
                        // Nothing waits longer than it must.
                        if let Some((_, after, group)) = expected.front() {
                            prop_assert!(*after > log || *group == groups);
                        }
                        prop_assert_eq!(journal.stored(), log);
                    }
                }
            }
            prop_assert_eq!(journal.end().count(), expected.len());
        }
    }
}
