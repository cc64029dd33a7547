//! Where commands write to: what was asked for to one stream, what is said about it to another.

pub(super) mod rows;
pub(super) mod table;
pub(super) mod time;

use std::io::Write;

use roadshow::admin::harmless;
use serde::Serialize;

use crate::error::{CliError, CliResult};

/// The standard output and the standard error, or what stands for them.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) err: &'a mut dyn Write,
    /// Which of the two are terminals, which would obey control characters of a job.
    pub(crate) are_terminals: [bool; 2],
}

impl Output<'_> {
    /// Writes what was asked for.
    pub(crate) fn print(&mut self, text: &str) -> CliResult<()> {
        let printed = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        printed.map_err(|error| CliError::output(&error))
    }

    /// Writes what was asked for, as JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> CliResult<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| CliError::failed(error, ""))?;
        self.print(&format!("{}\n", escaped(&text)))
    }

    /// Writes what was asked for, as JSON on one line, of which more follow.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> CliResult<()> {
        let text = serde_json::to_string(value).map_err(|error| CliError::failed(error, ""))?;
        self.print(&format!("{}\n", escaped(&text)))
    }

    /// Writes what a driver has written: its errors stay errors.
    pub(crate) fn forward(&mut self, file: &str, text: &str) -> CliResult<()> {
        match file.ends_with(".err") {
            true => self.print_log_aside(text),
            false => self.print_log(text),
        }
    }

    /// Writes what a job or a daemon has written: byte for byte, but harmless where a terminal takes it.
    pub(crate) fn print_log(&mut self, text: &str) -> CliResult<()> {
        match self.are_terminals {
            [true, _] => self.print(&harmless(text)),
            [false, _] => self.print(text),
        }
    }

    /// The same to the standard error, for what has no place in the output.
    pub(crate) fn print_log_aside(&mut self, text: &str) -> CliResult<()> {
        let printed = match self.are_terminals {
            [_, true] => self.err.write_all(harmless(text).as_bytes()),
            [_, false] => self.err.write_all(text.as_bytes()),
        };
        printed.and_then(|()| self.err.flush()).map_err(|error| CliError::output(&error))
    }

    /// Says something about it.
    pub(crate) fn note(&mut self, text: &str) {
        // Nobody is left to be told that it cannot be said.
        let _ = writeln!(self.err, "{text}");
    }
}

/// JSON in which no control character stands as it is: those behind ASCII a terminal may obey, too.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // All before them are escaped in strings by then, and end lines elsewhere.
            '\u{7f}'..='\u{9f}' => escaped.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_control_characters_and_reads_as_before() {
        let text = "a\u{1b}[2J\u{9b}2J\u{7f}\u{e4}";
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output { out: &mut out, err: &mut err, are_terminals: [false; 2] };
        output.json_line(&text).unwrap();
        output.json(&text).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "\"a\\u001b[2J\\u009b2J\\u007f\u{e4}\"\n".repeat(2));
        assert_eq!(serde_json::from_str::<String>(out.lines().next().unwrap()).unwrap(), text);
    }

    #[test]
    fn control_characters_of_a_job_reach_files_and_no_terminal() {
        const TEXT: &str = "\x1b[31mred\n\x1b[2Jgone\n";
        const SHOWN: &str = "\x1b[31mred\x1b[0m\n^[[2Jgone\n";
        for (are_terminals, expected) in
            [([false, false], [TEXT, TEXT]), ([true, false], [SHOWN, TEXT]), ([false, true], [TEXT, SHOWN])]
        {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut output = Output { out: &mut out, err: &mut err, are_terminals };
            output.forward("driver-1-1.out", TEXT).unwrap();
            output.forward("driver-1-1.err", TEXT).unwrap();
            assert_eq!([out, err], expected.map(|text| text.as_bytes().to_vec()), "{are_terminals:?}");
        }
    }
}
