//! Any error of the library, for programs that treat them alike.

use std::fmt;

use thiserror::Error;

use crate::cluster::ClusterError;
use crate::host::{NotDelivered, PlacementError, SendError};
use crate::observe::Chain;
use crate::remote::{FindError, SpawnError};
use crate::task::TaskError;

/// Any error of this library; the specific errors convert into it with `?`.
///
/// Its `Debug` output is its text with its causes, since that is what a `main` that returns it prints.
#[derive(Error)]
#[non_exhaustive]
pub enum Error {
    /// A cluster cannot start, or did not shut down gracefully.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An actor was not spawned.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// An actor was not found by its name.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The cluster's control plane refused a request.
    #[error(transparent)]
    Place(#[from] PlacementError),
    /// A call has no reply.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A task has no result.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The program's own input or output failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<NotDelivered> for Error {
    fn from(reason: NotDelivered) -> Self {
        Self::Send(reason.into())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain(self), f)
    }
}
