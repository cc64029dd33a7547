//! Nodes: how they come, drain and go.

use std::collections::BTreeSet;

use super::history::NodeRecord;
use super::{Action, JobEvent, Millis, Record, RecordKey, State};
use crate::cluster::control_plane::scheduler::Schedulability;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{
    JobId, JobState, NodeDescriptor, NodeId, NodeInfo, NodeState, Resources, WorkerId,
};
use crate::id::HostUid;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) facts: NodeDescriptor,
    pub(super) state: NodeState,
    /// Whether its agent has joined this life of the head.
    pub(super) has_rejoined: bool,
    pub(super) joined: Millis,
    pub(super) workers: BTreeSet<WorkerId>,
    /// The open jobs that have, or had, workers here.
    pub(super) pools: BTreeSet<JobId>,
    /// The open jobs whose drivers its agent runs.
    pub(super) drivers: BTreeSet<JobId>,
    /// The open jobs whose executables it keeps.
    pub(super) pinned_jobs: BTreeSet<JobId>,
    /// Whether its agent was told to end.
    pub(super) is_stopping: bool,
}

impl Node {
    pub(super) fn new(facts: NodeDescriptor, joined: Millis) -> Self {
        Self {
            facts,
            state: NodeState::Alive,
            has_rejoined: true,
            joined,
            workers: BTreeSet::new(),
            pools: BTreeSet::new(),
            drivers: BTreeSet::new(),
            pinned_jobs: BTreeSet::new(),
            is_stopping: false,
        }
    }

    /// Whether jobs may use it.
    pub(super) fn is_usable(&self) -> bool {
        self.has_rejoined && self.state == NodeState::Alive && self.facts.workers > 0
    }

    /// Whether it takes actors.
    pub(super) fn schedulability(&self) -> Schedulability {
        match self.state {
            NodeState::Alive if self.facts.workers == 0 => Schedulability::Unschedulable,
            NodeState::Alive if !self.has_rejoined => Schedulability::Rejoining,
            NodeState::Alive => Schedulability::Schedulable,
            NodeState::Draining | NodeState::Rejoining | NodeState::Dead => Schedulability::Unschedulable,
        }
    }

    /// Its state as people see it.
    pub(super) fn shown_state(&self) -> NodeState {
        if self.has_rejoined { self.state } else { NodeState::Rejoining }
    }

    fn record(&self) -> Record {
        Record::Node {
            facts: self.facts.clone(),
            joined_ms: self.joined.0,
            draining: self.state == NodeState::Draining,
        }
    }
}

impl State {
    /// The agent of the head's own node is known. The node of an earlier one is gone: two agents cannot have
    /// the same socket.
    pub(super) fn own_agent_is(&mut self, agent: HostUid) {
        self.own_agent = Some(agent);
        let earlier = |node: &&Node| node.facts.is_head && node.facts.agent != agent;
        let earlier: Vec<NodeId> = self.nodes.values().filter(earlier).map(|node| node.facts.id()).collect();
        for id in earlier {
            self.node_lost(id, "its agent was started anew");
        }
    }

    /// The head's own node, if its agent has joined and it takes new work.
    pub(in crate::cluster) fn own_node(&self) -> Option<NodeDescriptor> {
        let node = self.nodes.get(&NodeId(self.own_agent?.host.0))?;
        (node.has_rejoined && node.state == NodeState::Alive).then(|| node.facts.clone())
    }

    /// Whether a node is the head's own.
    pub(in crate::cluster) fn is_own(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.facts.is_head)
    }

    pub(super) fn node_joined(&mut self, mut report: NodeReport) {
        // An agent only claims it; which node is the head's own, the head knows.
        if let Some(own) = self.own_agent {
            report.facts.is_head = report.facts.agent == own;
        }
        let (id, agent) = (report.facts.id(), report.facts.agent);
        let known = self.nodes.get(&id).map(|node| node.facts.agent);
        let latest = known.or_else(|| self.history.node(id).map(|past| past.agent));
        if latest.is_some_and(|latest| latest.incarnation > agent.incarnation) {
            // It is late: a later life of it has been here.
            return;
        }
        if known == Some(agent) {
            return self.node_rejoined(report);
        }
        if known.is_some() {
            self.node_lost(id, "it was started anew");
        }
        self.add_node(id, Node::new(report.facts, self.now));
        self.persist_node(id);
        // They are of a life that was given up, and so were they.
        for worker in report.workers {
            self.actions.push(Action::StopWorker { node: id, worker: worker.worker });
        }
        self.reconcile_jobs(id, report.jobs, report.drivers);
        self.notify_jobs(id);
    }

    /// Takes up a node that is not there.
    pub(super) fn add_node(&mut self, id: NodeId, node: Node) {
        self.history.forget_node(id);
        self.schedule.add(id, &node.facts.resources, &node.facts.labels);
        self.schedule.set_schedulability(id, node.schedulability());
        self.node_leases.grant(self.now, id);
        self.nodes.insert(id, node);
    }

    pub(super) fn persist_node(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get(&id) {
            self.actions.push(Action::Persist(node.record()));
        }
    }

    /// Tells all drivers of a node that they may use.
    pub(super) fn notify_jobs(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id).filter(|node| node.is_usable()) else { return };
        for job in &self.open_jobs {
            if self.jobs.get(job).is_some_and(|job| job.state == JobState::Running && !job.left) {
                self.actions
                    .push(Action::NotifyDriver { job: *job, news: JobEvent::NodeUp(node.facts.clone()) });
            }
        }
    }

    pub(super) fn node_beat(&mut self, agent: HostUid) {
        if self.is_member(agent) {
            self.node_leases.renew(self.now, NodeId(agent.host.0));
        }
    }

    pub(super) fn node_left(&mut self, agent: HostUid, cause: &str) {
        if self.nodes.get(&NodeId(agent.host.0)).is_some_and(|node| node.facts.agent == agent) {
            self.node_lost(NodeId(agent.host.0), cause);
        }
    }

    pub(super) fn node_drain(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.state == NodeState::Alive) else {
            return;
        };
        node.state = NodeState::Draining;
        let pools = node.pools.clone();
        let workers = node.workers.clone();
        self.schedule.set_schedulability(id, Schedulability::Unschedulable);
        self.persist_node(id);
        for job in pools {
            self.evict_waiting(job, id);
        }
        for worker in workers {
            let own = self.workers.get(&worker).and_then(|worker| worker.detached);
            if let Some(actor) = own.filter(|actor| self.pending.contains_key(actor)) {
                self.evict(actor);
                self.stop_worker(worker, "its node is draining");
            }
        }
        self.deferred.capacity_shrunk = true;
        self.deferred.maybe_drained.insert(id);
    }

    fn evict_waiting(&mut self, job: JobId, node: NodeId) {
        let parked = self.pool(job, node).map(|pool| pool.awaiting_worker.clone());
        for actor in parked.into_iter().flatten() {
            self.evict(actor);
        }
    }

    /// A node is gone, with all that runs on it.
    pub(super) fn node_lost(&mut self, id: NodeId, why: &str) {
        let Some(node) = self.nodes.get(&id) else { return };
        let (workers, pools, drivers) = (node.workers.clone(), node.pools.clone(), node.drivers.clone());
        let cause = format!("node lost: {why}");
        self.node_leases.end(id);
        self.schedule.set_schedulability(id, Schedulability::Unschedulable);
        for worker in workers {
            let own = self.workers.get(&worker).and_then(|worker| worker.detached);
            if let Some(actor) = own.filter(|actor| self.pending.contains_key(actor)) {
                self.evict(actor);
            }
            self.remove_worker(worker, &cause);
        }
        for &job in &pools {
            self.evict_waiting(job, id);
            self.remove_pool(job, id);
        }
        for job in drivers {
            self.end_job(job, JobState::Failed, None, &cause);
        }
        self.schedule.remove(id);
        // Before the next incarnation of the node is added, which is reserved for none.
        self.end_reservations();
        self.deferred.capacity_shrunk = true;
        self.actions.push(Action::Delete(RecordKey::Node(id)));
        if let Some(node) = self.nodes.remove(&id) {
            let info = NodeInfo {
                state: NodeState::Dead,
                available: Resources::none(),
                cause: Some(why.to_owned()),
                ..self.node_info(&node)
            };
            for job in pools {
                self.notify_driver(job, JobEvent::NodeGone { agent: node.facts.agent });
            }
            self.actions.push(Action::ForgetAgent { agent: node.facts.agent });
            self.history.add_node(NodeRecord { agent: node.facts.agent, info });
        }
    }

    /// Why nothing can be placed on a node, if its state is the reason.
    pub(super) fn why_unavailable(&self, id: NodeId) -> Option<String> {
        match self.nodes.get(&id) {
            Some(node) if node.state == NodeState::Alive => None,
            Some(_) => Some(format!("node {id} is draining, and takes nothing new")),
            None => Some(match self.history.node(id).and_then(|past| past.info.cause.as_ref()) {
                Some(cause) => format!("node {id} is dead: {cause}"),
                None => format!("there is no node {id} in the cluster"),
            }),
        }
    }

    /// Has nodes end that drain and have nothing left to do.
    pub(super) fn end_if_drained(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let is_done = node.workers.is_empty() && node.drivers.is_empty();
        if node.state == NodeState::Draining && node.has_rejoined && is_done && !node.is_stopping {
            node.is_stopping = true;
            self.actions.push(Action::StopNode { node: id });
        }
    }
}
