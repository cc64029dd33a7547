//! What the head keeps for its next life, in a database of its state directory.
//!
//! Writes are gathered and committed together by a thread of their own, so that nobody who asks the head
//! waits for a disk.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use redb::{Database, Durability, ReadableTable, TableDefinition};
use thiserror::Error;

use crate::cluster::state::{Record, RecordKey};
use crate::config::RECORDS_QUEUED_MAX;

/// The records, by their keys; both in MessagePack.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// Why the head cannot keep, or find again, what it has to.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Database(Box<redb::Error>),
    #[error("a record is not understood: {0}; it may be of another version")]
    Record(String),
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

/// The database. Dropping it writes what is queued.
#[derive(Debug)]
pub(super) struct Store {
    changes: Option<SyncSender<Change>>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the database, or makes it, and gives the records in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        let database = Database::create(path)?;
        let records = read(&database)?;
        let (changes, queue) = sync_channel(RECORDS_QUEUED_MAX);
        let writer = thread::Builder::new()
            .name("roadshow-store".to_owned())
            .spawn(move || write_all(&database, &queue))
            .map_err(StoreError::Thread)?;
        Ok((Self { changes: Some(changes), writer: Some(writer) }, records))
    }

    /// Queues a change. Waits while the disk is behind by thousands of them.
    pub(super) fn change(&self, change: Change) {
        if let Some(changes) = &self.changes {
            // A writer that has ended has said why.
            let _ = changes.send(change);
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(writer) = self.writer.take() {
            // It panics for no reason of ours.
            let _ = writer.join();
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

fn write_all(database: &Database, queue: &Receiver<Change>) {
    while let Ok(first) = queue.recv() {
        let changes = std::iter::once(first).chain(queue.try_iter().take(RECORDS_QUEUED_MAX));
        if let Err(error) = write(database, changes) {
            tracing::error!(%error, "the head cannot keep its state: a restart would forget what is new; free some disk");
        }
    }
}

fn write(database: &Database, changes: impl Iterator<Item = Change>) -> Result<(), StoreError> {
    let mut writing = database.begin_write()?;
    writing.set_durability(Durability::Immediate);
    {
        let mut table = writing.open_table(RECORDS)?;
        for change in changes {
            match change {
                Change::Keep(record) => {
                    let (key, value) = (encode(&record.key())?, encode(&record)?);
                    table.insert(&*key, &*value)?;
                }
                Change::Forget(key) => {
                    table.remove(&*encode(&key)?)?;
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

    #[test]
    fn what_was_kept_and_not_forgotten_is_there_for_the_next_life() {
        let directory = std::env::temp_dir().join(format!("roadshow-store-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("head.redb");
        let given = |actors| Record::Given { jobs: 1, workers: 2, actors };
        let (store, records) = Store::open(&path).unwrap();
        assert_eq!(records, []);
        store.change(Change::Keep(given(3)));
        store.change(Change::Keep(given(4)));
        store.change(Change::Forget(RecordKey::Actor(ActorKey(9))));
        drop(store);
        let (store, records) = Store::open(&path).unwrap();
        assert_eq!(records, [given(4)]);
        store.change(Change::Forget(RecordKey::Given));
        drop(store);
        assert_eq!(Store::open(&path).unwrap().1, []);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
