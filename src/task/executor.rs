//! The receiving side: a host that runs tasks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{SHORT_TASK_STREAK_MIN, TASK_BATCH_TIME};
use crate::host::{Host, decode_context};
use crate::id::TypeHash;
use crate::lock::Mutex;
use crate::registry::{Inbound, panics};
use crate::wire::CallFailure;

/// What a host of tasks does when it is called itself: it runs them.
///
/// One at a time, on the thread that serves the host's links, in the order in which they came. The
/// links have their turn between two tasks, so that a result leaves before the next task begins. Where
/// tasks of one function were short several times in a row, the results of some microseconds leave
/// together.
pub struct TaskService {
    pool: Handle,
    /// For each pooled task, how many may run side by side.
    permits: Mutex<FxHashMap<TypeHash, Arc<Semaphore>>>,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether somebody is at it.
    running: bool,
    counts: FxHashMap<TypeHash, TaskCounts>,
}

struct Waiting {
    name: TypeHash,
    run: RunTask,
    inbound: Inbound,
}

/// Runs a task; says whether it ended with a result.
type RunTask = fn(Inbound) -> bool;

/// How many tasks of one function are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Accepted, and not begun.
    pub queued: u64,
    /// Under way.
    pub running: u64,
    /// Ended with a result.
    pub finished: u64,
    /// Ended without one: they panicked, could not begin, or were not wanted any more.
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
    /// A service whose pooled tasks run on the blocking threads of `pool`.
    #[must_use]
    pub fn new(pool: Handle) -> Self {
        Self { pool, permits: Mutex::default(), queue: Arc::default() }
    }

    /// How many tasks there have been by now, by the names of their functions' hashes.
    #[must_use]
    pub fn counts(&self) -> Vec<(TypeHash, TaskCounts)> {
        self.queue.lock().counts.iter().map(|(name, counts)| (*name, *counts)).collect()
    }

    /// Runs the task that `inbound` holds the arguments of: in its turn, or in the pool.
    pub fn run(&self, host: &Host, name: TypeHash, inbound: Inbound) {
        let Some(task) = host.registry().task(name) else {
            return inbound.fail(&CallFailure::NotHandled {
                actor: "this executable".to_owned(),
                message: format!("task {}", host.registry().name_of(name)),
            });
        };
        match task.parallel {
            None => self.run_queued(host, Waiting { name, run: task.run, inbound }),
            Some(width) => self.run_in_pool(host.clone(), name, width, task.run, inbound),
        }
    }

    fn run_queued(&self, host: &Host, task: Waiting) {
        let runs = {
            let mut queue = self.queue.lock();
            queue.counts.entry(task.name).or_default().queued += 1;
            queue.waiting.push_back(task);
            std::mem::replace(&mut queue.running, true)
        };
        if !runs {
            host.execute(run_waiting(
                host.clone(),
                Runner { queue: Arc::clone(&self.queue), is_done: false },
            ));
        }
    }

    fn run_in_pool(&self, host: Host, name: TypeHash, width: usize, run: RunTask, inbound: Inbound) {
        let permits = {
            let mut all = self.permits.lock();
            Arc::clone(all.entry(name).or_insert_with(|| Arc::new(Semaphore::new(width))))
        };
        let (pool, queue) = (self.pool.clone(), Arc::clone(&self.queue));
        queue.lock().counts.entry(name).or_default().queued += 1;
        self.pool.spawn(async move {
            // The semaphore is never closed.
            let Ok(permit) = permits.acquire_owned().await else { return };
            pool.spawn_blocking(move || {
                queue.lock().counts.entry(name).or_default().begin();
                let with_result = run_one(&host, run, inbound);
                queue.lock().counts.entry(name).or_default().end(with_result);
                drop(permit);
            });
        });
    }
}

/// Sees to the tasks that wait. Dropped before they are through, since its thread has ended, it refuses them:
/// nothing would begin them any more.
struct Runner {
    queue: Arc<Mutex<Queue>>,
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
            for Waiting { name, .. } in &waiting {
                let counts = queue.counts.entry(*name).or_default();
                counts.begin();
                counts.end(false);
            }
            waiting
        };
        waiting.into_iter().for_each(|task| task.inbound.fail(&CallFailure::Closing));
    }
}

/// Runs what waits, until nothing does.
async fn run_waiting(host: Host, mut runner: Runner) {
    let mut turn = TaskBatch { began: Instant::now(), last: None, short: 0 };
    let mut ended = None;
    while let Some(Waiting { name, run, inbound }) = next(&runner.queue, ended) {
        if turn.is_exhausted(run) {
            tokio::task::yield_now().await;
            turn.began = Instant::now();
        }
        ended = Some((name, run_one(&host, run, inbound)));
        turn.has_run(run);
    }
    runner.is_done = true;
}

/// Tasks that run one behind the other before their results leave.
struct TaskBatch {
    began: Instant,
    last: Option<RunTask>,
    /// How many in a row were of this function and short.
    short: u32,
}

impl TaskBatch {
    /// Whether the results so far are to leave before a task of this function begins. Only of one that
    /// was short again and again the next is taken to be.
    fn is_exhausted(&self, next: RunTask) -> bool {
        let same = self.last.is_none_or(|last| std::ptr::fn_addr_eq(last, next));
        !same
            || self.began.elapsed() >= TASK_BATCH_TIME
            || (self.last.is_some() && self.short < SHORT_TASK_STREAK_MIN)
    }

    fn has_run(&mut self, task: RunTask) {
        let same = self.last.replace(task).is_some_and(|last| std::ptr::fn_addr_eq(last, task));
        let short = self.began.elapsed() < TASK_BATCH_TIME;
        self.short = if short { if same { self.short.saturating_add(1) } else { 1 } } else { 0 };
    }
}

/// Counts the task that has ended, and takes the next.
fn next(queue: &Mutex<Queue>, ended: Option<(TypeHash, bool)>) -> Option<Waiting> {
    let mut queue = queue.lock();
    if let Some((name, with_result)) = ended {
        queue.counts.entry(name).or_default().end(with_result);
    }
    let next = queue.waiting.pop_front();
    if let Some(task) = &next {
        queue.counts.entry(task.name).or_default().begin();
    }
    queue.running = next.is_some();
    next
}

/// Runs a task. What of its types panics beside the function itself costs this task alone.
fn run_one(host: &Host, run: RunTask, inbound: Inbound) -> bool {
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
    use crate::registry::{CreditCharge, ReplyPath};
    use crate::wire::{Body, Encoded};

    /// Notes how calls end.
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
        fn reply(&self, _: CallId, _: Encoded<'_>, _: Option<&CreditCharge>) {}
        fn fail(&self, call: CallId, failure: &CallFailure, _: Option<CreditCharge>) {
            self.0.lock().push((call, failure.clone()));
        }
        fn release_credit(&self, _: CreditCharge) {}
        fn is_cancelled(&self, _: CallId) -> bool {
            false
        }
        fn wake_when_cancelled(&self, _: CallId, _: &Waker) -> bool {
            false
        }
        fn dead_letter(&self, _: &CallFailure) {}
    }

    #[test]
    fn tasks_that_wait_for_a_thread_that_has_ended_are_refused() {
        let (caller, queue, name) = (Arc::<Caller>::default(), Arc::<Mutex<Queue>>::default(), TypeHash(7));
        for number in 1..=2 {
            let body = Body { message: [0xc0][..].into(), attachments: Box::default() };
            let inbound = Inbound::new(Arc::clone(&caller) as _, Some(CallId(number)), None, body, None);
            queue.lock().waiting.push_back(Waiting { name, run: |_| true, inbound });
            queue.lock().counts.entry(name).or_default().queued += 1;
        }
        queue.lock().running = true;
        drop(Runner { queue: Arc::clone(&queue), is_done: false });
        let ends = std::mem::take(&mut *caller.0.lock());
        assert_eq!(ends, [1, 2].map(|number| (CallId(number), CallFailure::Closing)));
        let queue = queue.lock();
        assert!(!queue.running, "the next task looks for the thread again");
        assert_eq!(queue.counts[&name], TaskCounts { failed: 2, ..TaskCounts::default() });
    }
}
