//! Rows of a sorted list: the best ones of a scan, in bounded memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::cursor::Position;
use crate::cluster::listing::Value;

/// First rows of a table in the order of one field.
#[derive(Debug)]
pub(super) struct SortedRows {
    key: &'static str,
    is_descending: bool,
    rows_max: usize,
    /// Best rows so far, with the last one on top.
    best: BinaryHeap<Candidate>,
    /// Number of rows offered.
    found: u64,
}

/// Row with its place in the order.
#[derive(Debug)]
struct Candidate {
    value: Value<'static>,
    is_descending: bool,
    /// Number of the row in the list, which orders rows of equal values.
    number: u64,
    position: Position,
}

impl SortedRows {
    pub(super) fn new(key: &'static str, is_descending: bool, rows_max: usize) -> Self {
        Self { key, is_descending, rows_max, best: BinaryHeap::new(), found: 0 }
    }

    /// Name of the field that orders the rows.
    pub(super) fn key(&self) -> &'static str {
        self.key
    }

    /// Takes a row, if it is among the best so far.
    pub(super) fn offer(&mut self, value: Value<'_>, position: Position) {
        let number = self.found;
        self.found += 1;
        if self.best.len() >= self.rows_max {
            // An equal row is behind the last one, since it comes later in the list.
            let is_better = |last: &Candidate| value.order(&last.value, self.is_descending) == Ordering::Less;
            if !self.best.peek().is_some_and(is_better) {
                return;
            }
            self.best.pop();
        }
        // Only now: most rows of a large table are not among the best, and cost no allocation.
        let value = value.into_owned();
        self.best.push(Candidate { value, is_descending: self.is_descending, number, position });
    }

    /// Positions of the rows from `offset`, and the number of rows offered.
    pub(super) fn page(self, offset: usize) -> (impl ExactSizeIterator<Item = Position>, u64) {
        let mut sorted = self.best.into_sorted_vec();
        let page = sorted.split_off(offset.min(sorted.len()));
        (page.into_iter().map(|candidate| candidate.position), self.found)
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_value = self.value.order(&other.value, self.is_descending);
        by_value.then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_rows_of_a_scan_are_sorted_and_the_rest_is_counted() {
        for (is_descending, expected) in [(false, [1, 1, 2]), (true, [9, 7, 5])] {
            let mut rows = SortedRows::new("n", is_descending, 4);
            for (at, number) in [5, 1, 9, 2, 7, 1].into_iter().enumerate() {
                rows.offer(Value::Number(number), Position::living(at as u64));
            }
            rows.offer(Value::Nothing, Position::living(6));
            let (page, found) = rows.page(0);
            let all: Vec<u64> = page.map(|position| position.at).collect();
            let numbers = [5, 1, 9, 2, 7, 1];
            let shown: Vec<i64> = all.iter().take(3).map(|at| numbers[*at as usize]).collect();
            assert_eq!((shown.as_slice(), found, all.len()), (&expected[..], 7, 4));
        }
    }
}
