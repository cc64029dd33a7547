//! Error with its causes on one line.

use std::error::Error;
use std::fmt;

/// Displays an error and each [`source`](Error::source), down to the first cause.
///
/// The text of an error of this crate does not repeat its source. Logs and reports, which are plain text,
/// show the chain.
///
/// # Examples
///
/// ```
/// use roadshow::ClusterError;
/// use roadshow::observe::Chain;
///
/// let error = ClusterError::from(std::io::Error::other("no memory"));
/// assert_eq!(error.to_string(), "cannot start a worker process");
/// assert_eq!(Chain(&error).to_string(), "cannot start a worker process: no memory");
/// ```
#[derive(Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        write!(f, "{error}")?;
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
