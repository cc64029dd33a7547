//! Parts of a log: bounded pieces of the text of all its files, from the last lines on or from a cursor on.
//!
//! A cursor is one number for the caller: the number of rotations before the file, and the byte in that file. Without
//! a rotation it equals the byte offset.
//!
//! ```text
//!  bit 63            40 39                 0
//!     ┌────────────────┬────────────────────┐
//!     │ file number    │ byte in the file   │
//!     └────────────────┴────────────────────┘
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::cluster::output::lines::whole_characters;
use crate::config::LOG_PART_BYTES_MAX;

/// Bytes that are searched for line starts in one read.
const SEARCH_BYTES: u64 = 64 << 10;

/// Number of low bits of a packed cursor for the byte in a file; the others are the file's number.
pub(super) const BYTE_BITS: u32 = 40;

/// Notice in place of the text that rotation has removed.
pub(super) const TRUNCATED_NOTICE: &str = "... earlier lines of this log are not kept any more\n";

/// Part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPart {
    /// Text of the part: whole lines, except that the last may be incomplete. Empty at the end of the log.
    pub(crate) text: String,
    /// Packed cursor of the end, from which the next part starts.
    pub(crate) offset: u64,
}

/// File of a log.
#[derive(Debug)]
pub(super) struct LogPiece {
    number: u64,
    file: File,
    size: u64,
    pub(super) inode: u64,
}

impl LogPiece {
    pub(super) fn new(number: u64, file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { number, size: metadata.len(), inode: metadata.ino(), file })
    }
}

/// Position in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    number: u64,
    byte: u64,
}

impl Cursor {
    pub(super) fn unpack(offset: u64) -> Self {
        Self { number: offset >> BYTE_BITS, byte: offset & ((1 << BYTE_BITS) - 1) }
    }

    fn pack(self) -> u64 {
        self.number << BYTE_BITS | self.byte
    }
}

/// Finds the start of the last lines. It reads backwards, and only as much as needed.
pub(super) fn last_lines(files: &[LogPiece], lines: u64) -> io::Result<Cursor> {
    let mut left = lines;
    let mut is_end = true;
    let mut buffer = vec![0; SEARCH_BYTES as usize];
    for piece in files.iter().rev() {
        let mut end = piece.size;
        if lines == 0 {
            return Ok(Cursor { number: piece.number, byte: end });
        }
        while end > 0 {
            let start = end.saturating_sub(SEARCH_BYTES);
            let bytes = &mut buffer[..(end - start) as usize];
            piece.file.read_exact_at(bytes, start)?;
            for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                // The newline at the very end terminates the last line and starts no other.
                if is_end && start + at as u64 + 1 == piece.size {
                    continue;
                }
                left -= 1;
                if left == 0 {
                    return Ok(Cursor { number: piece.number, byte: start + at as u64 + 1 });
                }
            }
            is_end = false;
            end = start;
        }
    }
    Ok(Cursor { number: files.first().map_or(0, |piece| piece.number), byte: 0 })
}

/// Reads the part that starts at a cursor.
pub(super) fn part(files: &[LogPiece], from: Cursor) -> io::Result<LogPart> {
    let is_gone = files.first().is_some_and(|piece| from.number < piece.number);
    let from = match files.first() {
        Some(piece) if is_gone => Cursor { number: piece.number, byte: 0 },
        _ => from,
    };
    let prefix = if is_gone { TRUNCATED_NOTICE } else { "" };
    let mut end = from;
    for (at, piece) in files.iter().enumerate().filter(|(_, piece)| piece.number >= from.number) {
        let is_last = at + 1 == files.len();
        let byte = if piece.number == from.number { from.byte.min(piece.size) } else { 0 };
        end = Cursor { number: piece.number, byte };
        let mut bytes = vec![0; (piece.size - byte).min(LOG_PART_BYTES_MAX as u64) as usize];
        piece.file.read_exact_at(&mut bytes, byte)?;
        let is_whole = byte + bytes.len() as u64 == piece.size;
        // A character that is cut in two would be shown as two replacement characters.
        bytes.truncate(utf8_safe_length(&bytes, is_whole, is_last));
        if bytes.is_empty() && !is_last {
            continue;
        }
        end.byte += bytes.len() as u64;
        if end.byte == piece.size && !is_last {
            end = Cursor { number: piece.number + 1, byte: 0 };
        }
        let text = format!("{prefix}{}", String::from_utf8_lossy(&bytes));
        return Ok(LogPart { text, offset: end.pack() });
    }
    // The cursor names a file that does not exist, such as after a removal of the log. Continue at the end.
    if let Some(last) = files.last().filter(|last| last.number < from.number) {
        end = Cursor { number: last.number, byte: last.size };
    }
    Ok(LogPart { text: prefix.to_owned(), offset: end.pack() })
}

/// Number of the bytes to return now: whole lines, and at the end of a file the incomplete last line, but without an
/// incomplete UTF-8 character.
fn utf8_safe_length(bytes: &[u8], is_whole: bool, is_last: bool) -> usize {
    // An invalid byte becomes a replacement character of three bytes, which must fit, too.
    let is_long = String::from_utf8_lossy(bytes).len() > LOG_PART_BYTES_MAX;
    let bytes = if is_long { &bytes[..bytes.len().min(LOG_PART_BYTES_MAX / 3)] } else { bytes };
    if is_whole && !is_long {
        return if is_last { whole_characters(bytes) } else { bytes.len() };
    }
    match bytes.iter().rposition(|&byte| byte == b'\n') {
        Some(newline) => newline + 1,
        None => whole_characters(bytes),
    }
}
