//! Errors of a daemon that cannot start, or cannot continue.

use std::fmt;

use thiserror::Error;

/// Reason that a daemon cannot start, or cannot continue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The cluster rejects the daemon: a wrong token, or another cluster.
    #[error("{0}")]
    Refused(String),
    /// The head does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// A resource of this machine is missing: a port, a file, or memory.
    #[error("{0}")]
    Failed(String),
}

/// Builds a [`DaemonError::Failed`] from an error, with a description of the failed operation.
pub(super) fn failed<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> DaemonError {
    move |error| DaemonError::Failed(format!("{what}: {error}"))
}
