//! Exclusive actors: the next incarnation begins only once the earlier one has certainly ended.
//!
//! | the earlier incarnation | the next one begins |
//! |---|---|
//! | its node has reported its end, or that of its worker | immediately |
//! | runs on a reachable node, and is to be replaced (drain, siblings, children) | once its end is reported; until then it stays the present one, and is told to stop |
//! | is on an unreachable node | immediately: the node's lease is shorter than the silence that makes it unreachable |
//! | was on a node that left, or whose agent was replaced | when the lease of that node has run out |
//! | is in a worker that is killed to end another actor | once the end of the worker is reported |
//! | ran before the head restarted, and no node reports it | when a lease of that time has run out |
//!
//! What holds up the next incarnation is a [`Fence`].

use std::time::Duration;

use super::actor::ActorPhase;
use super::{ClusterState, Millis, millis};
use crate::cluster::model::{ActorKey, LeaseRenewal, NodeId, NodeReport, WorkerId};
use crate::config::{InjectedBug, LEASE_MARGIN_PARTS};
use crate::id::{ActorIncarnation, HostUid, Target};

/// Earlier incarnation of an exclusive actor that may still handle messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// Incarnation under a lease that ends at this time.
    Lease(Millis),
    /// Incarnation in this worker, which is being killed.
    Worker(NodeId, WorkerId),
    /// Incarnation that its node has reported, and was told to stop.
    Incarnation(NodeId, WorkerId, ActorIncarnation),
}

impl Fence {
    fn node(self) -> Option<NodeId> {
        match self {
            Self::Lease(_) => None,
            Self::Worker(node, _) | Self::Incarnation(node, ..) => Some(node),
        }
    }

    fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Lease(_) => None,
            Self::Worker(_, worker) | Self::Incarnation(_, worker, _) => Some(worker),
        }
    }
}

impl ClusterState {
    /// Lease of a node that has joined and is reachable.
    ///
    /// The agent counts it from the moment at which it sent its last heartbeat. That is before the head received it,
    /// from which the head counts the silence that makes a node unreachable. The lease is shorter than that silence by
    /// a margin, for running handlers and for the drift of the clocks.
    pub(in crate::cluster) fn lease(&self, agent: HostUid) -> Option<LeaseRenewal> {
        let node = self.nodes.get(&NodeId(agent.host.0)).filter(|node| !node.is_unreachable)?;
        if !self.is_member(agent) {
            return None;
        }
        let silence = match self.settings.injected_bug {
            Some(InjectedBug::IgnoredLease) => self.settings.node_lease,
            _ => self.settings.node_unreachable_after,
        };
        let margin = silence / LEASE_MARGIN_PARTS;
        Some(LeaseRenewal { since: node.leased_since.0, length: silence - margin, grace: margin / 2 })
    }

    pub(super) fn is_exclusive(&self, key: ActorKey) -> bool {
        let is_exclusive = self.managed.get(&key).is_some_and(|managed| managed.policy.exclusive);
        is_exclusive && self.settings.injected_bug != Some(InjectedBug::IgnoredLease)
    }

    /// Start of the lease under which an exclusive actor is created on a node; `None` for any other actor.
    pub(super) fn lease_of_start(&self, key: ActorKey, node: NodeId) -> Option<u64> {
        let exclusive = self.managed.get(&key).filter(|managed| managed.policy.exclusive);
        exclusive.and_then(|_| Some(self.nodes.get(&node)?.leased_since.0))
    }

    fn fence(&mut self, key: ActorKey, fence: Fence) {
        if let Some(managed) = self.managed.get_mut(&key)
            && !managed.fences.contains(&fence)
        {
            managed.fences.push(fence);
            self.fenced.insert(key);
        }
    }

    fn exclusive_actors_of(&self, worker: WorkerId) -> Vec<ActorKey> {
        let actors = self.workers.get(&worker).map(|worker| worker.actors.as_slice()).unwrap_or_default();
        actors.iter().copied().filter(|key| self.is_exclusive(*key)).collect()
    }

    /// Notes that the worker of exclusive actors is lost with its node, before it is removed.
    pub(super) fn fence_actors_of_lost_node(&mut self, node: NodeId, worker: WorkerId) {
        let Some(until) = self.reachable_leases.until(node).filter(|until| *until > self.now) else { return };
        for key in self.exclusive_actors_of(worker) {
            self.fence(key, Fence::Lease(until));
        }
    }

    /// Notes that the worker of exclusive actors is about to be killed, before it is removed.
    pub(super) fn fence_actors_of_killed_worker(&mut self, worker: WorkerId) {
        let Some(node) = self.workers.get(&worker).map(|worker| worker.node) else { return };
        for key in self.exclusive_actors_of(worker) {
            self.fence(key, Fence::Worker(node, worker));
        }
    }

    /// Notes an actor that ran before the head restarted, and that no node has reported.
    pub(super) fn fence_unaccounted(&mut self, key: ActorKey) {
        let until = self.restored.after(millis(self.settings.node_unreachable_after));
        if self.is_exclusive(key) && until > self.now {
            self.fence(key, Fence::Lease(until));
        }
    }

    /// Notes an earlier incarnation that a node reports to a restarted head.
    pub(super) fn fence_reported(&mut self, key: ActorKey, worker: WorkerId, target: Target) {
        let node = self.workers.get(&worker).map(|worker| worker.node);
        if let Some(node) = node.filter(|_| self.is_exclusive(key) && self.unaccounted.contains(&key)) {
            self.fence(key, Fence::Incarnation(node, worker, target.incarnation));
        }
    }

    /// Removes fences, and restarts the actors that have none left.
    fn remove_fences(&mut self, is_over: impl Fn(ActorKey, Fence) -> bool) {
        let mut free = Vec::new();
        for key in self.fenced.iter().copied() {
            let Some(managed) = self.managed.get_mut(&key) else { continue };
            managed.fences.retain(|fence| !is_over(key, *fence));
            if managed.fences.is_empty() {
                free.push((key, managed.backs_off_until.is_some()));
            }
        }
        for (key, backs_off) in free {
            self.fenced.remove(&key);
            let is_held = self.actors.get(&key).is_some_and(|actor| actor.phase == ActorPhase::BackingOff);
            if is_held && !backs_off {
                self.set_phase(key, ActorPhase::Waiting);
                self.deferred.evicted.insert(key);
            }
        }
    }

    /// Removes the fences of leases that have run out.
    pub(super) fn end_leases_of_exclusive_actors(&mut self) {
        if !self.fenced.is_empty() {
            let now = self.now;
            self.remove_fences(|_, fence| matches!(fence, Fence::Lease(until) if until <= now));
        }
    }

    pub(super) fn fenced_incarnation_ended(&mut self, key: ActorKey, incarnation: ActorIncarnation) {
        self.remove_fences(|fenced, fence| {
            fenced == key && matches!(fence, Fence::Incarnation(.., ended) if ended == incarnation)
        });
    }

    pub(super) fn fenced_worker_ended(&mut self, worker: WorkerId) {
        self.remove_fences(|_, fence| fence.worker() == Some(worker));
    }

    /// Removes the fences of a node that is unreachable or lost: its lease has run out, or does at `until`.
    pub(super) fn fenced_node_lost(&mut self, node: NodeId, until: Option<Millis>) {
        let Some(until) = until.filter(|until| *until > self.now) else {
            return self.remove_fences(|_, fence| fence.node() == Some(node));
        };
        for key in &self.fenced {
            let fences = self.managed.get_mut(key).map(|managed| managed.fences.iter_mut());
            let there = fences.into_iter().flatten().filter(|fence| fence.node() == Some(node));
            there.for_each(|fence| *fence = Fence::Lease(until));
        }
    }

    /// Removes the fences of what a rejoining node does not report.
    pub(super) fn fenced_node_rejoined(&mut self, node: NodeId, report: &NodeReport) {
        if self.fenced.is_empty() {
            return;
        }
        self.remove_fences(|key, fence| {
            let worker = report.workers.iter().find(|worker| Some(worker.worker) == fence.worker());
            let runs = worker.is_some_and(|worker| match fence {
                Fence::Incarnation(.., incarnation) => {
                    let mut all = worker.actors.iter();
                    all.any(|(actor, _, at)| (*actor, at.target.incarnation) == (key, incarnation))
                }
                Fence::Worker(..) | Fence::Lease(_) => true,
            });
            fence.node() == Some(node) && !runs
        });
    }

    /// Explains what holds up the next incarnation of an actor.
    pub(super) fn explain_fence(&self, key: ActorKey) -> Option<String> {
        let text = match self.managed.get(&key)?.fences.first()? {
            Fence::Lease(until) => {
                let left = Duration::from_millis(until.since(self.now)).as_secs_f64();
                format!("the lease of its earlier incarnation ends in {left} s at the latest")
            }
            Fence::Worker(node, worker) => {
                format!("its earlier worker {worker} on node {node} has not ended")
            }
            Fence::Incarnation(node, ..) => format!("its earlier incarnation on node {node} has not ended"),
        };
        Some(text)
    }
}
