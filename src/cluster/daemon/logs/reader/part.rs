//! A log's files, read as one text in bounded parts: from the last lines on, or from where one was.
//!
//! A place in the text is told as one number: how many files were put aside before the one that it is in, and
//! the bytes in that file. As long as none was put aside, that is the number of bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::cluster::output::lines::whole_characters;
use crate::config::LOG_PART_BYTES_MAX;

/// How many bytes are searched for the beginnings of lines at once.
const SEARCH_BYTES: u64 = 64 << 10;

/// Which bits of a place are the bytes in a file; the others are the file's number.
pub(super) const BYTE_BITS: u32 = 40;

/// What stands where a log begins that was longer once.
pub(super) const TRUNCATED_NOTICE: &str = "... earlier lines of this log are not kept any more\n";

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPart {
    /// The part: whole lines but for the last. Empty at the log's end.
    pub(crate) text: String,
    /// Where it ends, to go on from there.
    pub(crate) offset: u64,
}

/// One file of a log.
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

/// A place in a log.
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

/// Where the last lines begin. It reads from the end, and no more than it has to.
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
                // The end of the last line begins none.
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

/// The part that begins at a place.
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
    // Whoever asks was told of a file that is not there: it goes on at the end.
    if let Some(last) = files.last().filter(|last| last.number < from.number) {
        end = Cursor { number: last.number, byte: last.size };
    }
    Ok(LogPart { text: prefix.to_owned(), offset: end.pack() })
}

/// How many of the bytes are shown at once: whole lines, and at a file's end what is there of the last one,
/// but for a character of which more is to come.
fn utf8_safe_length(bytes: &[u8], is_whole: bool, is_last: bool) -> usize {
    // Each byte that is no text becomes three: they are to fit as well.
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
