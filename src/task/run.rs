//! Sender's side of tasks: a single one, or many in parallel.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::retries::{RunOptions, run_one};
use super::{Task, TaskError};
use crate::config;
use crate::host::Host;
use crate::registry::TaskFn;
use crate::remote::ClusterRef;

impl ClusterRef {
    /// Runs a task on the worker with the fewest tasks in flight.
    ///
    /// # Errors
    ///
    /// The request returns a [`TaskError`].
    ///
    /// # Cancel safety
    ///
    /// See [`RunTask`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use roadshow::Cluster;
    /// #[roadshow::task]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// # #[roadshow::main]
    /// # async fn main() -> Result<(), roadshow::Error> {
    /// # let cluster = Cluster::in_process(2).await?;
    /// assert_eq!(cluster.run(square::task(7)).await?, 49);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run<F: TaskFn>(&self, task: Task<F>) -> RunTask<F> {
        RunTask { host: self.host.clone(), task, options: RunOptions::default() }
    }

    /// Runs many tasks on all workers, and returns their results in the tasks' order.
    ///
    /// Each worker has a few in flight, or more if they turn out to be short. Tasks are taken from the
    /// iterator as they are sent.
    ///
    /// # Errors
    ///
    /// The request returns the first [`TaskError`]; tasks that were not sent by then never run.
    ///
    /// # Cancel safety
    ///
    /// See [`RunAll`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use roadshow::Cluster;
    /// #[roadshow::task]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// # #[roadshow::main]
    /// # async fn main() -> Result<(), roadshow::Error> {
    /// # let cluster = Cluster::in_process(2).await?;
    /// let squares = cluster.run_all((1..=4).map(square::task)).await?;
    /// assert_eq!(squares, [1, 4, 9, 16]);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_all<'a, F, I>(&self, tasks: I) -> RunAll<'a, F>
    where
        F: TaskFn,
        I: IntoIterator<Item = Task<F>>,
        I::IntoIter: Send + 'a,
    {
        RunAll {
            host: self.host.clone(),
            tasks: Box::new(tasks.into_iter()),
            options: RunOptions::default(),
            progress: None,
        }
    }
}

/// Request to run a task; awaiting it runs the task and returns its result.
///
/// # Errors
///
/// Awaiting it returns a [`TaskError`], which says whether the function may have run.
///
/// # Cancel safety
///
/// Dropping it before its first poll runs nothing. Dropping it later cancels the task, unless that has
/// started.
#[must_use = "a task runs when it is awaited"]
pub struct RunTask<F: TaskFn> {
    host: Host,
    task: Task<F>,
    options: RunOptions<F>,
}

impl<F: TaskFn> RunTask<F> {
    /// Cancels the task after `timeout`, counted from the first poll.
    ///
    /// A task that has not started by then never runs. As with
    /// [`Request::timeout`](crate::Request::timeout), the receiver counts from the read of the call.
    ///
    /// # Errors
    ///
    /// [`TaskError::NotDelivered`] if it is certain that the task did not run, otherwise
    /// [`TaskError::OutcomeUnknown`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets how often the task runs again if its worker ends before the result arrives; 3 by default.
    ///
    /// The earlier runs may have had effects, so 0 is for a function that must not run twice. A task that no worker
    /// has received is sent to another one in any case.
    ///
    /// # Errors
    ///
    /// [`TaskError::WorkersLost`] if the worker of each run ended. With 0, [`TaskError::OutcomeUnknown`] if one did.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Runs the task again if its outcome satisfies `again`, within the number of [`retries`](Self::retries).
    ///
    /// # Examples
    ///
    /// ```
    /// # use roadshow::Cluster;
    /// #[roadshow::task]
    /// fn fetch(page: u32) -> Result<String, String> {
    ///     Err(format!("page {page} is busy"))
    /// }
    ///
    /// # #[roadshow::main]
    /// # async fn main() -> Result<(), roadshow::Error> {
    /// # let cluster = Cluster::in_process(2).await?;
    /// let fetched = cluster.run(fetch::task(7)).retry_if(|outcome| matches!(outcome, Ok(Err(_)))).await?;
    /// assert!(fetched.is_err(), "it failed four times");
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_if(
        mut self,
        again: impl Fn(&Result<F::Output, TaskError>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.options.retry_if = Some(Arc::new(again));
        self
    }
}

impl<F: TaskFn> IntoFuture for RunTask<F> {
    type Output = Result<F::Output, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run_one(self.host, self.task, self.options))
    }
}

/// Maximum number of results to reserve memory for, since an iterator may claim any length.
const OUTPUTS_RESERVED_MAX: usize = 1 << 16;

/// Callback for the number of completed tasks, and of all tasks as far as known.
type ProgressCallback<'a> = Box<dyn FnMut(usize, usize) + Send + 'a>;

/// Request to run many tasks; awaiting it runs them and returns their results in order.
///
/// # Errors
///
/// Awaiting it returns the first [`TaskError`]. Sent tasks that have not started are then cancelled.
///
/// # Cancel safety
///
/// Dropping it sends no further task, and cancels sent tasks that have not started.
#[must_use = "tasks run when they are awaited"]
pub struct RunAll<'a, F: TaskFn> {
    host: Host,
    tasks: Box<dyn Iterator<Item = Task<F>> + Send + 'a>,
    options: RunOptions<F>,
    progress: Option<ProgressCallback<'a>>,
}

impl<'a, F: TaskFn> RunAll<'a, F> {
    /// Calls `callback(done, known)` after each task.
    ///
    /// `done` tasks of `known` are complete, as far as the iterator knows their number. Callbacks run in
    /// the order in which they were added.
    ///
    /// # Examples
    ///
    /// ```
    /// # use roadshow::Cluster;
    /// #[roadshow::task]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// # #[roadshow::main]
    /// # async fn main() -> Result<(), roadshow::Error> {
    /// # let cluster = Cluster::in_process(2).await?;
    /// let mut last = 0;
    /// cluster.run_all((0..100).map(square::task)).progress(|done, _known| last = done).await?;
    /// assert_eq!(last, 100);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn progress(mut self, mut callback: impl FnMut(usize, usize) + Send + 'a) -> Self {
        self.progress = Some(match self.progress.take() {
            None => Box::new(callback),
            Some(mut earlier) => Box::new(move |done, known| {
                earlier(done, known);
                callback(done, known);
            }),
        });
        self
    }

    /// Sets how often each task runs again if its worker ends; see [`RunTask::retries`].
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Runs each task again whose outcome satisfies `again`; see [`RunTask::retry_if`].
    pub fn retry_if(
        mut self,
        again: impl Fn(&Result<F::Output, TaskError>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.options.retry_if = Some(Arc::new(again));
        self
    }

    async fn run(self) -> Result<Vec<F::Output>, TaskError> {
        let Self { host, tasks, options, mut progress } = self;
        let (at_least, at_most) = tasks.size_hint();
        let known = at_most.unwrap_or(at_least);
        let mut tasks = tasks.enumerate();
        let placement = host.placement();
        let hosts = || placement.as_ref().map_or(1, |placement| placement.task_hosts());
        let mut window = Window::new(hosts());
        let mut in_flight = FuturesUnordered::new();
        let mut outputs = Vec::with_capacity(at_least.min(OUTPUTS_RESERVED_MAX));
        let mut done = 0;
        loop {
            while in_flight.len() < window.width
                // Taken only when it can be sent, so the iterator may build large arguments lazily.
                && let Some((index, task)) = tasks.next()
            {
                let (host, options) = (host.clone(), options.clone());
                in_flight.push(async move {
                    let sent = Instant::now();
                    (index, run_one(host, task, options).await, sent.elapsed())
                });
            }
            let Some((index, output, took)) = in_flight.next().await else { break };
            // Workers may have ended or joined.
            window.set_hosts(hosts());
            window.adapt(took);
            if outputs.len() <= index {
                // Results arrive in any order.
                outputs.resize_with(index + 1, || None);
            }
            outputs[index] = Some(output?);
            done += 1;
            if let Some(callback) = &mut progress {
                // The hint of an iterator may be too low.
                callback(done, known.max(done));
            }
        }
        Ok(outputs.into_iter().flatten().collect())
    }
}

impl<'a, F: TaskFn> IntoFuture for RunAll<'a, F> {
    type Output = Result<Vec<F::Output>, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Window of tasks in flight.
///
/// It starts small, so that no task queues behind a long one while another host is idle. It grows while
/// tasks return so fast that hosts would wait for the next.
struct Window {
    width: usize,
    hosts: usize,
}

impl Window {
    fn new(hosts: usize) -> Self {
        let hosts = hosts.max(1);
        Self { width: hosts * config::TASKS_IN_FLIGHT_MIN, hosts }
    }

    fn set_hosts(&mut self, hosts: usize) {
        self.hosts = hosts.max(1);
        self.width = self.width.max(self.hosts * config::TASKS_IN_FLIGHT_MIN);
    }

    fn adapt(&mut self, took: Duration) {
        if took < config::SHORT_TASK_MAX {
            self.width = (self.width + 1).min(self.hosts * config::TASKS_IN_FLIGHT_MAX);
        } else {
            // Halved and not decremented: after a long task the window is small again within a few
            // results.
            self.width = (self.width / 2).max(self.hosts * config::TASKS_IN_FLIGHT_MIN);
        }
    }
}

impl<F: TaskFn> fmt::Debug for RunTask<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunTask")
            .field("task", &self.task)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<F: TaskFn> fmt::Debug for RunAll<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunAll").field("function", &F::NAME).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_widens_for_short_tasks_and_narrows_for_long_ones() {
        let mut window = Window::new(3);
        assert_eq!(window.width, 6);
        (0..10_000).for_each(|_| window.adapt(Duration::from_micros(50)));
        assert_eq!(window.width, 3 * config::TASKS_IN_FLIGHT_MAX);
        (0..10).for_each(|_| window.adapt(Duration::from_millis(2)));
        assert_eq!(window.width, 6);
    }
}
