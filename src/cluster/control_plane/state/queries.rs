//! Read-only queries of the state.

use std::fmt::Write as _;

use rustc_hash::FxHashMap;

use super::job::Job;
use super::node::LiveNode;
use super::worker::LiveWorker;
use super::{ClusterState, Millis, lease_expired_text};
use crate::cluster::control_plane::scheduler::Queue;
use crate::cluster::model::{
    ActorKey, Alert, AlertKind, JobDescriptor, JobId, JobState, NodeDescriptor, NodeId, NodeInfo, NodeState,
    PendingActor, WorkerId, WorkerSummary,
};
use crate::config::InjectedBug;
use crate::id::{HostId, HostUid};
use crate::spec::{End, EndReason};

/// Queries for lists and operators.
impl ClusterState {
    pub(super) fn node_info(&self, node: &LiveNode) -> NodeInfo {
        let NodeDescriptor {
            agent: _, address, hostname, pid, is_head, resources, labels, session_dir, ..
        } = node.descriptor.clone();
        let node_id = node.descriptor.id();
        NodeInfo {
            // The head adds the usage, which decides nothing and is not part of the state.
            usage: None,
            node_id,
            state: node.shown_state(),
            address,
            hostname,
            pid,
            is_head,
            resources,
            available: self.schedule.available(node_id),
            labels,
            workers: node.workers.len(),
            actors: self.actors_on(node),
            session_dir,
            started_ms: node.joined.0,
            cause: None,
        }
    }

    /// Number of alive actors on a node.
    pub(super) fn actors_on(&self, node: &LiveNode) -> usize {
        let workers = node.workers.iter().filter_map(|worker| self.workers.get(worker));
        workers.map(|worker| worker.alive_actors).sum()
    }

    /// Number that grows whenever rows of a list may have changed, but for statistics.
    pub(in crate::cluster) fn version(&self) -> u64 {
        self.version
    }

    /// Checks whether the start of a worker or an actor is delayed after failures.
    pub(in crate::cluster) fn is_backing_off(&self) -> bool {
        self.next_restart().is_some()
    }

    /// Time of the next delayed start of a worker or an actor.
    pub(in crate::cluster) fn next_restart(&self) -> Option<Millis> {
        let worker = self.restarts.first().map(|(at, ..)| *at);
        let actor = self.backing_off.first().map(|(at, _)| *at);
        worker.into_iter().chain(actor).min()
    }

    /// Checks whether no more workers of a job are started on one of its nodes, since too many failed at their start.
    pub(in crate::cluster) fn is_blocked(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.pools.values().any(|pool| pool.blocked.is_some()))
    }

    /// Number of actors without an assigned worker.
    pub(in crate::cluster) fn waiting_count(&self) -> usize {
        self.pending.len()
    }

    /// Oldest pending actors, each with the reason.
    pub(in crate::cluster) fn waiting(&self, limit: usize) -> Vec<PendingActor> {
        // Many pending actors share few queues, so reasons are cached.
        let mut reasons = Reasons::default();
        let mut waiting = Vec::new();
        for actor_id in self.pending.keys().take(limit) {
            let Some(actor) = self.actors.get(actor_id) else { continue };
            waiting.push(PendingActor {
                actor_id: *actor_id,
                class: self.classes.name(actor.class).to_owned(),
                job_id: actor.job,
                reason: self.pending_reason(*actor_id, actor, &mut reasons).unwrap_or_default(),
            });
        }
        waiting
    }

    /// Explains why the actors of a queue have no node.
    fn explain_unplaced(&self, queue: Queue) -> String {
        let mut why = self.schedule.explain_pending(queue);
        // Writing to a string cannot fail.
        let _ = match self.waiting.reservation(queue) {
            Some(node) => write!(why, "; node {node} is reserved for the oldest of these requests"),
            None if self.waiting.reservations().len() > 0 => {
                let nodes = self.waiting.reservations().len();
                write!(
                    why,
                    "; the free resources of {nodes} nodes are reserved for actors that were passed too often"
                )
            }
            None => Ok(()),
        };
        let alerts = self.alerts_of(queue.0).take(ALERTS_PER_KIND_MAX);
        alerts.for_each(|alert| why += &format!("; its {alert}"));
        why
    }

    /// Descriptions of a job's pools that are blocked or in a crash loop.
    fn alerts_of(&self, job: JobId) -> impl Iterator<Item = String> {
        let pools = self.jobs.get(&job).into_iter().flat_map(|job| &job.pools);
        pools.filter_map(|(node, pool)| match &pool.blocked {
            Some(cause) => Some(format!("workers could not be started on node {node}: {cause}")),
            None => self.crash_alert(*node, pool),
        })
    }

    /// Conditions that need an operator's attention.
    pub(in crate::cluster) fn alerts(&self) -> Vec<Alert> {
        let starts = self.open_jobs.iter().flat_map(|job| {
            let kind = AlertKind::WorkerStarts;
            self.alerts_of(*job).map(move |text| Alert { kind, text: format!("job {job}: its {text}") })
        });
        let suspended = self.suspended.iter().filter_map(|id| Some((id, self.workers.get(id)?)));
        let suspended = suspended.map(|(id, LiveWorker { node, job, pid, .. })| {
            let mut text = format!("job {job}: its worker {id} on node {node} is stopped by a signal");
            // The process id is known only once the worker is ready.
            if *pid > 0 {
                text += &format!("; run `kill -CONT {pid}` there to continue it");
            }
            Alert { kind: AlertKind::SuspendedWorker, text }
        });
        let unreachable = self.nodes.values().filter(|node| node.is_unreachable);
        let mut unreachable: Vec<&NodeDescriptor> = unreachable.map(|node| &node.descriptor).collect();
        // The hash map has no fixed order.
        unreachable.sort_unstable_by_key(|node| node.id());
        let unreachable = unreachable.into_iter().map(|node| {
            let (limit, lease) = (self.settings.node_unreachable_after, self.settings.node_lease);
            let text = format!(
                "node {} ({} at {}): {}; it gets no new actors and tasks, and is dead after {} s",
                node.id(),
                node.hostname,
                node.address,
                lease_expired_text(limit),
                lease.as_secs_f64()
            );
            Alert { kind: AlertKind::UnreachableNode, text }
        });
        let persistence = self
            .check_persistence()
            .err()
            .map(|denied| Alert { kind: AlertKind::HeadState, text: denied.to_string() });
        // The condition of the head comes first: the limit must not cut it off.
        persistence.into_iter().chain(unreachable).chain(starts).chain(suspended).take(ALERTS_MAX).collect()
    }
}

/// Maximum number of blocked or failing pools in the reason why an actor is pending.
const ALERTS_PER_KIND_MAX: usize = 3;

/// Maximum number of alerts shown at a time: the rest appears as these are resolved.
const ALERTS_MAX: usize = 100;

/// Cache of the reasons of queues, which all actors of a queue share.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Reasons(FxHashMap<Queue, String>);

impl Reasons {
    pub(super) fn of(&mut self, queue: Queue, state: &ClusterState) -> String {
        self.0.entry(queue).or_insert_with(|| state.explain_unplaced(queue)).clone()
    }
}

/// Queries of the head's services.
impl ClusterState {
    /// Bug that a simulation injects.
    pub(in crate::cluster) fn injected_bug(&self) -> Option<InjectedBug> {
        self.settings.injected_bug
    }

    /// Checks that an agent incarnation has joined and is not dead. Otherwise it must join again.
    pub(in crate::cluster) fn is_member(&self, agent: HostUid) -> bool {
        let node = self.nodes.get(&NodeId(agent.host.0));
        node.is_some_and(|node| node.has_rejoined && node.descriptor.agent == agent)
    }

    /// Description of a node that is not dead.
    #[cfg(test)]
    pub(in crate::cluster) fn node_descriptor(&self, node: NodeId) -> Option<&NodeDescriptor> {
        self.nodes.get(&node).map(|node| &node.descriptor)
    }

    /// State of a node, including listed dead ones.
    pub(in crate::cluster) fn node_state(&self, node: NodeId) -> Option<NodeState> {
        let from_history = || self.history.node(node).map(|_| NodeState::Dead);
        let state = |node: &LiveNode| if node.is_unreachable { NodeState::Unreachable } else { node.state };
        self.nodes.get(&node).map(state).or_else(from_history)
    }

    /// State of a job, including listed ended ones.
    pub(in crate::cluster) fn job_state(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).map(|job| job.state)
    }

    /// Start of a job, if it has ended.
    #[cfg(feature = "cli")]
    pub(in crate::cluster) fn ended_job_start(&self, job: JobId) -> Option<Millis> {
        self.jobs.get(&job).filter(|job| !job.state.is_open()).map(|job| job.started)
    }

    /// Description of a job, from its driver or its submitter.
    pub(in crate::cluster) fn job_descriptor(&self, job: JobId) -> Option<&JobDescriptor> {
        self.jobs.get(&job).map(|job| &job.descriptor)
    }

    /// Driver of an open job.
    pub(in crate::cluster) fn driver(&self, job: JobId) -> Option<HostUid> {
        self.jobs.get(&job).filter(|job| job.state.is_open())?.descriptor.driver
    }

    /// Node and job of a worker that has not ended.
    pub(in crate::cluster) fn worker(&self, worker: WorkerId) -> Option<(NodeId, JobId)> {
        self.workers.get(&worker).map(|worker| (worker.node, worker.job))
    }

    /// Node of a worker, including listed ended ones.
    pub(in crate::cluster) fn node_of_worker(&self, worker: WorkerId) -> Option<NodeId> {
        let from_history = || self.history.worker(worker).map(|ended| ended.summary.node_id);
        self.workers.get(&worker).map(|worker| worker.node).or_else(from_history)
    }

    /// Node and job of a worker, including listed ended ones.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the head keeps timelines"))]
    pub(in crate::cluster) fn any_worker(&self, worker: WorkerId) -> Option<(NodeId, JobId)> {
        let from_history =
            || self.history.worker(worker).map(|ended| (ended.summary.node_id, ended.summary.job_id));
        self.worker(worker).or_else(from_history)
    }

    /// Incarnation of the agent, driver or ready worker that owns a host id now.
    pub(in crate::cluster) fn owner_of_host(&self, host: HostId) -> Option<HostUid> {
        let agent = self.nodes.get(&NodeId(host.0)).map(|node| node.descriptor.agent);
        let jobs = self.open_jobs.iter().filter_map(|job| self.jobs.get(job));
        let mut drivers = jobs.flat_map(|job| [job.descriptor.driver, job.descriptor.user_host]).flatten();
        agent
            .or_else(|| drivers.find(|driver| driver.host == host))
            .or_else(|| self.hosts.get(&host).map(|(worker, _)| *worker))
    }

    /// End of the worker that owned a host; `None` while it, or another owner, may be alive.
    pub(in crate::cluster) fn host_end(&self, host: HostUid) -> Option<End> {
        // An agent or a driver is no worker that has ended.
        if self.owner_of_host(host.host) == Some(host) {
            return None;
        }
        if let Some(ended) = self.history.worker_of(host) {
            let WorkerSummary { pid, node_id, cause, .. } = &ended.summary;
            let cause = cause.as_deref().unwrap_or("it has ended");
            return Some(End::new(ended.reason, format!("worker {pid} on node {node_id}: {cause}")));
        }
        let had = |job: &Job| [job.descriptor.driver, job.descriptor.user_host].contains(&Some(host));
        if let Some((id, job)) = self.jobs.iter().find(|(_, job)| had(job)) {
            let message = job.message.as_deref().unwrap_or("it has ended");
            return Some(End::new(EndReason::JobEnded, format!("driver of job {id}: {message}")));
        }
        // The control plane learns the address of a worker before any other process does. Once every node has
        // reported its workers, an unknown host therefore belongs to a worker that has ended.
        let text = "its worker ended long ago, or while the head was down";
        self.all_rejoined().then(|| End::new(EndReason::Unknown, text))
    }

    /// Checks whether all nodes have rejoined since the head restarted.
    pub(super) fn all_rejoined(&self) -> bool {
        self.nodes.values().all(|node| node.has_rejoined)
    }

    /// Ready worker that owns a host.
    pub(in crate::cluster) fn worker_of(&self, host: HostUid) -> Option<WorkerId> {
        self.hosts.get(&host.host).filter(|(current, _)| *current == host).map(|(_, worker)| *worker)
    }

    /// Job of an actor that is not dead.
    pub(in crate::cluster) fn job_of_actor(&self, actor: ActorKey) -> Option<JobId> {
        self.actors.get(&actor).map(|actor| actor.job)
    }

    /// Checks whether a host belongs to the job's driver or to one of its workers.
    ///
    /// Until all nodes have rejoined, an unknown host may be that of a worker.
    pub(in crate::cluster) fn may_speak_for(&self, host: HostUid, job: JobId) -> bool {
        let is_driver = self
            .jobs
            .get(&job)
            .is_some_and(|job| [job.descriptor.driver, job.descriptor.user_host].contains(&Some(host)));
        is_driver
            || match self.worker_of(host).and_then(|worker| self.workers.get(&worker)) {
                Some(worker) => worker.job == job,
                None => !self.all_rejoined() && self.owner_of_host(host.host).is_none(),
            }
    }

    /// Worker to which an actor is assigned.
    pub(in crate::cluster) fn worker_of_actor(&self, actor: ActorKey) -> Option<WorkerId> {
        self.actors.get(&actor)?.phase.worker()
    }
}
