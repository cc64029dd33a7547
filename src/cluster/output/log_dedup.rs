//! Deduplication of equal lines that several processes print within a few seconds.
//!
//! ```text
//!   time        0 s          1 s          2 s                       5 s: the window ends
//!   prints      A: ready     B: ready     C: ready
//!   shows       (A) ready                                           (C) ready [repeated 2x across the cluster]
//! ```
//!
//! The first line with a text opens a window and is shown. Later ones are counted, and the count is shown when the
//! window ends. Lines of one process are never folded against each other. If it prints a text more often than it was
//! shown by then, the surplus is shown. This module reads no clock and writes nowhere.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::model::NodeId;
use crate::cluster::protocol::Stream;
use crate::config::{
    LOG_DEDUP_COUNTS_MAX, LOG_DEDUP_ENTRIES_MAX, LOG_DEDUP_LINE_BYTES_MAX, LOG_DEDUP_WINDOW,
};

/// Process that prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineSource {
    /// Node that it runs on.
    pub(crate) node: NodeId,
    /// Pid on the node.
    pub(crate) pid: u32,
}

/// Deduplicator with the texts that were printed lately.
#[derive(Debug)]
pub(crate) struct LineDeduplicator {
    /// Lines are folded; otherwise all are shown.
    enabled: bool,
    /// Texts with an open window, by stream.
    texts: [HashMap<Arc<str>, Recent>; 2],
    /// Texts in the order in which their windows end; all windows have the same length.
    windows: VecDeque<(Instant, Stream, Arc<str>)>,
    /// Number of (text, process) pairs counted; it bounds the memory.
    counts: usize,
}

/// Occurrences of a text within its window.
#[derive(Debug, Default)]
struct Recent {
    /// Number of times that it was shown.
    shown: u64,
    /// Number of times that each process printed it.
    printed: Vec<(LineSource, u64)>,
    /// Number of times that it was printed and not shown.
    folded: u64,
    /// Label of the last process whose line was not shown.
    label: String,
}

/// Line to be shown, without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputLine {
    /// Stream on which it was printed.
    pub(crate) stream: Stream,
    /// Text, safe for a terminal.
    pub(crate) line: String,
}

impl Recent {
    /// Counts a line of `source`; returns whether to show it, and whether the source is new for this text.
    fn print(&mut self, source: LineSource) -> (bool, bool) {
        let known = self.printed.iter_mut().find(|(printer, _)| *printer == source);
        let (times, is_new) = match known {
            Some((_, times)) => {
                *times += 1;
                (*times, false)
            }
            None => {
                self.printed.push((source, 1));
                (1, true)
            }
        };
        let is_surplus = times > self.shown;
        self.shown += u64::from(is_surplus);
        (is_surplus, is_new)
    }
}

impl LineDeduplicator {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, texts: Default::default(), windows: VecDeque::new(), counts: 0 }
    }

    /// Takes a line of `source`, labelled for example `Node pid=123, node=ab12`, and adds the lines to show.
    pub(crate) fn line(
        &mut self,
        now: Instant,
        source: LineSource,
        label: &str,
        text: &str,
        stream: Stream,
        out: &mut Vec<OutputLine>,
    ) {
        self.flush(now, out);
        // Empty lines are not worth a count, and a long text would be held in memory for the whole window.
        if !self.enabled || text.len() > LOG_DEDUP_LINE_BYTES_MAX || text.trim().is_empty() {
            return out.push(output_line(label, text, stream, 1));
        }
        // At a limit the oldest window ends early: its count is shown now, so no line is lost.
        if self.counts >= LOG_DEDUP_COUNTS_MAX {
            self.end_first_window(out);
        }
        if let Some(recent) = self.texts[stream as usize].get_mut(text) {
            let (is_surplus, is_new) = recent.print(source);
            self.counts += usize::from(is_new);
            if is_surplus {
                return out.push(output_line(label, text, stream, 1));
            }
            recent.folded += 1;
            recent.label.clear();
            recent.label.push_str(label);
            return;
        }
        if self.windows.len() >= LOG_DEDUP_ENTRIES_MAX {
            self.end_first_window(out);
        }
        out.push(output_line(label, text, stream, 1));
        self.counts += 1;
        let recent = Recent { shown: 1, printed: vec![(source, 1)], ..Recent::default() };
        let text: Arc<str> = text.into();
        self.windows.push_back((now + LOG_DEDUP_WINDOW, stream, Arc::clone(&text)));
        self.texts[stream as usize].insert(text, recent);
    }

    /// Takes an unfinished line as it stands; such a line is never folded.
    pub(crate) fn unfinished(&self, label: &str, text: &str, stream: Stream, out: &mut Vec<OutputLine>) {
        out.push(output_line(label, text, stream, 1));
    }

    /// Deadline at which [`LineDeduplicator::flush`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.windows.front().map(|(end, ..)| *end)
    }

    /// Adds the counts of windows that have ended.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut Vec<OutputLine>) {
        while self.deadline().is_some_and(|end| end <= now) {
            self.end_first_window(out);
        }
    }

    /// Ends all windows and adds their counts.
    pub(crate) fn finish(&mut self, out: &mut Vec<OutputLine>) {
        while !self.windows.is_empty() {
            self.end_first_window(out);
        }
    }

    /// Ends the oldest window.
    fn end_first_window(&mut self, out: &mut Vec<OutputLine>) {
        let Some((_, stream, text)) = self.windows.pop_front() else { return };
        let Some(recent) = self.texts[stream as usize].remove(&text) else { return };
        self.counts -= recent.printed.len();
        if recent.folded > 0 {
            out.push(output_line(&recent.label, &text, stream, recent.folded));
        }
    }
}

fn output_line(label: &str, text: &str, stream: Stream, times: u64) -> OutputLine {
    let mut line = String::with_capacity(label.len() + text.len() + 3);
    line.push('(');
    push_sanitised(&mut line, label, false);
    line.push_str(") ");
    push_sanitised(&mut line, text, true);
    if times > 1 {
        // Writing to a string does not fail.
        let _ = write!(line, " [repeated {times}x across the cluster]");
    }
    OutputLine { stream, line }
}

/// Appends text with its control characters made visible, as by `cat -v`, so that it cannot control the terminal.
/// Colour sequences are kept if `may_colour`, and reset at the end of the text.
fn push_sanitised(line: &mut String, text: &str, may_colour: bool) {
    let mut is_coloured = false;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
        line.push_str(&rest[..at]);
        rest = &rest[at..];
        let colour = if may_colour { sequence_length(rest, b'm') } else { 0 };
        if colour > 0 {
            line.push_str(&rest[..colour]);
            rest = &rest[colour..];
            is_coloured = true;
            continue;
        }
        // Progress bars erase the line before they rewrite it; here each state is a line of its own.
        let erasing = sequence_length(rest, b'K');
        if erasing > 0 {
            rest = &rest[erasing..];
            continue;
        }
        let mut characters = rest.chars();
        match characters.next() {
            Some(control @ '\0'..='\x1f') => line.extend(['^', char::from(control as u8 + b'@')]),
            Some('\x7f') => line.push_str("^?"),
            Some(control) => line.extend(control.escape_unicode()),
            None => {}
        }
        rest = characters.as_str();
    }
    line.push_str(rest);
    if is_coloured {
        line.push_str("\x1b[0m");
    }
}

/// Text of a log made safe for a terminal; colours are kept, and reset at the end of each line.
///
/// Of a line that carriage returns restart, such as a progress bar, the last state is left.
#[cfg(feature = "cli")]
pub(crate) fn sanitised(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let line = line.trim_end_matches('\r');
        push_sanitised(&mut shown, line.rsplit('\r').next().unwrap_or(line), true);
        shown.push_str(end);
    }
    shown
}

/// Length of the control sequence at the start of the text, if its final byte is `last`; otherwise 0.
///
/// In ECMA-48 the final byte `m` selects colours (SGR), and `K` erases in the line (EL).
fn sequence_length(text: &str, last: u8) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    let is_parameter = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
    let length = parameters.bytes().take_while(|byte| is_parameter(byte)).count();
    if parameters.as_bytes().get(length) == Some(&last) { length + 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    /// Deduplicator whose clock is moved by hand.
    struct Terminal {
        dedup: LineDeduplicator,
        now: Instant,
        out: Vec<OutputLine>,
    }

    impl Terminal {
        fn new() -> Self {
            Self { dedup: LineDeduplicator::new(true), now: Instant::now(), out: Vec::new() }
        }

        /// Prints a line of the process with this pid, labelled with the pid.
        fn print(&mut self, pid: u32, text: &str) {
            self.print_as(pid, &pid.to_string(), text);
        }

        fn print_as(&mut self, pid: u32, label: &str, text: &str) {
            let source = LineSource { node: NodeId(1), pid };
            self.dedup.line(self.now, source, label, text, Stream::Out, &mut self.out);
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            self.dedup.flush(self.now, &mut self.out);
        }

        #[track_caller]
        fn check(&mut self, expected: &[&str]) {
            let lines: Vec<_> = self.out.drain(..).map(|shown| shown.line).collect();
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn a_new_text_is_shown_immediately_with_its_source() {
        let mut terminal = Terminal::new();
        terminal.print_as(123, "Node pid=123, node=ab12", "hello");
        terminal.check(&["(Node pid=123, node=ab12) hello"]);
    }

    #[test]
    fn a_text_of_many_processes_is_shown_once_and_then_counted() {
        let mut terminal = Terminal::new();
        for pid in 0..13 {
            terminal.print(pid, "ready");
        }
        terminal.check(&["(0) ready"]);
        terminal.pass(4);
        terminal.check(&[]);
        terminal.pass(1);
        terminal.check(&["(12) ready [repeated 12x across the cluster]"]);
        assert_eq!((terminal.dedup.deadline(), terminal.dedup.counts), (None, 0));
    }

    #[test]
    fn equal_lines_of_one_process_are_all_shown() {
        let mut terminal = Terminal::new();
        for text in ["+---+", "| a |", "+---+", "| b |", "+---+"] {
            terminal.print(1, text);
        }
        terminal.check(&["(1) +---+", "(1) | a |", "(1) +---+", "(1) | b |", "(1) +---+"]);
        terminal.pass(5);
        terminal.check(&[]);
    }

    #[test]
    fn surplus_repetitions_of_one_process_are_shown() {
        let mut terminal = Terminal::new();
        terminal.print(1, "tick");
        terminal.print(2, "tick");
        terminal.print(2, "tick");
        terminal.print(1, "tick");
        terminal.print(1, "tick");
        terminal.check(&["(1) tick", "(2) tick", "(1) tick"]);
        terminal.pass(5);
        terminal.check(&["(1) tick [repeated 2x across the cluster]"]);
    }

    #[test]
    fn equal_pids_on_two_nodes_are_two_processes() {
        let mut terminal = Terminal::new();
        terminal.print(1, "tick");
        let elsewhere = LineSource { node: NodeId(2), pid: 1 };
        terminal.dedup.line(terminal.now, elsewhere, "b", "tick", Stream::Out, &mut terminal.out);
        terminal.check(&["(1) tick"]);
    }

    #[test]
    fn folding_can_be_turned_off_and_never_affects_unfinished_lines() {
        let mut terminal = Terminal::new();
        terminal.dedup.unfinished("1", "50 %", Stream::Out, &mut terminal.out);
        terminal.dedup.unfinished("2", "50 %", Stream::Out, &mut terminal.out);
        terminal.check(&["(1) 50 %", "(2) 50 %"]);
        terminal.dedup = LineDeduplicator::new(false);
        terminal.print(1, "tick");
        terminal.print(2, "tick");
        terminal.check(&["(1) tick", "(2) tick"]);
    }

    #[test]
    fn long_lines_are_not_folded() {
        let mut terminal = Terminal::new();
        let long = "x".repeat(LOG_DEDUP_LINE_BYTES_MAX + 1);
        terminal.print(1, &long);
        terminal.print(2, &long);
        terminal.check(&[&format!("(1) {long}"), &format!("(2) {long}")]);
        assert_eq!(terminal.dedup.counts, 0);
        terminal.print(1, &long[1..]);
        terminal.print(2, &long[1..]);
        terminal.check(&[&format!("(1) {}", &long[1..])]);
    }

    #[test]
    fn a_single_repetition_is_shown_as_it_was() {
        let mut terminal = Terminal::new();
        terminal.print(1, "twice");
        terminal.print(2, "twice");
        terminal.pass(5);
        terminal.check(&["(1) twice", "(2) twice"]);
        assert_eq!(terminal.dedup.deadline(), None);
    }

    #[test]
    fn streams_are_separate_and_empty_lines_are_not_folded() {
        let mut terminal = Terminal::new();
        let other = LineSource { node: NodeId(1), pid: 2 };
        terminal.dedup.line(terminal.now, other, "2", "x", Stream::Err, &mut terminal.out);
        terminal.print(1, "x");
        terminal.print(1, "");
        terminal.print(2, "");
        let streams: Vec<_> = terminal.out.iter().map(|shown| shown.stream).collect();
        assert_eq!(streams, [Stream::Err, Stream::Out, Stream::Out, Stream::Out]);
        terminal.check(&["(2) x", "(1) x", "(1) ", "(2) "]);
    }

    #[test]
    fn all_counts_are_shown_at_the_end() {
        let mut terminal = Terminal::new();
        for (pid, text) in [(1, "x"), (1, "y"), (2, "x"), (3, "x"), (2, "y"), (2, "z")] {
            terminal.print(pid, text);
        }
        terminal.dedup.finish(&mut terminal.out);
        terminal.check(&["(1) x", "(1) y", "(2) z", "(3) x [repeated 2x across the cluster]", "(2) y"]);
        assert_eq!(terminal.dedup.deadline(), None);
    }

    #[test]
    fn memory_for_texts_and_counts_is_bounded() {
        let mut terminal = Terminal::new();
        for pid in 1..4 {
            terminal.print(pid, "first");
        }
        for number in 0..LOG_DEDUP_ENTRIES_MAX {
            terminal.print(1, &format!("text {number}"));
        }
        assert_eq!(terminal.dedup.texts[0].len(), LOG_DEDUP_ENTRIES_MAX);
        assert_eq!(terminal.dedup.windows.len(), LOG_DEDUP_ENTRIES_MAX);
        let shown =
            terminal.out.iter().any(|shown| shown.line == "(3) first [repeated 2x across the cluster]");
        assert!(shown, "the count of an evicted text is shown first");
        let processes = LOG_DEDUP_COUNTS_MAX / LOG_DEDUP_ENTRIES_MAX + 10;
        for pid in 0..u32::try_from(processes).unwrap() {
            for number in 0..LOG_DEDUP_ENTRIES_MAX {
                terminal.print(pid, &format!("text {number}"));
            }
        }
        assert!(terminal.dedup.counts <= LOG_DEDUP_COUNTS_MAX, "{}", terminal.dedup.counts);
    }

    #[test]
    fn colours_are_kept_and_other_control_characters_are_made_visible() {
        let mut terminal = Terminal::new();
        terminal.print_as(1, "a", "\x1b[1;31mred\x1b[m and\tplain");
        terminal.print_as(1, "a", "\x1b]0;title\x07 \x1b[2J\r\x08 \x7f \u{9b}31m \x1b[31");
        terminal.print_as(1, "\x1b[31ma\n", "b");
        terminal.print_as(1, "a", "\x1b[2K50 %\x1b[K");
        terminal.check(&[
            "(a) \x1b[1;31mred\x1b[m and\tplain\x1b[0m",
            "(a) ^[]0;title^G ^[[2J^M^H ^? \\u{9b}31m ^[[31",
            "(^[[31ma^J) b",
            "(a) 50 %",
        ]);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn text_of_a_log_is_safe_for_a_terminal() {
        let text = "one\r\n\x1b[31mred\n\x1b]0;title\x07\u{9b}2J\n10 %\r50 %\r90 %\r\n\nno end\x08";
        let shown = "one\n\x1b[31mred\x1b[0m\n^[]0;title^G\\u{9b}2J\n90 %\n\nno end^H";
        assert_eq!(sanitised(text), shown);
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn only_colours_reach_the_terminal(text in "[\\x00-\\x20\\x7f-\\xa0\\[0-9;m]{0,40}") {
            let mut line = String::new();
            push_sanitised(&mut line, &text, true);
            let mut rest = line.as_str();
            while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
                rest = &rest[at..];
                let colour = sequence_length(rest, b'm');
                prop_assert!(colour > 0, "{line:?}");
                rest = &rest[colour..];
            }
        }

        /// Every line is shown or counted exactly once.
        #[test]
        fn no_line_is_lost_or_shown_twice(steps in prop::collection::vec((0..3u32, 0..5u8, 0..4u64), 0..200)) {
            let mut terminal = Terminal::new();
            let count = steps.len() as u64;
            for (pid, text, seconds) in steps {
                terminal.print(pid, &format!("text {text}"));
                terminal.pass(seconds);
            }
            terminal.dedup.finish(&mut terminal.out);
            let times = |line: &str| match line.split_once("repeated ") {
                Some((_, rest)) => rest.split('x').next().unwrap().parse::<u64>().unwrap(),
                None => 1,
            };
            prop_assert_eq!(terminal.out.iter().map(|shown| times(&shown.line)).sum::<u64>(), count);
        }
    }
}
