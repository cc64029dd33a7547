//! Tasks: stateless functions that run on other hosts.
//!
//! A task is a call to a host's own task service with the function's name and arguments. A worker has a
//! separate host for tasks, whose link is read on the thread that runs them. Tasks run there one at a
//! time, in order of arrival, and delay neither actors nor the process's I/O. Functions marked `parallel
//! = n` run in a thread pool instead.

mod executor;
mod retries;
mod run;

use std::fmt;

use thiserror::Error;

use crate::host::{NotDelivered, OutcomeUnknown, SendError};
use crate::registry::TaskFn;

pub use executor::{TaskCounts, TaskService};
pub use run::{RunAll, RunTask};

/// Function call that can run on any worker: the function and its arguments.
///
/// `#[roadshow::task]` generates its constructor: for a function `square`, `square::task(3)`.
pub struct Task<F: TaskFn> {
    args: F::Args,
}

impl<F: TaskFn> Task<F> {
    /// Creates a call of the function with `args`, a tuple.
    pub fn new(args: F::Args) -> Self {
        Self { args }
    }
}

impl<F: TaskFn> fmt::Debug for Task<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("function", &F::NAME).finish_non_exhaustive()
    }
}

/// Reason why a task has no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// No worker is left to run it.
    #[error("cannot run task {task}: no worker is left in the cluster")]
    NoWorker {
        /// Name of the task.
        task: &'static str,
    },
    /// The function did not run: running it again is safe.
    #[error("task {task} did not run: {reason}")]
    NotDelivered {
        /// Name of the task.
        task: &'static str,
        /// Reason why it was not delivered.
        reason: NotDelivered,
    },
    /// The function may have run, and its result did not arrive.
    #[error("task {task} may have run: {reason}")]
    OutcomeUnknown {
        /// Name of the task.
        task: &'static str,
        /// Reason why the outcome is unknown.
        reason: OutcomeUnknown,
    },
    /// Each worker that got the task ended before the result arrived.
    ///
    /// The function may have run in each of them. It may also have waited there behind another task.
    #[error(
        "task {task} was lost with {runs} of its workers, the last time: {reason}; \
         the task may be what ends its workers"
    )]
    WorkersLost {
        /// Name of the task.
        task: &'static str,
        /// Number of workers that ended with it.
        runs: u32,
        /// Reason why the last outcome is unknown.
        reason: OutcomeUnknown,
    },
    /// The function panicked.
    #[error("task {task} panicked: {text}")]
    Panicked {
        /// Name of the task.
        task: &'static str,
        /// Text and source location of the panic.
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
