//! Executables that are fetched from sources of all kinds, and places for those that are served.

use std::cell::RefCell;
use std::future::ready;
use std::time::Duration;

use super::*;
use crate::cluster::test_dir::TestDir;
use crate::host::fresh_identity;

const SIZE: usize = 2 * EXECUTABLE_CHUNK_BYTES + 700_000;

/// A store, and an executable that is to get into it.
struct Lab {
    scratch: TestDir,
    store: Store,
    bytes: Vec<u8>,
    digest: Digest,
    asked: RefCell<Vec<u64>>,
}

impl Lab {
    fn new() -> Self {
        let scratch = TestDir::new();
        let store = Store::open(&scratch.join("executables")).unwrap();
        let bytes: Vec<_> = (0..SIZE).map(|at| (at / 1000 % 251) as u8).collect();
        let digest = Digest(blake3::hash(&bytes).into());
        Self { scratch, store, bytes, digest, asked: RefCell::default() }
    }

    fn piece(&self, offset: u64) -> Payload {
        self.asked.borrow_mut().push(offset);
        let rest = &self.bytes[offset as usize..];
        rest[..rest.len().min(EXECUTABLE_CHUNK_BYTES)].to_vec().into()
    }

    async fn fill<F>(&self, piece: impl Fn(u64) -> F) -> Result<u64, NotFetched>
    where
        F: Future<Output = Result<Payload, NotFetched>>,
    {
        fill(&self.store, self.digest, SIZE as u64, piece).await
    }

    async fn fill_well(&self) -> u64 {
        self.fill(|offset| ready(Ok(self.piece(offset)))).await.unwrap()
    }

    fn stored(&self) -> Vec<u8> {
        std::fs::read(self.store.pin(self.digest).unwrap().path()).unwrap()
    }
}

#[tokio::test]
async fn pieces_become_the_executable_and_it_is_served_once_it_is_complete() {
    let lab = Lab::new();
    let mut fetched = 0;
    // The source ends after the first piece.
    let ended = lab.fill(|offset| {
        ready(if offset == 0 { Ok(lab.piece(0)) } else { Err(NotFetched::BySource("it ended".to_owned())) })
    });
    assert!(matches!(ended.await, Err(NotFetched::BySource(_))));
    assert!(matches!(lab.store.read(lab.digest, 0, 1), Err(StoreError::Missing { .. })));
    assert_eq!(lab.store.stored_bytes(lab.digest, SIZE as u64).unwrap(), EXECUTABLE_CHUNK_BYTES as u64);
    // Another goes on from there.
    lab.asked.borrow_mut().clear();
    assert_eq!(lab.fill_well().await, SIZE as u64);
    assert_eq!(*lab.asked.borrow(), [EXECUTABLE_CHUNK_BYTES as u64, 2 * EXECUTABLE_CHUNK_BYTES as u64]);
    assert_eq!(lab.stored(), lab.bytes);

    let mut again = Vec::new();
    loop {
        let (bytes, is_last) = lab.store.read(lab.digest, fetched, EXECUTABLE_CHUNK_BYTES).unwrap();
        fetched += bytes.len() as u64;
        again.extend(bytes);
        if is_last {
            break;
        }
    }
    assert_eq!(again, lab.bytes);
    let behind = lab.store.read(lab.digest, fetched, EXECUTABLE_CHUNK_BYTES);
    assert!(matches!(behind, Err(StoreError::OutOfRange { .. })));
}

#[tokio::test]
async fn a_source_that_lies_costs_a_transfer_and_leaves_nothing_behind() {
    let lab = Lab::new();
    let lie = |offset| {
        let mut bytes = lab.piece(offset).to_vec();
        bytes[7] ^= 1;
        ready(Ok(bytes.into()))
    };
    let lied = lab.fill(lie).await.unwrap_err();
    assert!(matches!(lied, NotFetched::Wrong(_)), "{lied:?}");
    assert!(matches!(ExecutableReply::from(lied), ExecutableReply::Wrong { .. }));
    assert!(matches!(lab.store.pin(lab.digest), Err(StoreError::Missing { .. })));
    assert_eq!(lab.store.stored_bytes(lab.digest, SIZE as u64).unwrap(), 0);
    assert_eq!(lab.fill_well().await, SIZE as u64);
    assert_eq!(lab.stored(), lab.bytes);
}

#[tokio::test]
async fn pieces_of_another_length_are_not_taken() {
    let lab = Lab::new();
    for length in [0, 1, EXECUTABLE_CHUNK_BYTES - 1, EXECUTABLE_CHUNK_BYTES + 1] {
        let odd = lab.fill(|_| ready(Ok(vec![1; length].into()))).await.unwrap_err();
        assert!(matches!(&odd, NotFetched::BySource(text) if text.contains("are next")), "{odd:?}");
    }
    assert_eq!(lab.store.stored_bytes(lab.digest, SIZE as u64).unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_reported_on_in_time() {
    let lab = Lab::new();
    let begun = tokio::time::Instant::now();
    let slowly = |offset| {
        let bytes = lab.piece(offset);
        async move {
            tokio::time::sleep(EXECUTABLE_FETCH_TURN.mul_f64(0.6)).await;
            Ok(bytes)
        }
    };
    assert_eq!(lab.fill(slowly).await.unwrap(), 2 * EXECUTABLE_CHUNK_BYTES as u64);
    assert!(begun.elapsed() < EXECUTABLE_FETCH_TURN.mul_f64(1.3), "{:?}", begun.elapsed());
    assert_eq!(lab.fill(slowly).await.unwrap(), SIZE as u64);
    assert_eq!(lab.stored(), lab.bytes);
}

#[tokio::test]
async fn a_full_disk_is_the_node_s_own_failure_and_says_what_to_do() {
    let lab = Lab::new();
    let part = lab.scratch.join(&format!("executables/{}.part", lab.digest));
    std::os::unix::fs::symlink("/dev/full", part).unwrap();
    let full = lab.fill(|offset| ready(Ok(lab.piece(offset)))).await.unwrap_err();
    assert!(matches!(full, NotFetched::Here(_)), "{full:?}");
    let ExecutableReply::Failed { text } = full.into() else { panic!("it is not the node's failure") };
    assert!(text.contains("no room on the disk") && text.contains("free some"), "{text}");
}

#[test]
fn a_bounded_number_of_nodes_is_served_a_piece_at_a_time() {
    let (mut places, mut now) = (Places::default(), Instant::now());
    let digest = |n| Digest([n; 32]);
    let peers: Vec<_> = (0..=EXECUTABLE_PEERS_SERVED_MAX).map(|_| fresh_identity()).collect();
    let (late, first) = (peers[EXECUTABLE_PEERS_SERVED_MAX], peers[0]);
    for &peer in &peers {
        assert_eq!(places.take(now, (peer, digest(1))), peer != late);
    }
    // One piece at a time, and what takes long is no reason to lose the place.
    assert!(!places.take(now, (first, digest(1))));
    now += 2 * EXECUTABLE_PEER_IDLE;
    assert!(!places.take(now, (late, digest(1))));
    places.served(now, (first, digest(1)), false);
    assert!(places.serves(first) && places.take(now, (first, digest(1))));
    // Behind the last piece there is room for another.
    places.served(now, (first, digest(1)), true);
    assert!(!places.serves(first) && places.take(now, (late, digest(1))));
    assert!(!places.take(now, (first, digest(1))) && !places.take(now, (late, digest(2))));
    // So there is when one has not asked for long.
    places.served(now, (peers[1], digest(1)), false);
    now += EXECUTABLE_PEER_IDLE - Duration::from_millis(1);
    assert!(!places.take(now, (first, digest(1))));
    now += Duration::from_millis(1);
    assert!(places.take(now, (first, digest(1))) && !places.serves(peers[1]));
}
