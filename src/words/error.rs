//! Why a cluster gave no answer.

use thiserror::Error;

use super::list::TextTooLong;
use crate::{SendError, SpawnError, TaskError};

/// The parts of a text could not be counted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SolveError {
    /// A Node could not be spawned.
    #[error("could not spawn a node for a part of the text")]
    Spawn(#[from] SpawnError),
    /// A Node did not answer.
    #[error("a node did not answer")]
    Send(#[from] SendError),
    /// A task did not answer.
    #[error("a task for a part of the text failed")]
    Task(#[from] TaskError),
    /// The winners of the parts are too long to be asked for.
    #[error("could not ask for the winners of the parts")]
    Candidates(#[from] TextTooLong),
}
