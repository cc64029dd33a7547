//! Counts of actors by class and of tasks by function.
//!
//! Counting scans a slice of the table at a time. Ended rows are counted first, so a row that ends during the
//! scan is not counted twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::ClusterState;
use super::workers::ended_counts;
use crate::cluster::control_plane::state::names::Class;
use crate::cluster::listing::GroupCounts;
use crate::cluster::model::{ActorKey, ActorState, ClassCount, TaskCount, WorkerId};
use crate::config::{LIST_SLICE_ROWS, SUMMARY_ROWS_MAX};

/// Count of actors by class, in progress.
#[derive(Debug, Default)]
pub(in crate::cluster) struct ClassSearch {
    counts: FxHashMap<Class, [u64; 4]>,
    /// Position to continue from; `None` before the first slice.
    at: Option<ActorKey>,
    names: Vec<(Arc<str>, Class)>,
}

impl ClassSearch {
    /// Counts the next slice of actors, and reports whether it was the last.
    pub(in crate::cluster) fn step(&mut self, state: &ClusterState) -> bool {
        if self.at.is_none() {
            for record in state.history.actors.iter() {
                self.count(record.actor.class, ActorState::Dead);
            }
        }
        let before = self.at.unwrap_or(ActorKey(u64::MAX));
        let mut last = None;
        for (key, actor) in state.actors.before(before).take(LIST_SLICE_ROWS) {
            self.count(actor.class, state.state_of(key, actor));
            last = Some(key);
        }
        self.at = last.or(self.at);
        // Names are resolved under the last lock, and sorted without it.
        if last.is_none() {
            self.names =
                self.counts.keys().map(|class| (state.classes.shared_name(*class), *class)).collect();
        }
        last.is_none()
    }

    fn count(&mut self, class: Class, state: ActorState) {
        self.counts.entry(class).or_default()[state as usize] += 1;
    }

    /// Final counts, sorted by class name.
    pub(in crate::cluster) fn counts(mut self) -> GroupCounts<ClassCount> {
        self.names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let more = self.names.len().saturating_sub(SUMMARY_ROWS_MAX) as u64;
        let rows = self.names.iter().take(SUMMARY_ROWS_MAX).map(|(name, class)| {
            let count = |state: ActorState| self.counts.get(class).map_or(0, |counts| counts[state as usize]);
            ClassCount {
                class: String::from(&**name),
                pending_creation: count(ActorState::PendingCreation),
                alive: count(ActorState::Alive),
                restarting: count(ActorState::Restarting),
                dead: count(ActorState::Dead),
            }
        });
        GroupCounts { rows: rows.collect(), more }
    }
}

/// Count of tasks by function, in progress.
#[derive(Debug)]
pub(in crate::cluster) struct FunctionSearch {
    /// Part of a function name to search for; `None` for all functions.
    part: Option<String>,
    counts: BTreeMap<String, TaskCount>,
    /// Position to continue from; `None` before the first slice.
    at: Option<WorkerId>,
    more: u64,
}

impl FunctionSearch {
    pub(in crate::cluster) fn new(part: Option<String>) -> Self {
        Self { part, counts: BTreeMap::new(), at: None, more: 0 }
    }

    /// Counts the tasks of the next slice of workers, and reports whether it was the last.
    pub(in crate::cluster) fn step(&mut self, state: &ClusterState) -> bool {
        if self.at.is_none() {
            for record in state.history.workers.iter() {
                record.tasks.iter().for_each(|count| self.count(&ended_counts(count)));
            }
        }
        let before = self.at.unwrap_or(WorkerId(u64::MAX));
        let mut last = None;
        let mut scanned = 0;
        for (id, worker) in state.workers.before(before) {
            worker.tasks.iter().for_each(|count| self.count(count));
            last = Some(id);
            // Functions count as well as workers: the limit bounds the time for which the state is locked.
            scanned += 1 + worker.tasks.len();
            if scanned >= LIST_SLICE_ROWS {
                break;
            }
        }
        self.at = last.or(self.at);
        last.is_none()
    }

    fn count(&mut self, count: &TaskCount) {
        if self.part.as_ref().is_some_and(|part| !count.name.contains(part)) {
            return;
        }
        let is_full = self.counts.len() >= SUMMARY_ROWS_MAX;
        let sum = match self.counts.get_mut(&count.name) {
            Some(sum) => sum,
            None if is_full => {
                // Workers choose the names of functions, so their number is bounded. Several of the entries
                // counted here may be of the same function.
                self.more += 1;
                return;
            }
            None => {
                let new = TaskCount { name: count.name.clone(), ..TaskCount::default() };
                self.counts.entry(count.name.clone()).or_insert(new)
            }
        };
        sum.queued += count.queued;
        sum.running += count.running;
        sum.finished += count.finished;
        sum.failed += count.failed;
    }

    /// Final counts, sorted by function name.
    pub(in crate::cluster) fn counts(self) -> GroupCounts<TaskCount> {
        GroupCounts { rows: self.counts.into_values().collect(), more: self.more }
    }
}
