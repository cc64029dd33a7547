//! Executable of a program to submit.

use std::ffi::OsString;
use std::path::Path;

use super::request::Submission;
use crate::cluster::executable::{Executable, ExecutableError};

/// Executable of a program to submit. Opening it reads the file once, to compute its digest.
#[derive(Debug)]
pub struct Program(Executable);

impl Program {
    /// Opens an executable and computes its digest.
    ///
    /// # Errors
    ///
    /// [`ExecutableError`] if the file cannot be read, or no node could run it.
    pub fn open(path: &Path) -> Result<Self, ExecutableError> {
        Executable::open(path).map(Self)
    }

    /// Builds the submission of this program with a name, arguments and environment variables.
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
