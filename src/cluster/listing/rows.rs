//! Row types of the lists, their keys, and their order in a table.

use std::collections::HashSet;
use std::hash::Hash;

use super::Kind;
use crate::cluster::model::{
    ActorInfo, ActorState, JobInfo, NodeInfo, NodeState, TaskInfo, WorkerState, WorkerSummary,
};

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
