//! A part of a file, as it is found by whoever has the file too.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    error::PieceError,
    pieces::{PIECE_BYTES_MAX, Pieces},
};
use crate::RemoteData;

/// Bytes of a text in a file, from one place to another.
///
/// What is cut at either place is moved to behind the next white space, so that ranges in a row have
/// all words of the text once, wherever they were cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub struct FileRange {
    /// The file, as it is called where it is read.
    pub path: PathBuf,
    /// The first byte.
    pub from: u64,
    /// The byte behind the last.
    pub to: u64,
}

/// How many bytes are read at a time to find white space.
const LOOK_BYTES: u64 = 4 << 10;

impl FileRange {
    /// Reads the range in pieces that end at white space, and shows each.
    ///
    /// The places in errors count from where the range begins.
    pub(super) fn each_piece(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<(), PieceError>,
    ) -> Result<(), PieceError> {
        let mut file = File::open(&self.path).map_err(|err| PieceError::unreadable(0, &err))?;
        let start = self.cut(&mut file, self.from)?;
        let end = self.cut(&mut file, self.to)?;
        file.seek(SeekFrom::Start(start)).map_err(|err| PieceError::unreadable(0, &err))?;
        let skipped = start.saturating_sub(self.from);
        let mut before = 0;
        for piece in Pieces::new(file.take(end - start), Some(end - start)) {
            let piece = piece.map_err(|err| err.behind(skipped))?;
            each(&piece).map_err(|err| err.behind(skipped + before))?;
            before += piece.len() as u64;
        }
        Ok(())
    }

    /// Where a cut at this place really is: there if white space comes before it, or behind the next.
    fn cut(&self, file: &mut File, place: u64) -> Result<u64, PieceError> {
        let Some(mut at) = place.checked_sub(1) else { return Ok(0) };
        let begin = at;
        let unreadable = |err: io::Error| PieceError::unreadable(place.saturating_sub(self.from), &err);
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let mut bytes = Vec::new();
        while at - begin < PIECE_BYTES_MAX as u64 {
            bytes.clear();
            file.take(LOOK_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
            if let Some(space) = bytes.iter().position(u8::is_ascii_whitespace) {
                return Ok(at + space as u64 + 1);
            }
            at += bytes.len() as u64;
            if (bytes.len() as u64) < LOOK_BYTES {
                // The text ends, if it goes as far as the range.
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
    use proptest::prelude::*;

    use super::*;

    /// A file in the folder for such, which is gone when this is dropped.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("roadshow-range-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Self(path)
        }

        fn read(&self, from: u64, to: u64) -> Result<Vec<u8>, PieceError> {
            let mut read = Vec::new();
            let range = FileRange { path: self.0.clone(), from, to };
            range.each_piece(|piece| {
                read.extend_from_slice(piece);
                Ok(())
            })?;
            Ok(read)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    proptest! {
        #[test]
        fn ranges_in_a_row_are_the_text_and_cut_no_word(text in "[a ]{0,60}", places in prop::collection::vec(0..60_u64, 0..6)) {
            let file = Temporary::new("row", text.as_bytes());
            let len = text.len() as u64;
            let mut places: Vec<u64> = places.into_iter().map(|place| place.min(len)).chain([0, len]).collect();
            places.sort_unstable();
            let parts: Vec<_> = places.windows(2).map(|ends| file.read(ends[0], ends[1]).unwrap()).collect();
            prop_assert_eq!(parts.concat(), text.as_bytes());
            let mut before = Vec::new();
            for part in &parts {
                prop_assert!(before.is_empty() || before.ends_with(b" ") || part.is_empty());
                before.extend_from_slice(part);
            }
        }
    }

    #[test]
    fn range_beyond_the_end_is_of_a_file_that_was_cut() {
        let file = Temporary::new("short", b"one two");
        for (from, to) in [(0, 9), (4, 9), (9, 12)] {
            let err = file.read(from, to).unwrap_err();
            assert!(matches!(err, PieceError::Truncated { .. }), "{err:?}");
        }
    }

    #[test]
    fn words_longer_than_a_look_are_not_cut() {
        let word = "x".repeat(3 * LOOK_BYTES as usize);
        let file = Temporary::new("long", format!("a {word} b").as_bytes());
        assert_eq!(file.read(0, 10).unwrap(), format!("a {word} ").as_bytes());
        assert_eq!(file.read(10, word.len() as u64 + 4).unwrap(), b"b");
    }

    #[test]
    fn errors_count_from_where_the_range_begins() {
        let file = Temporary::new("place", b"one two three");
        let range = FileRange { path: file.0.clone(), from: 5, to: 13 };
        let err = range.each_piece(|_| Err(PieceError::NotUtf8 { at: 1 })).unwrap_err();
        assert_eq!(err, PieceError::NotUtf8 { at: 4 });
        let nowhere = FileRange { path: "no such file".into(), from: 0, to: 1 };
        assert!(matches!(nowhere.each_piece(|_| Ok(())), Err(PieceError::Unreadable { .. })));
    }
}
