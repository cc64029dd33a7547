//! Incarnation of the head's host: later than that of each head before it, whatever the clock says.
//!
//! Hosts of the cluster refuse an incarnation that is earlier than one that they know. Other hosts draw their id
//! for each process; the head's is always the same, so the incarnation that it had last is kept in its database.

use super::store::{Store, Write};
use crate::cluster::control_plane::state::Record;
use crate::id::Incarnation;

/// The incarnation for a head that starts at `now`; on the disk before it is given.
///
/// A disk that takes nothing stops no head: the clock alone decides then.
pub(super) async fn begin(store: &Store, records: &[Record], now: Incarnation) -> Incarnation {
    let incarnation = after(records, now);
    store.change(Write::Put(Record::Incarnation { incarnation: incarnation.0 }));
    if let Err(error) = store.flushed().await {
        tracing::error!(error, "the head's incarnation is not kept: do not set the clock back before it is");
    }
    incarnation
}

fn after(records: &[Record], now: Incarnation) -> Incarnation {
    let last = records.iter().filter_map(|record| match record {
        Record::Incarnation { incarnation } => Some(incarnation + 1),
        _ => None,
    });
    Incarnation(last.max().unwrap_or(0).max(now.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[tokio::test]
    async fn a_head_that_starts_by_a_clock_that_was_set_back_has_a_later_incarnation_all_the_same() {
        let scratch = TestDir::new();
        let path = scratch.path().join("head.redb");
        let mut had = Vec::new();
        for now in [1_000, 500, 500, 2_000, 0] {
            let (store, records) = Store::open(&path).await.unwrap();
            had.push(begin(&store, &records, Incarnation(now)).await.0);
        }
        assert_eq!(had, [1_000, 1_001, 1_002, 2_000, 2_001]);
    }

    #[tokio::test]
    async fn an_incarnation_is_on_the_disk_before_it_is_used() {
        let scratch = TestDir::new();
        let path = scratch.path().join("head.redb");
        let (store, records) = Store::open(&path).await.unwrap();
        let used = begin(&store, &records, Incarnation(7)).await;
        // As a kill leaves it: what waits to be written is not written any more.
        let copy = scratch.path().join("copy.redb");
        std::fs::copy(&path, &copy).unwrap();
        let (_copied, records) = Store::open(&copy).await.unwrap();
        assert_eq!(after(&records, Incarnation(0)), Incarnation(used.0 + 1));
    }
}
