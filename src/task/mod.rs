//! Stateless functions, run on other hosts.
//!
//! A task is a call to a host's own task service: the function's name, its arguments, its result.
//! A worker has a host for tasks alone, whose link is read on the thread that runs them: tasks run
//! there one at a time, in the order in which they arrive, and hold up neither actors nor the
//! process's I/O. Functions marked `parallel = n` run in a pool of threads instead.

mod executor;
mod run;

use std::fmt;

use thiserror::Error;

use crate::host::{NotDelivered, OutcomeUnknown, SendError};
use crate::registry::TaskFn;

pub use executor::{TaskCounts, TaskService};
pub use run::{RunAll, RunTask};

/// A function call that can run anywhere: the function and its arguments.
///
/// `#[roadshow::task]` generates what makes one: for a function `square`, `square::task(3)`.
pub struct Task<F: TaskFn> {
    args: F::Args,
}

impl<F: TaskFn> Task<F> {
    /// A call of the function with `args`, a tuple.
    pub fn new(args: F::Args) -> Self {
        Self { args }
    }
}

impl<F: TaskFn> fmt::Debug for Task<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("function", &F::NAME).finish_non_exhaustive()
    }
}

/// Why a task has no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// There is no worker left to run it.
    #[error("cannot run task {task}: no worker is left in the cluster")]
    NoWorker {
        /// The task's name.
        task: &'static str,
    },
    /// The function did not run: running it again is safe.
    #[error("task {task} did not run: {reason}")]
    NotDelivered {
        /// The task's name.
        task: &'static str,
        /// Why.
        reason: NotDelivered,
    },
    /// The function may have run, and its result did not arrive.
    #[error("task {task} may have run: {reason}")]
    OutcomeUnknown {
        /// The task's name.
        task: &'static str,
        /// Why.
        reason: OutcomeUnknown,
    },
    /// The function panicked.
    #[error("task {task} panicked: {text}")]
    Panicked {
        /// The task's name.
        task: &'static str,
        /// The panic's text and place.
        text: String,
    },
}

impl TaskError {
    fn of<F: TaskFn>(error: SendError) -> Self {
        let task = F::NAME;
        match error {
            SendError::NotDelivered(reason) => Self::NotDelivered { task, reason },
            SendError::OutcomeUnknown(reason) => Self::OutcomeUnknown { task, reason },
            SendError::Panicked { text } => Self::Panicked { task, text },
        }
    }
}
