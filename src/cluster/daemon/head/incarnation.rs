//! Incarnation of the head's host: later than that of every head before it, even if the clock was set back.
//!
//! Hosts of the cluster reject an incarnation that is earlier than one they know. Other processes draw a random
//! host id at each start. The head's id is fixed, so its database stores the last incarnation.

use super::store::{StateStore, Write};
use crate::cluster::control_plane::state::Record;
use crate::id::Incarnation;

/// Chooses the incarnation of a head that starts at `now`, and writes it to disk before it returns.
///
/// A disk error does not stop the head: the incarnation then depends on the clock alone.
pub(super) async fn choose(store: &StateStore, records: &[Record], now: Incarnation) -> Incarnation {
    let incarnation = after(records, now);
    store.change(Write::Put(Box::new(Record::Incarnation { incarnation: incarnation.0 })));
    if let Err(error) = store.flushed().await {
        tracing::error!(
            error,
            "cannot store the head's incarnation; do not set the clock back until it is stored"
        );
    }
    incarnation
}

fn after(records: &[Record], now: Incarnation) -> Incarnation {
    let last = records.iter().filter_map(|record| match record {
        // At least one more than the last: the clock may stand still or have been set back.
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
    async fn incarnation_grows_even_if_the_clock_is_set_back() {
        let scratch = TestDir::new();
        let path = scratch.path().join("head.redb");
        let mut had = Vec::new();
        for now in [1_000, 500, 500, 2_000, 0] {
            let (store, records) = StateStore::open(&path).await.unwrap();
            had.push(choose(&store, &records, Incarnation(now)).await.0);
        }
        assert_eq!(had, [1_000, 1_001, 1_002, 2_000, 2_001]);
    }

    #[tokio::test]
    async fn incarnation_is_on_disk_before_it_is_used() {
        let scratch = TestDir::new();
        let path = scratch.path().join("head.redb");
        let (store, records) = StateStore::open(&path).await.unwrap();
        let used = choose(&store, &records, Incarnation(7)).await;
        // Simulates a kill: writes that are still queued are lost.
        let copy = scratch.path().join("copy.redb");
        std::fs::copy(&path, &copy).unwrap();
        let (_copied, records) = StateStore::open(&copy).await.unwrap();
        assert_eq!(after(&records, Incarnation(0)), Incarnation(used.0 + 1));
    }
}
