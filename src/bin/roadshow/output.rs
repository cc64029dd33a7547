//! Where commands write to: what was asked for to one stream, what is said about it to another.

use std::io::Write;

use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// The standard output and the standard error, or what stands for them.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) err: &'a mut dyn Write,
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
            true => self.print_aside(text),
            false => self.print(text),
        }
    }

    /// Writes to the standard error what was asked for and has no place in the output.
    pub(crate) fn print_aside(&mut self, text: &str) -> Outcome<()> {
        let printed = self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush());
        printed.map_err(|error| Failure::output(&error))
    }

    /// Says something about it.
    pub(crate) fn note(&mut self, text: &str) {
        // Nobody is left to be told that it cannot be said.
        let _ = writeln!(self.err, "{text}");
    }
}
