//! Tasks: results, order, progress, concurrency, and placement.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, LazyLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roadshow::NotDelivered;
use roadshow::TaskFn;
use roadshow::internals::id::{CallId, Target};
use roadshow::internals::wire::{Call, CallFailure, Frame};
use roadshow::prelude::*;

use crate::hosts::{Gate, PATIENCE, Plan, TestHost, poll_once, run, until};
use crate::raw::{Raw, body_of};

#[roadshow::task]
fn square(n: u64) -> u64 {
    n * n
}

#[roadshow::task]
fn divide(n: u64, by: u64) -> u64 {
    n / by
}

#[roadshow::task]
fn process() -> u32 {
    std::process::id()
}

/// Computes until a file exists; returns its process.
#[roadshow::task]
fn compute_until(file: PathBuf) -> u32 {
    compute(&file);
    std::process::id()
}

fn compute(until: &std::path::Path) {
    let since = Instant::now();
    while !until.exists() {
        assert!(since.elapsed() < PATIENCE, "the computation ends in time");
        // Computes without waiting, as a long task does.
        std::thread::yield_now();
    }
}

/// Number of functions that run concurrently, and its maximum.
#[derive(Debug)]
struct Overlap {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Overlap {
    const fn new() -> Self {
        Self { now: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }

    fn during(&self, work: impl FnOnce()) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        work();
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

static ALONE: Overlap = Overlap::new();
static TOGETHER: Overlap = Overlap::new();
static ALL_THREE: Barrier = Barrier::new(3);
static BUSY: LazyLock<Gate> = LazyLock::new(Gate::default);
static STARTED: AtomicUsize = AtomicUsize::new(0);

#[roadshow::task]
fn alone() {
    // Long enough that a concurrent task would overlap.
    ALONE.during(|| (0..50).for_each(|_| std::thread::yield_now()));
}

/// Continues when two others run concurrently.
#[roadshow::task(parallel = 3)]
fn in_threes() {
    TOGETHER.during(|| {
        // Blocks until three run, so a lower limit would hang the test.
        ALL_THREE.wait();
    });
}

#[roadshow::task]
fn block_task_thread() {
    BUSY.pass();
}

#[roadshow::task]
fn begin() {
    STARTED.fetch_add(1, Ordering::SeqCst);
}

/// Starts a host that runs tasks, and one that sends them.
async fn task_host() -> (TestHost, TestHost) {
    let (here, there) = (TestHost::start().await, Plan::of_tasks().start().await);
    here.knows(&there);
    here.places_on(&there);
    (here, there)
}

/// Actor that returns its process, or computes in it.
#[derive(RemoteActor)]
#[remote(handles(GetPid, Compute))]
struct Resident;

impl Actor for Resident {
    type Context = Context<Self>;
}

impl Spawn for Resident {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct GetPid;

impl Handler<GetPid> for Resident {
    type Result = u32;

    fn handle(&mut self, _: GetPid, _: &mut Context<Self>) -> u32 {
        std::process::id()
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Compute {
    until: PathBuf,
}

impl Handler<Compute> for Resident {
    type Result = ();

    fn handle(&mut self, Compute { until }: Compute, _: &mut Context<Self>) {
        compute(&until);
    }
}

/// File that does not exist yet, and is removed at the end of its test.
struct SignalFile(PathBuf);

impl SignalFile {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("roadshow-{}-{name}", std::process::id())))
    }

    fn create(&self) {
        std::fs::write(&self.0, "").unwrap();
    }
}

impl Drop for SignalFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_task_gives_its_result() {
    run(async {
        let (here, _there) = task_host().await;
        assert_eq!(here.cluster.run(square::task(12)).await, Ok(144));
        assert_eq!(here.cluster.run(divide::task(12, 5)).await, Ok(2));
        assert_eq!(square(3), 9, "it is still a function");
    });
}

#[test]
fn results_of_many_tasks_keep_their_order_and_progress_is_reported() {
    const TASKS: u64 = 1000;
    run(async {
        let (here, _there) = task_host().await;
        let mut reported = Vec::new();
        let tasks = here.cluster.run_all((0..TASKS).map(square::task));
        let squares = tasks.progress(|done, all| reported.push((done, all))).await.unwrap();
        assert!(squares.into_iter().eq((0..TASKS).map(|n| n * n)));
        let all = TASKS as usize;
        assert!(reported.into_iter().eq((1..=all).map(|done| (done, all))));
        assert_eq!(here.cluster.run_all((0..0).map(square::task)).await, Ok(vec![]));
    });
}

#[test]
fn the_first_error_ends_many_tasks() {
    run(async {
        let (here, _there) = task_host().await;
        // The divisor 0 comes last, so that tasks with results come before the error.
        let error = here.cluster.run_all((0..100).rev().map(|by| divide::task(1, by))).await.unwrap_err();
        assert!(
            matches!(&error, TaskError::Panicked { text, .. } if text.contains("divide by zero")),
            "{error}"
        );
        assert!(error.to_string().contains(divide::NAME), "{error}");
        assert_eq!(here.cluster.run(square::task(2)).await, Ok(4));
    });
}

#[test]
fn tasks_of_one_worker_run_one_at_a_time() {
    run(async {
        let (here, there) = task_host().await;
        let other = TestHost::start().await;
        other.knows(&there);
        other.places_on(&there);
        // Two callers: one at a time holds for the worker and not for each caller.
        let tasks = (0..40).map(|n| if n % 2 == 0 { &here } else { &other });
        let done = join_all(tasks.map(|site| async { site.cluster.run(alone::task()).await })).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        assert_eq!(ALONE.most(), 1);
    });
}

#[test]
fn parallel_tasks_run_concurrently_up_to_their_limit() {
    run(async {
        let (here, _there) = task_host().await;
        let done = join_all((0..30).map(|_| async { here.cluster.run(in_threes::task()).await })).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        // 30 tasks wait, so the limit is what stops a fourth.
        assert_eq!(TOGETHER.most(), 3);
    });
}

#[test]
fn the_result_of_a_short_task_is_sent_before_a_long_one_starts() {
    run(async {
        let (here, _there) = task_host().await;
        let signal = SignalFile::new("behind-a-short-one");
        // Both tasks are queued when the first starts.
        let (short, long) =
            (here.cluster.run(square::task(3)), here.cluster.run(compute_until::task(signal.0.clone())));
        let mut long = long.into_future();
        let (short, ()) = tokio::join!(short, async { assert!(poll_once(&mut long).await.is_pending()) });
        assert_eq!(short, Ok(9));
        signal.create();
        assert!(long.await.is_ok());
    });
}

#[test]
fn a_task_that_expires_in_the_queue_never_runs() {
    run(async {
        let (here, there) = task_host().await;
        let mut raw = Raw::connect(&there).await;
        let call = |number, timeout_ms, message| {
            let (target, call) = (Target::TASKS, CallId(number));
            Frame::Call(Call { call, target, message, timeout_ms, low_watermark: None, body: body_of(&()) })
        };
        // One write, so that all three are queued before the first one blocks the thread.
        raw.write_all([
            call(1, 0, block_task_thread::HASH),
            // One millisecond, which passes while the first task blocks.
            call(2, 1, begin::HASH),
            call(3, 0, process::HASH),
        ])
        .await;
        BUSY.reached_by(1).await;
        let late = here.cluster.run(process::task()).timeout(Duration::from_millis(5)).await.unwrap_err();
        assert!(late.to_string().contains("timeout"), "{late}");
        BUSY.open();
        assert!(matches!(raw.read().await, Some(Frame::Reply(reply)) if reply.call == CallId(1)));
        match raw.read().await {
            Some(Frame::Failure(failed)) => {
                assert_eq!((failed.call, failed.failure), (CallId(2), CallFailure::Expired))
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(raw.read().await, Some(Frame::Reply(reply)) if reply.call == CallId(3)));
        assert_eq!(STARTED.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_host_without_a_task_service_rejects_tasks() {
    run(async {
        let (here, there) = (TestHost::start().await, TestHost::start().await);
        here.knows(&there);
        here.places_on(&there);
        let error = here.cluster.run(square::task(1)).await.unwrap_err();
        let reason = matches!(error, TaskError::NotDelivered { reason: NotDelivered::NotHandled { .. }, .. });
        assert!(reason, "{error}");
        // A host without a placement has no worker at all.
        let nowhere = TestHost::start().await.cluster.run(square::task(1)).await.unwrap_err();
        assert_eq!(nowhere, TaskError::NoWorker { task: square::NAME });
    });
}

#[test]
fn tasks_and_actors_are_spread_over_all_worker_processes() {
    run(async {
        let cluster = Cluster::local(2).await.unwrap();
        let workers: HashSet<u32> = cluster.workers().iter().map(|worker| worker.pid).collect();
        assert_eq!(workers.len(), 2);
        assert!(!workers.contains(&std::process::id()));
        let ran: HashSet<u32> =
            cluster.run_all((0..20).map(|_| process::task())).await.unwrap().into_iter().collect();
        assert_eq!(ran, workers);
        let mut lived = HashSet::new();
        for _ in 0..2 {
            lived.insert(cluster.spawn::<Resident>(()).await.unwrap().send(GetPid).await.unwrap());
        }
        assert_eq!(lived, workers);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn actors_answer_while_a_task_computes_and_tasks_run_while_an_actor_computes() {
    run(async {
        let cluster = Cluster::local(1).await.unwrap();
        let pid = cluster.workers()[0].pid;
        let resident = cluster.spawn::<Resident>(()).await.unwrap();
        let [task_ends, actor_ends] = ["task-ends", "actor-ends"].map(SignalFile::new);

        let handle = cluster.handle();
        let computing = compute_until::task(task_ends.0.clone());
        let task = actix_rt::spawn(async move { handle.run(computing).await });
        until(|| cluster.snapshot().peers.iter().map(|peer| peer.calls_open).sum::<usize>() == 1).await;
        for _ in 0..100 {
            assert_eq!(resident.send(GetPid).await, Ok(pid));
        }
        assert!(!task.is_finished());
        task_ends.create();
        assert_eq!(task.await.unwrap(), Ok(pid));

        let busy = resident.try_send(Compute { until: actor_ends.0.clone() }).unwrap();
        let all = cluster.run_all((0..100).map(square::task)).await.unwrap();
        assert_eq!(all.len(), 100);
        assert_eq!(cluster.snapshot().peers.iter().map(|peer| peer.calls_open).sum::<usize>(), 1);
        actor_ends.create();
        assert_eq!(busy.await, Ok(()));
        cluster.shutdown().await.unwrap();
    });
}
