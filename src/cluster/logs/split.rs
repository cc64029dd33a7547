//! From the bytes that a process prints to lines that can be shown, none longer than a limit.

use crate::config::LOG_LINE_BYTES_MAX;

/// What a line ends with that was cut.
pub(super) const CUT: &str = " ... (the rest of this line is in the log only)";

/// Puts lines together. What is no UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The begun line, up to the limit.
    begun: Vec<u8>,
    is_cut: bool,
}

impl Splitter {
    /// Takes the next bytes, and gives the lines that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, is_end) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LOG_LINE_BYTES_MAX - self.begun.len();
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            self.is_cut |= text.len() > room;
            if is_end {
                lines.push(self.take());
            }
        }
        lines
    }

    /// The line that was begun, if there is one.
    pub(super) fn end(&mut self) -> Option<String> {
        (!self.begun.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        if self.is_cut {
            self.is_cut = false;
            let whole = whole_characters(&self.begun);
            self.begun.truncate(whole);
            self.begun.extend_from_slice(CUT.as_bytes());
        } else if self.begun.last() == Some(&b'\r') {
            self.begun.pop();
        }
        let line = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun.clear();
        line
    }
}

/// How many of the bytes are left without a character that is cut off at their end.
pub(super) fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let lead = bytes[tail..].iter().rposition(|&byte| byte & 0b1100_0000 != 0b1000_0000);
    let Some(lead) = lead.map(|lead| tail + lead) else { return bytes.len() };
    let length = match bytes[lead] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if lead + length > bytes.len() { lead } else { bytes.len() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_come_when_they_are_complete() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"one\ntw"), ["one"]);
        assert_eq!(splitter.push(b"o\r\n\nthree"), ["two", ""]);
        assert_eq!(splitter.end().as_deref(), Some("three"));
        assert_eq!(splitter.end(), None);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_marked() {
        let mut splitter = Splitter::default();
        let long = format!("{}\u{20ac}uro", "x".repeat(LOG_LINE_BYTES_MAX - 1));
        assert!(splitter.push(long.as_bytes()).is_empty());
        assert!(splitter.push(long.as_bytes()).is_empty());
        let expected = format!("{}{CUT}", "x".repeat(LOG_LINE_BYTES_MAX - 1));
        assert_eq!(splitter.push(b"\nnext\n"), [expected, "next".to_owned()]);
        assert_eq!(splitter.push("y".repeat(LOG_LINE_BYTES_MAX).as_bytes()), [""; 0]);
        assert_eq!(splitter.push(b"\n"), ["y".repeat(LOG_LINE_BYTES_MAX)]);
    }

    #[test]
    fn what_is_no_text_does_no_harm() {
        assert_eq!(Splitter::default().push(b"a\xffb\n"), ["a\u{fffd}b"]);
        assert_eq!(whole_characters(b"\x80\x80\x80\x80"), 4);
        assert_eq!(whole_characters("a\u{1f600}".as_bytes()), 5);
        assert_eq!(whole_characters(&"a\u{1f600}".as_bytes()[..4]), 1);
        assert_eq!(whole_characters(b""), 0);
    }

    proptest! {
        #[test]
        fn however_text_comes_the_lines_are_the_same(text in "[a-c\u{20ac}\n]{0,60}", cuts in prop::collection::vec(0..200usize, 0..5)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut splitter = Splitter::default();
            let mut lines: Vec<_> = cuts.windows(2).flat_map(|cut| splitter.push(&bytes[cut[0]..cut[1]])).collect();
            lines.extend(splitter.end());
            prop_assert_eq!(lines, text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
