//! Positions in lists, and their textual form as cursors.

use std::fmt;
use std::str::FromStr;

/// Prefix of cursors among the ended rows.
const ENDED: &str = "ended:";

/// Position in a list. Both numbers decrease along the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Position {
    pub(super) has_ended: bool,
    /// Number or start time of an open row, or the sequence number of an ended one.
    pub(super) at: u64,
    /// Distinguishes rows with the same `at`.
    pub(super) row: u64,
}

impl Position {
    /// Position before the first row.
    pub(super) const FIRST: Self = Self { has_ended: false, at: u64::MAX, row: u64::MAX };

    pub(super) fn living(at: u64) -> Self {
        Self { has_ended: false, at, row: 0 }
    }

    pub(super) fn ended(at: u64) -> Self {
        Self { has_ended: true, at, row: 0 }
    }

    /// Position before the first ended row; `None` if the ended rows are already being listed.
    pub(super) fn next_part(self) -> Option<Self> {
        (!self.has_ended).then_some(Self { has_ended: true, ..Self::FIRST })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = if self.has_ended { ENDED } else { "" };
        write!(f, "{ended}{:x}", self.at)?;
        // Most tables have one row for each `at`; leaving out row 0 keeps their cursors short.
        if self.row > 0 {
            write!(f, ":{:x}", self.row)?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (has_ended, numbers) = match text.strip_prefix(ENDED) {
            Some(numbers) => (true, numbers),
            None => (false, text),
        };
        let (at, row) = numbers.split_once(':').unwrap_or((numbers, "0"));
        let number = |digits| crate::cluster::listing::hexadecimal(digits).ok_or(());
        Ok(Self { has_ended, at: number(at)?, row: number(row)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_round_trips_and_other_texts_are_refused() {
        for position in [
            Position::FIRST,
            Position::living(0x4f),
            Position::ended(0),
            Position { has_ended: true, at: 7, row: 0xa },
        ] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        assert_eq!(Position { has_ended: true, at: 7, row: 10 }.to_string(), "ended:7:a");
        for text in ["", "ended:", "x", "-1", "+1", "1:", "1:2:3", "11111111111111111"] {
            assert_eq!(text.parse::<Position>(), Err(()), "{text}");
        }
    }
}
