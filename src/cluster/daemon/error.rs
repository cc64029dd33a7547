//! Errors of a daemon that cannot start, or cannot go on.

use std::fmt;

use thiserror::Error;

/// Why a daemon cannot start, or cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The cluster does not take it: a wrong token, another cluster.
    #[error("{0}")]
    Refused(String),
    /// The head does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// What it needs of this machine is not to be had: a port, a file, memory.
    #[error("{0}")]
    Failed(String),
}

/// What went wrong, and with what.
pub(super) fn failed<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> DaemonError {
    move |error| DaemonError::Failed(format!("{what}: {error}"))
}
