//! Range of a file that the reading process opens itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    error::PieceError,
    pieces::{PIECE_BYTES_MAX, Pieces},
};
use crate::RemoteData;

/// Byte range of a text in a file.
///
/// A boundary within a word moves to after the next white space. So consecutive ranges contain every word
/// of the text exactly once, whatever their boundaries are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub struct FileRange {
    /// Path of the file for the reading process.
    pub path: PathBuf,
    /// Offset of the first byte.
    pub from: u64,
    /// Offset after the last byte.
    pub to: u64,
}

/// Bytes read in one step of the search for white space.
const LOOK_BYTES: u64 = 4 << 10;

impl FileRange {
    /// Reads the range in pieces that end at white space, and calls `each` with every piece.
    ///
    /// Offsets in errors count from the start of the range.
    pub(super) fn each_piece(
        &self,
        each: impl FnMut(&[u8]) -> Result<(), PieceError>,
    ) -> Result<(), PieceError> {
        let mut file = File::open(&self.path).map_err(|err| PieceError::unreadable(0, &err))?;
        Span { from: self.from, to: self.to, text: u64::MAX }.each_piece(&mut file, each)
    }
}

/// Byte range of an open text; its boundaries move like those of a [`FileRange`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Length of the text in bytes; bytes of the file after it are not read.
    pub(super) text: u64,
}

impl Span {
    /// Reads the range like [`FileRange::each_piece`].
    pub(super) fn each_piece(
        &self,
        file: &mut File,
        mut each: impl FnMut(&[u8]) -> Result<(), PieceError>,
    ) -> Result<(), PieceError> {
        let start = self.cut(file, self.from)?;
        let end = match self.cut(file, self.to) {
            // Reading the range finds the same error again, and its exact offset.
            Err(PieceError::Truncated { .. }) => self.to,
            Err(PieceError::NoSpace { .. }) => self.to.saturating_add(PIECE_BYTES_MAX as u64),
            end => end?,
        };
        // The search for white space may run into bytes that were appended after the text.
        let end = end.min(self.text);
        file.seek(SeekFrom::Start(start)).map_err(|err| PieceError::unreadable(0, &err))?;
        let skipped = start.saturating_sub(self.from);
        // Saturates: another process may write to the file between the two reads, and then the boundaries
        // cross.
        let len = end.saturating_sub(start);
        let mut before = 0;
        for piece in Pieces::new(file.take(len), Some(len)) {
            let piece = piece.map_err(|err| err.behind(skipped))?;
            each(&piece).map_err(|err| err.behind(skipped + before))?;
            before += piece.len() as u64;
        }
        Ok(())
    }

    /// Returns the actual offset of a boundary: `place` if it follows white space or the text ends there,
    /// otherwise the offset after the next white space.
    fn cut(&self, file: &mut File, boundary: u64) -> Result<u64, PieceError> {
        let Some(mut at) = boundary.checked_sub(1) else { return Ok(0) };
        if boundary >= self.text {
            return Ok(boundary);
        }
        let begin = at;
        let unreadable = |err: io::Error| PieceError::unreadable(boundary.saturating_sub(self.from), &err);
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let mut bytes = Vec::new();
        while at - begin < PIECE_BYTES_MAX as u64 {
            bytes.clear();
            let look = LOOK_BYTES.min(self.text.saturating_sub(at));
            file.take(look).read_to_end(&mut bytes).map_err(unreadable)?;
            if let Some(space) = bytes.iter().position(u8::is_ascii_whitespace) {
                return Ok(at + space as u64 + 1);
            }
            at += bytes.len() as u64;
            if (bytes.len() as u64) < LOOK_BYTES {
                // A short read at or after the end of the range is the end of the text; before it, the file
                // was truncated.
                let missing = self.to.saturating_sub(at);
                let relative = at.saturating_sub(self.from);
                let whole = missing == 0;
                return if whole { Ok(at) } else { Err(PieceError::Truncated { at: relative, missing }) };
            }
        }
        Err(PieceError::NoSpace { at: begin.saturating_sub(self.from) })
    }
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::super::temporary::Temporary;
    use super::*;

    fn read(file: &Temporary, from: u64, to: u64) -> Result<Vec<u8>, PieceError> {
        let mut read = Vec::new();
        let range = FileRange { path: file.0.clone(), from, to };
        range.each_piece(|piece| {
            read.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(read)
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn consecutive_ranges_are_the_text_and_split_no_word(text in "[a ]{0,60}", cuts in prop::collection::vec(0..60_u64, 0..6)) {
            let file = Temporary::new("row", text.as_bytes());
            let len = text.len() as u64;
            let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut.min(len)).chain([0, len]).collect();
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|ends| read(&file, ends[0], ends[1]).unwrap()).collect();
            prop_assert_eq!(parts.concat(), text.as_bytes());
            let mut before = Vec::new();
            for part in &parts {
                prop_assert!(before.is_empty() || before.ends_with(b" ") || part.is_empty());
                before.extend_from_slice(part);
            }
        }
    }

    #[test]
    fn range_beyond_the_end_means_that_the_file_was_truncated() {
        let file = Temporary::new("short", b"one two");
        for (from, to, end) in [(0, 9, 7), (4, 9, 3), (7, 9, 0), (9, 12, 0)] {
            let err = read(&file, from, to).unwrap_err();
            assert!(matches!(err, PieceError::Truncated { at, .. } if at == end), "{err:?}");
        }
    }

    #[test]
    fn words_longer_than_a_search_step_are_not_split() {
        let word = "x".repeat(3 * LOOK_BYTES as usize);
        let file = Temporary::new("long", format!("a {word} b").as_bytes());
        assert_eq!(read(&file, 0, 10).unwrap(), format!("a {word} ").as_bytes());
        assert_eq!(read(&file, 10, word.len() as u64 + 4).unwrap(), b"b");
    }

    #[test]
    fn overlong_word_is_reported_with_its_offset() {
        let file = Temporary::new("endless", &[b"a b ", &b"x".repeat(PIECE_BYTES_MAX + 9)[..]].concat());
        for to in [5, 100, PIECE_BYTES_MAX as u64] {
            assert_eq!(read(&file, 1, to), Err(PieceError::NoSpace { at: 3 }));
        }
    }

    #[test]
    fn bytes_appended_after_the_text_are_not_read() {
        let file = Temporary::new("behind", b"one two three");
        let mut open = File::open(&file.0).unwrap();
        for (text, expect) in [(6, "one tw"), (7, "one two"), (8, "one two ")] {
            let mut read = Vec::new();
            let each = |piece: &[u8]| {
                read.extend_from_slice(piece);
                Ok(())
            };
            Span { from: 0, to: 6, text }.each_piece(&mut open, each).unwrap();
            assert_eq!(read, expect.as_bytes());
        }
    }

    #[test]
    fn range_ends_with_the_text_and_not_with_the_file() {
        let file = Temporary::new("behind", b"one two and more");
        for (from, to, expect) in [(0, 16, "one two"), (4, 100, "two"), (7, 16, ""), (9, 16, "")] {
            let mut read = Vec::new();
            let span = Span { from, to, text: 7 };
            span.each_piece(&mut File::open(&file.0).unwrap(), |piece| {
                read.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
            assert_eq!(read, expect.as_bytes());
        }
    }

    #[test]
    fn offsets_in_errors_count_from_the_start_of_the_range() {
        let file = Temporary::new("place", b"one two three");
        let range = FileRange { path: file.0.clone(), from: 5, to: 13 };
        let err = range.each_piece(|_| Err(PieceError::NotUtf8 { at: 1 })).unwrap_err();
        assert_eq!(err, PieceError::NotUtf8 { at: 4 });
        let nowhere = FileRange { path: "no such file".into(), from: 0, to: 1 };
        assert!(matches!(nowhere.each_piece(|_| Ok(())), Err(PieceError::Unreadable { .. })));
    }
}
