//! The sending side: one task, or many at once.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Task, TaskError};
use crate::config;
use crate::host::{Host, deadline_in};
use crate::id::Target;
use crate::registry::TaskFn;
use crate::remote::{ClusterRef, call_service};

impl ClusterRef {
    /// Runs a task on the worker that has the fewest under way.
    ///
    /// # Errors
    ///
    /// The request gives a [`TaskError`].
    pub fn run<F: TaskFn>(&self, task: Task<F>) -> RunTask<F> {
        RunTask { host: self.host.clone(), task, timeout: None }
    }

    /// Runs many tasks, spread over the workers, and gives their results in the tasks' order.
    ///
    /// At most a few are under way for each worker, more if they turn out to be short; the tasks
    /// are taken from the iterator as they are sent.
    ///
    /// # Errors
    ///
    /// The request gives the first [`TaskError`]; tasks that were not sent yet then never run.
    pub fn run_all<'a, F, I>(&self, tasks: I) -> RunAll<'a, F>
    where
        F: TaskFn,
        I: IntoIterator<Item = Task<F>>,
        I::IntoIter: Send + 'a,
    {
        RunAll { host: self.host.clone(), tasks: Box::new(tasks.into_iter()), progress: None }
    }
}

/// A task about to run; awaiting it runs it and gives its result.
///
/// # Cancel safety
///
/// Dropped before it was polled it runs nothing; dropped later it does not begin, unless it has.
#[must_use = "a task runs when it is awaited"]
pub struct RunTask<F: TaskFn> {
    host: Host,
    task: Task<F>,
    timeout: Option<Duration>,
}

impl<F: TaskFn> RunTask<F> {
    /// Gives up after `timeout`, counted from the first poll.
    ///
    /// A task whose turn comes later never runs; as with [`Request::timeout`](crate::Request::timeout)
    /// the receiver counts from when it reads the call.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl<F: TaskFn> IntoFuture for RunTask<F> {
    type Output = Result<F::Output, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run_one(self.host, self.task, self.timeout))
    }
}

/// Results to reserve room for at most: an iterator may claim any length.
const OUTPUTS_RESERVED_MAX: usize = 1 << 16;

async fn run_one<F: TaskFn>(
    host: Host,
    task: Task<F>,
    timeout: Option<Duration>,
) -> Result<F::Output, TaskError> {
    let seat = host.placement().and_then(|placement| placement.place_task());
    let seat = seat.ok_or(TaskError::NoWorker { task: F::NAME })?;
    let deadline = timeout.and_then(deadline_in);
    call_service(&host, seat.host, Target::TASKS, F::HASH, task.args, deadline)
        .await
        .map_err(TaskError::of::<F>)
}

/// Hears how many tasks are done, of how many.
type Progress<'a> = Box<dyn FnMut(usize, usize) + Send + 'a>;

/// Many tasks about to run; awaiting it runs them and gives their results in order.
///
/// # Cancel safety
///
/// Dropping it sends no further task and cancels those that were sent and have not begun.
#[must_use = "tasks run when they are awaited"]
pub struct RunAll<'a, F: TaskFn> {
    host: Host,
    tasks: Box<dyn Iterator<Item = Task<F>> + Send + 'a>,
    progress: Option<Progress<'a>>,
}

impl<'a, F: TaskFn> RunAll<'a, F> {
    /// Calls `heard(done, known)` after each task: how many are done, and of how many, as far as
    /// the iterator can tell. What was to be called before is called first.
    pub fn progress(mut self, mut heard: impl FnMut(usize, usize) + Send + 'a) -> Self {
        self.progress = Some(match self.progress.take() {
            None => Box::new(heard),
            Some(mut earlier) => Box::new(move |done, known| {
                earlier(done, known);
                heard(done, known);
            }),
        });
        self
    }

    async fn run(self) -> Result<Vec<F::Output>, TaskError> {
        let Self { host, tasks, mut progress } = self;
        let (at_least, at_most) = tasks.size_hint();
        let known = at_most.unwrap_or(at_least);
        let mut tasks = tasks.enumerate();
        let mut window = Window::new(host.placement().map_or(1, |placement| placement.task_hosts()));
        let mut under_way = FuturesUnordered::new();
        let mut outputs = Vec::with_capacity(at_least.min(OUTPUTS_RESERVED_MAX));
        let mut done = 0;
        loop {
            while under_way.len() < window.width
                && let Some((index, task)) = tasks.next()
            {
                let host = host.clone();
                under_way.push(async move {
                    let sent = Instant::now();
                    (index, run_one(host, task, None).await, sent.elapsed())
                });
            }
            let Some((index, output, took)) = under_way.next().await else { break };
            window.adapt(took);
            if outputs.len() <= index {
                outputs.resize_with(index + 1, || None);
            }
            outputs[index] = Some(output?);
            done += 1;
            if let Some(heard) = &mut progress {
                heard(done, known.max(done));
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

/// How many tasks are under way at once: few, so that none queues behind a long one while another
/// host is idle; more while they come back so soon that hosts wait for the next.
struct Window {
    width: usize,
    hosts: usize,
}

impl Window {
    fn new(hosts: usize) -> Self {
        let hosts = hosts.max(1);
        Self { width: hosts * config::TASKS_IN_FLIGHT_MIN, hosts }
    }

    fn adapt(&mut self, took: Duration) {
        if took < config::SHORT_TASK_MAX {
            self.width = (self.width + 1).min(self.hosts * config::TASKS_IN_FLIGHT_MAX);
        } else {
            self.width = (self.width / 2).max(self.hosts * config::TASKS_IN_FLIGHT_MIN);
        }
    }
}

impl<F: TaskFn> fmt::Debug for RunTask<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunTask")
            .field("task", &self.task)
            .field("timeout", &self.timeout)
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
