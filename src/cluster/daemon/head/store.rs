//! Durable state of the head: a database of records in its state directory.
//!
//! A thread of its own collects the writes and commits them together, so no request waits for the disk unless it
//! asks for that ([`StateStore::flushed`]).
//!
//! ```text
//!  change(Write) ──▶ PendingWrites ──▶ writer thread ──▶ commit ──▶ WriteProgress ──▶ flushed()
//!                    latest write         ▲    │ error                  │
//!                    per record key       └────┘ retry after 1 s        └─▶ last_error: an alert
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, DatabaseError, Durability, ReadableTable, StorageError, TableDefinition};
use thiserror::Error;
use tokio::sync::watch;

use crate::cluster::control_plane::state::{Record, RecordKey};

/// Pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Time limit for another process to release the lock of the database. A killed head holds it until its last
/// thread has exited; one that still holds it after this time is alive.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Polling interval while another process holds the lock of the database.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Table of the records by their keys, both in MessagePack.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// Reason that the head cannot read or write its durable state.
#[derive(Debug, Error)]
pub(super) enum StateStoreError {
    #[error("{0}")]
    Database(Box<redb::Error>),
    #[error("cannot decode a record: {0}; another version of roadshow may have written it")]
    Record(String),
    #[error("another head uses it; stop that head, or give another --state-dir")]
    Locked,
    #[error("cannot give the new database its name: {0}")]
    Name(std::io::Error),
    #[error("cannot start the thread that writes: {0}")]
    Thread(std::io::Error),
}

impl<E: Into<redb::Error>> From<E> for StateStoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// Change of one record.
#[derive(Debug)]
pub(super) enum Write {
    Put(Box<Record>),
    Delete(RecordKey),
}

impl Write {
    fn key(&self) -> RecordKey {
        match self {
            Self::Put(record) => record.key(),
            Self::Delete(key) => *key,
        }
    }
}

/// Handle of the database. Dropping it commits the pending writes.
#[derive(Debug)]
pub(super) struct StateStore {
    shared: Arc<SharedWrites>,
    writer: Option<JoinHandle<()>>,
}

/// State shared with the writer thread.
#[derive(Debug, Default)]
struct SharedWrites {
    pending: Mutex<PendingWrites>,
    wake_writer: Condvar,
    progress: watch::Sender<WriteProgress>,
}

/// Writes that are not committed yet: the latest one of each key, so they never exceed the state itself.
#[derive(Debug, Default)]
struct PendingWrites {
    changes: BTreeMap<RecordKey, Write>,
    /// Number of changes since the start, including committed ones.
    submitted: u64,
    ending: bool,
}

/// Progress of the writer thread.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteProgress {
    /// Number of changes that are on disk.
    written: u64,
    /// Durable watermarks of the allocated ids: jobs, workers, actors.
    pub(super) watermarks: Option<(u32, u64, u64)>,
    /// Error of the last write, until a write succeeds.
    pub(super) last_error: Option<String>,
}

impl StateStore {
    /// Opens or creates the database, and returns the records in it.
    pub(super) async fn open(path: &Path) -> Result<(Self, Vec<Record>), StateStoreError> {
        let database = open_exclusive(path).await?;
        remove_partial(path);
        let records = read(&database)?;
        Ok((Self::start_writer(path, database)?, records))
    }

    fn start_writer(path: &Path, database: Database) -> Result<Self, StateStoreError> {
        let shared = Arc::<SharedWrites>::default();
        let writing = Arc::clone(&shared);
        let path = path.to_owned();
        let writer = thread::Builder::new()
            .name("roadshow-store".to_owned())
            .spawn(move || writing.run(&path, database))
            .map_err(StateStoreError::Thread)?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Queues a change in place of an earlier one of the same record, without waiting for the disk.
    pub(super) fn change(&self, change: Write) {
        self.change_all([change]);
    }

    /// Queues changes that are committed together.
    pub(super) fn change_all(&self, changes: impl IntoIterator<Item = Write>) {
        let mut pending = self.shared.lock();
        for change in changes {
            pending.changes.insert(change.key(), change);
            pending.submitted += 1;
        }
        let is_idle = pending.changes.is_empty();
        drop(pending);
        if !is_idle {
            self.shared.wake_writer.notify_one();
        }
    }

    /// Subscribes to the progress of the writer thread.
    pub(super) fn progress(&self) -> watch::Receiver<WriteProgress> {
        self.shared.progress.subscribe()
    }

    /// Waits until all earlier changes are on disk, or returns the reason that they are not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub(super) async fn flushed(&self) -> Result<(), String> {
        let submitted = self.shared.lock().submitted;
        let mut progress = self.progress();
        let settled = progress.wait_for(|at| at.written >= submitted || at.last_error.is_some()).await;
        match settled {
            Ok(at) if at.written >= submitted => Ok(()),
            Ok(at) => Err(at.last_error.clone().unwrap_or_default()),
            Err(_) => Err("the head is ending".to_owned()),
        }
    }
}

/// Opens or creates the database, and waits for a process that still holds its lock.
async fn open_exclusive(path: &Path) -> Result<Database, StateStoreError> {
    let give_up = Instant::now() + LOCK_TIMEOUT;
    loop {
        match Database::open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < give_up => {
                tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StateStoreError::Locked),
            Err(DatabaseError::Storage(StorageError::Io(error))) if error.kind() == ErrorKind::NotFound => {
                // `None`: another process has created it in between. The next turn opens that one.
                if let Some(created) = create_atomically(path)? {
                    return Ok(created);
                }
            }
            opened => return Ok(opened?),
        }
    }
}

/// Removes the temporary files of processes that were killed while they created the database.
fn remove_partial(path: &Path) {
    let prefix = path.with_extension("new.");
    let Some(prefix) = prefix.file_name().map(std::ffi::OsStr::as_encoded_bytes) else { return };
    let entries = path.parent().and_then(|parent| fs::read_dir(parent).ok());
    for entry in entries.into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix) {
            // A leftover only occupies disk space, so a failure here does not matter.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Creates the database under a temporary name, and links it to its name once it is complete. Returns `None` if
/// another process has created it in between.
fn create_atomically(path: &Path) -> Result<Option<Database>, StateStoreError> {
    let temporary = path.with_extension(format!("new.{}", std::process::id()));
    // Leftover of a killed process that had the same pid.
    let _ = fs::remove_file(&temporary);
    let created = Database::create(&temporary);
    // A database whose creator was killed in the middle can never be opened again, hence the temporary name.
    // A link, unlike a rename, fails if the name exists: it cannot replace the database of another head.
    let named =
        created.map_err(StateStoreError::from).and_then(|created| match fs::hard_link(&temporary, path) {
            Ok(()) => Ok(Some(created)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(StateStoreError::Name(error)),
        });
    let _ = fs::remove_file(&temporary);
    named
}

impl Drop for StateStore {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.wake_writer.notify_one();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has already been reported by the panic hook.
            let _ = writer.join();
        }
    }
}

impl SharedWrites {
    fn lock(&self) -> MutexGuard<'_, PendingWrites> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writer thread: commits changes until the store is dropped, and retries those that failed.
    fn run(&self, path: &Path, database: Database) {
        let mut opened = Some(database);
        loop {
            let idle = |pending: &mut PendingWrites| pending.changes.is_empty() && !pending.ending;
            let waited = self.wake_writer.wait_while(self.lock(), idle);
            let mut pending = waited.unwrap_or_else(PoisonError::into_inner);
            let (changes, submitted, ending) =
                (std::mem::take(&mut pending.changes), pending.submitted, pending.ending);
            // The lock is free during the commit: `change` never waits for the disk.
            drop(pending);
            let written = match changes.is_empty() {
                true => Ok(()),
                false => write_or_reopen(path, &mut opened, |database| write(database, &changes)),
            };
            match written {
                Ok(()) => self.set_flushed(submitted, &changes),
                Err(error) => {
                    self.set_failed(&error);
                    let mut pending = self.lock();
                    for (key, change) in changes {
                        // A change of the same record that was queued during the write is newer.
                        pending.changes.entry(key).or_insert(change);
                    }
                    let running = |pending: &mut PendingWrites| !pending.ending;
                    drop(self.wake_writer.wait_timeout_while(pending, RETRY_PAUSE, running));
                }
            }
            // Even after a failure: a full disk must not keep the head from ending.
            if ending {
                return;
            }
        }
    }

    fn set_flushed(&self, written: u64, changes: &BTreeMap<RecordKey, Write>) {
        let watermarks = match changes.get(&RecordKey::IdWatermarks) {
            Some(Write::Put(record)) => match **record {
                Record::IdWatermarks { jobs, workers, actors } => Some((jobs, workers, actors)),
                _ => None,
            },
            _ => None,
        };
        let mut had_failed = false;
        self.progress.send_modify(|progress| {
            had_failed = progress.last_error.take().is_some();
            progress.written = written;
            progress.watermarks = watermarks.or(progress.watermarks);
        });
        if had_failed {
            // A warning and not an info: a log that shows the error must also show its end.
            tracing::warn!("the head can write its state again");
        }
    }

    fn set_failed(&self, error: &StateStoreError) {
        let last_error = Some(error.to_string());
        // The retry fails with the same error once a second: only a new one is logged and published.
        let changed = |progress: &mut WriteProgress| {
            let changed = progress.last_error != last_error;
            progress.last_error.clone_from(&last_error);
            changed
        };
        if self.progress.send_if_modified(changed) {
            tracing::error!(%error, "the head cannot keep its state, and retries; free disk space");
        }
    }
}

fn read(database: &Database) -> Result<Vec<Record>, StateStoreError> {
    let reading = database.begin_read()?;
    let table = match reading.open_table(RECORDS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (_, value) = entry?;
        let record = rmp_serde::from_slice(value.value());
        records.push(record.map_err(|error| StateStoreError::Record(error.to_string()))?);
    }
    Ok(records)
}

/// Commits changes, and reopens the database after an earlier failure: redb accepts nothing after an I/O error.
pub(super) fn write_or_reopen<E: From<DatabaseError>>(
    path: &Path,
    opened: &mut Option<Database>,
    write: impl FnOnce(&Database) -> Result<(), E>,
) -> Result<(), E> {
    let database = match opened.take() {
        Some(database) => database,
        None => Database::open(path)?,
    };
    // An error here drops the database, and with it the lock: the next attempt can reopen it.
    write(&database)?;
    *opened = Some(database);
    Ok(())
}

fn write(database: &Database, changes: &BTreeMap<RecordKey, Write>) -> Result<(), StateStoreError> {
    let mut writing = database.begin_write()?;
    writing.set_durability(Durability::Immediate);
    {
        let mut table = writing.open_table(RECORDS)?;
        for (key, change) in changes {
            let key = encode(key)?;
            match change {
                Write::Put(record) => {
                    table.insert(&*key, &*encode(record)?)?;
                }
                Write::Delete(_) => {
                    table.remove(&*key)?;
                }
            }
        }
    }
    writing.commit()?;
    Ok(())
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, StateStoreError> {
    rmp_serde::to_vec(value).map_err(|error| StateStoreError::Record(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::cluster::model::ActorKey;
    use crate::cluster::test_dir::TestDir;

    #[tokio::test]
    async fn records_of_one_event_are_committed_together() {
        let scratch = TestDir::new();
        let (store, _) = StateStore::open(&scratch.join("head.redb")).await.unwrap();
        let mut progress = store.progress();
        for actors in 0..200 {
            let watermarks = Record::IdWatermarks { jobs: 1, workers: 2, actors };
            let incarnation = Record::Incarnation { incarnation: actors };
            store.change_all([watermarks, incarnation].map(|record| Write::Put(record.into())));
            let written = progress.borrow_and_update().written;
            assert_eq!(written % 2, 0, "half of an event is on disk");
            tokio::task::yield_now().await;
        }
        store.flushed().await.unwrap();
        assert_eq!(store.progress().borrow().written, 400);
    }

    #[tokio::test]
    async fn records_that_were_put_and_not_deleted_survive_a_restart() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let watermarks = |actors| Record::IdWatermarks { jobs: 1, workers: 2, actors };
        let (store, records) = StateStore::open(&path).await.unwrap();
        assert_eq!(records, []);
        store.change(Write::Put(watermarks(3).into()));
        store.change(Write::Put(watermarks(4).into()));
        store.change(Write::Delete(RecordKey::Actor(ActorKey(9))));
        drop(store);
        let (store, records) = StateStore::open(&path).await.unwrap();
        assert_eq!(records, [watermarks(4)]);
        store.change(Write::Delete(RecordKey::IdWatermarks));
        drop(store);
        assert_eq!(StateStore::open(&path).await.unwrap().1, []);
    }

    /// Storage that fails every write while its flag is set.
    #[derive(Debug)]
    struct FullDisk(InMemoryBackend, Arc<AtomicBool>);

    impl StorageBackend for FullDisk {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            self.0.read(offset, len)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self, eventual: bool) -> io::Result<()> {
            self.0.sync_data(eventual)
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            match self.1.load(Ordering::Relaxed) {
                true => Err(ErrorKind::StorageFull.into()),
                false => self.0.write(offset, data),
            }
        }
    }

    #[tokio::test]
    async fn full_disk_is_reported_and_its_writes_are_retried() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let watermarks = Record::IdWatermarks { jobs: 1, workers: 2, actors: 3 };
        drop(StateStore::open(&path).await.unwrap());
        let is_full = Arc::<AtomicBool>::default();
        let disk = FullDisk(InMemoryBackend::new(), Arc::clone(&is_full));
        let full = Database::builder().create_with_backend(disk).unwrap();
        is_full.store(true, Ordering::Relaxed);
        let store = StateStore::start_writer(&path, full).unwrap();
        store.change(Write::Put(Box::new(watermarks.clone())));
        let why = store.flushed().await.unwrap_err();
        assert!(store.progress().borrow().last_error.as_ref() == Some(&why), "{why}");
        // The failed database accepts nothing more. The retry opens the file of the same name, which does.
        let mut progress = store.progress();
        progress.wait_for(|progress| progress.last_error.is_none()).await.unwrap();
        store.flushed().await.unwrap();
        drop(store);
        assert_eq!(StateStore::open(&path).await.unwrap().1, [watermarks]);
    }

    #[tokio::test]
    async fn open_waits_for_a_locked_database_up_to_a_limit() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let first = Database::create(&path).unwrap();
        let released = async {
            tokio::time::sleep(2 * LOCK_RETRY_INTERVAL).await;
            drop(first);
        };
        let (opened, ()) = tokio::join!(StateStore::open(&path), released);
        let second = opened.unwrap().0;
        let refused = StateStore::open(&path).await.unwrap_err();
        assert!(matches!(refused, StateStoreError::Locked), "{refused}");
        drop(second);
    }

    #[tokio::test]
    async fn leftovers_of_an_interrupted_creation_are_removed() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let leftovers = [std::process::id(), 1].map(|pid| path.with_extension(format!("new.{pid}")));
        leftovers.iter().for_each(|leftover| fs::write(leftover, [0; 4096]).unwrap());
        let (store, records) = StateStore::open(&path).await.unwrap();
        assert_eq!((records, leftovers.map(|leftover| leftover.exists())), (Vec::new(), [false; 2]));
        store.change(Write::Put(Box::new(Record::IdWatermarks { jobs: 1, workers: 2, actors: 3 })));
        drop(store);
        assert_eq!(StateStore::open(&path).await.unwrap().1.len(), 1);
        // A failed creation leaves no file that could be taken for a database.
        let nowhere = scratch.join("none").join("head.redb");
        StateStore::open(&nowhere).await.unwrap_err();
    }
}
