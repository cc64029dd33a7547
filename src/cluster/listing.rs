//! Paged lists of the head's tables: queries, filters, pages and counts.
//!
//! A list contains the open rows, newest first, and then the ended rows, latest end first. A page is a part
//! of the list plus a cursor to continue from. A list is not a snapshot: a row that changes between two pages
//! may appear in both of them, or only in its earlier state.

use std::collections::HashSet;
use std::hash::Hash;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::model::{
    ActorInfo, ActorState, JobInfo, JobState, Lifetime, NodeInfo, NodeState, TaskInfo, WorkerState,
    WorkerSummary,
};
use crate::config::{LIST_FILTERS_MAX, LIST_ROWS_MAX};

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
        Self { filters, called: None, limit: LIST_ROWS_MAX, after: None, count: false }
    }

    /// Checks the filters against the fields of a table.
    ///
    /// # Errors
    ///
    /// [`QueryError`] names the filter that is invalid.
    pub fn check(&self, kind: Kind) -> Result<(), QueryError> {
        self.conditions(kind).map(drop)
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
    /// The cursor was not produced by a list of this head.
    #[error("{cursor:?} is not a cursor of this list; use the one printed below the previous page")]
    Cursor {
        /// Cursor of the query.
        cursor: String,
    },
}

/// Validated filter, with its value parsed for every type of field.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct Condition {
    pub(in crate::cluster) key: &'static str,
    text: String,
    /// Value parsed as a decimal number, if it is one.
    number: Option<i64>,
    /// Value parsed as a hexadecimal id, if it is one.
    id: Option<u64>,
    is_equal: bool,
}

/// Value of a row's field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Value<'a> {
    Nothing,
    Id(u64),
    Number(i64),
    Flag(bool),
    Text(&'a str),
    Made(String),
}

impl<'a> Value<'a> {
    pub(in crate::cluster) fn id(id: Option<u64>) -> Self {
        id.map_or(Self::Nothing, Self::Id)
    }

    pub(in crate::cluster) fn number(number: impl TryInto<i64>) -> Self {
        Self::Number(number.try_into().unwrap_or(i64::MAX))
    }

    pub(in crate::cluster) fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Nothing, Self::Text)
    }

    pub(in crate::cluster) fn made(text: Option<String>) -> Self {
        text.map_or(Self::Nothing, Self::Made)
    }
}

impl Condition {
    fn new(filter: &Filter, kind: Kind) -> Result<Self, QueryError> {
        let Filter { key, value, is_equal } = filter;
        let is_meant = |name: &str| name == key || name.strip_suffix("_id").is_some_and(|name| name == key);
        let found = kind.forms().iter().find(|(name, _)| is_meant(name));
        let Some((key, form)) = found else {
            let keys = kind.keys().collect::<Vec<_>>().join(", ");
            return Err(QueryError::Key { key: key.clone(), keys });
        };
        // Parsed once: the condition may be checked against a million rows.
        let condition = Self {
            key,
            text: value.clone(),
            number: value.parse().ok(),
            id: hexadecimal(value),
            is_equal: *is_equal,
        };
        let form = match form {
            KeyKind::Id if condition.id.is_none() => "an id, in hexadecimal digits".to_owned(),
            KeyKind::Number if condition.number.is_none() => "a number".to_owned(),
            KeyKind::Flag if !["true", "false"].contains(&value.as_str()) => "true or false".to_owned(),
            KeyKind::Word(words) if !words.iter().any(|word| word.eq_ignore_ascii_case(value)) => {
                format!("one of {}", words.join(", "))
            }
            _ => return Ok(condition),
        };
        // `none` is valid for every field: it selects the rows without a value.
        match condition.is_nothing() {
            true => Ok(condition),
            false => Err(QueryError::Value { key, value: value.clone(), form }),
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self.text.as_str(), "" | "none" | "null")
    }

    /// Checks whether a row with this field passes.
    pub(in crate::cluster) fn holds(&self, field: &Value<'_>) -> bool {
        let is = match field {
            Value::Nothing => self.is_nothing(),
            Value::Id(id) => self.id == Some(*id),
            Value::Number(number) => self.number == Some(*number),
            Value::Flag(flag) => self.text == if *flag { "true" } else { "false" },
            Value::Text(text) => self.text.eq_ignore_ascii_case(text),
            Value::Made(text) => self.text.eq_ignore_ascii_case(text),
        };
        is == self.is_equal
    }
}

/// Parses hexadecimal digits.
pub(in crate::cluster) fn hexadecimal(text: &str) -> Option<u64> {
    // `from_str_radix` alone would accept a sign.
    let are_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Row of a table.
pub trait Row: Sized {
    /// Table of the row.
    const KIND: Kind;

    /// Key that identifies a row within its table.
    type Key: Hash + Eq;

    /// Key of this row.
    fn key(&self) -> Self::Key;

    /// Sorts rows from list order into display order.
    ///
    /// Display order shows the open rows first and then the ended rows, the latest last in both groups.
    fn arrange(rows: &mut Vec<Self>);
}

/// Merges pages into display order.
///
/// A row that two pages contain appears once, in the state of the earlier page.
#[must_use]
pub fn joined<T: Row>(pages: Vec<T>) -> Vec<T> {
    let mut had = HashSet::with_capacity(pages.len());
    let mut rows = pages;
    // The first occurrence stays, which is that of the earlier page.
    rows.retain(|row| had.insert(row.key()));
    T::arrange(&mut rows);
    rows
}

/// Reverses the open rows and the ended rows separately, and moves the open rows to the front.
fn reverse<T>(rows: &mut Vec<T>, has_ended: impl Fn(&T) -> bool) {
    let (mut ended, open): (Vec<T>, Vec<T>) = rows.drain(..).rev().partition(has_ended);
    *rows = open;
    rows.append(&mut ended);
}

impl Row for NodeInfo {
    const KIND: Kind = Kind::Nodes;
    type Key = u64;

    fn key(&self) -> u64 {
        self.node_id.0
    }

    fn arrange(rows: &mut Vec<Self>) {
        reverse(rows, |node| node.state == NodeState::Dead);
    }
}

impl Row for JobInfo {
    const KIND: Kind = Kind::Jobs;
    type Key = u32;

    fn key(&self) -> u32 {
        self.job_id.0
    }

    fn arrange(rows: &mut Vec<Self>) {
        // Jobs are shown in the order of their submission, whether they have ended or not.
        rows.sort_by_key(|job| job.job_id);
    }
}

impl Row for ActorInfo {
    const KIND: Kind = Kind::Actors;
    type Key = u64;

    fn key(&self) -> u64 {
        self.actor_id.0
    }

    fn arrange(rows: &mut Vec<Self>) {
        reverse(rows, |actor| actor.state == ActorState::Dead);
    }
}

impl Row for WorkerSummary {
    const KIND: Kind = Kind::Workers;
    type Key = u64;

    fn key(&self) -> u64 {
        self.worker_id.0
    }

    fn arrange(rows: &mut Vec<Self>) {
        reverse(rows, |worker| worker.state == WorkerState::Dead);
    }
}

impl Row for TaskInfo {
    const KIND: Kind = Kind::Tasks;
    type Key = (u64, String);

    fn key(&self) -> (u64, String) {
        (self.worker_id.0, self.count.name.clone())
    }

    fn arrange(rows: &mut Vec<Self>) {
        rows.sort_by(|one, other| {
            (one.worker_id, &one.count.name).cmp(&(other.worker_id, &other.count.name))
        });
    }
}

#[cfg(test)]
mod tests;
