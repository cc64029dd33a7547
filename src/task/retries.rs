//! Repeated runs of one task.
//!
//! ```text
//!                 no worker: wait for the next one
//!                    ┌────┐
//!                    │    ▼                       result, or its own error
//!   run ───────────▶ Choose ─────▶ Call ───────────────────────▶ done, unless `retry_if` repeats it
//!                    ▲      ▲        │
//!                    │      └────────┤ not delivered, or refused for want of memory: after a delay, until the
//!                    │               │ deadline or a bounded number of times
//!                    └───────────────┘ its worker ended: `retries` times
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Task, TaskError};
use crate::config::{
    TASK_ATTEMPT_DELAY, TASK_ATTEMPT_DELAY_MAX, TASK_ATTEMPTS_MAX, TASK_REFUSALS_MAX, TASK_RETRIES,
};
use crate::host::{Host, NotDelivered, OutcomeUnknown, SendError, deadline_in};
use crate::id::{HostUid, Target};
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
    /// The function did not run, since its worker has too little memory left.
    LowMemory,
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
            SendError::NotDelivered(NotDelivered::LowMemory { .. }) => Self::LowMemory,
            SendError::OutcomeUnknown(lost) if lost.is_by_other_host() => Self::Lost(lost.clone()),
            _ => Self::Final,
        }
    }
}

/// Runs of one task so far.
struct Runs<F: TaskFn> {
    /// Number of runs whose worker ended.
    lost: u32,
    /// Reason of the last loss.
    last_loss: Option<OutcomeUnknown>,
    /// Outcome that `retry_if` has repeated.
    repeated: Option<Result<F::Output, TaskError>>,
    /// Number of further runs that are left.
    retries: u32,
    /// Number of attempts in a row that reached no worker.
    unreached: u32,
    /// Number of attempts in a row that workers refused for want of memory.
    refused: u32,
    /// Host of the last attempt that failed, or those that refused the last attempts. Their calls fail at once, so they
    /// would always have the fewest tasks.
    avoided: Vec<HostUid>,
}

impl<F: TaskFn> Runs<F> {
    fn new(retries: u32) -> Self {
        Self {
            lost: 0,
            last_loss: None,
            repeated: None,
            retries,
            unreached: 0,
            refused: 0,
            avoided: Vec::new(),
        }
    }

    /// Uses up one of the further runs; returns false if none is left.
    fn takes_retry(&mut self) -> bool {
        (self.unreached, self.refused) = (0, 0);
        self.retries.checked_sub(1).inspect(|left| self.retries = *left).is_some()
    }

    /// Counts an attempt that reached no worker; returns the delay before the next one, if there is one.
    fn next_after_unreached(&mut self, host: HostUid) -> Option<Duration> {
        if self.unreached >= TASK_ATTEMPTS_MAX {
            return None;
        }
        self.avoided = vec![host];
        self.unreached += 1;
        Some(delay_after(self.unreached))
    }

    /// Counts an attempt that `host` refused for want of memory; returns the delay before the next one, if there is
    /// one.
    fn next_after_refusal(&mut self, host: HostUid, has_deadline: bool) -> Option<Duration> {
        // A worker gets a second attempt only after all others have refused.
        let have_all_refused = self.avoided.contains(&host);
        if have_all_refused && !has_deadline && self.refused >= TASK_REFUSALS_MAX {
            return None;
        }
        if have_all_refused {
            self.avoided.clear();
        }
        self.avoided.push(host);
        (self.unreached, self.refused) = (0, self.refused.saturating_add(1));
        Some(delay_after(self.refused))
    }

    /// Outcome of the task, given the error of its last run. An earlier run may have happened, which the error must
    /// not deny.
    fn fail(self, error: TaskError) -> Result<F::Output, TaskError> {
        let is_without_run = matches!(error, TaskError::NoWorker { .. } | TaskError::NotDelivered { .. });
        if let (true, Some(outcome)) = (is_without_run, self.repeated) {
            return outcome;
        }
        let Some(reason) = self.last_loss else { return Err(error) };
        let task = F::NAME;
        Err(match error {
            TaskError::NotDelivered { reason: NotDelivered::Expired, .. } => {
                TaskError::OutcomeUnknown { task, reason: OutcomeUnknown::TimedOut }
            }
            TaskError::NotDelivered { reason: NotDelivered::Closing, .. } => {
                TaskError::OutcomeUnknown { task, reason }
            }
            TaskError::NoWorker { .. } | TaskError::NotDelivered { .. } => {
                TaskError::WorkersLost { task, runs: self.lost, reason }
            }
            TaskError::OutcomeUnknown { reason, .. } if self.lost > 1 && reason.is_by_other_host() => {
                TaskError::WorkersLost { task, runs: self.lost, reason }
            }
            other => other,
        })
    }
}

/// Runs a task until it has an outcome that its options accept.
pub(super) async fn run_one<F: TaskFn>(
    host: Host,
    mut task: Task<F>,
    options: RunOptions<F>,
) -> Result<F::Output, TaskError> {
    let deadline = options.timeout.and_then(deadline_in);
    let is_late = || deadline.is_some_and(|deadline| deadline <= now());
    let expired = || TaskError::of::<F>(NotDelivered::Expired.into());
    let mut runs = Runs::<F>::new(options.retries);
    let Some(placement) = host.placement() else { return Err(TaskError::NoWorker { task: F::NAME }) };
    loop {
        // Holds the slot until the call has ended, so that the count of tasks in flight is right.
        let slot = match placement.with_worker(&host, deadline, || placement.place_task(&runs.avoided)).await
        {
            Some(slot) => slot,
            None if is_late() => return runs.fail(expired()),
            None => return runs.fail(TaskError::NoWorker { task: F::NAME }),
        };
        let called = call_service(&host, slot.host, Target::TASKS, F::HASH, &mut task.args, deadline).await;
        let failure = called.as_ref().err().map(Failure::of);
        let outcome = called.map_err(TaskError::of::<F>);
        match failure {
            Some(Failure::NotRun) if !host.is_closing() => {
                if let Some(delay) = runs.next_after_unreached(slot.host) {
                    drop(slot);
                    if !sleep_until(now() + delay, deadline).await {
                        return runs.fail(expired());
                    }
                    continue;
                }
            }
            Some(Failure::LowMemory) if !host.is_closing() => {
                if let Some(delay) = runs.next_after_refusal(slot.host, deadline.is_some()) {
                    let is_in_time = sleep_until(now() + delay, deadline).await;
                    // Held until now: a worker that refuses would look idle, and attract the other tasks.
                    drop(slot);
                    if !is_in_time {
                        // With the cause, of which the caller's own timeout says nothing.
                        return outcome.or_else(|error| runs.fail(error));
                    }
                    continue;
                }
            }
            Some(Failure::Lost(reason)) => {
                runs.lost += 1;
                runs.last_loss = Some(reason);
                runs.avoided = vec![slot.host];
                if runs.takes_retry() {
                    continue;
                }
            }
            _ => {}
        }
        let again = options.retry_if.as_ref().is_some_and(|again| again(&outcome));
        // After the deadline no further run could begin.
        if again && !is_late() && runs.takes_retry() {
            runs.repeated = Some(outcome);
            continue;
        }
        return outcome.or_else(|error| runs.fail(error));
    }
}

/// Delay after a number of failed attempts in a row.
fn delay_after(attempts: u32) -> Duration {
    let delay = TASK_ATTEMPT_DELAY.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    delay.min(TASK_ATTEMPT_DELAY_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostId, Incarnation};
    use crate::session::DisconnectReason;

    struct Double;

    impl TaskFn for Double {
        type Args = (u32,);
        type Output = u32;
        const NAME: &'static str = "double";
        const PARALLEL: Option<usize> = None;

        fn call((n,): (u32,)) -> u32 {
            2 * n
        }
    }

    const TASK: &str = Double::NAME;

    fn host(number: u64) -> HostUid {
        HostUid { host: HostId(number), incarnation: Incarnation(1) }
    }

    fn loss() -> OutcomeUnknown {
        OutcomeUnknown::SessionLost { host: host(1), reason: DisconnectReason::Closed }
    }

    /// Outcome of a task whose last run failed with `error`, after `lost` runs whose workers ended.
    fn failed(lost: u32, error: TaskError) -> Result<u32, TaskError> {
        let last_loss = (lost > 0).then(loss);
        Runs::<Double> { lost, last_loss, ..Runs::new(0) }.fail(error)
    }

    fn not_delivered(reason: NotDelivered) -> TaskError {
        TaskError::NotDelivered { task: TASK, reason }
    }

    fn unknown(reason: OutcomeUnknown) -> TaskError {
        TaskError::OutcomeUnknown { task: TASK, reason }
    }

    #[test]
    fn refusals_are_bounded_without_a_deadline_and_never_end_before_each_worker_has_refused() {
        let refusals = |workers: u64, has_deadline: bool| {
            let mut runs = Runs::<Double>::new(TASK_RETRIES);
            let hosts = (0..10_000).map(|attempt| host(attempt % workers));
            let delays: Vec<_> =
                hosts.map_while(|host| runs.next_after_refusal(host, has_deadline)).collect();
            assert_eq!((runs.lost, runs.retries), (0, TASK_RETRIES), "no worker was lost");
            assert!(runs.avoided.len() as u64 <= workers);
            delays
        };
        assert_eq!(refusals(1, false).len(), TASK_REFUSALS_MAX as usize);
        assert_eq!(refusals(200, false).len(), 200);
        let delays = refusals(3, true);
        assert_eq!(delays.len(), 10_000);
        assert_eq!(delays[..3], [TASK_ATTEMPT_DELAY, 2 * TASK_ATTEMPT_DELAY, 4 * TASK_ATTEMPT_DELAY]);
        assert_eq!(delays[9_999], TASK_ATTEMPT_DELAY_MAX);
    }

    #[test]
    fn error_of_the_only_run_is_that_of_the_task() {
        for error in
            [TaskError::NoWorker { task: TASK }, not_delivered(NotDelivered::Expired), unknown(loss())]
        {
            assert_eq!(failed(0, error.clone()), Err(error));
        }
        assert_eq!(failed(1, unknown(loss())), Err(unknown(loss())), "with no retries");
    }

    #[test]
    fn error_after_a_loss_does_not_deny_that_run() {
        let timed_out = unknown(OutcomeUnknown::TimedOut);
        assert_eq!(failed(1, not_delivered(NotDelivered::Expired)), Err(timed_out.clone()));
        assert_eq!(failed(2, timed_out.clone()), Err(timed_out));
        assert_eq!(failed(1, not_delivered(NotDelivered::Closing)), Err(unknown(loss())));
        let lost = |runs| Err(TaskError::WorkersLost { task: TASK, runs, reason: loss() });
        assert_eq!(failed(1, TaskError::NoWorker { task: TASK }), lost(1));
        assert_eq!(failed(3, unknown(loss())), lost(3));
    }

    #[test]
    fn outcome_that_was_repeated_is_kept_if_no_further_run_began() {
        let repeated = |error| Runs::<Double> { repeated: Some(Ok(7)), ..Runs::new(0) }.fail(error);
        assert_eq!(repeated(not_delivered(NotDelivered::Expired)), Ok(7));
        assert_eq!(repeated(TaskError::NoWorker { task: TASK }), Ok(7));
        assert_eq!(repeated(unknown(loss())), Err(unknown(loss())));
    }
}
