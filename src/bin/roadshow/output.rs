//! Where commands write to: what was asked for to one stream, what is said about it to another.

use std::io::Write;

use roadshow::admin::harmless;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// The standard output and the standard error, or what stands for them.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) err: &'a mut dyn Write,
    /// Which of the two are terminals, which would obey control characters of a job.
    pub(crate) are_terminals: [bool; 2],
}

impl Output<'_> {
    /// Writes what was asked for.
    pub(crate) fn print(&mut self, text: &str) -> Outcome<()> {
        let printed = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        printed.map_err(|error| Failure::output(&error))
    }

    /// Writes what was asked for, as JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Outcome<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error, ""))?;
        self.print(&format!("{text}\n"))
    }

    /// Writes what was asked for, as JSON on one line, of which more follow.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Outcome<()> {
        let text = serde_json::to_string(value).map_err(|error| Failure::failed(error, ""))?;
        self.print(&format!("{text}\n"))
    }

    /// Writes what a driver has written: its errors stay errors.
    pub(crate) fn pass_on(&mut self, file: &str, text: &str) -> Outcome<()> {
        match file.ends_with(".err") {
            true => self.print_log_aside(text),
            false => self.print_log(text),
        }
    }

    /// Writes what a job or a daemon has written: byte for byte, but harmless where a terminal takes it.
    pub(crate) fn print_log(&mut self, text: &str) -> Outcome<()> {
        match self.are_terminals {
            [true, _] => self.print(&harmless(text)),
            [false, _] => self.print(text),
        }
    }

    /// The same to the standard error, for what has no place in the output.
    pub(crate) fn print_log_aside(&mut self, text: &str) -> Outcome<()> {
        let printed = match self.are_terminals {
            [_, true] => self.err.write_all(harmless(text).as_bytes()),
            [_, false] => self.err.write_all(text.as_bytes()),
        };
        printed.and_then(|()| self.err.flush()).map_err(|error| Failure::output(&error))
    }

    /// Says something about it.
    pub(crate) fn note(&mut self, text: &str) {
        // Nobody is left to be told that it cannot be said.
        let _ = writeln!(self.err, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_job_reach_files_and_no_terminal() {
        const TEXT: &str = "\x1b[31mred\n\x1b[2Jgone\n";
        const SHOWN: &str = "\x1b[31mred\x1b[0m\n^[[2Jgone\n";
        for (are_terminals, expected) in
            [([false, false], [TEXT, TEXT]), ([true, false], [SHOWN, TEXT]), ([false, true], [TEXT, SHOWN])]
        {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut output = Output { out: &mut out, err: &mut err, are_terminals };
            output.pass_on("driver-1-1.out", TEXT).unwrap();
            output.pass_on("driver-1-1.err", TEXT).unwrap();
            assert_eq!([out, err], expected.map(|text| text.as_bytes().to_vec()), "{are_terminals:?}");
        }
    }
}
