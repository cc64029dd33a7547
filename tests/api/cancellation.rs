//! Cancellation: the fate of a call whose caller has dropped it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roadshow::prelude::*;

use crate::fixtures::{Add, Block, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{Gate, Pair, Plan, TestHost, poll_once, run, until};

const SOON: Duration = Duration::from_millis(5);

#[test]
fn a_call_that_is_dropped_or_expires_before_its_handler_starts_is_never_handled() {
    run(async {
        let (pair, gate) = (Pair::start().await, Gate::default());
        // The blocked thread is the one that reads the link, so the calls stay in the socket.
        let clerk = pair.serve(Clerk::at(&gate));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let mut dropped = clerk.send(Note(1));
        assert!(poll_once(&mut dropped).await.is_pending());
        drop(dropped);
        assert!(clerk.send(Note(2)).timeout(SOON).await.unwrap_err().is_timeout());
        let waiting = clerk.try_send(Note(3)).unwrap();
        // The cancellations have to be written behind their calls before the reader continues.
        until(|| pair.here.host.snapshot().peers[0].unwritten_bytes == 0).await;
        gate.open();
        assert_eq!((blocked.await, waiting.await), (Ok(()), Ok(())));
        assert_eq!(clerk.send(Notes).await, Ok(vec![3]));
        // A cancelled call is no lost message.
        assert_eq!(pair.there.host.snapshot().dead_letters, 0);
    });
}

#[test]
fn a_call_that_is_dropped_while_it_is_queued_in_the_mailbox_is_never_handled() {
    run(async {
        let (pair, other, gate) = (Pair::start().await, TestHost::start().await, Gate::default());
        // The actor blocks its own thread, so the host's links are still read.
        let clerk = Clerk::at(&gate);
        let addr = Clerk::start_in_arbiter(&other.arbiter, move |_| clerk());
        let clerk = pair.here.cluster.bind(&pair.there.cluster.register(addr));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let accepted = || pair.there.host.snapshot().peers[0].calls_accepted;
        let mut dropped = clerk.send(Note(1));
        assert!(poll_once(&mut dropped).await.is_pending());
        until(|| accepted() == 2).await;
        drop(dropped);
        // The cancellation has arrived while the call is still in the mailbox.
        until(|| accepted() == 1).await;
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn the_future_of_a_handler_is_dropped_with_its_call() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let mut dropped = clerk.send(Hold(1));
        assert!(poll_once(&mut dropped).await.is_pending());
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]), "it has started");
        drop(dropped);
        assert_eq!(clerk.send(Release(1)).await, Ok(false), "the handler's future is gone");
        // An expired call is cancelled like a dropped one.
        assert!(clerk.send(Hold(2)).timeout(SOON).await.unwrap_err().is_timeout());
        assert_eq!(clerk.send(Release(2)).await, Ok(false));
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        assert_eq!(pair.there.host.snapshot().peers[0].calls_accepted, 0);
    });
}

#[test]
fn dropping_a_call_cancels_it_on_the_same_host_too() {
    run(async {
        let (site, gate) = (TestHost::start().await, Gate::default());
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&alive);
        let lingerer = site.serve(move || Lingerer(counted));
        let lingers = lingerer.try_send(Linger).unwrap();
        assert_eq!(lingerer.send(Lingering).await, Ok(1));
        drop(lingers);
        until(|| alive.load(Ordering::SeqCst) == 0).await;

        let clerk = site.serve(Clerk::at(&gate));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        drop(clerk.try_send(Note(2)).unwrap());
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

/// Actor that counts the live futures of its handler.
#[derive(RemoteActor)]
#[remote(local, handles(Linger, Lingering))]
struct Lingerer(Arc<AtomicUsize>);

impl Actor for Lingerer {
    type Context = Context<Self>;
}

/// Request that is never answered.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Linger;

/// Marker that lives as long as a handler's future.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler<Linger> for Lingerer {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Linger, _: &mut Context<Self>) -> Self::Result {
        self.0.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&self.0));
        Box::pin(
            async move {
                std::future::pending::<()>().await;
                drop(alive);
            }
            .into_actor(self),
        )
    }
}

/// Asks for the number of live futures.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "usize")]
struct Lingering;

impl Handler<Lingering> for Lingerer {
    type Result = usize;

    fn handle(&mut self, _: Lingering, _: &mut Context<Self>) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn the_actor_future_of_a_handler_is_dropped_with_its_call() {
    run(async {
        let pair = Pair::start().await;
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&alive);
        let lingerer = pair.serve(move || Lingerer(counted));
        let mut calls: Vec<_> = (0..3).map(|_| lingerer.try_send(Linger).unwrap()).collect();
        assert_eq!(lingerer.send(Lingering).await, Ok(3));
        // One of several, so that a cancellation of the wrong call would show.
        drop(calls.remove(1));
        until(|| alive.load(Ordering::SeqCst) == 2).await;
        drop(calls);
        until(|| alive.load(Ordering::SeqCst) == 0).await;
        assert_eq!(lingerer.send(Lingering).await, Ok(0));
    });
}

static TASK_GATE: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(Gate::default);
static TASKS_BEGUN: AtomicUsize = AtomicUsize::new(0);

#[roadshow::task]
fn hold_up() {
    TASK_GATE.pass();
}

#[roadshow::task]
fn begin() {
    TASKS_BEGUN.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_task_whose_caller_times_out_while_it_is_queued_is_never_run() {
    run(async {
        let (here, there) = (TestHost::start().await, Plan::of_tasks().start().await);
        here.knows(&there);
        here.places_on(&there);
        let cluster = here.cluster.clone();
        let busy = actix_rt::spawn(async move { cluster.run(hold_up::task()).await });
        TASK_GATE.reached_by(1).await;
        // The worker has one thread for tasks, which is busy, so this task has to wait.
        let late = here.cluster.run(begin::task()).timeout(SOON).await.unwrap_err();
        assert!(late.to_string().contains("timeout"), "{late}");
        until(|| here.host.snapshot().peers[0].unwritten_bytes == 0).await;
        TASK_GATE.open();
        assert_eq!(busy.await.unwrap(), Ok(()));
        // One more task in the queue: when it has run, the expired one has been skipped.
        here.cluster.run(hold_up::task()).await.unwrap();
        assert_eq!(TASKS_BEGUN.load(Ordering::SeqCst), 0);
    });
}
