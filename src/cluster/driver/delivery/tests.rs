//! Tests of busy sources, and of nodes that accept the driver's copy slowly.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use futures_util::future::join_all;

use super::*;
use crate::cluster::driver::sources::TransferTally;
use crate::config::{EXECUTABLES_SENT_AT_ONCE, EXECUTABLES_SENT_SLOWLY_MAX};
use crate::id::{HostId, Incarnation};

/// Duration of a successful fetch.
const FETCH: Duration = Duration::from_secs(1);

fn source(node: u64) -> NodeSource {
    let agent = HostUid { host: HostId(node), incarnation: Incarnation(1) };
    NodeSource { agent, address: SocketAddr::from(([127, 0, 0, 1], 1)) }
}

/// State shared by all nodes of a test.
struct Fixture {
    sources: Sources,
    begun: Instant,
    /// Copies that the driver is sending, and their maximum so far.
    sending: AtomicUsize,
    sending_max: AtomicUsize,
    asked: AtomicUsize,
    /// Time for which all sources are busy.
    busy: Duration,
}

/// Node that accepts one piece of the driver's copy per `per_piece`.
struct Node<'a> {
    fixture: &'a Fixture,
    number: u64,
    per_piece: Duration,
    pieces: u64,
}

impl Fixture {
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

    /// Delivers to nodes, each with its time per piece. Returns the times at which they had everything.
    async fn deliver(&self, per_piece: &[Duration], pieces: u64) -> Vec<Duration> {
        let delivered = async |(number, &per_piece)| {
            let node = Node { fixture: self, number, per_piece, pieces };
            deliver(&self.sources, source(number), &node).await.unwrap();
            self.begun.elapsed()
        };
        join_all((1..).zip(per_piece).map(delivered)).await
    }
}

/// Copy in progress, until it is dropped.
struct Sending<'a>(&'a Fixture);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Carrier for Node<'_> {
    async fn fetch(&self, from: NodeSource) -> Result<TransferOutcome, String> {
        assert_ne!(from, source(self.number));
        self.fixture.asked.fetch_add(1, Ordering::Relaxed);
        if self.fixture.begun.elapsed() < self.fixture.busy {
            return Ok(TransferOutcome::Busy);
        }
        tokio::time::sleep(FETCH).await;
        Ok(TransferOutcome::Done)
    }

    async fn send(&self, pieces: &AtomicU64) -> Result<(), String> {
        let sending = Sending(self.fixture);
        let now = self.fixture.sending.fetch_add(1, Ordering::Relaxed) + 1;
        self.fixture.sending_max.fetch_max(now, Ordering::Relaxed);
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
async fn a_busy_source_is_asked_again_until_it_is_free() {
    let fixture = Fixture { busy: Duration::from_secs(10), ..Fixture::new() };
    fixture.sources.add(source(77));
    let times = fixture.deliver(&[FAST; 5], 10).await;
    assert_eq!(fixture.sources.tally(), TransferTally { fetched: 5, ..TransferTally::default() });
    let last = times.iter().max().unwrap();
    assert!(*last < fixture.busy + 2 * EXECUTABLE_BUSY_DELAY_MAX + 5 * FETCH, "{times:?}");
    // The pauses double.
    let asked = fixture.asked.into_inner();
    assert!(asked < 5 * 25, "sources were asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stays_busy_is_replaced_by_the_driver() {
    let fixture = Fixture { busy: FROZEN, ..Fixture::new() };
    fixture.sources.add(source(77));
    let times = fixture.deliver(&[FAST], 10).await;
    assert_eq!((fixture.sources.tally().sent, fixture.sources.tally().fetched), (1, 0));
    let latest = EXECUTABLE_BUSY_WAIT_MAX + 2 * EXECUTABLE_BUSY_DELAY_MAX;
    assert!((EXECUTABLE_BUSY_WAIT_MAX..latest).contains(&times[0]), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn two_slow_nodes_delay_the_others_by_one_stall_and_fetch_from_them() {
    for slow in [FROZEN, 2 * EXECUTABLE_SEND_STALL] {
        let fixture = Fixture::new();
        let times = fixture.deliver(&[&[slow; 2][..], &[FAST; 20]].concat(), 10).await;
        let TransferTally { sent, fetched, .. } = fixture.sources.tally();
        assert_eq!((sent, fetched), (2, 20), "two copies are sent as a whole");
        let latest = EXECUTABLE_SEND_STALL + 12 * FETCH;
        assert!(times.iter().all(|time| *time < latest), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_makes_progress_keeps_its_slot() {
    let fixture = Fixture::new();
    fixture.deliver(&[EXECUTABLE_SEND_STALL.mul_f64(0.8); 4], 5).await;
    assert_eq!(fixture.sending_max.into_inner(), EXECUTABLES_SENT_AT_ONCE);
    assert_eq!((fixture.sources.tally().sent, fixture.sources.tally().fetched), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn copies_to_slow_nodes_are_bounded() {
    let fixture = Fixture::new();
    // As if the driver's own link were slow.
    fixture.deliver(&[3 * EXECUTABLE_SEND_STALL; 20], 3).await;
    assert_eq!(fixture.sending_max.into_inner(), EXECUTABLES_SENT_AT_ONCE + EXECUTABLES_SENT_SLOWLY_MAX);
    assert_eq!((fixture.sources.tally().sent, fixture.sources.tally().fetched), (2, 18));
}
