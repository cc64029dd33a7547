//! Races between real threads: senders, the I/O thread, and the threads of links and actors.
//!
//! The simulation runs on one thread, so these tests cover locks and wake-ups. Each takes at most a second;
//! `ROADSHOW_STRESS_ROUNDS` repeats them for longer runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use actix::Arbiter;
use futures_util::future::{join, join_all};
use roadshow::observe::PeerSnapshot;
use roadshow::prelude::*;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::hosts::{Pair, TestHost, limits, poll_once, run, until};
use crate::proxy::{Cut, Proxy};
use crate::recorder::{Book, Entry, Recorder, entries_of};

/// Number of threads that send at the same time.
const SENDERS: u32 = 3;

/// Maximum time of a call, whatever the load of the machine.
const CALL_ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Runs a test once, or `ROADSHOW_STRESS_ROUNDS` times; each run has a time limit.
fn repeatedly<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let rounds = std::env::var("ROADSHOW_STRESS_ROUNDS").map_or(1, |rounds| rounds.parse::<u32>().unwrap());
    (0..rounds).for_each(|_| run(test()));
}

/// Runs each future on a new thread and returns the outputs.
async fn on_threads<F>(each: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let threads = each.into_iter().map(|work| {
        // A runtime for each thread, so that the futures share nothing but the hosts.
        thread::spawn(move || Builder::new_current_thread().enable_all().build().unwrap().block_on(work))
    });
    let threads = threads.collect::<Vec<_>>();
    // A join would block the thread on which the hosts of the test run.
    until(|| threads.iter().all(thread::JoinHandle::is_finished)).await;
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Returns the snapshot that each host has of the other.
fn views(pair: &Pair) -> [PeerSnapshot; 2] {
    let view = |site: &TestHost| site.host.snapshot().peers.remove(0);
    [view(&pair.here), view(&pair.there)]
}

/// Waits until no message is in flight between two hosts and all credit is returned.
async fn wait_until_idle(pair: &Pair) {
    let rest = until(|| {
        let views = views(pair);
        let [here, there] = &views;
        let idle = |view: &PeerSnapshot| {
            view.calls_open + view.calls_accepted + view.outgoing_bytes + view.send_queue_bytes == 0
                && view.accepted_bytes == 0
        };
        views.iter().all(idle)
            && here.charged_bytes == there.owed_bytes
            && there.charged_bytes == here.owed_bytes
    });
    assert!(timeout(CALL_ENDS_WITHIN, rest).await.is_ok(), "no rest: {:#?}", views(pair));
}

/// Numbers that a sender has certainly sent, and the last one.
#[derive(Default)]
struct Sent {
    certain: Vec<u32>,
    last: u32,
}

/// Sends numbered entries in order: one way, as calls, as dropped calls, and some in chunks.
async fn send_entries(ledger: RemoteAddr<Recorder>, sender: u32, entries: u32) -> Sent {
    let mut rng = fastrand::Rng::with_seed(sender.into());
    let (mut sent, mut calls) = (Sent::default(), Vec::new());
    for number in 1..=entries {
        let bytes = if rng.u8(..100) == 0 { 100_000 } else { rng.usize(..40) };
        let entry = Entry::with(sender, number, bytes);
        sent.last = number;
        match rng.u8(..8) {
            0 => {
                let mut dropped = ledger.send(entry);
                // The entry may be sent before the drop, so its arrival is uncertain.
                let _ = poll_once(&mut dropped).await;
                if rng.bool() {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            1..=4 => ledger.tell(entry).await.unwrap(),
            _ => {
                let mut call = Box::pin(ledger.send(entry));
                // The first poll sends the call, which keeps the entries in order.
                if poll_once(&mut call).await.is_pending() {
                    calls.push(call);
                }
            }
        }
        sent.certain.push(number);
        if calls.len() >= 64 {
            assert!(join_all(calls.drain(..)).await.iter().all(Result::is_ok));
        }
    }
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    sent
}

/// Checks that each entry arrived at most once and in order, and that only dropped ones are missing.
fn check_book(book: &[(u32, u32)], sender: u32, sent: &Sent) {
    let entries = entries_of(sender, book);
    assert!(entries.is_sorted_by(|one, next| one < next), "{sender}: {entries:?}");
    assert!(entries.iter().all(|number| (1..=sent.last).contains(number)));
    let missing = sent.certain.iter().find(|number| entries.binary_search(number).is_err());
    assert_eq!(missing, None, "an entry of sender {sender} is missing");
}

#[test]
fn messages_of_several_threads_arrive_once_and_in_order_while_their_link_is_cut_repeatedly() {
    repeatedly(async || {
        // Small enough that every run waits for credit and sends chunks.
        let small = limits(|limits| (limits.window_bytes, limits.chunk_bytes) = (16 << 10, 16 << 10));
        let (pair, proxy) = Proxy::between(small).await;
        // The actors run on other threads than the link, so that batches cross threads.
        let arbiters = [Arbiter::new(), Arbiter::new()];
        let ledgers = arbiters.each_ref().map(|arbiter| {
            pair.there.cluster.register(Recorder::start_in_arbiter(&arbiter.handle(), |_| Recorder::quick()))
        });
        // The last sender is on the actors' own host, whose messages are not encoded.
        let senders = (0..=SENDERS).flat_map(|sender| {
            let cluster = if sender == SENDERS { &pair.there.cluster } else { &pair.here.cluster };
            ledgers.each_ref().map(|ledger| send_entries(cluster.bind(ledger), sender, 1_000))
        });
        let cut = async {
            loop {
                sleep(Duration::from_millis(5)).await;
                // Random on purpose: a race needs different times in each run.
                proxy.cut(if fastrand::bool() { Cut::Reset } else { Cut::Finish });
            }
        };
        let sent = tokio::select! {
            sent = on_threads(senders) => sent,
            () = cut => unreachable!("cuts never end"),
        };
        wait_until_idle(&pair).await;
        let books = ledgers.iter().map(|ledger| pair.here.cluster.bind(ledger).send(Book));
        let books = join_all(books).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        for (at, sent) in sent.iter().enumerate() {
            check_book(&books[at % books.len()], (at / books.len()) as u32, sent);
        }
        assert!(arbiters.iter().all(Arbiter::stop));
    });
}

/// Actor that answers until it ends in one of several ways.
#[derive(RemoteActor)]
#[remote(local, handles(Ask, End))]
struct Mortal;

impl Actor for Mortal {
    type Context = Context<Self>;
}

/// Answered with its number: immediately, or by a future that takes some milliseconds.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct Ask(u32);

impl Handler<Ask> for Mortal {
    type Result = ResponseFuture<u32>;

    fn handle(&mut self, Ask(number): Ask, _: &mut Context<Self>) -> ResponseFuture<u32> {
        Box::pin(async move {
            if number.is_multiple_of(2) {
                sleep(Duration::from_millis(u64::from(number % 4))).await;
            }
            number
        })
    }
}

/// Ends the actor.
#[derive(Clone, Copy, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
enum End {
    Stop,
    Panic,
    Thread,
}

impl Handler<End> for Mortal {
    type Result = ();

    fn handle(&mut self, end: End, ctx: &mut Context<Self>) {
        match end {
            End::Stop => ctx.stop(),
            End::Panic => panic!("as asked"),
            // The thread ends with all its actors, as after `Arbiter::stop` in a program.
            End::Thread => assert!(Arbiter::current().stop()),
        }
    }
}

/// Sends calls; each has to end, with its own answer if it has one.
async fn ask_many(mortal: RemoteAddr<Mortal>, calls: u32) {
    let asked = (0..calls).map(|number| {
        let call = timeout(CALL_ENDS_WITHIN, mortal.send(Ask(number)));
        async move {
            if let Ok(answer) = call.await.expect("no call hangs") {
                assert_eq!(answer, number);
            }
        }
    });
    join_all(asked).await;
}

#[test]
fn no_call_hangs_and_no_credit_is_lost_when_actors_stop_panic_or_lose_their_thread() {
    repeatedly(async || {
        let pair = Pair::start().await;
        for end in [End::Stop, End::Panic, End::Thread].into_iter().cycle().take(30) {
            let arbiter = Arbiter::new();
            let mortal = pair.there.cluster.register(Mortal::start_in_arbiter(&arbiter.handle(), |_| Mortal));
            let mortal = pair.here.cluster.bind(&mortal);
            let asking = on_threads((0..SENDERS).map(|_| ask_many(mortal.clone(), 100)));
            let ending = async {
                // About as long as the calls take, so the end falls among them.
                sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
                // The answer to the ending message may be lost with the actor.
                let _ = timeout(CALL_ENDS_WITHIN, mortal.send(end)).await.expect("no call hangs");
            };
            join(asking, ending).await;
            arbiter.stop();
        }
        wait_until_idle(&pair).await;
    });
}

/// Actor that counts its running handlers.
#[derive(RemoteActor)]
#[remote(local, handles(Work))]
struct Worker {
    running: Arc<AtomicUsize>,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

/// Request that is never answered.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Work;

/// Marker that is counted while it exists.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler<Work> for Worker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Work, _: &mut Context<Self>) -> ResponseFuture<()> {
        let counted = Counted::new(&self.running);
        Box::pin(async move {
            let _counted = counted;
            std::future::pending().await
        })
    }
}

/// Sends calls and drops each of them before, while or after its handler starts.
async fn call_and_drop(worker: RemoteAddr<Worker>, calls: u32) {
    let mut in_flight = BTreeMap::new();
    for number in 0..calls {
        let mut call = Box::pin(worker.send(Work));
        assert!(poll_once(&mut call).await.is_pending());
        // The random key decides when the call is dropped.
        in_flight.insert(fastrand::u32(..), call);
        if in_flight.len() > 16 {
            in_flight.pop_first();
        }
        if number % 8 == 0 {
            sleep(Duration::from_micros(fastrand::u64(..300))).await;
        }
    }
}

#[test]
fn every_handler_of_a_dropped_call_is_dropped_whichever_thread_sees_the_cancellation_first() {
    repeatedly(async || {
        let pair = Pair::start().await;
        let arbiters = [Arbiter::new(), Arbiter::new()];
        let running = Arc::<AtomicUsize>::default();
        let workers = arbiters.each_ref().map(|arbiter| {
            let running = Arc::clone(&running);
            let worker = Worker::start_in_arbiter(&arbiter.handle(), |_| Worker { running });
            pair.here.cluster.bind(&pair.there.cluster.register(worker))
        });
        let callers = (0..SENDERS).flat_map(|_| workers.clone().map(|worker| call_and_drop(worker, 500)));
        on_threads(callers).await;
        let all_dropped = until(|| running.load(Ordering::SeqCst) == 0);
        let outcome = timeout(CALL_ENDS_WITHIN, all_dropped).await;
        assert!(outcome.is_ok(), "{running:?} handlers still run");
        wait_until_idle(&pair).await;
        assert!(arbiters.iter().all(Arbiter::stop));
    });
}

/// Sends calls that are never answered; each has to end by its timeout.
async fn call_with_limits(worker: RemoteAddr<Worker>, batches: u32) {
    for _ in 0..batches {
        let calls = (0..50).map(|_| {
            // Many different times, so that timers are set before and after those of other threads.
            let limit = Duration::from_micros(fastrand::u64(500..40_000));
            timeout(CALL_ENDS_WITHIN, worker.send(Work).timeout(limit))
        });
        for ended in join_all(calls).await {
            assert!(ended.expect("a timeout ends its call").unwrap_err().is_timeout());
        }
    }
}

#[test]
fn every_timeout_ends_its_call_although_several_threads_set_them() {
    repeatedly(async || {
        let pair = Pair::start().await;
        let running = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&running);
        let worker = pair.serve(move || Worker { running: counted });
        on_threads((0..SENDERS).map(|_| call_with_limits(worker.clone(), 10))).await;
        until(|| running.load(Ordering::SeqCst) == 0).await;
        wait_until_idle(&pair).await;
    });
}
