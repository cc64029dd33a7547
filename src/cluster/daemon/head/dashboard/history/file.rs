//! File of the history, which outlives the head: `dashboard.redb` in the state directory.
//!
//! The table has the newest steps, the rings of the cluster, and those of each node. A write replaces all of it. A
//! damaged file is replaced by a new one. With any other error the file stays, and the history is in memory alone:
//! charts are no reason to keep a head from starting.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{Builder, Database, ReadableTable, TableDefinition};
use thiserror::Error;

use super::{History, NodeRings, POINTS, RESOLUTIONS, Rings, series};
use crate::cluster::daemon::head::store::write_or_reopen;
use crate::cluster::listing::hexadecimal;
use crate::cluster::model::NodeId;
use crate::config::HISTORY_NODES_MAX;

/// Table of the history. Numbers are little-endian.
const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("history");

/// Version of the file's content. Another number or order of series or points is another version.
const FORMAT: u8 = 1;

const FORMAT_KEY: &str = "format";
const NEWEST_KEY: &str = "newest";
const CLUSTER_KEY: &str = "cluster";
const NODE_PREFIX: &str = "node:";

/// Page cache of the database in bytes: it is read once, and written a minute apart.
const CACHE_BYTES: usize = 1 << 20;

/// Reason that the history cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(in crate::cluster::daemon::head::dashboard) enum HistoryFileError {
    /// The database is damaged, or the disk fails.
    #[error("{0}")]
    Database(Box<redb::Error>),
    /// The content is of another version, or damaged.
    #[error("its content is not that of this version ({0})")]
    Content(&'static str),
    /// The damaged file cannot be removed.
    #[error("cannot remove it: {0}")]
    Remove(std::io::Error),
}

impl<E: Into<redb::Error>> From<E> for HistoryFileError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl HistoryFileError {
    /// True if no later attempt can read the file.
    fn is_damage(&self) -> bool {
        match self {
            Self::Content(_) => true,
            Self::Remove(_) => false,
            Self::Database(error) => match &**error {
                redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
                redb::Error::Io(error) => {
                    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
                }
                _ => false,
            },
        }
    }
}

/// Open file of the history.
#[derive(Debug)]
pub(in crate::cluster::daemon::head::dashboard) struct HistoryFile {
    path: PathBuf,
    /// `None` after a failed write.
    database: Mutex<Option<Database>>,
}

impl HistoryFile {
    /// Opens the file, and reads the history in it. A damaged file is replaced by an empty one.
    ///
    /// The file is `None`, and the history in memory alone, where none can be created.
    pub(in crate::cluster::daemon::head::dashboard) fn open(path: &Path) -> (Option<Self>, History) {
        let mut opened = Self::read(path);
        if let Err(error) = &opened
            && error.is_damage()
        {
            tracing::warn!(path = %path.display(), %error, "the dashboard's history is lost; a new one begins");
            opened = remove(path).and_then(|()| Self::read(path));
        }
        match opened {
            Ok((file, history)) => (Some(file), history),
            Err(error) => {
                tracing::warn!(
                    path = %path.display(),
                    %error,
                    "the dashboard's history is kept in memory alone; check the state directory"
                );
                (None, History::new())
            }
        }
    }

    fn read(path: &Path) -> Result<(Self, History), HistoryFileError> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
        let history = history_of(&database)?;
        Ok((Self { path: path.to_owned(), database: Mutex::new(Some(database)) }, history))
    }

    /// Writes a history. After a failure, as of a full disk, the next call opens the file again.
    pub(in crate::cluster::daemon::head::dashboard) fn write(
        &self,
        history: &History,
    ) -> Result<(), HistoryFileError> {
        let mut opened = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        write_or_reopen(&self.path, &mut opened, |database| Self::write_to(database, history))
    }

    fn write_to(database: &Database, history: &History) -> Result<(), HistoryFileError> {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            // Nodes that the history has forgotten must not come back.
            table.retain(|key, _| !key.starts_with(NODE_PREFIX))?;
            table.insert(FORMAT_KEY, &[FORMAT][..])?;
            let newest: Vec<u8> = history.newest.iter().flat_map(|step| step.to_le_bytes()).collect();
            table.insert(NEWEST_KEY, &newest[..])?;
            table.insert(CLUSTER_KEY, &bytes(&history.cluster)[..])?;
            for (node, kept) in &history.nodes {
                let mut value = kept.last_ms.to_le_bytes().to_vec();
                value.extend(bytes(&kept.rings));
                table.insert(format!("{NODE_PREFIX}{node}").as_str(), &value[..])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn history_of(database: &Database) -> Result<History, HistoryFileError> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(History::new()),
        Err(error) => return Err(error.into()),
    };
    let damaged = HistoryFileError::Content;
    if table.get(FORMAT_KEY)?.is_none_or(|format| format.value() != [FORMAT]) {
        return Err(damaged("format"));
    }
    let newest = table.get(NEWEST_KEY)?.and_then(|value| numbers(value.value()));
    let newest: [u64; RESOLUTIONS.len()] =
        newest.and_then(|steps| steps.try_into().ok()).ok_or(damaged("newest"))?;
    let cluster = table.get(CLUSTER_KEY)?.and_then(|value| rings(value.value(), series::COUNT));
    let mut history = History { newest, cluster: cluster.ok_or(damaged("cluster"))?, nodes: BTreeMap::new() };
    for entry in table.iter()? {
        let (key, value) = entry?;
        let Some(id) = key.value().strip_prefix(NODE_PREFIX) else { continue };
        let id = hexadecimal(id).ok_or(damaged("node"))?;
        let (last_ms, points) = value.value().split_first_chunk::<8>().ok_or(damaged("node"))?;
        let rings = rings(points, series::OF_NODES).ok_or(damaged("node"))?;
        if history.nodes.len() < HISTORY_NODES_MAX {
            history.nodes.insert(NodeId(id), NodeRings { last_ms: u64::from_le_bytes(*last_ms), rings });
        }
    }
    Ok(history)
}

fn numbers(bytes: &[u8]) -> Option<Vec<u64>> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| numbers.iter().map(|number| u64::from_le_bytes(*number)).collect())
}

fn bytes(rings: &Rings) -> Vec<u8> {
    rings.points.iter().flat_map(|point| point.to_le_bytes()).collect()
}

fn rings(bytes: &[u8], series: usize) -> Option<Rings> {
    let (points, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || points.len() != series * POINTS {
        return None;
    }
    let mut rings = Rings::new(series);
    for (point, bytes) in rings.points.iter_mut().zip(points) {
        *point = f32::from_le_bytes(*bytes);
    }
    Some(rings)
}

fn remove(path: &Path) -> Result<(), HistoryFileError> {
    fs::remove_file(path).map_err(HistoryFileError::Remove)
}

/// Path of the history's file.
pub(in crate::cluster::daemon::head::dashboard) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("dashboard.redb")
}

#[cfg(test)]
mod tests {
    use super::super::series::Sample;
    use super::*;
    use crate::cluster::test_dir::TestDir;

    fn history() -> History {
        let mut history = History::new();
        let mut sample = Sample { time_ms: 1_800_000_000_000, ..Sample::default() };
        sample.cluster[0] = Some(12.5);
        sample.nodes.insert(NodeId(7), [Some(1.0); series::COUNT]);
        history.record(&sample);
        history
    }

    #[test]
    fn history_is_read_as_it_was_written() {
        let dir = TestDir::new();
        let path = path(dir.path());
        let (file, empty) = HistoryFile::open(&path);
        assert_eq!(empty, History::new());
        file.unwrap().write(&history()).unwrap();
        let (file, read) = HistoryFile::open(&path);
        assert_eq!(read, history());
        let mut without_node = history();
        without_node.nodes.clear();
        file.unwrap().write(&without_node).unwrap();
        assert_eq!(HistoryFile::open(&path).1, without_node);
    }

    #[test]
    fn damaged_file_is_replaced_by_a_new_one() {
        let dir = TestDir::new();
        let path = path(dir.path());
        fs::write(&path, b"no database").unwrap();
        let (file, read) = HistoryFile::open(&path);
        assert_eq!(read, History::new());
        file.unwrap().write(&history()).unwrap();
        assert_eq!(HistoryFile::open(&path).1, history());
    }

    #[test]
    fn content_of_another_version_is_not_read() {
        let dir = TestDir::new();
        let path = path(dir.path());
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TABLE).unwrap().insert(FORMAT_KEY, &[FORMAT + 1][..]).unwrap();
        transaction.commit().unwrap();
        assert!(matches!(history_of(&database), Err(HistoryFileError::Content("format"))));
        drop(database);
        assert_eq!(HistoryFile::open(&path).1, History::new());
    }

    #[test]
    fn file_that_cannot_be_opened_stays() {
        let dir = TestDir::new();
        let path = path(dir.path());
        HistoryFile::open(&path).0.unwrap().write(&history()).unwrap();
        let held = Database::open(&path).unwrap();
        assert!(HistoryFile::open(&path).0.is_none(), "another process has it");
        drop(held);
        assert_eq!(HistoryFile::open(&path).1, history());
    }

    #[test]
    fn file_is_opened_again_after_a_failed_write() {
        let dir = TestDir::new();
        let path = path(dir.path());
        let (file, _) = HistoryFile::open(&path);
        let file = file.unwrap();
        *file.database.lock().unwrap() = None;
        file.write(&history()).unwrap();
        drop(file);
        assert_eq!(HistoryFile::open(&path).1, history());
    }

    #[test]
    fn directory_without_a_file_keeps_the_history_in_memory() {
        let dir = TestDir::new();
        assert!(HistoryFile::open(&dir.path().join("missing").join("file")).0.is_none());
    }
}
