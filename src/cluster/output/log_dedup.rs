//! Lines of many processes for one terminal: each with its source, and what many of them print only once.
//!
//! Lines of one process are never folded against each other. A text is shown when it comes for the first
//! time, and again for the process that prints it more often than it was shown by then. What else comes of it
//! within the window is counted, and told in one line when the window ends. It reads no clock and writes
//! nowhere: both are the caller's.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::model::NodeId;
use crate::cluster::protocol::Stream;
use crate::config::{FOLDED_COUNTS_MAX, FOLDED_LINE_BYTES_MAX, LOG_DEDUP_ENTRIES_MAX, LOG_DEDUP_WINDOW};

/// A process that prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it runs.
    pub(crate) node: NodeId,
    /// Its number there.
    pub(crate) pid: u32,
}

/// What was printed lately.
#[derive(Debug)]
pub(crate) struct LineDeduplicator {
    /// Whether lines are folded at all.
    enabled: bool,
    texts: [HashMap<Arc<str>, Recent>; 2],
    /// The texts by the ends of their windows, which all have the same length.
    windows: VecDeque<(Instant, Stream, Arc<str>)>,
    /// How many counts all texts have together.
    counts: usize,
}

/// Occurrences of a text within its window.
#[derive(Debug, Default)]
struct Recent {
    /// How often it was shown.
    shown: u64,
    /// How often each process has printed it.
    printed: Vec<(Source, u64)>,
    /// How often it came and was not shown, and from where the last time.
    folded: u64,
    label: String,
}

/// A line to be shown, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputLine {
    /// Where it was printed.
    pub(crate) stream: Stream,
    /// The line, safe for a terminal.
    pub(crate) line: String,
}

impl Recent {
    /// Counts a line of `source`; gives whether it is to be shown, and whether the source is a new one.
    fn print(&mut self, source: Source) -> (bool, bool) {
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
        let is_shown = times > self.shown;
        self.shown += u64::from(is_shown);
        (is_shown, is_new)
    }
}

impl LineDeduplicator {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, texts: Default::default(), windows: VecDeque::new(), counts: 0 }
    }

    /// Takes a line of `source`, which is called `label`, such as `Node pid=123, node=ab12`; adds what is to
    /// be shown.
    pub(crate) fn line(
        &mut self,
        now: Instant,
        source: Source,
        label: &str,
        text: &str,
        stream: Stream,
        out: &mut Vec<OutputLine>,
    ) {
        self.flush(now, out);
        // Nothing is gained by counting empty lines, and long ones take memory for the whole window.
        if !self.enabled || text.len() > FOLDED_LINE_BYTES_MAX || text.trim().is_empty() {
            return out.push(shown(label, text, stream, 1));
        }
        if self.counts >= FOLDED_COUNTS_MAX {
            self.end_first_window(out);
        }
        if let Some(recent) = self.texts[stream as usize].get_mut(text) {
            let (is_shown, is_new) = recent.print(source);
            self.counts += usize::from(is_new);
            if is_shown {
                return out.push(shown(label, text, stream, 1));
            }
            recent.folded += 1;
            recent.label.clear();
            recent.label.push_str(label);
            return;
        }
        if self.windows.len() >= LOG_DEDUP_ENTRIES_MAX {
            self.end_first_window(out);
        }
        out.push(shown(label, text, stream, 1));
        self.counts += 1;
        let recent = Recent { shown: 1, printed: vec![(source, 1)], ..Recent::default() };
        let text: Arc<str> = text.into();
        self.windows.push_back((now + LOG_DEDUP_WINDOW, stream, Arc::clone(&text)));
        self.texts[stream as usize].insert(text, recent);
    }

    /// Takes a line that is not finished, as it stands: it is never folded.
    pub(crate) fn unfinished(&self, label: &str, text: &str, stream: Stream, out: &mut Vec<OutputLine>) {
        out.push(shown(label, text, stream, 1));
    }

    /// Until when [`LineDeduplicator::flush`] has to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.windows.front().map(|(end, ..)| *end)
    }

    /// Adds what is to be shown of windows that have ended.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut Vec<OutputLine>) {
        while self.deadline().is_some_and(|end| end <= now) {
            self.end_first_window(out);
        }
    }

    /// Adds all that was counted and not shown, as at the end.
    pub(crate) fn finish(&mut self, out: &mut Vec<OutputLine>) {
        while !self.windows.is_empty() {
            self.end_first_window(out);
        }
    }

    /// Ends the window that ends first.
    fn end_first_window(&mut self, out: &mut Vec<OutputLine>) {
        let Some((_, stream, text)) = self.windows.pop_front() else { return };
        let Some(recent) = self.texts[stream as usize].remove(&text) else { return };
        self.counts -= recent.printed.len();
        if recent.folded > 0 {
            out.push(shown(&recent.label, &text, stream, recent.folded));
        }
    }
}

fn shown(label: &str, text: &str, stream: Stream, times: u64) -> OutputLine {
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

/// Adds text whose control characters a terminal shows and does not obey, as `cat -v` does. Colours stay,
/// if they may, and end with the text.
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
        // Progress bars erase the line that they write anew.
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

/// Text of a log for a terminal, which obeys nothing in it but colours. They end with their line.
///
/// Of a line that carriage returns have written anew, as those of progress bars are, the last state is left.
#[cfg(feature = "cli")]
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let line = line.trim_end_matches('\r');
        push_sanitised(&mut shown, line.rsplit('\r').next().unwrap_or(line), true);
        shown.push_str(end);
    }
    shown
}

/// The length of the control sequence that the text begins with, if it ends in `last`; 0 if there is none.
///
/// By ECMA-48 a sequence that ends in `m` sets a colour (SGR), one that ends in `K` erases in the line (EL).
fn sequence_length(text: &str, last: u8) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    let is_parameter = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
    let length = parameters.bytes().take_while(|byte| is_parameter(byte)).count();
    if parameters.as_bytes().get(length) == Some(&last) { length + 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A terminal whose clock is moved by hand.
    struct Terminal {
        folding: LineDeduplicator,
        now: Instant,
        out: Vec<OutputLine>,
    }

    impl Terminal {
        fn new() -> Self {
            Self { folding: LineDeduplicator::new(true), now: Instant::now(), out: Vec::new() }
        }

        /// A process prints, which is called by its number.
        fn print(&mut self, pid: u32, text: &str) {
            self.print_as(pid, &pid.to_string(), text);
        }

        fn print_as(&mut self, pid: u32, label: &str, text: &str) {
            let source = Source { node: NodeId(1), pid };
            self.folding.line(self.now, source, label, text, Stream::Out, &mut self.out);
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            self.folding.flush(self.now, &mut self.out);
        }

        #[track_caller]
        fn check(&mut self, expected: &[&str]) {
            let lines: Vec<_> = self.out.drain(..).map(|shown| shown.line).collect();
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn a_text_is_shown_at_once_with_its_source() {
        let mut terminal = Terminal::new();
        terminal.print_as(123, "Node pid=123, node=ab12", "hello");
        terminal.check(&["(Node pid=123, node=ab12) hello"]);
    }

    #[test]
    fn what_many_say_is_shown_once_and_then_counted() {
        let mut terminal = Terminal::new();
        for pid in 0..13 {
            terminal.print(pid, "ready");
        }
        terminal.check(&["(0) ready"]);
        terminal.pass(4);
        terminal.check(&[]);
        terminal.pass(1);
        terminal.check(&["(12) ready [repeated 12x across the cluster]"]);
        assert_eq!((terminal.folding.deadline(), terminal.folding.counts), (None, 0));
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
    fn a_process_that_prints_a_text_more_often_than_it_was_shown_has_the_rest_shown() {
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
    fn processes_of_one_number_on_two_nodes_are_two() {
        let mut terminal = Terminal::new();
        terminal.print(1, "tick");
        let elsewhere = Source { node: NodeId(2), pid: 1 };
        terminal.folding.line(terminal.now, elsewhere, "b", "tick", Stream::Out, &mut terminal.out);
        terminal.check(&["(1) tick"]);
    }

    #[test]
    fn nothing_is_folded_where_that_is_turned_off_and_no_line_that_is_unfinished() {
        let mut terminal = Terminal::new();
        terminal.folding.unfinished("1", "50 %", Stream::Out, &mut terminal.out);
        terminal.folding.unfinished("2", "50 %", Stream::Out, &mut terminal.out);
        terminal.check(&["(1) 50 %", "(2) 50 %"]);
        terminal.folding = LineDeduplicator::new(false);
        terminal.print(1, "tick");
        terminal.print(2, "tick");
        terminal.check(&["(1) tick", "(2) tick"]);
    }

    #[test]
    fn long_lines_are_not_folded() {
        let mut terminal = Terminal::new();
        let long = "x".repeat(FOLDED_LINE_BYTES_MAX + 1);
        terminal.print(1, &long);
        terminal.print(2, &long);
        terminal.check(&[&format!("(1) {long}"), &format!("(2) {long}")]);
        assert_eq!(terminal.folding.counts, 0);
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
        assert_eq!(terminal.folding.deadline(), None);
    }

    #[test]
    fn streams_are_told_apart_and_empty_lines_are_not_folded() {
        let mut terminal = Terminal::new();
        let other = Source { node: NodeId(1), pid: 2 };
        terminal.folding.line(terminal.now, other, "2", "x", Stream::Err, &mut terminal.out);
        terminal.print(1, "x");
        terminal.print(1, "");
        terminal.print(2, "");
        let streams: Vec<_> = terminal.out.iter().map(|shown| shown.stream).collect();
        assert_eq!(streams, [Stream::Err, Stream::Out, Stream::Out, Stream::Out]);
        terminal.check(&["(2) x", "(1) x", "(1) ", "(2) "]);
    }

    #[test]
    fn at_the_end_nothing_that_was_counted_is_missing() {
        let mut terminal = Terminal::new();
        for (pid, text) in [(1, "x"), (1, "y"), (2, "x"), (3, "x"), (2, "y"), (2, "z")] {
            terminal.print(pid, text);
        }
        terminal.folding.finish(&mut terminal.out);
        terminal.check(&["(1) x", "(1) y", "(2) z", "(3) x [repeated 2x across the cluster]", "(2) y"]);
        assert_eq!(terminal.folding.deadline(), None);
    }

    #[test]
    fn no_more_texts_are_remembered_than_the_bound_says() {
        let mut terminal = Terminal::new();
        for pid in 1..4 {
            terminal.print(pid, "first");
        }
        for number in 0..LOG_DEDUP_ENTRIES_MAX {
            terminal.print(1, &format!("text {number}"));
        }
        assert_eq!(terminal.folding.texts[0].len(), LOG_DEDUP_ENTRIES_MAX);
        assert_eq!(terminal.folding.windows.len(), LOG_DEDUP_ENTRIES_MAX);
        let told =
            terminal.out.iter().any(|shown| shown.line == "(3) first [repeated 2x across the cluster]");
        assert!(told, "what is given up is told first");
        let processes = FOLDED_COUNTS_MAX / LOG_DEDUP_ENTRIES_MAX + 10;
        for pid in 0..u32::try_from(processes).unwrap() {
            for number in 0..LOG_DEDUP_ENTRIES_MAX {
                terminal.print(pid, &format!("text {number}"));
            }
        }
        assert!(terminal.folding.counts <= FOLDED_COUNTS_MAX, "{}", terminal.folding.counts);
    }

    #[test]
    fn colours_stay_and_other_control_characters_do_no_harm() {
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
    fn lines_of_a_log_do_no_harm_to_a_terminal() {
        let text = "one\r\n\x1b[31mred\n\x1b]0;title\x07\u{9b}2J\n10 %\r50 %\r90 %\r\n\nno end\x08";
        let shown = "one\n\x1b[31mred\x1b[0m\n^[]0;title^G\\u{9b}2J\n90 %\n\nno end^H";
        assert_eq!(harmless(text), shown);
    }

    proptest! {
        #[test]
        fn whatever_comes_only_colours_reach_the_terminal(text in "[\\x00-\\x20\\x7f-\\xa0\\[0-9;m]{0,40}") {
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

        /// Every line is shown or counted, once.
        #[test]
        fn no_line_is_lost_or_told_twice(steps in prop::collection::vec((0..3u32, 0..5u8, 0..4u64), 0..200)) {
            let mut terminal = Terminal::new();
            let count = steps.len() as u64;
            for (pid, text, seconds) in steps {
                terminal.print(pid, &format!("text {text}"));
                terminal.pass(seconds);
            }
            terminal.folding.finish(&mut terminal.out);
            let times = |line: &str| match line.split_once("repeated ") {
                Some((_, rest)) => rest.split('x').next().unwrap().parse::<u64>().unwrap(),
                None => 1,
            };
            prop_assert_eq!(terminal.out.iter().map(|shown| times(&shown.line)).sum::<u64>(), count);
        }
    }
}
