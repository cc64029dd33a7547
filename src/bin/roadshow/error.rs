//! Errors of commands: one line of text for the operator, and an exit code for scripts.

use std::error::Error;
use std::fmt;
use std::io;

use roadshow::admin::{AdminError, ExecutableError};

use crate::exit;

/// Result of a command.
pub(crate) type CliResult<T> = Result<T, CliError>;

/// Error of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CliError {
    pub(crate) code: u8,
    /// Cause; empty for an exit without a message.
    text: String,
    /// Next step; empty if the text has it already.
    hint: String,
}

impl CliError {
    pub(crate) fn new(code: u8, text: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self { code, text: one_line(&text.to_string()), hint: one_line(&next.to_string()) }
    }

    pub(crate) fn failed(text: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::new(exit::FAILED, text, next)
    }

    pub(crate) fn usage(text: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::new(exit::USAGE, text, next)
    }

    pub(crate) fn unreachable(text: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::new(exit::UNREACHABLE, text, next)
    }

    pub(crate) fn refused(text: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::new(exit::REFUSED, text, next)
    }

    pub(crate) fn unknown(text: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::new(exit::NO_SUCH_THING, text, next)
    }

    /// Exit code without a message.
    pub(crate) const fn silent(code: u8) -> Self {
        Self { code, text: String::new(), hint: String::new() }
    }

    /// Error of writing the output. A reader that closes the pipe, as `head` does, is a success.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(exit::OK),
            _ => Self::failed(
                format!("cannot write to the standard output: {error}"),
                "check the disk, or redirect to another file",
            ),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl From<AdminError> for CliError {
    /// Maps the blame to an exit code. The texts have their next step, except for a lost connection.
    fn from(error: AdminError) -> Self {
        match &error {
            AdminError::Unreachable(_) => Self::unreachable(error, ""),
            AdminError::Lost { .. } => {
                Self::unreachable(error, "try again; if the head has ended, see its log")
            }
            AdminError::Refused(_) => Self::refused(error, ""),
            AdminError::Unknown(_) => Self::unknown(error, ""),
            _ => Self::failed(error, ""),
        }
    }
}

impl From<ExecutableError> for CliError {
    fn from(error: ExecutableError) -> Self {
        match &error {
            ExecutableError::Read { error: cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                Self::unknown(error, "give the path of an existing program")
            }
            ExecutableError::Read { .. } => {
                Self::failed(error, "give the path of a program that you can read")
            }
            _ => Self::failed(error, ""),
        }
    }
}

impl From<Box<dyn Error>> for CliError {
    fn from(error: Box<dyn Error>) -> Self {
        Self::failed(error, "")
    }
}

/// Joins a text to one line, and replaces control characters, which a terminal would obey.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    line.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_one_line_with_the_next_step() {
        let failure = CliError::failed("no\n  room\x1b[2J", "make some");
        assert_eq!(failure.to_string(), "no room?[2J; make some");
        assert_eq!(CliError::failed("no", "").to_string(), "no");
    }

    #[test]
    fn token_rpc_errors_have_exit_codes() {
        let code = |error: AdminError| CliError::from(error).code;
        assert_eq!(code(AdminError::Unreachable(String::new())), exit::UNREACHABLE);
        assert_eq!(code(AdminError::Lost { why: String::new() }), exit::UNREACHABLE);
        assert_eq!(code(AdminError::Refused(String::new())), exit::REFUSED);
        assert_eq!(code(AdminError::Unknown(String::new())), exit::NO_SUCH_THING);
        assert_eq!(code(AdminError::Failed(String::new())), exit::FAILED);
    }

    #[test]
    fn closed_pipe_is_a_success() {
        let failure = CliError::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure, CliError::silent(exit::OK));
        assert_eq!(CliError::output(&io::Error::from(io::ErrorKind::StorageFull)).code, exit::FAILED);
    }
}
