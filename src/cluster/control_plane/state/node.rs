//! Nodes: join, silence, drain, stop and loss.
//!
//! ```text
//!                3 s without a heartbeat             10 s
//!  ALIVE <-----------------------------> UNREACHABLE ----> DEAD
//!    | drain       a heartbeat             ^   (DRAINING before: DRAINING again)
//!    v                                     |
//!  DRAINING <------------------------------'
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::history::NodeRecord;
use super::managed::Loss;
use super::{Action, ClusterState, JobEvent, Millis, Record, RecordKey, lease_expired_text};
use crate::cluster::control_plane::scheduler::Schedulability;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{
    EventKind, JobId, JobState, NodeDescriptor, NodeId, NodeInfo, NodeState, Resources, Severity, WorkerId,
};
use crate::config::InjectedBug;
use crate::id::HostUid;
use crate::spec::{End, EndReason, HolderAddress};

/// Node that is not dead.
#[derive(Debug)]
pub(super) struct LiveNode {
    pub(super) descriptor: NodeDescriptor,
    /// State apart from silence: alive or draining.
    pub(super) state: NodeState,
    /// Set while its agent, which had joined, is silent.
    pub(super) is_unreachable: bool,
    /// Start of its lease: its join, or the end of the last silence in which the lease may have run out.
    pub(super) leased_since: Millis,
    /// Set once its agent has joined this incarnation of the head.
    pub(super) has_rejoined: bool,
    pub(super) joined: Millis,
    pub(super) workers: BTreeSet<WorkerId>,
    /// Open jobs that have, or had, workers on the node.
    pub(super) pools: BTreeSet<JobId>,
    /// Open jobs whose drivers the agent runs.
    pub(super) drivers: BTreeSet<JobId>,
    /// Open jobs whose executables the node has pinned.
    pub(super) pinned_jobs: BTreeSet<JobId>,
    /// Set once the agent was commanded to stop.
    pub(super) is_stopping: bool,
    /// Holder of states that its agent runs.
    pub(super) holder: Option<HolderAddress>,
}

impl LiveNode {
    pub(super) fn new(descriptor: NodeDescriptor, joined: Millis) -> Self {
        Self {
            descriptor,
            state: NodeState::Alive,
            is_unreachable: false,
            leased_since: joined,
            has_rejoined: true,
            joined,
            workers: BTreeSet::new(),
            pools: BTreeSet::new(),
            drivers: BTreeSet::new(),
            pinned_jobs: BTreeSet::new(),
            is_stopping: false,
            holder: None,
        }
    }

    /// Checks whether jobs may use the node.
    pub(super) fn is_usable(&self) -> bool {
        self.has_rejoined && self.state == NodeState::Alive && self.descriptor.workers > 0
    }

    /// Readiness of the node, for the scheduler.
    pub(super) fn schedulability(&self) -> Schedulability {
        match self.state {
            NodeState::Alive if self.descriptor.workers == 0 => Schedulability::Unschedulable,
            NodeState::Alive if !self.has_rejoined => Schedulability::Rejoining,
            NodeState::Alive if self.is_unreachable => Schedulability::Unreachable,
            NodeState::Alive => Schedulability::Schedulable,
            NodeState::Unreachable | NodeState::Draining | NodeState::Rejoining | NodeState::Dead => {
                Schedulability::Unschedulable
            }
        }
    }

    /// State of the node, as lists show it.
    pub(super) fn shown_state(&self) -> NodeState {
        match self.has_rejoined {
            false => NodeState::Rejoining,
            true if self.is_unreachable => NodeState::Unreachable,
            true => self.state,
        }
    }

    fn record(&self) -> Record {
        Record::Node {
            descriptor: self.descriptor.clone(),
            joined_ms: self.joined.0,
            draining: self.state == NodeState::Draining,
        }
    }
}

impl ClusterState {
    /// Sets the agent of the head's own node, and drops the node of an earlier one.
    pub(super) fn set_own_agent(&mut self, agent: HostUid) {
        self.own_agent = Some(agent);
        // Two agents cannot share the node's socket, so an earlier agent of it is gone.
        let is_previous = |node: &&LiveNode| node.descriptor.is_head && node.descriptor.agent != agent;
        let previous: Vec<NodeId> =
            self.nodes.values().filter(is_previous).map(|node| node.descriptor.id()).collect();
        for id in previous {
            self.node_lost(id, "its agent restarted");
        }
    }

    /// Head's own node, if its agent has joined and it accepts new work.
    pub(in crate::cluster) fn own_node(&self) -> Option<NodeDescriptor> {
        let node = self.nodes.get(&NodeId(self.own_agent?.host.0))?;
        (node.shown_state() == NodeState::Alive).then(|| node.descriptor.clone())
    }

    /// Checks whether a node is the head's own.
    pub(in crate::cluster) fn is_own(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.descriptor.is_head)
    }

    pub(super) fn node_joined(&mut self, mut report: NodeReport) {
        // An agent only claims to be on the head's node; the head knows its own agent.
        if let Some(own_agent) = self.own_agent {
            report.descriptor.is_head = report.descriptor.agent == own_agent;
        }
        let (id, agent) = (report.descriptor.id(), report.descriptor.agent);
        let known = self.nodes.get(&id).map(|node| node.descriptor.agent);
        let latest = known.or_else(|| self.history.node(id).map(|record| record.agent));
        if latest.is_some_and(|latest| latest.incarnation > agent.incarnation) {
            // A report of an earlier incarnation, overtaken by a later one.
            return;
        }
        if known == Some(agent) {
            return self.node_rejoined(report);
        }
        if known.is_some() {
            self.node_lost(id, "its agent restarted");
        }
        let holder = report.holder_address();
        self.add_node(id, LiveNode { holder, ..LiveNode::new(report.descriptor, self.now) });
        // A restarted head waits for the nodes that it finds records of.
        self.persist_node(id);
        self.record_node_join(id, "it joined");
        // The workers belong to an incarnation that was declared dead; their actors are dead already.
        for worker in report.workers {
            self.actions.push(Action::StopWorker { node: id, worker: worker.worker });
        }
        self.reconcile_jobs(id, report.jobs, report.drivers);
        self.reconcile_states(id, &report.states);
        self.notify_jobs(id);
    }

    /// Adds a node, which must not exist.
    pub(super) fn add_node(&mut self, id: NodeId, node: LiveNode) {
        // A node that has joined again must not be listed as dead, too.
        self.history.forget_node(id);
        self.schedule.add(id, &node.descriptor.resources, &node.descriptor.labels);
        self.schedule.set_schedulability(id, node.schedulability());
        self.node_leases.grant(self.now, id);
        // A node that has not rejoined the restarted head is not unreachable: it does not know the head yet.
        if node.has_rejoined {
            self.reachable_leases.grant(self.now, id);
        }
        self.nodes.insert(id, node);
    }

    pub(super) fn persist_node(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get(&id) {
            self.actions.push(Action::Persist(node.record()));
        }
    }

    /// Announces a usable node to all running drivers.
    pub(super) fn notify_jobs(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id).filter(|node| node.is_usable()) else { return };
        for job in &self.open_jobs {
            if self.jobs.get(job).is_some_and(|job| job.state == JobState::Running && !job.left) {
                self.actions.push(Action::NotifyDriver {
                    job: *job,
                    event: JobEvent::NodeUp(node.descriptor.clone()),
                });
            }
        }
    }

    pub(super) fn node_heartbeat(&mut self, agent: HostUid) {
        // A late heartbeat of an earlier incarnation must not renew the lease of the present one.
        if self.is_member(agent) {
            self.node_heard(NodeId(agent.host.0));
        }
    }

    /// Renews the leases of a node that has joined.
    pub(super) fn node_heard(&mut self, id: NodeId) {
        self.node_leases.grant(self.now, id);
        self.reachable_leases.grant(self.now, id);
        if self.nodes.get(&id).is_some_and(|node| node.is_unreachable) {
            self.node_reachable_again(id);
        }
    }

    /// Handles a node that has been silent for too long to get new actors, and not long enough to be dead.
    ///
    /// Its managed actors restart elsewhere. Its workers and their other actors are left alone. Actors that wait for one
    /// of its workers move to other nodes.
    pub(super) fn node_unreachable(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.is_unreachable = true;
        let (schedulability, pools) = (node.schedulability(), node.pools.clone());
        self.schedule.set_schedulability(id, schedulability);
        let text = lease_expired_text(self.settings.node_unreachable_after);
        let end = End::new(EndReason::NodeLost, format!("node {id} is unreachable: {text}"));
        self.fenced_node_lost(id, None);
        self.record_node_reachability(id, EventKind::NodeUnreachable, text);
        self.move_actors_from(id, &end, true);
        self.notify_reachability(id);
        for job in pools {
            self.evict_waiting(job, id);
        }
    }

    /// Handles the first heartbeat, or the rejoin, of an unreachable node.
    fn node_reachable_again(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.is_unreachable = false;
        node.leased_since = self.now;
        let schedulability = node.schedulability();
        self.schedule.set_schedulability(id, schedulability);
        let text = "its heartbeats arrive again".to_owned();
        self.record_node_reachability(id, EventKind::NodeReachable, text);
        self.notify_reachability(id);
        self.deferred.freed.insert(id);
        // Those under the earlier lease create nothing.
        let workers = self.nodes.get(&id).map(|node| node.workers.clone()).unwrap_or_default();
        workers.into_iter().for_each(|worker| self.restart_missed(worker));
    }

    /// Tells the drivers with workers on a node whether it is reachable: drivers choose the workers of tasks.
    fn notify_reachability(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        let (is_reachable, mut by_job) = (!node.is_unreachable, BTreeMap::<JobId, Vec<HostUid>>::new());
        for worker in node.workers.iter().filter_map(|id| self.workers.get(id)) {
            if let (Some(member), None) = (worker.member, worker.detached) {
                by_job.entry(worker.job).or_default().push(member.tasks);
            }
        }
        for (job, workers) in by_job {
            self.notify_driver(job, JobEvent::Reachability { workers, is_reachable });
        }
    }

    /// Checks whether a node is unreachable.
    pub(super) fn is_unreachable(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.is_unreachable)
    }

    pub(super) fn node_left(&mut self, agent: HostUid, cause: &str) {
        // The goodbye of an earlier incarnation may arrive after the join of the next one.
        if self.nodes.get(&NodeId(agent.host.0)).is_some_and(|node| node.descriptor.agent == agent) {
            self.end_node(NodeId(agent.host.0), cause, Severity::Warning);
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
        self.record_node_drain(id);
        // Actors that are not assigned can still move to other nodes. Assigned ones stay until they end, but for managed
        // ones, which restart elsewhere.
        self.move_actors_from(id, &End::new(EndReason::Evicted, "its node is draining"), false);
        for job in pools {
            self.evict_waiting(job, id);
        }
        for worker in workers {
            let dedicated_to = self.workers.get(&worker).and_then(|worker| worker.detached);
            if let Some(actor) = dedicated_to.filter(|actor| self.pending.contains_key(actor)) {
                self.evict(actor);
                self.stop_worker(worker, &End::new(EndReason::Evicted, "its node is draining"));
            }
        }
        self.deferred.capacity_shrunk = true;
        self.deferred.maybe_drained.insert(id);
    }

    fn evict_waiting(&mut self, job: JobId, node: NodeId) {
        let waiting = self.pool(job, node).map(|pool| pool.awaiting_worker.clone());
        for actor in waiting.into_iter().flatten() {
            self.evict(actor);
        }
    }

    /// Declares a node dead that has not left by itself.
    pub(super) fn node_lost(&mut self, id: NodeId, why: &str) {
        self.end_node(id, why, Severity::Error);
    }

    /// Declares a node dead, with everything that runs on it.
    fn end_node(&mut self, id: NodeId, why: &str, severity: Severity) {
        let Some(node) = self.nodes.get(&id) else { return };
        let (workers, pools, drivers) = (node.workers.clone(), node.pools.clone(), node.drivers.clone());
        let end = End::new(EndReason::NodeLost, format!("node lost: {why}"));
        let severity = if node.is_stopping { Severity::Info } else { severity };
        self.record_node_death(id, why, severity);
        self.node_leases.end(id);
        // Before the workers are lost.
        self.fenced_node_lost(id, self.reachable_leases.until(id));
        // First, so that nothing below is placed on the node again.
        self.schedule.set_schedulability(id, Schedulability::Unschedulable);
        for worker in workers {
            // An actor whose dedicated worker has not been handed to its creator can move to another node, so
            // it is evicted before the worker is removed. All other actors of the worker end with it.
            let dedicated_to = self.workers.get(&worker).and_then(|worker| worker.detached);
            if let Some(actor) = dedicated_to.filter(|actor| self.pending.contains_key(actor)) {
                self.evict(actor);
            }
            if self.settings.injected_bug == Some(InjectedBug::ForgottenActors)
                && let Some(worker) = self.workers.get_mut(&worker)
            {
                worker.actors.clear();
            }
            self.fence_actors_of_lost_node(id, worker);
            // Not `finish_worker`, which would start a replacement on the lost node.
            self.record_deaths_with(worker, &end.text);
            self.remove_worker(worker, &end, Loss::External);
        }
        self.reachable_leases.end(id);
        for &job in &pools {
            self.evict_waiting(job, id);
            self.remove_pool(job, id);
        }
        for job in drivers {
            self.end_job(job, JobState::Failed, None, &end.text);
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
            // After the `WorkerDown` events of its workers, which `remove_worker` has sent: on `NodeGone` the
            // driver forgets the agent.
            for job in pools {
                self.notify_driver(job, JobEvent::NodeGone { agent: node.descriptor.agent });
            }
            self.actions.push(Action::ForgetAgent { agent: node.descriptor.agent });
            // A node that was drained stops as commanded.
            let reason = if node.is_stopping { EndReason::Stopped } else { EndReason::NodeLost };
            self.history.add_node(NodeRecord { agent: node.descriptor.agent, info, reason });
            self.notify_node_watchers(id);
        }
    }

    /// Explains why a node accepts no actors; `None` if it does.
    pub(super) fn why_unavailable(&self, id: NodeId) -> Option<String> {
        match self.nodes.get(&id) {
            Some(node) if node.state == NodeState::Alive => None,
            Some(_) => Some(format!("node {id} is draining and accepts no new work")),
            None => Some(match self.history.node(id).and_then(|record| record.info.cause.as_ref()) {
                Some(cause) => format!("node {id} is dead: {cause}"),
                None => format!("there is no node {id} in the cluster"),
            }),
        }
    }

    /// Commands a draining node to stop once it is idle.
    pub(super) fn end_if_drained(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        // A node that has not rejoined may run workers that this incarnation of the head does not know yet.
        let is_done = node.workers.is_empty() && node.drivers.is_empty();
        if node.state == NodeState::Draining && node.has_rejoined && is_done && !node.is_stopping {
            // Sent once; a rejoin clears the flag.
            node.is_stopping = true;
            self.actions.push(Action::StopNode { node: id });
        }
    }
}
