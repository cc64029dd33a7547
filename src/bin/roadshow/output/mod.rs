//! Output of commands: results on one stream, notes and errors on the other.

pub(super) mod file;
pub(super) mod progress;
pub(super) mod rows;
pub(super) mod table;
pub(super) mod time;

use std::io::Write;

use roadshow::admin::harmless;
use serde::Serialize;

use crate::error::{CliError, CliResult};

/// Standard output and standard error, or buffers in their place.
pub(crate) struct CliOutput<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) err: &'a mut dyn Write,
    /// Tells for each stream if it is a terminal, which obeys control characters in a job's output.
    pub(crate) are_terminals: [bool; 2],
}

impl CliOutput<'_> {
    /// Writes a part of the result.
    pub(crate) fn print(&mut self, text: &str) -> CliResult<()> {
        let printed = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        printed.map_err(|error| CliError::output(&error))
    }

    /// Writes the result as indented JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> CliResult<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| CliError::failed(error, ""))?;
        self.print(&format!("{}\n", escaped(&text)))
    }

    /// Writes one record of the result as a line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> CliResult<()> {
        let text = serde_json::to_string(value).map_err(|error| CliError::failed(error, ""))?;
        self.print(&format!("{}\n", escaped(&text)))
    }

    /// Writes output of a driver to the stream that the driver wrote it to.
    pub(crate) fn forward(&mut self, file: &str, text: &str) -> CliResult<()> {
        match file.ends_with(".err") {
            true => self.print_log_aside(text),
            false => self.print_log(text),
        }
    }

    /// Writes output of a job or daemon: unchanged to files, without control characters to a terminal.
    pub(crate) fn print_log(&mut self, text: &str) -> CliResult<()> {
        match self.are_terminals {
            // In a file or pipe the output must be what the job has written, byte for byte.
            [true, _] => self.print(&harmless(text)),
            [false, _] => self.print(text),
        }
    }

    /// Writes log text to standard error, for commands with another result on standard output.
    pub(crate) fn print_log_aside(&mut self, text: &str) -> CliResult<()> {
        let printed = match self.are_terminals {
            [_, true] => self.err.write_all(harmless(text).as_bytes()),
            [_, false] => self.err.write_all(text.as_bytes()),
        };
        printed.and_then(|()| self.err.flush()).map_err(|error| CliError::output(&error))
    }

    /// Writes a remark to standard error.
    pub(crate) fn note(&mut self, text: &str) {
        // There is no other stream left on which to report the failure.
        let _ = writeln!(self.err, "{text}");
    }
}

/// Escapes the control characters that JSON allows in strings.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        // Terminals obey DEL and the C1 controls (U+0080 to U+009F): U+009B is a CSI like `ESC [`.
        match c {
            // serde_json has escaped all controls below U+0020; outside of strings they are line ends.
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
    fn json_has_no_control_characters_and_parses_to_the_same_text() {
        let text = "a\u{1b}[2J\u{9b}2J\u{7f}\u{e4}";
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = CliOutput { out: &mut out, err: &mut err, are_terminals: [false; 2] };
        output.json_line(&text).unwrap();
        output.json(&text).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "\"a\\u001b[2J\\u009b2J\\u007f\u{e4}\"\n".repeat(2));
        assert_eq!(serde_json::from_str::<String>(out.lines().next().unwrap()).unwrap(), text);
    }

    #[test]
    fn control_characters_of_a_job_reach_files_but_no_terminal() {
        const TEXT: &str = "\x1b[31mred\n\x1b[2Jgone\n";
        const SHOWN: &str = "\x1b[31mred\x1b[0m\n^[[2Jgone\n";
        for (are_terminals, expected) in
            [([false, false], [TEXT, TEXT]), ([true, false], [SHOWN, TEXT]), ([false, true], [TEXT, SHOWN])]
        {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut output = CliOutput { out: &mut out, err: &mut err, are_terminals };
            output.forward("driver-1-1.out", TEXT).unwrap();
            output.forward("driver-1-1.err", TEXT).unwrap();
            assert_eq!([out, err], expected.map(|text| text.as_bytes().to_vec()), "{are_terminals:?}");
        }
    }
}
