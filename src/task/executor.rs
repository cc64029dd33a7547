//! Receiver's side: a host that runs tasks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{SHORT_TASK_STREAK_MIN, TASK_BATCH_TIME};
use crate::host::{Host, decode_context};
use crate::id::TypeHash;
use crate::lock::Mutex;
use crate::observe::{Percentiles, SPANS, TimeHistogram, Work};
use crate::registry::{Inbound, TaskEntry, panics};
use crate::wire::CallFailure;

/// Service of a host that runs tasks.
///
/// Tasks run one at a time, in order of arrival, on the thread that drives the host's links. The links
/// run between two tasks, so that a result is sent before the next task starts. If several tasks of one
/// function in a row were short, results of some microseconds are sent together.
pub struct TaskService {
    pool: Handle,
    /// Concurrency limit of each pooled task.
    permits: Mutex<FxHashMap<TypeHash, Arc<Semaphore>>>,
    queue: Arc<Mutex<TaskQueue>>,
}

#[derive(Default)]
struct TaskQueue {
    waiting: VecDeque<QueuedTask>,
    /// A [`Runner`] exists.
    running: bool,
    functions: FxHashMap<TypeHash, FunctionStats>,
}

/// Statistics of one function.
#[derive(Default)]
struct FunctionStats {
    counts: TaskCounts,
    times: TimeHistogram,
}

impl TaskQueue {
    fn counts(&mut self, name: TypeHash) -> &mut TaskCounts {
        &mut self.functions.entry(name).or_default().counts
    }

    /// Counts a task that ran, and its time.
    fn end(&mut self, name: TypeHash, with_result: bool, time: Duration) {
        let function = self.functions.entry(name).or_default();
        function.counts.end(with_result);
        function.times.record(time);
    }
}

struct QueuedTask {
    name: TypeHash,
    function: &'static str,
    run: RunFn,
    inbound: Inbound,
}

/// Function that runs a task; returns true if it ended with a result.
type RunFn = fn(Inbound) -> bool;

/// Number of tasks of one function in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Accepted and not started.
    pub queued: u64,
    /// Running now.
    pub running: u64,
    /// Ended with a result.
    pub finished: u64,
    /// Ended without a result: panicked, could not start, or were cancelled.
    pub failed: u64,
}

impl TaskCounts {
    fn begin(&mut self) {
        self.queued -= 1;
        self.running += 1;
    }

    fn end(&mut self, with_result: bool) {
        self.running -= 1;
        if with_result {
            self.finished += 1;
        } else {
            self.failed += 1;
        }
    }
}

impl TaskService {
    /// Creates a service whose pooled tasks run on the blocking threads of `pool`.
    #[must_use]
    pub fn new(pool: Handle) -> Self {
        Self { pool, permits: Mutex::default(), queue: Arc::default() }
    }

    /// Task counts by the hash of the function's name, with the percentiles of the run time.
    pub(crate) fn counts(&self) -> Vec<(TypeHash, TaskCounts, Option<Percentiles>)> {
        let queue = self.queue.lock();
        let functions = queue.functions.iter();
        functions.map(|(name, function)| (*name, function.counts, function.times.percentiles())).collect()
    }

    /// Runs the task with the arguments in `inbound`, in the queue or in the pool.
    pub fn run(&self, host: &Host, name: TypeHash, inbound: Inbound) {
        let Some(task) = host.registry().task(name) else {
            return inbound.fail(&CallFailure::NotHandled {
                actor: "this executable".to_owned(),
                message: format!("task {}", host.registry().name_of(name)),
            });
        };
        match task.parallel {
            None => {
                let TaskEntry { name: function, run, .. } = task;
                self.run_queued(host, QueuedTask { name, function, run, inbound });
            }
            Some(width) => self.run_in_pool(
                host.clone(),
                width,
                QueuedTask { name, function: task.name, run: task.run, inbound },
            ),
        }
    }

    fn run_queued(&self, host: &Host, task: QueuedTask) {
        let runs = {
            let mut queue = self.queue.lock();
            queue.counts(task.name).queued += 1;
            queue.waiting.push_back(task);
            // Under the lock, so that each queue has a single runner.
            std::mem::replace(&mut queue.running, true)
        };
        if !runs {
            // On the thread that drives the host's link, where results leave without waking another
            // one.
            host.execute(run_waiting(
                host.clone(),
                Runner { queue: Arc::clone(&self.queue), is_done: false },
            ));
        }
    }

    fn run_in_pool(&self, host: Host, width: usize, task: QueuedTask) {
        let QueuedTask { name, function, run, inbound } = task;
        let permits = {
            let mut all = self.permits.lock();
            Arc::clone(all.entry(name).or_insert_with(|| Arc::new(Semaphore::new(width))))
        };
        let (pool, queue) = (self.pool.clone(), Arc::clone(&self.queue));
        queue.lock().counts(name).queued += 1;
        let task = async move {
            // The semaphore is never closed. Before a thread is taken, so that waiting tasks do not
            // occupy the pool.
            let Ok(permit) = permits.acquire_owned().await else { return };
            pool.spawn_blocking(move || {
                queue.lock().counts(name).begin();
                let started_at = Instant::now();
                if let Err(failure) = host.admit_work(started_at.into_std()) {
                    inbound.fail(&failure);
                    return queue.lock().counts(name).end(false);
                }
                let with_result = run_one(&host, run, inbound);
                let time = started_at.elapsed();
                // The result is sent by now. A worker that ends meanwhile leaves this span out uncounted.
                SPANS.offer(Work::Task { function }, started_at.into_std(), time);
                queue.lock().end(name, with_result, time);
                drop(permit);
            });
        };
        self.pool.spawn(crate::background::inherit(task));
    }
}

/// Runner of the queued tasks. Dropping it unfinished, with its thread, rejects them, since no other
/// would start them.
struct Runner {
    queue: Arc<Mutex<TaskQueue>>,
    is_done: bool,
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let waiting = {
            let mut queue = self.queue.lock();
            queue.running = false;
            let waiting = std::mem::take(&mut queue.waiting);
            for QueuedTask { name, .. } in &waiting {
                let counts = queue.counts(*name);
                // By way of `running`, from which `end` counts.
                counts.begin();
                counts.end(false);
            }
            waiting
        };
        waiting.into_iter().for_each(|task| task.inbound.fail(&CallFailure::Closing));
    }
}

/// Runs queued tasks until the queue is empty.
async fn run_waiting(host: Host, mut runner: Runner) {
    // One read of the clock for each task: its end is the start of the next one.
    let mut now = Instant::now();
    let mut batch = TaskBatch { started_at: now, last: None, short: 0 };
    let mut ended = None;
    while let Some(QueuedTask { name, function, run, inbound }) = next(&runner.queue, ended) {
        if batch.is_exhausted(run, now) {
            // Lets the links send the results so far.
            tokio::task::yield_now().await;
            now = Instant::now();
            batch.started_at = now;
        }
        if let Err(failure) = host.admit_work(now.into_std()) {
            inbound.fail(&failure);
            ended = None;
            runner.queue.lock().counts(name).end(false);
            continue;
        }
        let with_result = run_one(&host, run, inbound);
        let started_at = std::mem::replace(&mut now, Instant::now());
        let time = now - started_at;
        // With the reads of the clock that the histogram needs.
        SPANS.offer(Work::Task { function }, started_at.into_std(), time);
        ended = Some((name, with_result, time));
        batch.has_run(run, now);
    }
    runner.is_done = true;
}

/// Tasks that run back to back before their results are sent.
struct TaskBatch {
    started_at: Instant,
    last: Option<RunFn>,
    /// Number of consecutive short tasks of this function.
    short: u32,
}

impl TaskBatch {
    /// True if the results so far must be sent before a task of `next` starts.
    ///
    /// Only a function with a streak of short tasks is expected to be short again.
    fn is_exhausted(&self, next: RunFn, now: Instant) -> bool {
        // Functions with identical code may share an address, which only makes a batch longer.
        let same = self.last.is_none_or(|last| std::ptr::fn_addr_eq(last, next));
        !same
            || now - self.started_at >= TASK_BATCH_TIME
            || (self.last.is_some() && self.short < SHORT_TASK_STREAK_MIN)
    }

    fn has_run(&mut self, task: RunFn, now: Instant) {
        let same = self.last.replace(task).is_some_and(|last| std::ptr::fn_addr_eq(last, task));
        let short = now - self.started_at < TASK_BATCH_TIME;
        self.short = if short { if same { self.short.saturating_add(1) } else { 1 } } else { 0 };
    }
}

/// Counts the finished task, and takes the next one.
fn next(queue: &Mutex<TaskQueue>, ended: Option<(TypeHash, bool, Duration)>) -> Option<QueuedTask> {
    let mut queue = queue.lock();
    if let Some((name, with_result, time)) = ended {
        queue.end(name, with_result, time);
    }
    let next = queue.waiting.pop_front();
    if let Some(task) = &next {
        queue.counts(task.name).begin();
    }
    // Under the same lock as the pop: a task that arrives later starts the next runner.
    queue.running = next.is_some();
    next
}

/// Runs a task. A panic of its types outside of the function itself fails this task alone.
fn run_one(host: &Host, run: RunFn, inbound: Inbound) -> bool {
    let ran = panics::catch(|| decode_context::within(host, || run(inbound)));
    ran.unwrap_or_else(|text| {
        tracing::warn!(text, "a task's value panicked while it was dropped");
        false
    })
}

impl fmt::Debug for TaskService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::id::{CallId, HostUid};
    use crate::registry::{PackedCharge, ReplyPath};
    use crate::wire::{Body, Encoded};

    /// Reply path that records the outcomes of calls.
    #[derive(Default)]
    struct Caller(Mutex<Vec<(CallId, CallFailure)>>);

    impl ReplyPath for Caller {
        fn host(&self) -> HostUid {
            HostUid { host: crate::id::HostId(1), incarnation: crate::id::Incarnation(1) }
        }
        fn body_bytes_max(&self) -> usize {
            1 << 10
        }
        fn batch_size(&self, waiting: usize) -> usize {
            waiting
        }
        fn reply(&self, _: CallId, _: Encoded<'_>, _: Option<&PackedCharge>) {}
        fn fail(&self, call: CallId, failure: &CallFailure, _: Option<PackedCharge>) {
            self.0.lock().push((call, failure.clone()));
        }
        fn release_credit(&self, _: PackedCharge) {}
        fn is_cancelled(&self, _: CallId) -> bool {
            false
        }
        fn wake_when_cancelled(&self, _: CallId, _: &Waker) -> bool {
            false
        }
        fn dead_letter(&self, _: &CallFailure) {}
    }

    #[test]
    fn queued_tasks_of_an_ended_thread_are_rejected() {
        let (caller, queue, name) =
            (Arc::<Caller>::default(), Arc::<Mutex<TaskQueue>>::default(), TypeHash(7));
        for number in 1..=2 {
            let body = Body { message: [0xc0][..].into(), ..Body::empty() };
            let inbound = Inbound::new(Arc::clone(&caller) as _, Some(CallId(number)), None, body, None);
            queue.lock().waiting.push_back(QueuedTask { name, function: "f", run: |_| true, inbound });
            queue.lock().counts(name).queued += 1;
        }
        queue.lock().running = true;
        drop(Runner { queue: Arc::clone(&queue), is_done: false });
        let ends = std::mem::take(&mut *caller.0.lock());
        assert_eq!(ends, [1, 2].map(|number| (CallId(number), CallFailure::Closing)));
        let queue = queue.lock();
        assert!(!queue.running, "the next task starts another runner");
        assert_eq!(queue.functions[&name].counts, TaskCounts { failed: 2, ..TaskCounts::default() });
    }
}
