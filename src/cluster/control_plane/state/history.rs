//! History of ended nodes, workers, actors and jobs, bounded per table.

use std::collections::VecDeque;
use std::sync::Arc;

use super::actor::Actor;
use super::statistics::LatestStatistics;
use super::{ClusterState, Millis};
use crate::cluster::model::{
    ActorKey, JobId, NodeId, NodeInfo, TaskCount, WorkerAddress, WorkerId, WorkerSummary,
};
use crate::id::HostUid;
use crate::spec::{End, EndReason};

/// Ended rows that lists still show.
#[derive(Debug)]
pub(super) struct History {
    pub(super) nodes: Latest<NodeRecord>,
    pub(super) workers: Latest<WorkerRecord>,
    pub(super) actors: Latest<ActorRecord>,
    pub(super) jobs: Latest<JobId>,
}

/// Ring of the latest ended rows, each with a sequence number that serves as its cursor.
#[derive(Debug)]
pub(super) struct Latest<T> {
    max: usize,
    all: VecDeque<(u64, T)>,
    count: u64,
}

impl<T> Latest<T> {
    fn new(max: usize) -> Self {
        Self { max, all: VecDeque::new(), count: 0 }
    }

    /// Adds a row, and returns the one that it displaces.
    fn add(&mut self, latest: T) -> Option<T> {
        self.all.push_back((self.count, latest));
        self.count += 1;
        // The displaced row is returned: shapes and records that it owns have to be released.
        if self.all.len() > self.max { self.all.pop_front().map(|(_, oldest)| oldest) } else { None }
    }

    /// All rows, earliest end first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.all.iter().map(|(_, one)| one)
    }

    pub(super) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        self.all.iter_mut().map(|(_, one)| one)
    }

    /// All rows with their sequence numbers, earliest end first.
    pub(super) fn numbered(&self) -> impl DoubleEndedIterator<Item = (u64, &T)> + Clone {
        self.all.iter().map(|(number, one)| (*number, one))
    }

    /// Row with the sequence number.
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        // Numbers ascend, but `forget_node` leaves gaps, so the index cannot be computed.
        let at = self.all.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.all.get(at).map(|(_, one)| one)
    }
}

#[derive(Debug)]
pub(super) struct NodeRecord {
    pub(super) agent: HostUid,
    pub(super) info: NodeInfo,
}

#[derive(Debug)]
pub(super) struct WorkerRecord {
    pub(super) summary: WorkerSummary,
    /// Addresses of its hosts; `None` if it was never ready.
    pub(super) member: Option<WorkerAddress>,
    pub(super) reason: EndReason,
    pub(super) tasks: Vec<TaskCount>,
    pub(super) statistics: LatestStatistics,
}

#[derive(Debug)]
pub(super) struct ActorRecord {
    pub(super) key: ActorKey,
    pub(super) actor: Actor,
    pub(super) at: Option<(NodeId, WorkerId, u32)>,
    pub(super) end: Arc<End>,
    pub(super) ended: Millis,
    /// Messages handled, if any was reported.
    pub(super) handled: Option<u64>,
}

impl History {
    pub(super) fn new(max: usize) -> Self {
        Self {
            nodes: Latest::new(max),
            workers: Latest::new(max),
            actors: Latest::new(max),
            jobs: Latest::new(max),
        }
    }

    /// Number of rows that were ever added.
    pub(super) fn count(&self) -> u64 {
        self.nodes.count + self.workers.count + self.actors.count + self.jobs.count
    }

    pub(super) fn add_node(&mut self, node: NodeRecord) {
        self.nodes.add(node);
    }

    pub(super) fn add_worker(&mut self, worker: WorkerRecord) {
        self.workers.add(worker);
    }

    /// Adds an ended job, and returns the one that it displaces.
    pub(super) fn add_job(&mut self, job: JobId) -> Option<JobId> {
        self.jobs.add(job)
    }

    /// Drops the row of a node that has joined again.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        self.nodes.all.retain(|(_, record)| record.info.node_id != node);
    }

    pub(super) fn node(&self, node: NodeId) -> Option<&NodeRecord> {
        self.nodes.iter().find(|record| record.info.node_id == node)
    }

    pub(super) fn worker(&self, worker: WorkerId) -> Option<&WorkerRecord> {
        // A scan of the bounded history, latest first: reports that arrive late are about workers that have
        // just ended.
        self.workers.iter().rev().find(|record| record.summary.worker_id == worker)
    }

    pub(super) fn worker_mut(&mut self, worker: WorkerId) -> Option<&mut WorkerRecord> {
        self.workers.iter_mut().rev().find(|record| record.summary.worker_id == worker)
    }

    /// Ended worker that owned a host.
    pub(super) fn worker_of(&self, host: HostUid) -> Option<&WorkerRecord> {
        let had = |member: WorkerAddress| member.actors == host || member.tasks == host;
        self.workers.iter().rev().find(|record| record.member.is_some_and(had))
    }

    pub(super) fn actor(&self, actor: ActorKey) -> Option<&ActorRecord> {
        self.actors.iter().rev().find(|record| record.key == actor)
    }
}

impl ClusterState {
    /// Adds an ended actor, and drops the shape of the one that it displaces.
    pub(super) fn record_ended_actor(&mut self, actor: ActorRecord) {
        if let Some(oldest) = self.history.actors.add(actor) {
            self.schedule.drop_shape(oldest.actor.shape);
        }
    }
}
