//! Sources that serve others, and nodes that are slow to take the driver's copy.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use futures_util::future::join_all;

use super::*;
use crate::cluster::driver::sources::Tally;
use crate::config::{EXECUTABLES_SENT_AT_ONCE, EXECUTABLES_SENT_SLOWLY_MAX};
use crate::id::{HostId, Incarnation};

/// Time of a fetch that succeeds.
const FETCH: Duration = Duration::from_secs(1);

fn source(node: u64) -> Source {
    let agent = HostUid { host: HostId(node), incarnation: Incarnation(1) };
    Source { agent, address: SocketAddr::from(([127, 0, 0, 1], 1)) }
}

/// What all nodes have in common.
struct Lab {
    sources: Sources,
    begun: Instant,
    /// Copies that the driver sends now, and the most so far.
    sending: AtomicUsize,
    sending_max: AtomicUsize,
    asked: AtomicUsize,
    /// Time for which all sources serve others.
    busy: Duration,
}

/// A node that takes a piece of the driver's copy in each such time.
struct Node<'a> {
    lab: &'a Lab,
    number: u64,
    per_piece: Duration,
    pieces: u64,
}

impl Lab {
    fn new() -> Self {
        Self {
            sources: Sources::default(),
            begun: Instant::now(),
            sending: AtomicUsize::new(0),
            sending_max: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            busy: Duration::ZERO,
        }
    }

    /// Delivers to nodes, each of which takes a piece in its time. Returns when each of them had all.
    async fn deliver(&self, per_piece: &[Duration], pieces: u64) -> Vec<Duration> {
        let delivered = async |(number, &per_piece)| {
            let node = Node { lab: self, number, per_piece, pieces };
            deliver(&self.sources, source(number), &node).await.unwrap();
            self.begun.elapsed()
        };
        join_all((1..).zip(per_piece).map(delivered)).await
    }
}

/// A copy under way, until it is dropped.
struct Sending<'a>(&'a Lab);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Carrier for Node<'_> {
    async fn fetch(&self, from: Source) -> Result<Outcome, String> {
        assert_ne!(from, source(self.number));
        self.lab.asked.fetch_add(1, Ordering::Relaxed);
        if self.lab.begun.elapsed() < self.lab.busy {
            return Ok(Outcome::Busy);
        }
        tokio::time::sleep(FETCH).await;
        Ok(Outcome::Done)
    }

    async fn send(&self, pieces: &AtomicU64) -> Result<(), String> {
        let sending = Sending(self.lab);
        let now = self.lab.sending.fetch_add(1, Ordering::Relaxed) + 1;
        self.lab.sending_max.fetch_max(now, Ordering::Relaxed);
        for _ in 0..self.pieces {
            tokio::time::sleep(self.per_piece).await;
            pieces.fetch_add(1, Ordering::Relaxed);
        }
        drop(sending);
        Ok(())
    }
}

const FAST: Duration = Duration::from_millis(100);
const FROZEN: Duration = Duration::from_secs(1000);

#[tokio::test(start_paused = true)]
async fn a_source_that_serves_others_is_asked_again_until_it_is_free() {
    let lab = Lab { busy: Duration::from_secs(10), ..Lab::new() };
    lab.sources.add(source(77));
    let times = lab.deliver(&[FAST; 5], 10).await;
    assert_eq!(lab.sources.tally(), Tally { fetched: 5, ..Tally::default() });
    let last = times.iter().max().unwrap();
    assert!(*last < lab.busy + 2 * EXECUTABLE_BUSY_DELAY_MAX + 5 * FETCH, "{times:?}");
    // The pauses double.
    let asked = lab.asked.into_inner();
    assert!(asked < 5 * 25, "sources were asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_serves_others_for_long_leaves_the_driver_to_send() {
    let lab = Lab { busy: FROZEN, ..Lab::new() };
    lab.sources.add(source(77));
    let times = lab.deliver(&[FAST], 10).await;
    assert_eq!((lab.sources.tally().sent, lab.sources.tally().fetched), (1, 0));
    let latest = EXECUTABLE_BUSY_WAIT_MAX + 2 * EXECUTABLE_BUSY_DELAY_MAX;
    assert!((EXECUTABLE_BUSY_WAIT_MAX..latest).contains(&times[0]), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn two_slow_nodes_delay_the_others_by_one_stall_and_fetch_from_them() {
    for slow in [FROZEN, 2 * EXECUTABLE_SEND_STALL] {
        let lab = Lab::new();
        let times = lab.deliver(&[&[slow; 2][..], &[FAST; 20]].concat(), 10).await;
        let Tally { sent, fetched, .. } = lab.sources.tally();
        assert_eq!((sent, fetched), (2, 20), "two copies are sent as a whole");
        let latest = EXECUTABLE_SEND_STALL + 12 * FETCH;
        assert!(times.iter().all(|time| *time < latest), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_makes_progress_keeps_its_turn() {
    let lab = Lab::new();
    lab.deliver(&[EXECUTABLE_SEND_STALL.mul_f64(0.8); 4], 5).await;
    assert_eq!(lab.sending_max.into_inner(), EXECUTABLES_SENT_AT_ONCE);
    assert_eq!((lab.sources.tally().sent, lab.sources.tally().fetched), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn copies_to_slow_nodes_are_bounded() {
    let lab = Lab::new();
    // As if the driver's own link were slow.
    lab.deliver(&[3 * EXECUTABLE_SEND_STALL; 20], 3).await;
    assert_eq!(lab.sending_max.into_inner(), EXECUTABLES_SENT_AT_ONCE + EXECUTABLES_SENT_SLOWLY_MAX);
    assert_eq!((lab.sources.tally().sent, lab.sources.tally().fetched), (2, 18));
}
