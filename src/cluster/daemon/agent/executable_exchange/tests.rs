//! Fetches from good and bad sources, and the slots of served peers.

use std::cell::RefCell;
use std::future::ready;
use std::time::Duration;

use super::*;
use crate::cluster::test_dir::TestDir;
use crate::host::fresh_identity;

const SIZE: usize = 2 * EXECUTABLE_CHUNK_BYTES + 700_000;

/// ExecutableStore, and an executable to fetch into it.
struct Fixture {
    scratch: TestDir,
    store: ExecutableStore,
    bytes: Vec<u8>,
    digest: Digest,
    asked: RefCell<Vec<u64>>,
}

impl Fixture {
    fn new() -> Self {
        let scratch = TestDir::new();
        let store = ExecutableStore::open(&scratch.join("executables")).unwrap();
        let bytes: Vec<_> = (0..SIZE).map(|at| (at / 1000 % 251) as u8).collect();
        let digest = Digest(blake3::hash(&bytes).into());
        Self { scratch, store, bytes, digest, asked: RefCell::default() }
    }

    fn chunk(&self, offset: u64) -> Payload {
        self.asked.borrow_mut().push(offset);
        let rest = &self.bytes[offset as usize..];
        rest[..rest.len().min(EXECUTABLE_CHUNK_BYTES)].to_vec().into()
    }

    async fn fill<F>(&self, chunk: impl Fn(u64) -> F) -> Result<u64, NotFetched>
    where
        F: Future<Output = Result<Payload, NotFetched>>,
    {
        fill(&self.store, self.digest, SIZE as u64, chunk).await
    }

    async fn fill_from_good_source(&self) -> u64 {
        self.fill(|offset| ready(Ok(self.chunk(offset)))).await.unwrap()
    }

    fn stored(&self) -> Vec<u8> {
        std::fs::read(self.store.pin(self.digest).unwrap().path()).unwrap()
    }
}

#[tokio::test]
async fn fetched_chunks_become_an_executable_that_is_served_once_complete() {
    let fixture = Fixture::new();
    let mut fetched = 0;
    // The source fails after the first chunk.
    let ended = fixture.fill(|offset| {
        ready(if offset == 0 {
            Ok(fixture.chunk(0))
        } else {
            Err(NotFetched::BySource("it ended".to_owned()))
        })
    });
    assert!(matches!(ended.await, Err(NotFetched::BySource(_))));
    assert!(matches!(fixture.store.read(fixture.digest, 0, 1), Err(ExecutableStoreError::Missing { .. })));
    assert_eq!(
        fixture.store.stored_bytes(fixture.digest, SIZE as u64).unwrap(),
        EXECUTABLE_CHUNK_BYTES as u64
    );
    // Another source continues from there.
    fixture.asked.borrow_mut().clear();
    assert_eq!(fixture.fill_from_good_source().await, SIZE as u64);
    assert_eq!(*fixture.asked.borrow(), [EXECUTABLE_CHUNK_BYTES as u64, 2 * EXECUTABLE_CHUNK_BYTES as u64]);
    assert_eq!(fixture.stored(), fixture.bytes);

    let mut again = Vec::new();
    loop {
        let (bytes, is_last) = fixture.store.read(fixture.digest, fetched, EXECUTABLE_CHUNK_BYTES).unwrap();
        fetched += bytes.len() as u64;
        again.extend(bytes);
        if is_last {
            break;
        }
    }
    assert_eq!(again, fixture.bytes);
    let behind = fixture.store.read(fixture.digest, fetched, EXECUTABLE_CHUNK_BYTES);
    assert!(matches!(behind, Err(ExecutableStoreError::OutOfRange { .. })));
}

#[tokio::test]
async fn source_with_wrong_bytes_costs_a_transfer_and_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let corrupt = |offset| {
        let mut bytes = fixture.chunk(offset).to_vec();
        bytes[7] ^= 1;
        ready(Ok(bytes.into()))
    };
    let failed = fixture.fill(corrupt).await.unwrap_err();
    assert!(matches!(failed, NotFetched::Wrong(_)), "{failed:?}");
    assert!(matches!(ExecutableReply::from(failed), ExecutableReply::Wrong { .. }));
    assert!(matches!(fixture.store.pin(fixture.digest), Err(ExecutableStoreError::Missing { .. })));
    assert_eq!(fixture.store.stored_bytes(fixture.digest, SIZE as u64).unwrap(), 0);
    assert_eq!(fixture.fill_from_good_source().await, SIZE as u64);
    assert_eq!(fixture.stored(), fixture.bytes);
}

#[tokio::test]
async fn chunks_of_another_length_are_refused() {
    let fixture = Fixture::new();
    for length in [0, 1, EXECUTABLE_CHUNK_BYTES - 1, EXECUTABLE_CHUNK_BYTES + 1] {
        let odd = fixture.fill(|_| ready(Ok(vec![1; length].into()))).await.unwrap_err();
        assert!(
            matches!(&odd, NotFetched::BySource(text) if text.contains("instead of the next")),
            "{odd:?}"
        );
    }
    assert_eq!(fixture.store.stored_bytes(fixture.digest, SIZE as u64).unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_source_does_not_delay_the_reply() {
    let fixture = Fixture::new();
    let started = tokio::time::Instant::now();
    let slowly = |offset| {
        let bytes = fixture.chunk(offset);
        async move {
            tokio::time::sleep(EXECUTABLE_FETCH_TURN.mul_f64(0.6)).await;
            Ok(bytes)
        }
    };
    assert_eq!(fixture.fill(slowly).await.unwrap(), 2 * EXECUTABLE_CHUNK_BYTES as u64);
    assert!(started.elapsed() < EXECUTABLE_FETCH_TURN.mul_f64(1.3), "{:?}", started.elapsed());
    assert_eq!(fixture.fill(slowly).await.unwrap(), SIZE as u64);
    assert_eq!(fixture.stored(), fixture.bytes);
}

#[tokio::test]
async fn full_disk_is_a_failure_of_this_node_with_a_next_step() {
    let fixture = Fixture::new();
    let part = fixture.scratch.join(&format!("executables/{}.part", fixture.digest));
    std::os::unix::fs::symlink("/dev/full", part).unwrap();
    let full = fixture.fill(|offset| ready(Ok(fixture.chunk(offset)))).await.unwrap_err();
    assert!(matches!(full, NotFetched::Here(_)), "{full:?}");
    let ExecutableReply::Failed { text } = full.into() else { panic!("the source is blamed") };
    assert!(text.contains("no room on the disk") && text.contains("free some"), "{text}");
}

#[test]
fn bounded_number_of_nodes_is_served_one_chunk_at_a_time() {
    let (mut served, mut now) = (ServedPeers::default(), Instant::now());
    let digest = |n| Digest([n; 32]);
    let peers: Vec<_> = (0..=EXECUTABLE_PEERS_SERVED_MAX).map(|_| fresh_identity()).collect();
    let (late, first) = (peers[EXECUTABLE_PEERS_SERVED_MAX], peers[0]);
    for &peer in &peers {
        assert_eq!(served.begin_read(now, (peer, digest(1))), peer != late);
    }
    // One chunk at a time. A slow read does not cost the slot.
    assert!(!served.begin_read(now, (first, digest(1))));
    now += 2 * EXECUTABLE_PEER_IDLE;
    assert!(!served.begin_read(now, (late, digest(1))));
    served.end_read(now, (first, digest(1)), false);
    assert!(served.contains(first) && served.begin_read(now, (first, digest(1))));
    // The last chunk frees the slot for another peer.
    served.end_read(now, (first, digest(1)), true);
    assert!(!served.contains(first) && served.begin_read(now, (late, digest(1))));
    assert!(!served.begin_read(now, (first, digest(1))) && !served.begin_read(now, (late, digest(2))));
    // An idle peer loses its slot.
    served.end_read(now, (peers[1], digest(1)), false);
    now += EXECUTABLE_PEER_IDLE - Duration::from_millis(1);
    assert!(!served.begin_read(now, (first, digest(1))));
    now += Duration::from_millis(1);
    assert!(served.begin_read(now, (first, digest(1))) && !served.contains(peers[1]));
}
