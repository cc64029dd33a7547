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

use crate::cluster::state::{Record, RecordKey};

/// How long a disk that takes nothing is left alone.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long a process that was killed may hold the database before it is taken for one that lives: it is
/// let go when the last of its threads has ended.
const RELEASED_WITHIN: Duration = Duration::from_secs(2);

/// How often is looked meanwhile.
const RELEASED_PAUSE: Duration = Duration::from_millis(20);

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
    Taken,
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
pub(super) enum Change {
    Keep(Record),
    Forget(RecordKey),
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
    more: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: BTreeMap<RecordKey, Change>,
    ending: bool,
}

impl Store {
    /// Opens the database, or makes it, and gives the records in it.
    pub(super) async fn open(path: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        let database = take_over(path).await?;
        let records = read(&database)?;
        let shared = Arc::<Shared>::default();
        let writing = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("roadshow-store".to_owned())
            .spawn(move || writing.write_all(&database))
            .map_err(StoreError::Thread)?;
        Ok((Self { shared, writer: Some(writer) }, records))
    }

    /// Takes a change in, in place of an earlier one of the same thing. It waits for no disk.
    pub(super) fn change(&self, change: Change) {
        let key = match &change {
            Change::Keep(record) => record.key(),
            Change::Forget(key) => *key,
        };
        self.shared.lock().changes.insert(key, change);
        self.shared.more.notify_one();
    }
}

/// Opens the database, if need be when the process that had it has ended, or makes it.
async fn take_over(path: &Path) -> Result<Database, StoreError> {
    let give_up = Instant::now() + RELEASED_WITHIN;
    loop {
        match Database::open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < give_up => {
                tokio::time::sleep(RELEASED_PAUSE).await;
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::Taken),
            Err(DatabaseError::Storage(StorageError::Io(error))) if error.kind() == ErrorKind::NotFound => {
                if let Some(made) = make(path)? {
                    return Ok(made);
                }
            }
            opened => return Ok(opened?),
        }
    }
}

/// Makes the database, which gets its name when all of it is there: one that was left half made could not
/// be opened any more. Nothing if somebody else has made it meanwhile.
fn make(path: &Path) -> Result<Option<Database>, StoreError> {
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
        self.shared.more.notify_one();
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
    fn write_all(&self, database: &Database) {
        loop {
            let idle = |waiting: &mut Waiting| waiting.changes.is_empty() && !waiting.ending;
            let waited = self.more.wait_while(self.lock(), idle);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
            let (changes, ending) = (std::mem::take(&mut waiting.changes), waiting.ending);
            drop(waiting);
            let written = if changes.is_empty() { Ok(()) } else { write(database, &changes) };
            if let Err(error) = written {
                tracing::error!(%error, "the head cannot keep its state, and tries again; free some disk");
                let mut waiting = self.lock();
                for (key, change) in changes {
                    waiting.changes.entry(key).or_insert(change);
                }
                let running = |waiting: &mut Waiting| !waiting.ending;
                drop(self.more.wait_timeout_while(waiting, RETRY_PAUSE, running));
            }
            if ending {
                return;
            }
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

fn write(database: &Database, changes: &BTreeMap<RecordKey, Change>) -> Result<(), StoreError> {
    let mut writing = database.begin_write()?;
    writing.set_durability(Durability::Immediate);
    {
        let mut table = writing.open_table(RECORDS)?;
        for (key, change) in changes {
            let key = encode(key)?;
            match change {
                Change::Keep(record) => {
                    table.insert(&*key, &*encode(record)?)?;
                }
                Change::Forget(_) => {
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
    use super::*;
    use crate::cluster::model::ActorKey;
    use crate::cluster::scratch::Scratch;

    #[tokio::test]
    async fn what_was_kept_and_not_forgotten_is_there_for_the_next_life() {
        let scratch = Scratch::new();
        let path = scratch.join("head.redb");
        let given = |actors| Record::Given { jobs: 1, workers: 2, actors };
        let (store, records) = Store::open(&path).await.unwrap();
        assert_eq!(records, []);
        store.change(Change::Keep(given(3)));
        store.change(Change::Keep(given(4)));
        store.change(Change::Forget(RecordKey::Actor(ActorKey(9))));
        drop(store);
        let (store, records) = Store::open(&path).await.unwrap();
        assert_eq!(records, [given(4)]);
        store.change(Change::Forget(RecordKey::Given));
        drop(store);
        assert_eq!(Store::open(&path).await.unwrap().1, []);
    }

    #[tokio::test]
    async fn a_database_that_another_has_is_waited_for_but_not_for_ever() {
        let scratch = Scratch::new();
        let path = scratch.join("head.redb");
        let first = Database::create(&path).unwrap();
        let released = async {
            tokio::time::sleep(2 * RELEASED_PAUSE).await;
            drop(first);
        };
        let (opened, ()) = tokio::join!(Store::open(&path), released);
        let second = opened.unwrap().0;
        let refused = Store::open(&path).await.unwrap_err();
        assert!(matches!(refused, StoreError::Taken), "{refused}");
        drop(second);
    }

    #[tokio::test]
    async fn a_database_that_was_left_half_made_keeps_nobody_from_making_it() {
        let scratch = Scratch::new();
        let path = scratch.join("head.redb");
        let begun = path.with_extension(format!("new.{}", std::process::id()));
        fs::write(&begun, [0; 4096]).unwrap();
        let (store, records) = Store::open(&path).await.unwrap();
        assert_eq!((records, begun.exists()), (Vec::new(), false));
        store.change(Change::Keep(Record::Given { jobs: 1, workers: 2, actors: 3 }));
        drop(store);
        assert_eq!(Store::open(&path).await.unwrap().1.len(), 1);
        // Where it cannot be made, nothing is left that could be taken for it.
        let nowhere = scratch.join("none").join("head.redb");
        Store::open(&nowhere).await.unwrap_err();
    }
}
