//! Flow control: unhandled messages are bounded, wait at their sender, and delay no other actor.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, try_join_all};
use roadshow::NotDelivered;
use roadshow::observe::PeerSnapshot;
use roadshow::prelude::*;
use roadshow::{Limits, Request};
use tokio::sync::oneshot;

use crate::fixtures::{Add, Block, Clerk, Echo, Hold, Release};
use crate::hosts::{Gate, Pair, Plan, TestHost, limits, poll_once, run, until};
use crate::raw::Raw;
use crate::recorder::{Book, Entry, Pace, Recorder, entries_of};

// Small limits, so that few messages reach them.
const WINDOW: usize = 4 << 10;
const OUTGOING: usize = 16 << 10;
const SEND_QUEUE: usize = 8 << 10;

/// Limits with a window of a dozen small messages for each actor, and a send queue of about a hundred.
fn narrow() -> Limits {
    limits(|limits| {
        limits.window_bytes = WINDOW;
        limits.outgoing_bytes_max = OUTGOING;
        limits.send_queue_bytes_max = SEND_QUEUE;
    })
}

/// Returns the snapshot that a host has of another.
fn peer(of: &TestHost, other: &TestHost) -> PeerSnapshot {
    let peers = of.host.snapshot().peers;
    peers.into_iter().find(|peer| peer.identity == other.identity()).unwrap()
}

/// Actor that forwards travellers along their route, one after another if it is a narrow one.
#[derive(RemoteActor)]
#[remote(local, handles(Travel))]
struct Station {
    one_at_a_time: bool,
}

impl Actor for Station {
    type Context = Context<Self>;
}

/// Is answered with the number of stations left, after it has visited all of them.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<usize, String>")]
struct Travel {
    route: Vec<RemoteAddr<Station>>,
}

impl Handler<Travel> for Station {
    type Result = ResponseFuture<Result<usize, String>>;

    fn handle(&mut self, Travel { mut route }: Travel, ctx: &mut Context<Self>) -> Self::Result {
        let (release, done) = oneshot::channel::<()>();
        // The actor handles no other message until this one is done, as an actix handler with `ctx.wait`
        // does.
        if self.one_at_a_time {
            let waits = async { drop(done.await) };
            ctx.wait(waits.into_actor(self));
        }
        Box::pin(async move {
            let left = route.len();
            if let Some(next) = route.pop() {
                next.send(Travel { route }).await.map_err(|error| error.to_string())??;
            }
            drop(release);
            Ok(left)
        })
    }
}

#[test]
fn nested_calls_between_hosts_complete_at_ten_times_the_capacity() {
    /// Number of calls: a traveller's frame has about 200 bytes, and is charged 256 more in a window.
    const CALLS: usize = 10 * (WINDOW / 456 + (SEND_QUEUE + OUTGOING) / 200);
    run(async {
        for one_at_a_time in [true, false] {
            let pair = Pair::with(narrow()).await;
            let station = move || Station { one_at_a_time };
            let (first, last) = (pair.serve(station), pair.there.serve(station));
            let between = pair.here.serve(station);
            let calls = join_all(
                (0..CALLS).map(|_| first.send(Travel { route: vec![last.clone(), between.clone()] })),
            );
            for outcome in calls.await {
                assert_eq!(outcome, Ok(Ok(2)));
            }
        }
    });
}

/// Actor that computes for 2 ms for each message, and counts the messages.
#[derive(RemoteActor)]
#[remote(local, handles(Compute))]
struct Slow(Arc<AtomicUsize>);

impl Actor for Slow {
    type Context = Context<Self>;
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Compute;

impl Handler<Compute> for Slow {
    type Result = ();

    fn handle(&mut self, _: Compute, _: &mut Context<Self>) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2) {
            // Computes instead of waiting: a wait would free the thread.
            std::hint::spin_loop();
        }
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_slow_actor_does_not_starve_the_others_of_its_thread() {
    run(async {
        let pair = Pair::start().await;
        let computed = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&computed);
        let (slow, quick) = (pair.serve(move || Slow(counter)), pair.serve(Clerk::default));
        assert_eq!(quick.send(Add(1)).await, Ok(1));
        let waiting: Vec<_> = (0..64).map(|_| slow.try_send(Compute).unwrap()).collect();
        assert_eq!(quick.send(Add(1)).await, Ok(2));
        let before = computed.load(Ordering::SeqCst);
        assert!(before < 16, "{before} messages of one actor were handled before the first of the other");
        try_join_all(waiting).await.unwrap();
        assert_eq!(computed.load(Ordering::SeqCst), 64);
    });
}

/// Sends the first entry, at which the ledger stops, and more until the queue is full. Returns the open
/// calls.
async fn fill(ledger: &RemoteAddr<Recorder>) -> Vec<Request<Entry>> {
    assert_eq!(ledger.send(Entry::new(0, 0)).await, Ok(0));
    let mut calls = Vec::new();
    loop {
        match ledger.try_send(Entry::new(0, calls.len() as u32 + 1)) {
            Ok(call) => calls.push(call),
            Err(full) => {
                assert!(
                    matches!(full.reason, NotDelivered::Full { limit: SEND_QUEUE, .. }),
                    "{}",
                    full.reason
                );
                return calls;
            }
        }
    }
}

/// Lets a ledger continue, and checks that it receives all entries.
async fn catches_up(ledger: &RemoteAddr<Recorder>, pace: &Pace, calls: Vec<Request<Entry>>) {
    pace.end();
    let last = calls.len() as u32;
    assert!(try_join_all(calls).await.unwrap().into_iter().eq(1..=last));
    assert!(entries_of(0, &ledger.send(Book).await.unwrap()).into_iter().eq(0..=last));
}

#[test]
fn an_actor_that_handles_nothing_delays_no_other_actor() {
    run(async {
        let (pair, pace) = (Pair::with(narrow()).await, Pace::default());
        let (ledger, clerk) = (pair.serve(Recorder::at(&pace)), pair.serve(Clerk::default));
        let calls = fill(&ledger).await;
        // Larger than the space that the last call left in the queue, so it has to wait.
        let mut waiting_tell = Box::pin(ledger.tell(Entry::with(1, 0, 400)));
        for sum in 1..=200 {
            assert!(poll_once(&mut waiting_tell).await.is_pending());
            assert_eq!(clerk.send(Add(1)).await, Ok(sum));
        }
        // A message of half a window, which fills most of the outgoing buffer, is no exception.
        assert_eq!(clerk.send(Echo(vec![1; OUTGOING - 1000].into())).await.unwrap().len(), OUTGOING - 1000);
        let (near, far) = (peer(&pair.here, &pair.there), peer(&pair.there, &pair.here));
        assert!((SEND_QUEUE - 500..=SEND_QUEUE).contains(&near.send_queue_bytes), "{near:?}");
        assert!((WINDOW as u64 / 2..=WINDOW as u64).contains(&far.accepted_bytes), "{far:?}");
        pace.end();
        assert_eq!(waiting_tell.await, Ok(()));
        catches_up(&ledger, &pace, calls).await;
    });
}

#[test]
fn a_flood_to_a_slow_actor_stays_within_the_limits_and_arrives_in_order() {
    const ENTRIES: u32 = 300;
    run(async {
        let plan = || Plan { limits: narrow(), ..Plan::default() };
        let (one, other, there) = (plan().start().await, plan().start().await, plan().start().await);
        let pace = Pace::default();
        let near = there.serve(Recorder::at(&pace));
        // Two sending hosts: the window is per host, and the mailbox is shared.
        let hosts = [&one, &other];
        let ledgers = hosts.map(|host| {
            host.knows(&there);
            host.cluster.bind(&near)
        });
        let flood = (0..8).map(|sender| {
            let ledger = &ledgers[sender as usize % 2];
            async move {
                for number in 0..ENTRIES {
                    ledger.tell(Entry::with(sender, number, 100)).await?;
                }
                Ok::<_, NotDelivered>(())
            }
        });
        let (all_sent, most_queued) = (Cell::new(false), Cell::new(0));
        let tell = async {
            try_join_all(flood).await.unwrap();
            all_sent.set(true);
        };
        let watch = until(|| {
            for host in hosts {
                let Some(near) = host.host.snapshot().peers.pop() else { continue };
                assert!(near.outgoing_bytes <= OUTGOING && near.send_queue_bytes <= SEND_QUEUE, "{near:?}");
                most_queued.set(most_queued.get().max(near.send_queue_bytes));
            }
            for far in there.host.snapshot().peers {
                assert!(far.accepted_bytes <= WINDOW as u64 && far.outgoing_bytes <= OUTGOING, "{far:?}");
            }
            // The actor continues in small steps, so that the limits are observed in many intermediate
            // states.
            pace.allow(10);
            all_sent.get()
        });
        join(tell, watch).await;
        assert!(most_queued.get() > SEND_QUEUE - 500, "{most_queued:?}");
        pace.end();
        let mut book = Vec::new();
        for ledger in ledgers {
            book = ledger.send(Book).await.unwrap();
        }
        for sender in 0..8 {
            assert!(entries_of(sender, &book).into_iter().eq(0..ENTRIES), "sender {sender}");
        }
        assert_eq!(one.dead_letters() + other.dead_letters() + there.dead_letters(), 0);
    });
}

#[test]
fn one_way_messages_make_progress_next_to_callers_that_fill_the_queue() {
    const TELLS: u32 = 100;
    run(async {
        let pair = Pair::with(narrow()).await;
        let (ledger, all_sent) = (pair.serve(Recorder::quick), Cell::new(false));
        let callers = (1..=100).map(|sender| {
            let (ledger, all_sent) = (&ledger, &all_sent);
            async move {
                let mut number = 0;
                while !all_sent.get() {
                    assert_eq!(ledger.send(Entry::with(sender, number, 100)).await, Ok(number));
                    number += 1;
                }
            }
        });
        let tell = async {
            // The callers come first, so the one-way messages find a queue that is never empty.
            until(|| peer(&pair.here, &pair.there).send_queue_bytes > SEND_QUEUE / 2).await;
            for number in 0..TELLS {
                ledger.tell(Entry::with(0, number, 100)).await.unwrap();
            }
            all_sent.set(true);
        };
        join(tell, join_all(callers)).await;
        assert!(entries_of(0, &ledger.send(Book).await.unwrap()).into_iter().eq(0..TELLS));
    });
}

#[test]
fn one_way_messages_over_the_budget_are_counted_as_dead_letters() {
    const BURST: u32 = 500;
    run(async {
        let (pair, pace) = (Pair::with(narrow()).await, Pace::default());
        let ledger = pair.serve(Recorder::at(&pace));
        // The three bursts are sent before there is a link, while the actor is stopped, and after it has
        // handled some.
        for burst in 0..3 {
            for number in 0..BURST {
                ledger.do_send(Entry::new(0, burst * BURST + number));
            }
            // `do_send` cannot wait, so it drops what does not fit.
            let dropped = pair.here.dead_letters();
            assert!(dropped > u64::from(burst * BURST), "{dropped}");
            pace.allow(20);
            until(|| peer(&pair.here, &pair.there).send_queue_bytes < SEND_QUEUE - 10 * 70).await;
        }
        pace.end();
        let entries = entries_of(0, &ledger.send(Book).await.unwrap());
        assert_eq!(entries.len() as u64 + pair.here.dead_letters(), u64::from(3 * BURST));
        // Some are lost, but those that arrive keep their order.
        assert!(entries.is_sorted() && entries.len() > 80, "{}", entries.len());
        assert_eq!(pair.there.dead_letters(), 0);
    });
}

#[test]
fn calls_that_are_dropped_before_they_are_read_return_their_credit() {
    run(async {
        let (pair, gate) = (Pair::with(narrow()).await, Gate::default());
        let clerk = pair.serve(Clerk::at(&gate));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let calls: Vec<_> = (0..WINDOW / 512).map(|_| clerk.try_send(Add(1)).unwrap()).collect();
        // Calls and cancellations have to be in the socket before the reader continues.
        let unwritten = || peer(&pair.here, &pair.there).unwritten_bytes;
        until(|| unwritten() == 0).await;
        drop(calls);
        until(|| unwritten() == 0).await;
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        // More messages than the window holds: they complete only if the cancelled calls returned their
        // credit.
        for sum in 1..30 {
            assert_eq!(clerk.send(Add(1)).await, Ok(sum));
        }
        let (near, far) = (peer(&pair.here, &pair.there), peer(&pair.there, &pair.here));
        assert_eq!((near.charged_bytes, far.accepted_bytes), (far.owed_bytes, 0));
    });
}

#[test]
fn answers_cancellations_and_credits_pass_a_full_queue() {
    run(async {
        let pair = Pair::with(narrow()).await;
        let Pair { here, there } = &pair;
        let paces = [Pace::default(), Pace::default()];
        let ledgers =
            [pair.serve(Recorder::at(&paces[0])), there.cluster.bind(&here.serve(Recorder::at(&paces[1])))];
        let nears = [there.serve(Clerk::default), here.serve(Clerk::default)];
        let clerks = [here.cluster.bind(&nears[0]), there.cluster.bind(&nears[1])];
        let held = [clerks[0].try_send(Hold(1)).unwrap(), clerks[1].try_send(Hold(1)).unwrap()];
        // Both directions are full now.
        let mut calls = [fill(&ledgers[0]).await, fill(&ledgers[1]).await];
        for (near, held) in nears.iter().zip(held) {
            assert_eq!(near.send(Release(1)).await, Ok(true));
            assert_eq!(held.await, Ok(1));
        }
        // Failures, cancellations and credits travel outside of flow control, or the two full sides would
        // deadlock.
        for (calls, (caller, called)) in calls.iter_mut().zip([(here, there), (there, here)]) {
            let missing = caller.cluster.bind(&Raw::addr_of::<Clerk>(called.identity(), 99));
            assert_eq!(missing.send(Add(1)).await, Err(NotDelivered::NoSuchActor.into()));
            let accepted = || peer(called, caller).calls_accepted;
            let before = accepted();
            drop(calls.remove(0));
            until(|| accepted() == before - 1).await;
        }
        for (pace, caller) in paces.iter().zip([here, there]) {
            let queued = || caller.host.snapshot().peers[0].send_queue_bytes;
            let before = queued();
            pace.allow(8);
            until(|| queued() < before).await;
            pace.end();
        }
        for (ledger, calls) in ledgers.iter().zip(calls) {
            // The dropped call was number 1.
            let entries: Vec<_> = (0..=calls.len() as u32 + 1).filter(|number| *number != 1).collect();
            try_join_all(calls).await.unwrap();
            assert_eq!(entries_of(0, &ledger.send(Book).await.unwrap()), entries);
        }
    });
}
