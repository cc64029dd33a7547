//! Cancellation: what becomes of a call that nobody waits for any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roadshow::prelude::*;

use crate::cast::{Add, Block, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{Gate, Pair, Plan, TestHost, poll_once, run, until};

const SOON: Duration = Duration::from_millis(5);

#[test]
fn a_call_that_was_dropped_or_timed_out_before_its_handler_began_never_begins() {
    run(async {
        let (pair, gate) = (Pair::start().await, Gate::default());
        // The thread that is held up is the one that would read the calls.
        let clerk = pair.serve(Clerk::at(&gate));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let mut dropped = clerk.send(Note(1));
        assert!(poll_once(&mut dropped).await.is_pending());
        drop(dropped);
        assert!(clerk.send(Note(2)).timeout(SOON).await.unwrap_err().is_timeout());
        let kept = clerk.try_send(Note(3)).unwrap();
        until(|| pair.here.host.snapshot().peers[0].unwritten_bytes == 0).await;
        gate.open();
        assert_eq!((blocked.await, kept.await), (Ok(()), Ok(())));
        assert_eq!(clerk.send(Notes).await, Ok(vec![3]));
        assert_eq!(pair.there.host.snapshot().dead_letters, 0);
    });
}

#[test]
fn a_call_that_is_dropped_while_it_lies_in_the_mailbox_never_begins() {
    run(async {
        let (pair, aside, gate) = (Pair::start().await, TestHost::start().await, Gate::default());
        // Its host's links are read while the actor is held up on a thread of its own.
        let clerk = Clerk::at(&gate);
        let addr = Clerk::start_in_arbiter(&aside.arbiter, move |_| clerk());
        let clerk = pair.here.cluster.bind(&pair.there.cluster.register(addr));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let accepted = || pair.there.host.snapshot().peers[0].calls_accepted;
        let mut dropped = clerk.send(Note(1));
        assert!(poll_once(&mut dropped).await.is_pending());
        until(|| accepted() == 2).await;
        drop(dropped);
        until(|| accepted() == 1).await;
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_handler_s_future_is_dropped_when_its_call_is() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let mut dropped = clerk.send(Hold(1));
        assert!(poll_once(&mut dropped).await.is_pending());
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]), "it has begun");
        drop(dropped);
        assert_eq!(clerk.send(Release(1)).await, Ok(false), "nobody is held");
        assert!(clerk.send(Hold(2)).timeout(SOON).await.unwrap_err().is_timeout());
        assert_eq!(clerk.send(Release(2)).await, Ok(false));
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        assert_eq!(pair.there.host.snapshot().peers[0].calls_accepted, 0);
    });
}

#[test]
fn on_the_same_host_dropping_cancels_too() {
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

/// Counts the futures of its handler that are alive.
#[derive(RemoteActor)]
#[remote(local, handles(Linger, Lingering))]
struct Lingerer(Arc<AtomicUsize>);

impl Actor for Lingerer {
    type Context = Context<Self>;
}

/// Is never answered.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Linger;

/// One that lives.
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

/// How many there are.
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
fn a_handler_s_future_within_the_actor_is_dropped_when_its_call_is() {
    run(async {
        let pair = Pair::start().await;
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&alive);
        let lingerer = pair.serve(move || Lingerer(counted));
        let mut calls: Vec<_> = (0..3).map(|_| lingerer.try_send(Linger).unwrap()).collect();
        assert_eq!(lingerer.send(Lingering).await, Ok(3));
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
fn a_task_whose_caller_gives_up_before_its_turn_never_begins() {
    run(async {
        let (here, there) = (TestHost::start().await, Plan::of_tasks().start().await);
        here.knows(&there);
        here.places_on(&there);
        let cluster = here.cluster.clone();
        let busy = actix_rt::spawn(async move { cluster.run(hold_up::task()).await });
        TASK_GATE.reached_by(1).await;
        let late = here.cluster.run(begin::task()).timeout(SOON).await.unwrap_err();
        assert!(late.to_string().contains("timeout"), "{late}");
        until(|| here.host.snapshot().peers[0].unwritten_bytes == 0).await;
        TASK_GATE.open();
        assert_eq!(busy.await.unwrap(), Ok(()));
        here.cluster.run(hold_up::task()).await.unwrap();
        assert_eq!(TASKS_BEGUN.load(Ordering::SeqCst), 0);
    });
}
