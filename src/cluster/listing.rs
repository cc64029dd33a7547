//! Paged lists of the head's tables: queries, filters, pages and counts.
//!
//! A list contains the open rows, newest first, and then the ended rows, latest end first. A page is a part
//! of the list plus a cursor to continue from. A list is not a snapshot: a row that changes between two pages
//! may appear in both of them, or only in its earlier state.

mod condition;
mod rows;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::model::{ActorState, JobState, Lifetime, NodeState, WorkerState};
use crate::config::{LIST_FILTERS_MAX, LIST_ROWS_MAX, LIST_SORTED_MAX};

pub(in crate::cluster) use condition::{Condition, Needle, Value, hexadecimal};
pub use rows::{Row, joined};

/// Table of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nodes of the cluster.
    Nodes,
    /// Jobs of the cluster.
    Jobs,
    /// Actors of all jobs.
    Actors,
    /// Workers of all jobs.
    Workers,
    /// Tasks, by function and worker.
    Tasks,
}

/// Type of a row's field, which decides how a filter value is parsed and compared.
#[derive(Clone, Copy, Debug)]
enum KeyKind {
    Id,
    Number,
    Flag,
    Text,
    /// Fixed set of names.
    Word(&'static [&'static str]),
}

type Keys = &'static [(&'static str, KeyKind)];

const NODE_KEYS: Keys = &[
    ("node_id", KeyKind::Id),
    ("state", KeyKind::Word(NodeState::WORDS)),
    ("address", KeyKind::Text),
    ("hostname", KeyKind::Text),
    ("pid", KeyKind::Number),
    ("is_head", KeyKind::Flag),
    ("workers", KeyKind::Number),
    ("actors", KeyKind::Number),
    ("session_dir", KeyKind::Text),
    ("started_ms", KeyKind::Number),
    ("cause", KeyKind::Text),
];

const JOB_KEYS: Keys = &[
    ("job_id", KeyKind::Id),
    ("state", KeyKind::Word(JobState::WORDS)),
    ("entrypoint", KeyKind::Text),
    ("hostname", KeyKind::Text),
    ("pid", KeyKind::Number),
    ("runs_on", KeyKind::Id),
    ("started_ms", KeyKind::Number),
    ("ended_ms", KeyKind::Number),
    ("exit_code", KeyKind::Number),
    ("message", KeyKind::Text),
];

const ACTOR_KEYS: Keys = &[
    ("actor_id", KeyKind::Id),
    ("class", KeyKind::Text),
    ("state", KeyKind::Word(ActorState::WORDS)),
    ("job_id", KeyKind::Id),
    ("name", KeyKind::Text),
    ("namespace", KeyKind::Text),
    ("lifetime", KeyKind::Word(Lifetime::WORDS)),
    ("node_id", KeyKind::Id),
    ("worker_id", KeyKind::Id),
    ("pid", KeyKind::Number),
    ("cause", KeyKind::Text),
];

const WORKER_KEYS: Keys = &[
    ("worker_id", KeyKind::Id),
    ("state", KeyKind::Word(WorkerState::WORDS)),
    ("job_id", KeyKind::Id),
    ("node_id", KeyKind::Id),
    ("pid", KeyKind::Number),
    ("actors", KeyKind::Number),
    ("detached", KeyKind::Id),
    ("cause", KeyKind::Text),
];

const TASK_KEYS: Keys = &[
    ("job_id", KeyKind::Id),
    ("worker_id", KeyKind::Id),
    ("node_id", KeyKind::Id),
    ("name", KeyKind::Text),
    ("queued", KeyKind::Number),
    ("running", KeyKind::Number),
    ("finished", KeyKind::Number),
    ("failed", KeyKind::Number),
];

impl Kind {
    /// All tables.
    pub const ALL: [Self; 5] = [Self::Nodes, Self::Jobs, Self::Actors, Self::Workers, Self::Tasks];

    /// Name of the table, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Jobs => "jobs",
            Self::Actors => "actors",
            Self::Workers => "workers",
            Self::Tasks => "tasks",
        }
    }

    const fn forms(self) -> Keys {
        match self {
            Self::Nodes => NODE_KEYS,
            Self::Jobs => JOB_KEYS,
            Self::Actors => ACTOR_KEYS,
            Self::Workers => WORKER_KEYS,
            Self::Tasks => TASK_KEYS,
        }
    }

    /// Names of the fields that rows can be filtered by. The suffix `_id` of a key is optional.
    pub fn keys(self) -> impl Iterator<Item = &'static str> {
        self.forms().iter().map(|(key, _)| *key)
    }
}

/// Field that rows are neither sorted nor searched by: causes of pending actors are computed for each row.
const UNSORTED: &str = "cause";

/// Returns true if `key` is a field's name, with or without the suffix `_id`.
fn is_meant(name: &str, key: &str) -> bool {
    name == key || name.strip_suffix("_id").is_some_and(|name| name == key)
}

/// Condition on one field of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Name of the field.
    pub key: String,
    /// Expected value, as JSON shows it.
    ///
    /// Case and the leading zeros of an id are ignored. `none` matches a field without a value.
    pub value: String,
    /// True for `key=value`, false for `key!=value`.
    pub is_equal: bool,
}

/// Query of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Conditions that every row must meet; at most [`LIST_FILTERS_MAX`].
    pub filters: Vec<Filter>,
    /// Reference that rows must match: an id, a prefix of ids, or a name.
    ///
    /// Such a query takes no filters and returns a single page.
    pub called: Option<String>,
    /// Maximum number of rows.
    ///
    /// A page has at most [`LIST_ROWS_MAX`] rows and [`LIST_BYTES_MAX`](crate::config::LIST_BYTES_MAX) bytes,
    /// but at least one row if any matches.
    pub limit: usize,
    /// Cursor from the previous page; `None` for the first page.
    pub after: Option<String>,
    /// Requests the number of rows after the page, at the cost of a scan of the whole table.
    pub count: bool,
    /// Text that an id, a name or a word of the row must contain; case is ignored. Causes are not searched.
    #[serde(default)]
    pub contains: Option<String>,
    /// Order of the rows; `None` for the order of the list. A sorted list has no cursor: continue by `offset`.
    #[serde(default)]
    pub sort: Option<Sort>,
    /// Number of matching rows to skip.
    ///
    /// A sorted list finds at most [`LIST_SORTED_MAX`] rows, skipped ones included.
    #[serde(default)]
    pub offset: usize,
}

/// Order of a list by one field. Rows without a value come last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    /// Name of the field.
    pub key: String,
    /// True if the largest value comes first.
    pub is_descending: bool,
}

impl Query {
    /// Query for the rows that a reference may mean.
    #[must_use]
    pub fn called(text: &str) -> Self {
        Self { called: Some(text.to_owned()), limit: LIST_ROWS_MAX, ..Self::default() }
    }

    /// Query for the first page of the rows that pass the filters.
    #[must_use]
    pub const fn filtered(filters: Vec<Filter>) -> Self {
        Self {
            filters,
            called: None,
            limit: LIST_ROWS_MAX,
            after: None,
            count: false,
            contains: None,
            sort: None,
            offset: 0,
        }
    }

    /// Checks the filters and the order against the fields of a table.
    ///
    /// # Errors
    ///
    /// [`QueryError`] names the part that is invalid.
    pub fn check(&self, kind: Kind) -> Result<(), QueryError> {
        self.order(kind)?;
        self.conditions(kind).map(drop)
    }

    /// Key to sort by, and true if the largest value comes first; `None` for the order of the list.
    pub(in crate::cluster) fn order(&self, kind: Kind) -> Result<Option<(&'static str, bool)>, QueryError> {
        let Some(Sort { key, is_descending }) = &self.sort else { return Ok(None) };
        if self.after.is_some() {
            return Err(QueryError::SortedCursor);
        }
        let rows = self.offset.saturating_add(self.limit.min(LIST_ROWS_MAX));
        if rows > LIST_SORTED_MAX {
            return Err(QueryError::Deep { rows });
        }
        let keys = || kind.keys().filter(|key| *key != UNSORTED);
        let found = keys().find(|name| is_meant(name, key));
        match found {
            Some(key) => Ok(Some((key, *is_descending))),
            None => {
                let keys = keys().collect::<Vec<_>>().join(", ");
                Err(QueryError::SortKey { key: key.clone(), keys })
            }
        }
    }

    pub(in crate::cluster) fn conditions(&self, kind: Kind) -> Result<Vec<Condition>, QueryError> {
        if self.filters.len() > LIST_FILTERS_MAX {
            return Err(QueryError::TooMany { filters: self.filters.len() });
        }
        self.filters.iter().map(|filter| Condition::new(filter, kind)).collect()
    }
}

/// Page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Rows, in the order of the list.
    pub rows: Vec<T>,
    /// Cursor of the next page; `None` on the last.
    pub next: Option<String>,
    /// Number of matching rows after this page, if the query requested it.
    pub more: Option<u64>,
    /// Number of matching rows before this page that the query's offset has skipped.
    #[serde(default)]
    pub skipped: u64,
}

/// Counts of a table, grouped by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts<T> {
    /// Groups, sorted by name; at most [`SUMMARY_ROWS_MAX`](crate::config::SUMMARY_ROWS_MAX).
    pub rows: Vec<T>,
    /// Number of groups that were left out.
    pub more: u64,
}

/// Error of an invalid query.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The table has no such field, or the field cannot be filtered by.
    #[error("a filter has the key {key:?}; the keys are {keys}")]
    Key {
        /// Key of the filter.
        key: String,
        /// Keys that the table has.
        keys: String,
    },
    /// The field can never have the value.
    #[error("a filter has {key}={value:?}, and {key} is {form}")]
    Value {
        /// Name of the field.
        key: &'static str,
        /// Value of the filter.
        value: String,
        /// Description of the values that the field can have.
        form: String,
    },
    /// The query has too many filters.
    #[error("{filters} filters are too many: at most {LIST_FILTERS_MAX} are allowed")]
    TooMany {
        /// Number of filters in the query.
        filters: usize,
    },
    /// The table has no such field, or rows are not sorted by it.
    #[error("rows cannot be sorted by {key:?}; the keys are {keys}")]
    SortKey {
        /// Key of the order.
        key: String,
        /// Keys that rows can be sorted by.
        keys: String,
    },
    /// The page lies too deep in a sorted list.
    #[error(
        "a sorted list finds at most {LIST_SORTED_MAX} rows, and offset and limit are {rows}; add a filter, or reverse \
         the order"
    )]
    Deep {
        /// Sum of offset and limit.
        rows: usize,
    },
    /// A cursor continues only a list in its own order.
    #[error("a sorted list has no cursor; continue it by an offset")]
    SortedCursor,
    /// The cursor was not produced by a list of this head.
    #[error("{cursor:?} is not a cursor of this list; use the one printed below the previous page")]
    Cursor {
        /// Cursor of the query.
        cursor: String,
    },
}

#[cfg(test)]
mod tests;
