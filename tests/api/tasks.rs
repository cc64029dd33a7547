//! Tasks: results, order, progress, one at a time or side by side, and where they run.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, LazyLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roadshow::TaskFn;
use roadshow::host::NotDelivered;
use roadshow::id::{CallId, Target};
use roadshow::prelude::*;
use roadshow::wire::{Call, CallFailure, Frame};

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

/// Computes until a file is there; gives its process.
#[roadshow::task]
fn compute_until(file: PathBuf) -> u32 {
    compute(&file);
    std::process::id()
}

fn compute(until: &std::path::Path) {
    let since = Instant::now();
    while !until.exists() {
        assert!(since.elapsed() < PATIENCE, "a computation is ended in time");
        std::thread::yield_now();
    }
}

/// How many functions run side by side, and how many did at most.
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
static THREE: Barrier = Barrier::new(3);
static BUSY: LazyLock<Gate> = LazyLock::new(Gate::default);
static BEGUN: AtomicUsize = AtomicUsize::new(0);

#[roadshow::task]
fn alone() {
    ALONE.during(|| (0..50).for_each(|_| std::thread::yield_now()));
}

/// Goes on when two others run beside it.
#[roadshow::task(parallel = 3)]
fn in_threes() {
    TOGETHER.during(|| {
        THREE.wait();
    });
}

#[roadshow::task]
fn be_busy() {
    BUSY.pass();
}

#[roadshow::task]
fn begin() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

/// A host that runs tasks, and one that sends it some.
async fn task_host() -> (TestHost, TestHost) {
    let (here, there) = (TestHost::start().await, Plan::of_tasks().start().await);
    here.knows(&there);
    here.places_on(&there);
    (here, there)
}

/// Tells where it lives, or computes there.
#[derive(RemoteActor)]
#[remote(handles(Where, Compute))]
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
struct Where;

impl Handler<Where> for Resident {
    type Result = u32;

    fn handle(&mut self, _: Where, _: &mut Context<Self>) -> u32 {
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

/// A file that is not there yet, and no longer at the end.
struct Signal(PathBuf);

impl Signal {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("roadshow-{}-{name}", std::process::id())))
    }

    fn give(&self) {
        std::fs::write(&self.0, "").unwrap();
    }
}

impl Drop for Signal {
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
        assert_eq!(square(3), 9, "it is a function still");
    });
}

#[test]
fn results_of_many_tasks_come_in_the_tasks_order_and_progress_is_told() {
    const TASKS: u64 = 1000;
    run(async {
        let (here, _there) = task_host().await;
        let mut heard = Vec::new();
        let tasks = here.cluster.run_all((0..TASKS).map(square::task));
        let squares = tasks.progress(|done, all| heard.push((done, all))).await.unwrap();
        assert!(squares.into_iter().eq((0..TASKS).map(|n| n * n)));
        let all = TASKS as usize;
        assert!(heard.into_iter().eq((1..=all).map(|done| (done, all))));
        assert_eq!(here.cluster.run_all((0..0).map(square::task)).await, Ok(vec![]));
    });
}

#[test]
fn the_first_error_ends_many_tasks() {
    run(async {
        let (here, _there) = task_host().await;
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
        let tasks = (0..40).map(|n| if n % 2 == 0 { &here } else { &other });
        let done = join_all(tasks.map(|site| async { site.cluster.run(alone::task()).await })).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        assert_eq!(ALONE.most(), 1);
    });
}

#[test]
fn tasks_that_may_run_side_by_side_do_so_up_to_their_number() {
    run(async {
        let (here, _there) = task_host().await;
        let done = join_all((0..30).map(|_| async { here.cluster.run(in_threes::task()).await })).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        assert_eq!(TOGETHER.most(), 3);
    });
}

#[test]
fn the_result_of_a_short_task_leaves_before_a_long_one_begins() {
    run(async {
        let (here, _there) = task_host().await;
        let signal = Signal::new("behind-a-short-one");
        // Both are there when the first begins.
        let (short, long) =
            (here.cluster.run(square::task(3)), here.cluster.run(compute_until::task(signal.0.clone())));
        let mut long = long.into_future();
        let (short, ()) = tokio::join!(short, async { assert!(poll_once(&mut long).await.is_pending()) });
        assert_eq!(short, Ok(9));
        signal.give();
        assert!(long.await.is_ok());
    });
}

#[test]
fn a_task_whose_time_is_up_before_its_turn_never_begins() {
    run(async {
        let (here, there) = task_host().await;
        let mut raw = Raw::connect(&there).await;
        let call = |number, timeout_ms, message| {
            let (target, call) = (Target::TASKS, CallId(number));
            Frame::Call(Call { call, target, message, timeout_ms, low_watermark: None, body: body_of(&()) })
        };
        raw.write_all([call(1, 0, be_busy::HASH), call(2, 1, begin::HASH), call(3, 0, process::HASH)]).await;
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
        assert_eq!(BEGUN.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_host_of_actors_runs_no_tasks_and_says_so() {
    run(async {
        let (here, there) = (TestHost::start().await, TestHost::start().await);
        here.knows(&there);
        here.places_on(&there);
        let error = here.cluster.run(square::task(1)).await.unwrap_err();
        let reason = matches!(error, TaskError::NotDelivered { reason: NotDelivered::NotHandled { .. }, .. });
        assert!(reason, "{error}");
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
            lived.insert(cluster.spawn::<Resident>(()).await.unwrap().send(Where).await.unwrap());
        }
        assert_eq!(lived, workers);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn actors_answer_while_a_task_computes_in_their_process_and_tasks_run_while_an_actor_does() {
    run(async {
        let cluster = Cluster::local(1).await.unwrap();
        let pid = cluster.workers()[0].pid;
        let resident = cluster.spawn::<Resident>(()).await.unwrap();
        let [task_ends, actor_ends] = ["task-ends", "actor-ends"].map(Signal::new);

        let handle = cluster.handle();
        let computing = compute_until::task(task_ends.0.clone());
        let task = actix_rt::spawn(async move { handle.run(computing).await });
        until(|| cluster.snapshot().peers.iter().map(|peer| peer.calls_open).sum::<usize>() == 1).await;
        for _ in 0..100 {
            assert_eq!(resident.send(Where).await, Ok(pid));
        }
        assert!(!task.is_finished());
        task_ends.give();
        assert_eq!(task.await.unwrap(), Ok(pid));

        let busy = resident.try_send(Compute { until: actor_ends.0.clone() }).unwrap();
        let all = cluster.run_all((0..100).map(square::task)).await.unwrap();
        assert_eq!(all.len(), 100);
        assert_eq!(cluster.snapshot().peers.iter().map(|peer| peer.calls_open).sum::<usize>(), 1);
        actor_ends.give();
        assert_eq!(busy.await, Ok(()));
        cluster.shutdown().await.unwrap();
    });
}
