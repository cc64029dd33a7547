//! Lines of many processes for one terminal: each with its source, and the same text not again and again.
//!
//! A text is shown at once when it comes for the first time. What comes of it within the window is counted,
//! and told in one line when the window ends. It reads no clock and writes nowhere: both are the caller's.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use super::Stream;
use crate::config::{FOLD_WINDOW, FOLDED_TEXTS_MAX};

/// What was printed lately.
#[derive(Debug, Default)]
pub(crate) struct Folding {
    texts: HashMap<(Stream, Arc<str>), Repeated>,
    /// The texts by the ends of their windows, which all have the same length.
    windows: VecDeque<(Instant, Stream, Arc<str>)>,
}

/// What came of a text since it was last shown.
#[derive(Debug, Default)]
struct Repeated {
    times: u64,
    label: String,
}

/// A line to be shown, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Where it was printed.
    pub(crate) stream: Stream,
    /// The line, safe for a terminal.
    pub(crate) line: String,
}

impl Folding {
    /// Takes a line of the source `label`, such as `Node pid=123, node=ab12`, and adds what is to be shown.
    pub(crate) fn line(
        &mut self,
        now: Instant,
        label: &str,
        text: &str,
        stream: Stream,
        out: &mut Vec<Shown>,
    ) {
        self.flush(now, out);
        // Nothing is gained by counting empty lines.
        if text.trim().is_empty() {
            return out.push(shown(label, text, stream, 1));
        }
        let text: Arc<str> = text.into();
        if let Some(repeated) = self.texts.get_mut(&(stream, Arc::clone(&text))) {
            repeated.times += 1;
            repeated.label.clear();
            repeated.label.push_str(label);
            return;
        }
        if self.texts.len() >= FOLDED_TEXTS_MAX {
            self.end_first_window(None, out);
        }
        out.push(shown(label, &text, stream, 1));
        self.begin_window(now, stream, text);
    }

    /// Until when [`Folding::flush`] has to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.windows.front().map(|(end, ..)| *end)
    }

    /// Adds what is to be shown of windows that have ended.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut Vec<Shown>) {
        while self.deadline().is_some_and(|end| end <= now) {
            self.end_first_window(Some(now), out);
        }
    }

    /// Adds all that was counted and not shown: no line comes any more.
    pub(crate) fn finish(&mut self, out: &mut Vec<Shown>) {
        while !self.windows.is_empty() {
            self.end_first_window(None, out);
        }
    }

    /// Ends the window that ends first. What goes on repeating has another, if there is a time for it.
    fn end_first_window(&mut self, now: Option<Instant>, out: &mut Vec<Shown>) {
        let Some((_, stream, text)) = self.windows.pop_front() else { return };
        let Some(repeated) = self.texts.remove(&(stream, Arc::clone(&text))) else { return };
        if repeated.times > 0 {
            out.push(shown(&repeated.label, &text, stream, repeated.times));
        }
        if let (Some(now), true) = (now, repeated.times > 1) {
            self.begin_window(now, stream, text);
        }
    }

    fn begin_window(&mut self, now: Instant, stream: Stream, text: Arc<str>) {
        self.windows.push_back((now + FOLD_WINDOW, stream, Arc::clone(&text)));
        self.texts.insert((stream, text), Repeated::default());
    }
}

fn shown(label: &str, text: &str, stream: Stream, times: u64) -> Shown {
    let mut line = String::with_capacity(label.len() + text.len() + 3);
    line.push('(');
    push_harmless(&mut line, label, false);
    line.push_str(") ");
    push_harmless(&mut line, text, true);
    if times > 1 {
        // Writing to a string does not fail.
        let _ = write!(line, " [repeated {times}x across the cluster]");
    }
    Shown { stream, line }
}

/// Adds text whose control characters a terminal shows and does not obey, as `cat -v` does. Colours stay,
/// if they may, and end with the text.
fn push_harmless(line: &mut String, text: &str, may_colour: bool) {
    let mut is_coloured = false;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
        line.push_str(&rest[..at]);
        rest = &rest[at..];
        let colour = if may_colour { colour_length(rest) } else { 0 };
        if colour > 0 {
            line.push_str(&rest[..colour]);
            rest = &rest[colour..];
            is_coloured = true;
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

/// The length of the colour that the text begins with, as ECMA-48's SGR sets one; 0 if there is none.
fn colour_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    let is_parameter = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
    let length = parameters.bytes().take_while(|byte| is_parameter(byte)).count();
    if parameters.as_bytes().get(length) == Some(&b'm') { length + 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A terminal whose clock is moved by hand.
    struct Terminal {
        folding: Folding,
        now: Instant,
        out: Vec<Shown>,
    }

    impl Terminal {
        fn new() -> Self {
            Self { folding: Folding::default(), now: Instant::now(), out: Vec::new() }
        }

        fn print(&mut self, label: &str, text: &str) {
            self.folding.line(self.now, label, text, Stream::Out, &mut self.out);
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
        terminal.print("Node pid=123, node=ab12", "hello");
        terminal.check(&["(Node pid=123, node=ab12) hello"]);
    }

    #[test]
    fn what_many_say_is_shown_once_and_then_counted() {
        let mut terminal = Terminal::new();
        for pid in 0..13 {
            terminal.print(&format!("Node pid={pid}"), "ready");
        }
        terminal.check(&["(Node pid=0) ready"]);
        terminal.pass(4);
        terminal.check(&[]);
        terminal.pass(1);
        terminal.check(&["(Node pid=12) ready [repeated 12x across the cluster]"]);
    }

    #[test]
    fn what_goes_on_is_told_every_window_and_forgotten_after_a_quiet_one() {
        let mut terminal = Terminal::new();
        terminal.print("a", "tick");
        terminal.print("a", "tick");
        terminal.print("a", "tick");
        terminal.pass(5);
        terminal.check(&["(a) tick", "(a) tick [repeated 2x across the cluster]"]);
        terminal.print("b", "tick");
        terminal.print("b", "tick");
        terminal.pass(5);
        terminal.check(&["(b) tick [repeated 2x across the cluster]"]);
        terminal.pass(5);
        terminal.check(&[]);
        assert_eq!(terminal.folding.deadline(), None);
        terminal.print("c", "tick");
        terminal.check(&["(c) tick"]);
    }

    #[test]
    fn a_single_repetition_is_shown_as_it_was() {
        let mut terminal = Terminal::new();
        terminal.print("a", "twice");
        terminal.print("b", "twice");
        terminal.pass(5);
        terminal.check(&["(a) twice", "(b) twice"]);
        assert_eq!(terminal.folding.deadline(), None);
    }

    #[test]
    fn streams_are_told_apart_and_empty_lines_are_not_folded() {
        let mut terminal = Terminal::new();
        terminal.folding.line(terminal.now, "a", "x", Stream::Err, &mut terminal.out);
        terminal.print("a", "x");
        terminal.print("a", "");
        terminal.print("a", "");
        let streams: Vec<_> = terminal.out.iter().map(|shown| shown.stream).collect();
        assert_eq!(streams, [Stream::Err, Stream::Out, Stream::Out, Stream::Out]);
        terminal.check(&["(a) x", "(a) x", "(a) ", "(a) "]);
    }

    #[test]
    fn at_the_end_nothing_that_was_counted_is_missing() {
        let mut terminal = Terminal::new();
        for text in ["x", "y", "x", "x", "y", "z"] {
            terminal.print("a", text);
        }
        terminal.folding.finish(&mut terminal.out);
        terminal.check(&["(a) x", "(a) y", "(a) z", "(a) x [repeated 2x across the cluster]", "(a) y"]);
        assert_eq!(terminal.folding.deadline(), None);
    }

    #[test]
    fn no_more_texts_are_remembered_than_the_bound_says() {
        let mut terminal = Terminal::new();
        terminal.print("a", "first");
        terminal.print("b", "first");
        terminal.print("c", "first");
        for number in 0..FOLDED_TEXTS_MAX {
            terminal.print("a", &format!("text {number}"));
        }
        assert_eq!(terminal.folding.texts.len(), FOLDED_TEXTS_MAX);
        assert_eq!(terminal.folding.windows.len(), FOLDED_TEXTS_MAX);
        let told =
            terminal.out.iter().any(|shown| shown.line == "(c) first [repeated 2x across the cluster]");
        assert!(told, "what is given up is told first");
    }

    #[test]
    fn colours_stay_and_other_control_characters_do_no_harm() {
        let mut terminal = Terminal::new();
        terminal.print("a", "\x1b[1;31mred\x1b[m and\tplain");
        terminal.print("a", "\x1b]0;title\x07 \x1b[2J\r\x08 \x7f \u{9b}31m \x1b[31");
        terminal.print("\x1b[31ma\n", "b");
        terminal.check(&[
            "(a) \x1b[1;31mred\x1b[m and\tplain\x1b[0m",
            "(a) ^[]0;title^G ^[[2J^M^H ^? \\u{9b}31m ^[[31",
            "(^[[31ma^J) b",
        ]);
    }

    proptest! {
        #[test]
        fn whatever_comes_only_colours_reach_the_terminal(text in "[\\x00-\\x20\\x7f-\\xa0\\[0-9;m]{0,40}") {
            let mut line = String::new();
            push_harmless(&mut line, &text, true);
            let mut rest = line.as_str();
            while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
                rest = &rest[at..];
                let colour = colour_length(rest);
                prop_assert!(colour > 0, "{line:?}");
                rest = &rest[colour..];
            }
        }

        /// Every line is shown or counted, once.
        #[test]
        fn no_line_is_lost_or_told_twice(steps in prop::collection::vec((0..5u8, 0..4u64), 0..200)) {
            let mut terminal = Terminal::new();
            let count = steps.len() as u64;
            for (text, seconds) in steps {
                terminal.print("a", &format!("text {text}"));
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
