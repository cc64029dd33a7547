//! A program that is to be submitted.

use std::ffi::OsString;
use std::path::Path;

use super::request::Submission;
use crate::cluster::executable::{Executable, ExecutableError};

/// The executable of a program that is to be submitted, read once from end to end.
#[derive(Debug)]
pub struct Program(Executable);

impl Program {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`ExecutableError`] if it cannot be read, or no node could run it.
    pub fn open(path: &Path) -> Result<Self, ExecutableError> {
        Executable::open(path).map(Self)
    }

    /// The program with a name, arguments and variables of its environment.
    #[must_use]
    pub fn submission(
        &self,
        program: OsString,
        args: Vec<OsString>,
        env: Vec<(OsString, OsString)>,
    ) -> Submission {
        Submission {
            program,
            args,
            env,
            digest: self.0.digest().0,
            size: self.0.size(),
            platform: self.0.platform().to_string(),
        }
    }

    pub(super) fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<u8>, ExecutableError> {
        self.0.read(offset, bytes_max)
    }
}
