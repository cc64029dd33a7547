//! Paged lists of the state's tables.
//!
//! A table may have a million rows, and the state is locked while it is read. A search therefore scans a
//! slice of [`LIST_SLICE_ROWS`] rows at a time, and continues from the last position. Changes between two
//! slices may or may not be seen.

mod actors;
mod counts;
mod cursor;
mod events;
mod jobs;
mod messages;
mod nodes;
mod reference;
mod sorted;
mod workers;

pub(in crate::cluster) use counts::{ClassSearch, FunctionSearch};

use serde::Serialize;

use super::ClusterState;
use super::queries::Reasons;
use crate::cluster::listing::{Condition, Needle, Page, Query, QueryError, Row, Value};
#[cfg(test)]
use crate::cluster::model::TaskInfo;
#[cfg(any(test, feature = "sim"))]
use crate::cluster::model::{ActorInfo, JobInfo, NodeInfo, WorkerSummary};
use crate::config::{LIST_BYTES_MAX, LIST_ROWS_MAX, LIST_SLICE_ROWS};
use crate::wire;
use cursor::Position;
use sorted::SortedRows;

/// Row type that the state can list.
pub(in crate::cluster) trait Listed: Row + Serialize {
    /// Positions after the given one, in list order, within the open or the ended rows. Some may have no row.
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_>;

    /// Checks whether a position stands for a row.
    fn is_there(state: &ClusterState, position: Position) -> bool {
        let _ = (state, position);
        true
    }

    /// Value of a field of the row at a position.
    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a>;

    /// Row at a position.
    fn row(state: &ClusterState, position: Position, reasons: &mut Reasons) -> Option<Self>;

    /// Positions that a reference may mean. The caller filters out the others.
    fn matches(state: &ClusterState, text: &str) -> Vec<Position>;
}

/// Query in progress.
#[derive(Debug)]
pub(in crate::cluster) struct Search<T> {
    conditions: Vec<Condition>,
    contains: Option<Needle>,
    /// True once the rows are in another order than that of the list.
    is_sorted: bool,
    /// Best rows so far of a sorted list.
    sorted: Option<SortedRows>,
    /// Number of matching rows still to skip.
    offset: usize,
    skipped: u64,
    reference: Option<String>,
    limit: usize,
    count: bool,
    /// Position to continue from; `None` at the end.
    at: Option<Position>,
    rows: Vec<(Position, T)>,
    /// Number of rows already measured, and their encoded size in bytes.
    measured: usize,
    bytes: usize,
    /// Number of matching rows that are not in the page.
    more: u64,
}

impl<T: Listed> Search<T> {
    pub(in crate::cluster) fn new(query: &Query) -> Result<Self, QueryError> {
        let at = match &query.after {
            None => Position::FIRST,
            Some(cursor) => cursor.parse().map_err(|()| QueryError::Cursor { cursor: cursor.clone() })?,
        };
        // Bounded here, since the limit is the choice of the client.
        let limit = query.limit.min(LIST_ROWS_MAX);
        Ok(Self {
            conditions: query.conditions(T::KIND)?,
            contains: query.contains.as_ref().map(|text| Needle::new(text, T::KIND)),
            sorted: query.order(T::KIND)?.map(|(key, is_descending)| {
                SortedRows::new(key, is_descending, query.offset.saturating_add(limit))
            }),
            is_sorted: false,
            offset: query.offset,
            skipped: 0,
            reference: query.called.clone(),
            limit,
            count: query.count,
            at: Some(at),
            rows: Vec::new(),
            measured: 0,
            bytes: 0,
            more: 0,
        })
    }

    /// Scans the next slice of the table, and reports whether it was the last.
    pub(in crate::cluster) fn step(&mut self, state: &ClusterState) -> bool {
        if let Some(reference) = self.reference.take() {
            let mut reasons = Reasons::default();
            let matches = T::matches(state, &reference).into_iter();
            self.rows.extend(matches.filter_map(|at| Some((at, T::row(state, at, &mut reasons)?))));
            self.at = None;
        }
        let Some(from) = self.at else { return true };
        let mut reasons = Reasons::default();
        // The cache of reasons lives for one slice: they may change before the next one.
        let (mut scanned, mut last) = (0, from);
        for position in T::behind(state, from).take(LIST_SLICE_ROWS) {
            (scanned, last) = (scanned + 1, position);
            if !self.matches(state, position) {
                continue;
            }
            if let Some(sorted) = &mut self.sorted {
                sorted.offer(T::field(state, position, sorted.key()), position);
            } else if self.offset > 0 {
                self.offset -= 1;
                self.skipped += 1;
            } else if self.rows.len() == self.limit {
                self.more += 1;
                // Without the count, one more row suffices: it proves that there is a next page.
                if !self.count {
                    self.at = None;
                    return true;
                }
            } else if let Some(row) = T::row(state, position, &mut reasons) {
                self.rows.push((position, row));
            }
        }
        self.at = if scanned < LIST_SLICE_ROWS { from.next_part() } else { Some(last) };
        if self.at.is_none()
            && let Some(sorted) = self.sorted.take()
        {
            let (rows, found) = sorted.page(self.offset);
            self.skipped = found.min(self.offset as u64);
            self.more = (found - self.skipped).saturating_sub(rows.len() as u64);
            self.rows = rows.filter_map(|at| Some((at, T::row(state, at, &mut reasons)?))).collect();
            self.is_sorted = true;
        }
        self.at.is_none()
    }

    fn matches(&self, state: &ClusterState, position: Position) -> bool {
        let passes = |condition: &Condition| condition.holds(&T::field(state, position, condition.key));
        T::is_there(state, position)
            && self.conditions.iter().all(passes)
            && self.contains.as_ref().is_none_or(|needle| needle.is_in(|key| T::field(state, position, key)))
    }

    /// Truncates the page to the size of a reply. Runs without the state, so that the lock is free meanwhile.
    pub(in crate::cluster) fn fit_reply(&mut self) {
        while let Some((_, row)) = self.rows.get(self.measured) {
            let bytes = wire::encode(row, usize::MAX, |body| body.message.len());
            self.bytes = self.bytes.saturating_add(bytes.unwrap_or(LIST_BYTES_MAX));
            // The first row always stays, whatever its size: a page without rows could not advance the
            // cursor.
            if self.bytes > LIST_BYTES_MAX && self.measured > 0 {
                self.more += (self.rows.len() - self.measured) as u64;
                self.rows.truncate(self.measured);
                self.limit = self.measured;
                if !self.count {
                    self.at = None;
                }
            } else {
                self.measured += 1;
            }
        }
    }

    pub(in crate::cluster) fn page(self) -> Page<T> {
        let last = self.rows.last().map(|(position, _)| *position);
        Page {
            next: last.filter(|_| self.more > 0 && !self.is_sorted).map(|last| last.to_string()),
            skipped: self.skipped,
            more: self.count.then_some(self.more),
            rows: self.rows.into_iter().map(|(_, row)| row).collect(),
        }
    }
}

/// Whole tables, for tests and simulations.
#[cfg(any(test, feature = "sim"))]
impl ClusterState {
    pub(super) fn all<T: Listed>(&self) -> Vec<T> {
        let (mut rows, mut query) = (Vec::new(), Query::filtered(Vec::new()));
        loop {
            let mut search = Search::<T>::new(&query).expect("there are no filters");
            while !search.step(self) {
                search.fit_reply();
            }
            let page = search.page();
            rows.extend(page.rows);
            query.after = page.next;
            if query.after.is_none() {
                return crate::cluster::listing::joined(rows);
            }
        }
    }

    pub(in crate::cluster) fn nodes(&self) -> Vec<NodeInfo> {
        self.all()
    }

    pub(in crate::cluster) fn jobs(&self) -> Vec<JobInfo> {
        self.all()
    }

    pub(in crate::cluster) fn actors(&self) -> Vec<ActorInfo> {
        self.all()
    }

    pub(in crate::cluster) fn workers(&self) -> Vec<WorkerSummary> {
        self.all()
    }

    #[cfg(test)]
    pub(in crate::cluster) fn tasks(&self) -> Vec<TaskInfo> {
        self.all()
    }
}
