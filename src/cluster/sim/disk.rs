//! Disk of a simulated head, which loses at a crash what was not synced.
//!
//! Like the head's database, it commits the latest write of each key together, some milliseconds after the first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::random_between;
use crate::cluster::control_plane::state::{Record, RecordKey};
use crate::host::random_u64;

/// Shortest and longest time of a sync, in microseconds.
const SYNC_MICROS: [u64; 2] = [500, 25_000];

/// The same for one in [`SLOW_SYNCS`]: something else keeps the disk busy.
const SLOW_SYNC_MICROS: [u64; 2] = [25_000, 400_000];

/// One in this number of syncs is slow.
const SLOW_SYNCS: u64 = 8;

/// Disk, which outlives the heads that write to it. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    synced: BTreeMap<RecordKey, Record>,
    /// Unsynced writes; `None` deletes.
    unsynced: BTreeMap<RecordKey, Option<Record>>,
    /// Number of the writer that has it open; earlier ones write nothing any more.
    writer: u64,
    progress: Progress,
    /// Wakes those who wait for progress in order. A `watch` wakes them in a random one.
    changed: Arc<Notify>,
}

/// Progress of the writer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    submitted: u64,
    written: u64,
    /// Durable watermarks of the allocated ids: jobs, workers, actors.
    pub(super) watermarks: Option<(u32, u64, u64)>,
}

/// Open disk of one incarnation of the head.
#[derive(Clone, Debug)]
pub(super) struct DiskWriter {
    disk: Disk,
    number: u64,
}

impl Disk {
    /// Opens the disk for another writer, and returns the records on it, and the number of unsynced
    /// writes of the last writer, which are lost.
    pub(super) fn open(&self) -> (DiskWriter, Vec<Record>, usize) {
        let mut state = self.lock();
        // Those who wait for the last writer learn of its end.
        state.changed.notify_waiters();
        let lost = std::mem::take(&mut state.unsynced).len();
        state.writer += 1;
        state.progress = Progress::default();
        let writer = DiskWriter { disk: self.clone(), number: state.writer };
        (writer, state.synced.values().cloned().collect(), lost)
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskWriter {
    pub(super) fn put(&self, record: Record) {
        self.change(record.key(), Some(record));
    }

    pub(super) fn delete(&self, key: RecordKey) {
        self.change(key, None);
    }

    fn change(&self, key: RecordKey, record: Option<Record>) {
        let mut state = self.disk.lock();
        if state.writer == self.number {
            state.unsynced.insert(key, record);
            state.progress.submitted += 1;
            state.changed.notify_waiters();
        }
    }

    /// Waits until the progress satisfies a condition. Fails once the disk has another writer.
    pub(super) async fn wait_for(&self, condition: impl Fn(&Progress) -> bool) -> Result<Progress, String> {
        loop {
            let changed = {
                let state = self.disk.lock();
                if state.writer != self.number {
                    return Err("the head is ending".to_owned());
                }
                if condition(&state.progress) {
                    return Ok(state.progress);
                }
                // It counts from here, and not from its first poll.
                Arc::clone(&state.changed).notified_owned()
            };
            changed.await;
        }
    }

    /// Waits until all writes so far are synced.
    pub(super) async fn flushed(self) -> Result<(), String> {
        let target = self.disk.lock().progress.submitted;
        self.wait_for(|progress| progress.written >= target).await.map(drop)
    }

    /// Syncs writes until it is aborted.
    pub(super) async fn sync(self) {
        loop {
            if self.wait_for(|progress| progress.submitted > progress.written).await.is_err() {
                return;
            }
            let target = self.disk.lock().progress.submitted;
            // What is written meanwhile joins the next group.
            let group = self.disk.lock().unsynced.clone();
            let micros = if random_u64().is_multiple_of(SLOW_SYNCS) { SLOW_SYNC_MICROS } else { SYNC_MICROS };
            tokio::time::sleep(random_between(micros.map(Duration::from_micros))).await;
            let mut state = self.disk.lock();
            if state.writer != self.number {
                return;
            }
            for (key, record) in group {
                if state.unsynced.get(&key) == Some(&record) {
                    state.unsynced.remove(&key);
                }
                match record {
                    Some(record) => drop(state.synced.insert(key, record)),
                    None => drop(state.synced.remove(&key)),
                }
            }
            let watermarks = match state.synced.get(&RecordKey::IdWatermarks) {
                Some(Record::IdWatermarks { jobs, workers, actors }) => Some((*jobs, *workers, *actors)),
                _ => None,
            };
            state.progress.written = target;
            state.progress.watermarks = watermarks;
            state.changed.notify_waiters();
        }
    }
}
