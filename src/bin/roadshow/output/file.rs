//! Files that commands write their results to.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::CliOutput;
use crate::error::{CliError, CliResult};

/// Refuses to print a file to a terminal. `command` is the one that redirects it.
pub(crate) fn refuse_terminal(output: &CliOutput<'_>, what: &str, command: &str) -> CliResult<()> {
    match output.are_terminals[0] {
        true => {
            let text = format!("{what}, and the standard output is a terminal");
            Err(CliError::usage(text, format!("redirect it: {command}")))
        }
        false => Ok(()),
    }
}

/// Writes a file that only its owner can read if it is new: names, texts and logs of a job may have secrets.
pub(crate) fn write_private(file: &Path, text: &str) -> CliResult<()> {
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(file);
    opened.and_then(|mut opened| opened.write_all(text.as_bytes())).map_err(|error| {
        CliError::failed(
            format!("cannot write {}: {error}", file.display()),
            "give another file with --output",
        )
    })
}
