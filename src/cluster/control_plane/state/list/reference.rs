//! References to rows: an id, a prefix of an id, or a name.

use std::ops::RangeInclusive;

use super::cursor::Position;
use crate::cluster::listing::hexadecimal;
use crate::config::LIST_MEANT_MAX;

/// Minimum length of an id prefix, in characters; shorter texts are more likely names or mistakes.
const PREFIX_CHARS_MIN: usize = 4;

/// Ids that a reference may mean.
#[derive(Clone, Debug)]
pub(super) struct RowReference {
    /// Exact id, with or without leading zeros.
    pub(super) id: Option<u64>,
    /// Range of the ids that start with the text.
    pub(super) ids: Option<RangeInclusive<u64>>,
}

impl RowReference {
    /// Parses a reference to ids with the given number of hexadecimal digits.
    pub(super) fn new(text: &str, digits: usize) -> Self {
        let id = hexadecimal(text);
        let begins = id.filter(|_| (PREFIX_CHARS_MIN..=digits).contains(&text.len()));
        let ids = begins.map(|begins| {
            // Four digits at least are given, so the shift is below 64.
            let free = 4 * (digits - text.len());
            let first = begins << free;
            first..=first | ((1 << free) - 1)
        });
        Self { id, ids }
    }

    /// Checks for the exact id.
    pub(super) fn is(&self, id: u64) -> bool {
        self.id == Some(id)
    }

    /// Checks for the prefix.
    pub(super) fn begins(&self, id: u64) -> bool {
        self.ids.as_ref().is_some_and(|ids| ids.contains(&id))
    }

    /// Positions of rows that match, at most [`LIST_MEANT_MAX`] for each way to match.
    ///
    /// `id` and `name` compare a row.
    pub(super) fn among<R: Copy>(
        &self,
        rows: impl Iterator<Item = (Position, R)> + Clone,
        id: impl Fn(R) -> u64,
        name: impl Fn(R) -> bool,
    ) -> Vec<Position> {
        // The exact id is searched first and separately, so that the limit never hides it.
        let positions = |meaning: &dyn Fn(R) -> bool| {
            let rows = rows.clone().filter(|(_, row)| meaning(*row)).take(LIST_MEANT_MAX);
            rows.map(|(position, _)| position).collect::<Vec<_>>()
        };
        let mut all = positions(&|row| self.is(id(row)));
        for other in [positions(&name), positions(&|row| self.begins(id(row)))].concat() {
            if !all.contains(&other) {
                all.push(other);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_matches_an_id_or_a_prefix() {
        let is = |text, id| RowReference::new(text, 16).is(id);
        let begins = |text, id| RowReference::new(text, 16).begins(id);
        assert!(is("a", 10) && is("000A", 10) && !is("a", 0xa000_0000_0000_0000));
        assert!(begins("beef", 0xbeef_0000_0000_0007) && is("BEEF", 0xbeef));
        assert!(!begins("bee", 0xbeef_0000_0000_0007) && !begins("beef", 0xbef0_0000_0000_0000));
        assert!(begins("ffffffffffffffff", u64::MAX) && begins("0000", 7));
        assert!(!is("name", 0) && !is("", 0) && !is("11111111111111111", 1) && !begins("name", 0));
        assert!(
            RowReference::new("00000a", 8).begins(0xa01) && !RowReference::new("00000a", 8).begins(0xb01)
        );
    }

    #[test]
    fn matches_are_bounded_and_include_the_exact_id() {
        let rows = (0..1000).map(|id| (Position::living(id), id));
        let matches = RowReference::new("0000", 16).among(rows.clone(), |id| id, |_| false);
        assert_eq!(matches.len(), LIST_MEANT_MAX);
        let matches = RowReference::new("00000000000003e7", 16).among(rows, |id| id, |_| true);
        assert_eq!((matches[0], matches.len()), (Position::living(999), 1 + LIST_MEANT_MAX));
    }
}
