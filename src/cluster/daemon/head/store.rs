//! What the head keeps for its next life, in a database of its state directory.
//!
//! Writes are gathered and committed together by a thread of their own, so that nobody who asks the head
//! waits for a disk.

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

/// How long a disk that takes nothing is left alone.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long a process that was killed may hold the database before it is taken for one that lives: it is
/// let go when the last of its threads has ended.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often is looked meanwhile.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The records, by their keys; both in MessagePack.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// Why the head cannot keep, or find again, what it has to.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Database(Box<redb::Error>),
    #[error("a record is not understood: {0}; it may be of another version")]
    Record(String),
    #[error("another head has it")]
    Locked,
    #[error("it cannot get its name: {0}")]
    Name(std::io::Error),
    #[error("no thread to write with: {0}")]
    Thread(std::io::Error),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// What is to be done with a record.
#[derive(Debug)]
pub(super) enum Write {
    Put(Record),
    Delete(RecordKey),
}

/// The database. Dropping it writes what waits.
#[derive(Debug)]
pub(super) struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What waits to be written, of each thing its latest state: so much as the state itself at most.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake_writer: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: BTreeMap<RecordKey, Write>,
    /// How many changes there have been.
    submitted: u64,
    ending: bool,
}

/// What has become of the changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// How many of them are on the disk.
    written: u64,
    /// The bounds of given numbers that are on the disk: jobs, workers, actors.
    pub(super) given: Option<(u32, u64, u64)>,
    /// Why the disk does not take the next ones.
    pub(super) last_error: Option<String>,
}

impl Store {
    /// Opens the database, or makes it, and gives the records in it.
    pub(super) async fn open(path: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        let database = open_exclusive(path).await?;
        remove_partial(path);
        let records = read(&database)?;
        Ok((Self::begin(path, database)?, records))
    }

    fn begin(path: &Path, database: Database) -> Result<Self, StoreError> {
        let shared = Arc::<Shared>::default();
        let writing = Arc::clone(&shared);
        let path = path.to_owned();
        let writer = thread::Builder::new()
            .name("roadshow-store".to_owned())
            .spawn(move || writing.write_all(&path, database))
            .map_err(StoreError::Thread)?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Takes a change in, in place of an earlier one of the same thing. It waits for no disk.
    pub(super) fn change(&self, change: Write) {
        let key = match &change {
            Write::Put(record) => record.key(),
            Write::Delete(key) => *key,
        };
        let mut waiting = self.shared.lock();
        waiting.changes.insert(key, change);
        waiting.submitted += 1;
        drop(waiting);
        self.shared.wake_writer.notify_one();
    }

    /// What becomes of the changes.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Waits until the changes of before are on the disk; else says why they are not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(super) async fn flushed(&self) -> Result<(), String> {
        let taken = self.shared.lock().submitted;
        let mut progress = self.progress();
        let settled = progress.wait_for(|at| at.written >= taken || at.last_error.is_some()).await;
        match settled {
            Ok(at) if at.written >= taken => Ok(()),
            Ok(at) => Err(at.last_error.clone().unwrap_or_default()),
            Err(_) => Err("the head is ending".to_owned()),
        }
    }
}

/// Opens the database, if need be when the process that had it has ended, or makes it.
async fn open_exclusive(path: &Path) -> Result<Database, StoreError> {
    let give_up = Instant::now() + LOCK_TIMEOUT;
    loop {
        match Database::open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < give_up => {
                tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::Locked),
            Err(DatabaseError::Storage(StorageError::Io(error))) if error.kind() == ErrorKind::NotFound => {
                if let Some(made) = create_atomically(path)? {
                    return Ok(made);
                }
            }
            opened => return Ok(opened?),
        }
    }
}

/// Removes what processes have left that were killed while they made the database.
fn remove_partial(path: &Path) {
    let begun = path.with_extension("new.");
    let Some(begun) = begun.file_name().map(std::ffi::OsStr::as_encoded_bytes) else { return };
    let entries = path.parent().and_then(|parent| fs::read_dir(parent).ok());
    for entry in entries.into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(begun) {
            // It only takes up room.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes the database, which gets its name when all of it is there: one that was left half made could not
/// be opened any more. Nothing if somebody else has made it meanwhile.
fn create_atomically(path: &Path) -> Result<Option<Database>, StoreError> {
    let begun = path.with_extension(format!("new.{}", std::process::id()));
    // Of a process that had this number, and was killed here.
    let _ = fs::remove_file(&begun);
    let made = Database::create(&begun);
    let named = made.map_err(StoreError::from).and_then(|made| match fs::hard_link(&begun, path) {
        Ok(()) => Ok(Some(made)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(StoreError::Name(error)),
    });
    let _ = fs::remove_file(&begun);
    named
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.wake_writer.notify_one();
        if let Some(writer) = self.writer.take() {
            // It panics for no reason of ours.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, until the store is dropped. What a full disk does not take is tried again.
    fn write_all(&self, path: &Path, database: Database) {
        let mut opened = Some(database);
        loop {
            let idle = |waiting: &mut Waiting| waiting.changes.is_empty() && !waiting.ending;
            let waited = self.wake_writer.wait_while(self.lock(), idle);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
            let (changes, taken, ending) =
                (std::mem::take(&mut waiting.changes), waiting.submitted, waiting.ending);
            drop(waiting);
            match write_or_reopen(path, &mut opened, &changes) {
                Ok(()) => self.set_flushed(taken, &changes),
                Err(error) => {
                    self.set_failed(&error);
                    let mut waiting = self.lock();
                    for (key, change) in changes {
                        waiting.changes.entry(key).or_insert(change);
                    }
                    let running = |waiting: &mut Waiting| !waiting.ending;
                    drop(self.wake_writer.wait_timeout_while(waiting, RETRY_PAUSE, running));
                }
            }
            if ending {
                return;
            }
        }
    }

    fn set_flushed(&self, taken: u64, changes: &BTreeMap<RecordKey, Write>) {
        let given = match changes.get(&RecordKey::IdWatermarks) {
            Some(Write::Put(Record::IdWatermarks { jobs, workers, actors })) => {
                Some((*jobs, *workers, *actors))
            }
            _ => None,
        };
        let mut was_in_trouble = false;
        self.progress.send_modify(|progress| {
            was_in_trouble = progress.last_error.take().is_some();
            progress.written = taken;
            progress.given = given.or(progress.given);
        });
        if was_in_trouble {
            // As loud as the trouble was, for whoever reads the log.
            tracing::warn!("the head keeps its state again");
        }
    }

    fn set_failed(&self, error: &StoreError) {
        let trouble = Some(error.to_string());
        let is_news = |progress: &mut Progress| {
            let is_news = progress.last_error != trouble;
            progress.last_error.clone_from(&trouble);
            is_news
        };
        if self.progress.send_if_modified(is_news) {
            tracing::error!(%error, "the head cannot keep its state, and tries again; free some disk");
        }
    }
}

fn read(database: &Database) -> Result<Vec<Record>, StoreError> {
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
        records.push(record.map_err(|error| StoreError::Record(error.to_string()))?);
    }
    Ok(records)
}

/// Writes changes. After a failed write a database takes nothing more, and is opened anew.
fn write_or_reopen(
    path: &Path,
    opened: &mut Option<Database>,
    changes: &BTreeMap<RecordKey, Write>,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let database = match opened.take() {
        Some(database) => database,
        None => Database::open(path)?,
    };
    write(&database, changes)?;
    *opened = Some(database);
    Ok(())
}

fn write(database: &Database, changes: &BTreeMap<RecordKey, Write>) -> Result<(), StoreError> {
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

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec(value).map_err(|error| StoreError::Record(error.to_string()))
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
    async fn what_was_kept_and_not_forgotten_is_there_for_the_next_life() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let given = |actors| Record::IdWatermarks { jobs: 1, workers: 2, actors };
        let (store, records) = Store::open(&path).await.unwrap();
        assert_eq!(records, []);
        store.change(Write::Put(given(3)));
        store.change(Write::Put(given(4)));
        store.change(Write::Delete(RecordKey::Actor(ActorKey(9))));
        drop(store);
        let (store, records) = Store::open(&path).await.unwrap();
        assert_eq!(records, [given(4)]);
        store.change(Write::Delete(RecordKey::IdWatermarks));
        drop(store);
        assert_eq!(Store::open(&path).await.unwrap().1, []);
    }

    /// A disk on which there is no room.
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
    async fn what_a_full_disk_does_not_take_is_told_of_and_kept_once_there_is_room() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let given = Record::IdWatermarks { jobs: 1, workers: 2, actors: 3 };
        drop(Store::open(&path).await.unwrap());
        let is_full = Arc::<AtomicBool>::default();
        let disk = FullDisk(InMemoryBackend::new(), Arc::clone(&is_full));
        let full = Database::builder().create_with_backend(disk).unwrap();
        is_full.store(true, Ordering::Relaxed);
        let store = Store::begin(&path, full).unwrap();
        store.change(Write::Put(given.clone()));
        let why = store.flushed().await.unwrap_err();
        assert!(store.progress().borrow().last_error.as_ref() == Some(&why), "{why}");
        // The database that has failed takes nothing more: the one of that name does.
        let mut progress = store.progress();
        progress.wait_for(|progress| progress.last_error.is_none()).await.unwrap();
        store.flushed().await.unwrap();
        drop(store);
        assert_eq!(Store::open(&path).await.unwrap().1, [given]);
    }

    #[tokio::test]
    async fn a_database_that_another_has_is_waited_for_but_not_for_ever() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let first = Database::create(&path).unwrap();
        let released = async {
            tokio::time::sleep(2 * LOCK_RETRY_INTERVAL).await;
            drop(first);
        };
        let (opened, ()) = tokio::join!(Store::open(&path), released);
        let second = opened.unwrap().0;
        let refused = Store::open(&path).await.unwrap_err();
        assert!(matches!(refused, StoreError::Locked), "{refused}");
        drop(second);
    }

    #[tokio::test]
    async fn a_database_that_was_left_half_made_keeps_nobody_from_making_it() {
        let scratch = TestDir::new();
        let path = scratch.join("head.redb");
        let begun = [std::process::id(), 1].map(|pid| path.with_extension(format!("new.{pid}")));
        begun.iter().for_each(|begun| fs::write(begun, [0; 4096]).unwrap());
        let (store, records) = Store::open(&path).await.unwrap();
        assert_eq!((records, begun.map(|begun| begun.exists())), (Vec::new(), [false; 2]));
        store.change(Write::Put(Record::IdWatermarks { jobs: 1, workers: 2, actors: 3 }));
        drop(store);
        assert_eq!(Store::open(&path).await.unwrap().1.len(), 1);
        // Where it cannot be made, nothing is left that could be taken for it.
        let nowhere = scratch.join("none").join("head.redb");
        Store::open(&nowhere).await.unwrap_err();
    }
}
