//! Splits the bytes that a process prints into lines of limited length.
//!
//! A carriage return restarts the line, as on a terminal: a progress bar is one line, whose last state counts. A line
//! that does not end within [`LOG_UNFINISHED_AFTER`] is shown as it stands.
//!
//! ```text
//!   bytes "10 %\r50 %\rdo" "ne\nnext"
//!           |      |     |    |   '-- begun line, shown unfinished when it is due
//!           |      |     |    '------ ends the line: "done"
//!           '------'-----'----------- each return discards the text before it
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{
    LOG_LINE_BYTES_MAX, LOG_UNFINISHED_AFTER, LOG_UNFINISHED_BYTES_MAX, OUTPUT_LINE_BYTES_MAX,
};

/// Suffix of a truncated line.
pub(in crate::cluster) const TRUNCATION_MARK: &str = " ... (the rest of this line is in the log only)";

/// Lateness of a timer that shows that this process was not running, and perhaps the printing one neither.
const LATE: Duration = Duration::from_millis(100);

/// Capacity in bytes above which the buffer of a line is freed after it.
const BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Treatment of lines that are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LongLines {
    /// Truncated at [`LOG_LINE_BYTES_MAX`]: the log file has the whole line.
    Cut,
    /// Broken into lines of [`OUTPUT_LINE_BYTES_MAX`]: the text is stored nowhere else.
    Break,
}

/// Assembler of lines. Bytes that are not UTF-8 become U+FFFD.
#[derive(Debug)]
pub(in crate::cluster) struct LineSplitter {
    long: LongLines,
    /// Begun line, up to the limit.
    begun: Vec<u8>,
    is_cut: bool,
    /// A carriage return follows `begun`: the next byte restarts the line, unless it is a newline.
    returned: bool,
    /// Deadline after which the begun line is shown as it stands.
    due: Option<Instant>,
    was_late: bool,
    /// Begun line as it was shown last.
    shown: Option<String>,
}

impl LineSplitter {
    pub(in crate::cluster) fn new(long: LongLines) -> Self {
        Self {
            long,
            begun: Vec::new(),
            is_cut: false,
            returned: false,
            due: None,
            was_late: false,
            shown: None,
        }
    }

    /// Takes the next bytes, and returns the lines that they complete.
    pub(in crate::cluster) fn push(&mut self, now: Instant, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', text)) => {
                    self.extend(text, &mut lines);
                    lines.extend(self.end_line());
                }
                _ => self.extend(piece, &mut lines),
            }
        }
        // A deadline that is set stays: a line that grows all the time is shown nevertheless.
        if !self.begun.is_empty() {
            self.due.get_or_insert(now + LOG_UNFINISHED_AFTER);
        }
        lines
    }

    /// Ends the begun line, and returns it unless it was shown exactly so.
    pub(in crate::cluster) fn end(&mut self) -> Option<String> {
        if self.begun.is_empty() { None } else { self.end_line() }
    }

    /// Deadline at which [`LineSplitter::unfinished`] is due.
    pub(in crate::cluster) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Begun line as it stands, if it is due and differs from what was shown of it.
    pub(in crate::cluster) fn unfinished(&mut self, now: Instant) -> Option<String> {
        let late = now.checked_duration_since(self.due?)?;
        // This process was not running, and the printing one may have been stopped with it: it gets a moment to
        // end the line.
        if late > LATE && !self.was_late {
            (self.due, self.was_late) = (Some(now + LATE), true);
            return None;
        }
        self.as_it_stands()
    }

    /// Same as [`LineSplitter::unfinished`], before it is due.
    pub(in crate::cluster) fn as_it_stands(&mut self) -> Option<String> {
        (self.due, self.was_late) = (None, false);
        let text = self.tail();
        if text.trim().is_empty() || self.shown.as_ref() == Some(&text) {
            return None;
        }
        self.shown = Some(text.clone());
        Some(text)
    }

    /// Takes back that the begun line was shown, since the receiver had no room: it is due again.
    pub(in crate::cluster) fn not_shown(&mut self, now: Instant) {
        self.shown = None;
        if !self.begun.is_empty() {
            self.due.get_or_insert(now + LOG_UNFINISHED_AFTER);
        }
    }

    /// Takes a part of a line, without its newline.
    fn extend(&mut self, text: &[u8], lines: &mut Vec<String>) {
        let length = text.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
        // Returns at the end are kept in `returned`: whether they restart the line depends on the next byte, since
        // "\r\n" is a plain line end.
        let (mut kept, returns) = text.split_at(length);
        if kept.is_empty() {
            self.returned |= !returns.is_empty();
            return;
        }
        if let Some(at) = kept.iter().rposition(|&byte| byte == b'\r') {
            kept = &kept[at + 1..];
            self.returned = true;
        }
        if self.returned {
            self.begun.clear();
            self.is_cut = false;
        }
        self.append(kept, lines);
        self.returned = !returns.is_empty();
    }

    fn append(&mut self, mut text: &[u8], lines: &mut Vec<String>) {
        loop {
            let room = self.limit() - self.begun.len();
            let (fits, rest) = text.split_at(text.len().min(room));
            self.begun.extend_from_slice(fits);
            if rest.is_empty() {
                return;
            }
            if self.long == LongLines::Cut {
                self.is_cut = true;
                return;
            }
            let begins_next = self.begun.split_off(whole_characters(&self.begun));
            lines.extend(self.end_line());
            self.begun = begins_next;
            text = rest;
        }
    }

    fn limit(&self) -> usize {
        match self.long {
            LongLines::Cut => LOG_LINE_BYTES_MAX,
            LongLines::Break => OUTPUT_LINE_BYTES_MAX,
        }
    }

    /// Ends the line and returns it, unless it was shown exactly so while it was unfinished.
    fn end_line(&mut self) -> Option<String> {
        if self.is_cut {
            self.begun.truncate(whole_characters(&self.begun));
            self.begun.extend_from_slice(TRUNCATION_MARK.as_bytes());
        }
        let line = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun.clear();
        self.begun.shrink_to(BUFFER_KEPT_BYTES);
        (self.is_cut, self.returned, self.was_late, self.due) = (false, false, false, None);
        let shown = self.shown.take();
        (shown.as_ref() != Some(&line)).then_some(line)
    }

    /// End of the begun line, without a character whose last bytes are missing.
    fn tail(&self) -> String {
        let whole = &self.begun[..whole_characters(&self.begun)];
        let hidden = whole.len().saturating_sub(LOG_UNFINISHED_BYTES_MAX);
        let text = String::from_utf8_lossy(&whole[hidden..]);
        if hidden == 0 { text.into_owned() } else { format!("... {}", text.trim_start_matches('\u{fffd}')) }
    }
}

/// Length of the bytes without a character that is cut off at their end.
pub(in crate::cluster) fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    // A UTF-8 character has up to four bytes: the lead byte of an incomplete one is among the last three.
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
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    fn cutting() -> LineSplitter {
        LineSplitter::new(LongLines::Cut)
    }

    fn push(splitter: &mut LineSplitter, bytes: &[u8]) -> Vec<String> {
        splitter.push(Instant::now(), bytes)
    }

    #[test]
    fn lines_are_returned_once_they_are_complete() {
        let mut splitter = cutting();
        assert_eq!(push(&mut splitter, b"one\ntw"), ["one"]);
        assert_eq!(push(&mut splitter, b"o\r\n\nthree"), ["two", ""]);
        assert_eq!(splitter.end().as_deref(), Some("three"));
        assert_eq!(splitter.end(), None);
    }

    #[test]
    fn a_carriage_return_restarts_the_line() {
        let mut splitter = cutting();
        assert_eq!(push(&mut splitter, b"1 %\r50 %\r100 %\n"), ["100 %"]);
        assert_eq!(push(&mut splitter, b"\r1 %"), [""; 0]);
        assert_eq!(push(&mut splitter, b"\r2 %\r"), [""; 0]);
        assert_eq!(push(&mut splitter, b"\r\nnext\r"), ["2 %"]);
        assert_eq!(push(&mut splitter, b"over\n"), ["over"]);
    }

    #[test]
    fn a_progress_bar_never_fills_a_line() {
        let mut splitter = cutting();
        for percent in 0..100_000 {
            assert!(push(&mut splitter, format!("\r{percent} %").as_bytes()).is_empty());
        }
        assert_eq!(push(&mut splitter, b"\n"), ["99999 %"]);
    }

    #[test]
    fn an_unfinished_line_is_shown_when_it_is_due_and_not_twice() {
        let mut splitter = cutting();
        let start = Instant::now();
        assert!(splitter.push(start, b"name: ").is_empty());
        let due = splitter.due().unwrap();
        assert_eq!(due - start, LOG_UNFINISHED_AFTER);
        assert_eq!(splitter.unfinished(start), None);
        assert_eq!(splitter.unfinished(due).as_deref(), Some("name: "));
        assert_eq!((splitter.due(), splitter.as_it_stands()), (None, None));
        assert_eq!(splitter.push(due, b"\nage: "), [""; 0], "it was shown as it is");
        assert_eq!(splitter.as_it_stands().as_deref(), Some("age: "));
        assert_eq!(splitter.push(due, b"7\n"), ["age: 7"]);
        assert_eq!(splitter.due(), None);
    }

    #[test]
    fn an_unfinished_line_without_a_receiver_is_due_again_and_shown_when_it_ends() {
        let mut splitter = cutting();
        let start = Instant::now();
        splitter.push(start, b"name: ");
        assert_eq!(splitter.as_it_stands().as_deref(), Some("name: "));
        splitter.not_shown(start);
        let due = splitter.due().unwrap();
        assert_eq!(splitter.unfinished(due).as_deref(), Some("name: "));
        splitter.not_shown(due);
        assert_eq!(splitter.push(due, b"\n"), ["name: "]);
        splitter.not_shown(due);
        assert_eq!(splitter.due(), None);
    }

    #[test]
    fn a_line_gets_more_time_when_this_process_was_not_running() {
        let mut splitter = cutting();
        splitter.push(Instant::now(), b"w1|2");
        let woken = splitter.due().unwrap() + 10 * LATE;
        assert_eq!(splitter.unfinished(woken), None);
        assert_eq!(splitter.push(woken, b"|3\n"), ["w1|2|3"]);
        splitter.push(woken, b"w1|2");
        let woken = splitter.due().unwrap() + 10 * LATE;
        assert_eq!(splitter.unfinished(woken), None);
        assert_eq!(splitter.unfinished(woken + 10 * LATE).as_deref(), Some("w1|2"));
    }

    #[test]
    fn the_end_of_a_long_unfinished_line_is_shown() {
        let mut splitter = cutting();
        push(&mut splitter, "\u{20ac}".repeat(LOG_UNFINISHED_BYTES_MAX).as_bytes());
        let shown = splitter.as_it_stands().unwrap();
        assert!(shown.starts_with("... \u{20ac}") && shown.len() <= LOG_UNFINISHED_BYTES_MAX + 4, "{shown}");
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_marked() {
        let mut splitter = cutting();
        let long = format!("{}\u{20ac}uro", "x".repeat(LOG_LINE_BYTES_MAX - 1));
        assert!(push(&mut splitter, long.as_bytes()).is_empty());
        assert!(push(&mut splitter, long.as_bytes()).is_empty());
        let expected = format!("{}{TRUNCATION_MARK}", "x".repeat(LOG_LINE_BYTES_MAX - 1));
        assert_eq!(push(&mut splitter, b"\nnext\n"), [expected, "next".to_owned()]);
        assert_eq!(push(&mut splitter, "y".repeat(LOG_LINE_BYTES_MAX).as_bytes()), [""; 0]);
        assert_eq!(push(&mut splitter, b"\n"), ["y".repeat(LOG_LINE_BYTES_MAX)]);
    }

    #[test]
    fn a_long_line_without_a_log_is_broken_between_characters() {
        let mut splitter = LineSplitter::new(LongLines::Break);
        let long = format!("{}\u{20ac}uro", "x".repeat(OUTPUT_LINE_BYTES_MAX - 1));
        assert_eq!(push(&mut splitter, long.as_bytes()), ["x".repeat(OUTPUT_LINE_BYTES_MAX - 1)]);
        assert_eq!(push(&mut splitter, b"\nnext\n"), ["\u{20ac}uro", "next"]);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(push(&mut cutting(), b"a\xffb\n"), ["a\u{fffd}b"]);
        assert_eq!(whole_characters(b"\x80\x80\x80\x80"), 4);
        assert_eq!(whole_characters("a\u{1f600}".as_bytes()), 5);
        assert_eq!(whole_characters(&"a\u{1f600}".as_bytes()[..4]), 1);
        assert_eq!(whole_characters(b""), 0);
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn lines_do_not_depend_on_how_the_bytes_are_split(text in "[a-c\u{20ac}\r\n]{0,60}", cuts in prop::collection::vec(0..200usize, 0..5)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut splitter = cutting();
            let mut lines: Vec<_> = cuts.windows(2).flat_map(|cut| push(&mut splitter, &bytes[cut[0]..cut[1]])).collect();
            lines.extend(splitter.end());
            let mut whole = cutting();
            let mut expected = push(&mut whole, bytes);
            expected.extend(whole.end());
            prop_assert_eq!(&lines, &expected);
            let plain: Vec<_> = text.lines().map(str::to_owned).collect();
            prop_assert!(text.contains('\r') || lines == plain);
        }
    }
}
