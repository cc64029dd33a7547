//! What has ended and is still listed: the latest of each kind.

use std::collections::VecDeque;
use std::sync::Arc;

use super::State;
use super::actor::Actor;
use crate::cluster::model::{ActorKey, JobId, Member, NodeId, NodeInfo, TaskCount, WorkerId, WorkerSummary};
use crate::id::Identity;

#[derive(Debug)]
pub(super) struct Past {
    max: usize,
    pub(super) nodes: VecDeque<PastNode>,
    pub(super) workers: VecDeque<PastWorker>,
    pub(super) actors: VecDeque<PastActor>,
    jobs: VecDeque<JobId>,
}

#[derive(Debug)]
pub(super) struct PastNode {
    pub(super) agent: Identity,
    pub(super) info: NodeInfo,
}

#[derive(Debug)]
pub(super) struct PastWorker {
    pub(super) summary: WorkerSummary,
    /// None if it never was ready.
    pub(super) member: Option<Member>,
    pub(super) tasks: Vec<TaskCount>,
}

#[derive(Debug)]
pub(super) struct PastActor {
    pub(super) key: ActorKey,
    pub(super) actor: Actor,
    pub(super) at: Option<(NodeId, WorkerId, u32)>,
    pub(super) cause: Arc<str>,
}

impl Past {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            nodes: VecDeque::new(),
            workers: VecDeque::new(),
            actors: VecDeque::new(),
            jobs: VecDeque::new(),
        }
    }

    pub(super) fn add_node(&mut self, node: PastNode) {
        add(&mut self.nodes, self.max, node);
    }

    pub(super) fn add_worker(&mut self, worker: PastWorker) {
        add(&mut self.workers, self.max, worker);
    }

    /// Lists a job; the one that gives way to it, if any, has to be forgotten.
    pub(super) fn add_job(&mut self, job: JobId) -> Option<JobId> {
        add(&mut self.jobs, self.max, job)
    }

    /// A node of that id is there again.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        self.nodes.retain(|past| past.info.node_id != node);
    }

    pub(super) fn node(&self, node: NodeId) -> Option<&PastNode> {
        self.nodes.iter().find(|past| past.info.node_id == node)
    }

    pub(super) fn worker(&self, worker: WorkerId) -> Option<&PastWorker> {
        self.workers.iter().rev().find(|past| past.summary.worker_id == worker)
    }

    pub(super) fn worker_mut(&mut self, worker: WorkerId) -> Option<&mut PastWorker> {
        self.workers.iter_mut().rev().find(|past| past.summary.worker_id == worker)
    }

    /// The worker that had a host.
    pub(super) fn worker_of(&self, host: Identity) -> Option<&PastWorker> {
        let had = |member: Member| member.actors == host || member.tasks == host;
        self.workers.iter().rev().find(|past| past.member.is_some_and(had))
    }

    pub(super) fn actor(&self, actor: ActorKey) -> Option<&PastActor> {
        self.actors.iter().rev().find(|past| past.key == actor)
    }
}

impl State {
    /// Lists an actor that has ended; the one that gives way to it no longer has its shape.
    pub(super) fn add_past_actor(&mut self, actor: PastActor) {
        if let Some(oldest) = add(&mut self.past.actors, self.past.max, actor) {
            self.schedule.drop_shape(oldest.actor.shape);
        }
    }
}

/// Adds the latest, and returns what has to go for it.
fn add<T>(all: &mut VecDeque<T>, max: usize, latest: T) -> Option<T> {
    all.push_back(latest);
    if all.len() > max { all.pop_front() } else { None }
}
