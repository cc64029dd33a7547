//! Repeated runs of one task.
//!
//! ```text
//!                 no worker: wait for the next one
//!                    ┌────┐
//!                    │    ▼                       result, or its own error
//!   run ───────────▶ Choose ─────▶ Call ───────────────────────▶ done, unless `retry_if` repeats it
//!                    ▲      ▲        │
//!                    │      └────────┤ not delivered: after a delay, a bounded number of times
//!                    └───────────────┘ its worker ended: `retries` times
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::{Task, TaskError};
use crate::config::{TASK_ATTEMPT_DELAY, TASK_ATTEMPT_DELAY_MAX, TASK_ATTEMPTS_MAX, TASK_RETRIES};
use crate::host::{Host, NotDelivered, OutcomeUnknown, SendError, TaskSlot, deadline_in};
use crate::id::Target;
use crate::registry::TaskFn;
use crate::remote::call_service;

/// Decides by an outcome whether the task runs again.
type RetryIf<F> = Arc<dyn Fn(&Result<<F as TaskFn>::Output, TaskError>) -> bool + Send + Sync>;

/// Options of a run.
pub(super) struct RunOptions<F: TaskFn> {
    pub(super) timeout: Option<Duration>,
    pub(super) retries: u32,
    pub(super) retry_if: Option<RetryIf<F>>,
}

impl<F: TaskFn> Default for RunOptions<F> {
    fn default() -> Self {
        Self { timeout: None, retries: TASK_RETRIES, retry_if: None }
    }
}

impl<F: TaskFn> Clone for RunOptions<F> {
    fn clone(&self) -> Self {
        Self { timeout: self.timeout, retries: self.retries, retry_if: self.retry_if.clone() }
    }
}

impl<F: TaskFn> fmt::Debug for RunOptions<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeout, retries, retry_if } = self;
        f.debug_struct("RunOptions")
            .field("timeout", timeout)
            .field("retries", retries)
            .field("retry_if", &retry_if.is_some())
            .finish()
    }
}

/// Meaning of a failed call for its task.
enum Failure {
    /// The function did not run, and another worker may run it.
    NotRun,
    /// The function may have run, and its worker is gone.
    Lost(OutcomeUnknown),
    /// Another worker would fail as well, or must not be tried.
    Final,
}

impl Failure {
    fn of(error: &SendError) -> Self {
        match error {
            SendError::NotDelivered(
                NotDelivered::Unreachable { .. }
                | NotDelivered::StaleHost { .. }
                | NotDelivered::UnknownHost { .. }
                | NotDelivered::Closing,
            ) => Self::NotRun,
            SendError::OutcomeUnknown(lost) if lost.is_by_other_host() => Self::Lost(lost.clone()),
            _ => Self::Final,
        }
    }
}

/// Runs of one task so far.
#[derive(Default)]
struct Runs {
    /// Number of runs whose worker ended.
    lost: u32,
    /// Number of runs that were repeated for any reason.
    repeated: u32,
    /// Reason of the last loss.
    last: Option<OutcomeUnknown>,
    /// Number of attempts in a row that reached no worker.
    unreached: u32,
}

impl Runs {
    /// Error of the task, given that of its last run: an earlier run may have happened.
    fn merge<F: TaskFn>(self, error: TaskError) -> TaskError {
        let Some(reason) = self.last else { return error };
        match error {
            TaskError::NoWorker { .. }
            | TaskError::NotDelivered { .. }
            | TaskError::OutcomeUnknown { .. }
                if self.lost > 1 || !matches!(error, TaskError::OutcomeUnknown { .. }) =>
            {
                TaskError::WorkersLost { task: F::NAME, runs: self.lost, reason }
            }
            other => other,
        }
    }
}

/// Runs a task until it has an outcome that its options accept.
pub(super) async fn run_one<F: TaskFn>(
    host: Host,
    mut task: Task<F>,
    options: RunOptions<F>,
) -> Result<F::Output, TaskError> {
    let deadline = options.timeout.and_then(deadline_in);
    let mut runs = Runs::default();
    loop {
        // Holds the slot until the call has ended, so that the count of tasks in flight is right.
        let slot = match slot(&host, deadline).await {
            Some(slot) => slot,
            None if deadline.is_some_and(|deadline| deadline <= now()) => {
                return Err(runs.merge::<F>(TaskError::of::<F>(NotDelivered::Expired.into())));
            }
            None => return Err(runs.merge::<F>(TaskError::NoWorker { task: F::NAME })),
        };
        let called = call_service(&host, slot.host, Target::TASKS, F::HASH, &mut task.args, deadline).await;
        drop(slot);
        let failure = called.as_ref().err().map(Failure::of);
        let outcome = called.map_err(TaskError::of::<F>);
        match failure {
            Some(Failure::NotRun) if runs.unreached < TASK_ATTEMPTS_MAX && !host.is_closing() => {
                let doublings = runs.unreached.min(16);
                runs.unreached += 1;
                let delay = TASK_ATTEMPT_DELAY.saturating_mul(1 << doublings).min(TASK_ATTEMPT_DELAY_MAX);
                if !sleep_until(now() + delay, deadline).await {
                    return Err(runs.merge::<F>(TaskError::of::<F>(NotDelivered::Expired.into())));
                }
                continue;
            }
            Some(Failure::Lost(reason)) => {
                runs.lost += 1;
                runs.last = Some(reason);
                if runs.repeated < options.retries {
                    runs.repeated += 1;
                    runs.unreached = 0;
                    continue;
                }
            }
            _ => {}
        }
        if runs.repeated < options.retries && options.retry_if.as_ref().is_some_and(|again| again(&outcome)) {
            runs.repeated += 1;
            runs.unreached = 0;
            continue;
        }
        return outcome.map_err(|error| runs.merge::<F>(error));
    }
}

/// Time by the runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Sleeps until `wake`; returns false if the deadline comes first.
async fn sleep_until(wake: Instant, deadline: Option<Instant>) -> bool {
    let is_in_time = deadline.is_none_or(|deadline| wake < deadline);
    let until = deadline.map_or(wake, |deadline| deadline.min(wake));
    tokio::time::sleep_until(until.into()).await;
    is_in_time
}

/// Takes a slot on the worker with the fewest tasks in flight. Without a worker it waits for the next one, if ended
/// ones are replaced.
async fn slot(host: &Host, deadline: Option<Instant>) -> Option<TaskSlot> {
    let placement = host.placement()?;
    loop {
        // Before the choice: a worker that joins after it resolves this future.
        let next = placement.next_worker();
        if let Some(slot) = placement.place_task() {
            return Some(slot);
        }
        let has_joined = match deadline {
            Some(deadline) => timeout_at(deadline.into(), next?).await.ok()?,
            None => next?.await,
        };
        if !has_joined {
            return None;
        }
    }
}
