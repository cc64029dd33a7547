//! Splits a text of any length into pieces that end at white space.

use std::io::Read;

use bytes::Bytes;

use super::error::PieceError;

/// Length of a piece in bytes, except for the last piece and for pieces with a longer word.
///
/// Reading, sending and counting overlap between pieces, so a text needs many of them. Each piece costs the
/// work of two small messages on both sides, some microseconds, so it needs many words.
pub const PIECE_BYTES: usize = 256 << 10;

/// Maximum length of a piece, in bytes; such a piece has a word of nearly that length.
///
/// No text has such a word. A file without white space is not a text and must not fill the memory.
pub const PIECE_BYTES_MAX: usize = 16 << 20;

/// Iterator over the pieces of a text, in order.
///
/// The bytes are not checked here; the Node that counts a piece checks that it is UTF-8. The iterator ends
/// after an error.
#[derive(Debug)]
pub(super) struct Pieces<R> {
    text: R,
    /// Length of the text in bytes, if known.
    len: Option<u64>,
    /// Bytes read beyond the end of the last piece.
    rest: Vec<u8>,
    /// Total length of all pieces so far, in bytes.
    at: u64,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    pub(super) fn new(text: R, len: Option<u64>) -> Self {
        Self { text, len, rest: Vec::new(), at: 0, ended: false }
    }

    /// Returns the next piece; empty after the last one.
    fn read(&mut self) -> Result<Vec<u8>, PieceError> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        piece.append(&mut self.rest);
        loop {
            // Doubling bounds the number of reads for a long word by a logarithm of its length.
            let wanted = PIECE_BYTES.max(2 * piece.len()).min(PIECE_BYTES_MAX);
            let known = piece.len();
            self.fill(&mut piece, wanted)?;
            if self.ended {
                return Ok(piece);
            }
            // Only the new bytes are searched: the earlier ones have no white space.
            let space = piece[known..].iter().rposition(u8::is_ascii_whitespace);
            if let Some(space) = space {
                self.rest.extend_from_slice(&piece[known + space + 1..]);
                piece.truncate(known + space + 1);
                return Ok(piece);
            }
            if piece.len() >= PIECE_BYTES_MAX {
                return Err(PieceError::NoSpace { at: self.at });
            }
        }
    }

    /// Reads until the piece has `wanted` bytes or the text ends.
    fn fill(&mut self, piece: &mut Vec<u8>, wanted: usize) -> Result<(), PieceError> {
        let missing = (wanted - piece.len()) as u64;
        piece.reserve_exact(wanted - piece.len());
        let read = self.text.by_ref().take(missing).read_to_end(piece);
        let at = self.at + piece.len() as u64;
        let read = read.map_err(|err| PieceError::unreadable(at, &err))?;
        self.ended = (read as u64) < missing;
        match self.len {
            Some(len) if self.ended && at < len => Err(PieceError::Truncated { at, missing: len - at }),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = Result<Bytes, PieceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.read();
        // An error ends the iterator: the next piece would start in the middle of a word.
        self.ended |= piece.is_err();
        match piece {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                self.at += piece.len() as u64;
                Some(Ok(piece.into()))
            }
            Err(err) => Some(Err(err)),
        }
    }
}

/// Reader that fails like a file in the middle of a text, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Failing;

#[cfg(test)]
impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the disk is gone"))
    }
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &[u8]) -> Vec<Bytes> {
        Pieces::new(text, Some(text.len() as u64)).collect::<Result<_, _>>().unwrap()
    }

    proptest! {
        #![proptest_config(property_tests::cases(32))]

        #[test]
        fn pieces_are_the_text_and_end_at_white_space(
            words in prop::collection::vec(0..3 * PIECE_BYTES, 0..8),
        ) {
            let text = words.iter().map(|&len| "x".repeat(len)).collect::<Vec<_>>().join("\n");
            let pieces = pieces(text.as_bytes());
            prop_assert_eq!(pieces.concat(), text.as_bytes());
            for piece in pieces.split_last().map_or(&[][..], |(_, all)| all) {
                prop_assert!(piece.ends_with(b"\n"));
            }
        }
    }

    #[test]
    fn pieces_of_a_text_are_of_one_size() {
        let text = "word ".repeat(PIECE_BYTES);
        let pieces = pieces(text.as_bytes());
        assert_eq!(pieces.len(), 5 + usize::from(!PIECE_BYTES.is_multiple_of(5)));
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert!(self::pieces(b"").is_empty());
    }

    #[test]
    fn text_without_white_space_is_rejected_before_it_fills_the_memory() {
        let mut endless = Pieces::new(std::io::repeat(b'x'), None);
        let err = endless.next().unwrap().unwrap_err();
        assert!(matches!(err, PieceError::NoSpace { at: 0 }), "{err:?}");
        assert!(endless.next().is_none());
    }

    #[test]
    fn text_that_ends_early_or_cannot_be_read_says_where() {
        let mut short = Pieces::new(&b"a b"[..], Some(4));
        let err = short.next().unwrap().unwrap_err();
        assert!(matches!(err, PieceError::Truncated { at: 3, missing: 1 }), "{err:?}");
        assert!(short.next().is_none());

        let mut failing = Pieces::new((&b"a b"[..]).chain(Failing), Some(4));
        let err = failing.next().unwrap().unwrap_err();
        assert!(matches!(err, PieceError::Unreadable { at: 3, .. }), "{err:?}");
        assert!(failing.next().is_none());
    }
}
