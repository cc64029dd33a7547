//! Waiting for send capacity: no spurious wake-ups, no starvation, and all memory is counted.

use std::cell::Cell;
use std::fs;
use std::future::Future;
use std::pin::{Pin, pin};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Wake, Waker};

use futures_util::future::{join, join_all};
use roadshow::Limits;
use roadshow::NotDelivered;
use roadshow::internals::config::TELL_BACKPRESSURE_BYTES;
use roadshow::prelude::*;

use crate::fixtures::{Add, Clerk, Echo};
use crate::hosts::{PATIENCE, Pair, limits, poll_once, run, until};
use crate::raw::Raw;
use crate::recorder::{Book, Entry, Pace, Recorder, entries_of};

const OUTGOING: usize = 64 << 10;

fn narrow() -> Limits {
    limits(|limits| {
        limits.window_bytes = 4 << 10;
        limits.outgoing_bytes_max = OUTGOING;
        limits.send_queue_bytes_max = 8 << 10;
    })
}

/// Waker that counts its wake-ups.
#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Fills the window and the queue of a stopped actor with open calls; returns their number.
fn fill(ledger: &RemoteAddr<Recorder>) -> u32 {
    // `try_send` never waits, so the first error shows the full queue.
    (0..).find(|number| ledger.try_send(Entry::new(0, *number)).map(forget).is_err()).unwrap()
}

/// Keeps a call open without a task that awaits it.
fn forget<T>(call: T) {
    // A dropped request would be cancelled.
    std::mem::forget(call);
}

#[test]
fn ten_thousand_callers_of_a_stopped_actor_are_not_woken_by_calls_to_another() {
    run(async {
        let (pair, pace) = (Pair::with(narrow()).await, Pace::default());
        let (ledger, clerk) = (pair.serve(Recorder::at(&pace)), pair.serve(Clerk::default));
        ledger.send(Entry::new(0, 0)).await.unwrap();
        fill(&ledger);
        let counting = Arc::<CountingWaker>::default();
        let waker = Waker::from(Arc::clone(&counting));
        let mut task = TaskContext::from_waker(&waker);
        let mut calls: Vec<_> = (0..10_000).map(|number| ledger.send(Entry::new(1, number))).collect();
        // Calls and one-way messages wait in different ways, so both are tested.
        let mut tells: Vec<_> = (0..100).map(|number| Box::pin(ledger.tell(Entry::new(2, number)))).collect();
        assert!(calls.iter_mut().all(|call| Pin::new(call).poll(&mut task).is_pending()));
        assert!(tells.iter_mut().all(|tell| tell.as_mut().poll(&mut task).is_pending()));
        for sum in 1..=300 {
            assert_eq!(clerk.send(Add(1)).await, Ok(sum));
        }
        assert_eq!(counting.0.load(Ordering::SeqCst), 0);
        drop((calls, tells));
        pace.end();
    });
}

#[test]
fn callers_that_wait_for_capacity_are_served_in_order() {
    const CALLS: u32 = 1000;
    run(async {
        let (pair, pace) = (Pair::with(narrow()).await, Pace::default());
        let ledger = pair.serve(Recorder::at(&pace));
        ledger.send(Entry::new(0, 0)).await.unwrap();
        fill(&ledger);
        let mut calls: Vec<_> = (0..CALLS).map(|number| ledger.send(Entry::new(1, number))).collect();
        for call in &mut calls {
            assert!(poll_once(call).await.is_pending());
        }
        // A call without a place in the queue of waiters must not overtake those that wait.
        let newcomer = ledger.try_send(Entry::new(1, CALLS)).unwrap_err();
        assert!(matches!(newcomer.reason, NotDelivered::Full { .. }), "{newcomer}");
        pace.end();
        assert!(join_all(calls).await.into_iter().map(Result::unwrap).eq(0..CALLS));
        let book = ledger.send(Book).await.unwrap();
        assert!(entries_of(1, &book).into_iter().eq(0..CALLS));
    });
}

#[test]
fn a_stop_stays_behind_a_call_that_waits_for_capacity() {
    run(async {
        let (pair, pace) = (Pair::with(narrow()).await, Pace::default());
        let ledger = pair.serve(Recorder::at(&pace));
        ledger.send(Entry::new(0, 0)).await.unwrap();
        fill(&ledger);
        let mut call = pin!(ledger.send(Entry::new(1, 0)));
        assert!(poll_once(&mut call).await.is_pending());
        let mut stop = pin!(ledger.stop());
        assert!(poll_once(&mut stop).await.is_pending());
        pace.end();
        let (called, stopped) = join(call, stop).await;
        assert_eq!((called, stopped), (Ok(0), Ok(())));
    });
}

/// Fills the window of a stopped actor, and its queue up to the backpressure limit of `tell`, with messages
/// of sender 0. Returns their number.
async fn fill_to_backpressure(pair: &Pair, ledger: &RemoteAddr<Recorder>) -> u32 {
    ledger.send(Entry::new(0, 0)).await.unwrap();
    let queued = || pair.here.host.snapshot().peers.iter().map(|peer| peer.send_queue_bytes).sum::<usize>();
    let mut sent = 1;
    while queued() <= TELL_BACKPRESSURE_BYTES {
        ledger.do_send(Entry::with(0, sent, 1000));
        sent += 1;
    }
    // The backpressure state is updated once per poll of a task.
    tokio::task::yield_now().await;
    sent
}

#[test]
fn tells_under_backpressure_keep_their_order_and_other_sends_only_need_capacity() {
    const TELLS: u32 = 100;
    run(async {
        let (pair, pace) = (Pair::start().await, Pace::default());
        let ledger = pair.serve(Recorder::at(&pace));
        let mut sent = fill_to_backpressure(&pair, &ledger).await;
        let counting = Arc::<CountingWaker>::default();
        let waker = Waker::from(Arc::clone(&counting));
        let mut task = TaskContext::from_waker(&waker);
        let mut tells: Vec<_> =
            (0..TELLS).map(|number| Box::pin(ledger.tell(Entry::new(1, number)))).collect();
        assert!(tells.iter_mut().all(|tell| tell.as_mut().poll(&mut task).is_pending()));
        // The queue has capacity left, so a call is sent immediately although the tells wait.
        let mut call = ledger.send(Entry::new(0, sent));
        assert!(Pin::new(&mut call).poll(&mut task).is_pending());
        sent += 1;
        let tried = ledger.try_send(Entry::new(0, sent)).unwrap();
        for _ in 0..100 {
            sent += 1;
            ledger.do_send(Entry::new(0, sent));
        }
        assert_eq!(counting.0.load(Ordering::SeqCst), 0);
        pace.end();
        let (tells, called) = join(join_all(tells), call).await;
        assert!(tells.iter().all(Result::is_ok));
        assert_eq!((called.is_ok(), tried.await.is_ok()), (true, true));
        let book = ledger.send(Book).await.unwrap();
        assert!(entries_of(0, &book).into_iter().eq(0..=sent));
        assert!(entries_of(1, &book).into_iter().eq(0..TELLS));
        assert_eq!(pair.here.dead_letters() + pair.there.dead_letters(), 0);
    });
}

#[test]
fn a_stop_stays_behind_a_tell_under_backpressure() {
    run(async {
        let (pair, pace) = (Pair::start().await, Pace::default());
        let ledger = pair.serve(Recorder::at(&pace));
        fill_to_backpressure(&pair, &ledger).await;
        let mut tell = pin!(ledger.tell(Entry::new(1, 0)));
        assert!(poll_once(&mut tell).await.is_pending());
        let mut stop = pin!(ledger.stop());
        assert!(poll_once(&mut stop).await.is_pending());
        pace.end();
        assert_eq!(join(tell, stop).await, (Ok(()), Ok(())));
        assert_eq!(pair.there.dead_letters(), 0);
    });
}

#[test]
fn a_waiting_call_that_is_not_polled_blocks_no_other() {
    run(async {
        let (pair, pace) = (Pair::with(narrow()).await, Pace::default());
        let ledger = pair.serve(Recorder::at(&pace));
        ledger.send(Entry::new(0, 0)).await.unwrap();
        fill(&ledger);
        let mut held: Vec<_> = (0..3).map(|number| ledger.send(Entry::new(1, number))).collect();
        for call in &mut held {
            assert!(poll_once(call).await.is_pending());
        }
        pace.end();
        // The task awaits another call while it owns the waiting ones: they are woken, but nothing polls
        // them.
        assert_eq!(ledger.send(Entry::new(2, 0)).await, Ok(0));
        assert!(join_all(held).await.iter().all(Result::is_ok));
    });
}

#[test]
fn a_message_as_large_as_the_budget_is_sent_next_to_a_stream_of_small_ones() {
    run(async {
        let pair = Pair::with(narrow()).await;
        let (clerk, ledger) = (pair.serve(Clerk::default), pair.serve(Recorder::quick));
        clerk.send(Add(1)).await.unwrap();
        let is_sent = Cell::new(false);
        let large = async {
            let payload = clerk.send(Echo(vec![7; OUTGOING].into())).await.unwrap();
            is_sent.set(true);
            payload.len()
        };
        let stream = async {
            let mut number = 0;
            while !is_sent.get() {
                // There is always a small message in flight: the large one must not wait for an empty
                // connection.
                ledger.tell(Entry::new(0, number)).await.unwrap();
                number += 1;
                if number % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            number
        };
        let (bytes, sent) = join(large, stream).await;
        assert_eq!(bytes, OUTGOING);
        let book = ledger.send(Book).await.unwrap();
        assert!(entries_of(0, &book).into_iter().eq(0..sent), "the stream lost nothing");
    });
}

/// Environment variable with the length of the messages whose memory a child process measures.
const MEASURED: &str = "ROADSHOW_TEST_QUEUED_BYTES";

/// Environment variable with the number of actors that the messages are for, in turn.
const ACTORS: &str = "ROADSHOW_TEST_QUEUES";

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Text(String);

/// Target actor that is never reached.
#[derive(RemoteActor)]
#[remote(local, handles(Text))]
struct Reader;

impl Actor for Reader {
    type Context = Context<Self>;
}

impl Handler<Text> for Reader {
    type Result = ();

    fn handle(&mut self, _: Text, _: &mut Context<Self>) {}
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn queued_messages_use_about_as_much_memory_as_is_counted() {
    let of_one_actor = [1, 33, 1 << 10, 100 << 10].map(|bytes| (bytes, 1));
    let one_for_each = [1, 33, 1 << 10].map(|bytes| (bytes, 100_000));
    for (bytes, actors) in of_one_actor.into_iter().chain(one_for_each) {
        let test = std::env::current_exe().unwrap();
        // A separate process: memory of other tests would be measured as well.
        let mut alone = Command::new(test);
        alone.args([
            "--exact",
            "room::measures_queued_messages_in_a_child_process",
            "--nocapture",
            "--test-threads",
            "1",
        ]);
        alone.env(MEASURED, bytes.to_string()).env(ACTORS, actors.to_string());
        let output = alone.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && stdout.contains("measured"),
            "{bytes} bytes, {actors} actors: {stdout}"
        );
    }
}

/// The child process of the test above; does nothing otherwise.
#[test]
fn measures_queued_messages_in_a_child_process() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<usize>().ok());
    let (Some(bytes), Some(actors)) = (number(MEASURED), number(ACTORS)) else { return };
    run(async {
        let limits = limits(|limits| {
            limits.outgoing_bytes_max = 512 << 20;
            limits.send_queue_bytes_max = limits.outgoing_bytes_max;
            // The peer never answers, and its connection must not time out while its queue is measured.
            limits.connect_timeout = 2 * PATIENCE;
            limits.handshake_timeout = 2 * PATIENCE;
        });
        let site = crate::hosts::Plan { limits, ..Default::default() }.start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let reader = |actor: usize| -> RemoteAddr<Reader> {
            site.cluster.bind(&Raw::addr_of(identity, 1 + actor as u64))
        };
        let counted = || site.host.snapshot().peers[0].send_queue_bytes;
        // A call has state in addition to its message.
        for is_call in [false, true] {
            let (resident_before, counted_before) = (resident_bytes(), counted());
            let mut calls = Vec::new();
            let mut queue = |actor: usize| {
                let text = Text("x".repeat(bytes));
                match is_call {
                    true => calls.extend(reader(actor).try_send(text).ok()),
                    false => reader(actor).do_send(text),
                }
            };
            if actors == 1 {
                // Far more than the noise of the allocator.
                while counted() < counted_before + (24 << 20) {
                    (0..100).for_each(|_| queue(0));
                }
            } else {
                (0..actors).for_each(|actor| queue(actor + usize::from(is_call) * actors));
            }
            let taken = resident_bytes() - resident_before;
            let counted = counted() - counted_before;
            println!("measured: {taken} of {counted} counted, calls {is_call}");
            assert!((counted / 2..=2 * counted).contains(&taken), "{taken} of {counted}, calls {is_call}");
            // A drop would cancel the calls and free memory during the next measurement.
            calls.into_iter().for_each(forget);
        }
        assert_eq!(site.dead_letters(), 0);
        drop(listener);
    });
}

#[test]
fn waiting_calls_fail_when_their_own_host_ends() {
    run(async {
        let (pair, pace) = (Pair::with(narrow()).await, Pace::default());
        let ledger = pair.serve(Recorder::at(&pace));
        ledger.send(Entry::new(0, 0)).await.unwrap();
        fill(&ledger);
        let mut calls: Vec<_> = (0..100).map(|number| ledger.send(Entry::new(1, number))).collect();
        for call in &mut calls {
            assert!(poll_once(call).await.is_pending());
        }
        let Pair { here, there } = pair;
        // The peer is gone, so only the end of the own host can fail the calls.
        there.host.abort();
        pace.end();
        until(|| !here.linked(&there)).await;
        here.host.abort();
        for outcome in join_all(calls).await {
            assert_eq!(outcome, Err(NotDelivered::Closing.into()));
        }
    });
}
