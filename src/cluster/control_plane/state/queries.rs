//! What can be asked of the state, and changes nothing.

use std::fmt::Write as _;

use rustc_hash::FxHashMap;

use super::State;
use super::node::Node;
use super::worker::Worker;
use crate::cluster::control_plane::scheduler::Queue;
use crate::cluster::model::{
    ActorKey, Alert, AlertKind, JobDescriptor, JobId, JobState, NodeDescriptor, NodeId, NodeInfo, NodeState,
    PendingActor, WorkerId, WorkerSummary,
};
use crate::id::{HostId, HostUid};

/// For people.
impl State {
    pub(super) fn node_info(&self, node: &Node) -> NodeInfo {
        let NodeDescriptor {
            agent: _, address, hostname, pid, is_head, resources, labels, session_dir, ..
        } = node.facts.clone();
        let node_id = node.facts.id();
        NodeInfo {
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

    /// How many actors live on a node.
    pub(super) fn actors_on(&self, node: &Node) -> usize {
        let workers = node.workers.iter().filter_map(|worker| self.workers.get(worker));
        workers.map(|worker| worker.alive_actors).sum()
    }

    /// How many actors wait for a place.
    pub(in crate::cluster) fn waiting_count(&self) -> usize {
        self.pending.len()
    }

    /// As many of those that have waited longest for a place, and why.
    pub(in crate::cluster) fn waiting(&self, limit: usize) -> Vec<PendingActor> {
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

    /// What an actor waits for that has no place.
    fn why_it_has_no_place(&self, queue: Queue) -> String {
        let mut why = self.schedule.explain_pending(queue);
        // A string takes what is written to it.
        let _ = match self.waiting.reservation(queue) {
            Some(node) => write!(why, "; node {node} is reserved for the first that wants this"),
            None if self.waiting.reservations().len() > 0 => {
                let nodes = self.waiting.reservations().len();
                write!(why, "; what is free of {nodes} nodes is reserved for actors that were passed by many")
            }
            None => Ok(()),
        };
        let troubles = self.alerts_of(queue.0).take(ALERTS_PER_KIND_MAX);
        troubles.for_each(|trouble| why += &format!("; its {trouble}"));
        why
    }

    /// Where no more workers of a job are started, or they crash, and why.
    fn alerts_of(&self, job: JobId) -> impl Iterator<Item = String> {
        let pools = self.jobs.get(&job).into_iter().flat_map(|job| &job.pools);
        pools.filter_map(|(node, pool)| match &pool.blocked {
            Some(cause) => Some(format!("workers could not be started on node {node}: {cause}")),
            None => self.crash_alert(*node, pool),
        })
    }

    /// What an operator should see to.
    pub(in crate::cluster) fn alerts(&self) -> Vec<Alert> {
        let starts = self.open_jobs.iter().flat_map(|job| {
            let with = AlertKind::WorkerStarts;
            self.alerts_of(*job).map(move |text| Alert { kind: with, text: format!("job {job}: its {text}") })
        });
        let suspended = self.suspended.iter().filter_map(|id| Some((id, self.workers.get(id)?)));
        let suspended = suspended.map(|(id, Worker { node, job, pid, .. })| {
            let mut text = format!("job {job}: its worker {id} on node {node} is stopped by a signal");
            // Before it is ready its number is not known here.
            if *pid > 0 {
                text += &format!("; `kill -CONT {pid}` there lets it go on");
            }
            Alert { kind: AlertKind::SuspendedWorker, text }
        });
        let own = self
            .check_persistence()
            .err()
            .map(|denied| Alert { kind: AlertKind::HeadState, text: denied.to_string() });
        own.into_iter().chain(starts).chain(suspended).take(TROUBLES_MAX).collect()
    }
}

/// So many nodes on which workers cannot be started are told of to who waits.
const ALERTS_PER_KIND_MAX: usize = 3;

/// So many troubles are shown to operators: who sees to these sees the others then.
const TROUBLES_MAX: usize = 100;

/// The reasons of queues, each worked out once.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Reasons(FxHashMap<Queue, String>);

impl Reasons {
    pub(super) fn of(&mut self, queue: Queue, state: &State) -> String {
        self.0.entry(queue).or_insert_with(|| state.why_it_has_no_place(queue)).clone()
    }
}

/// For the head.
impl State {
    /// Whether that life of an agent has joined and was not given up. If not, it has to join again.
    pub(in crate::cluster) fn is_member(&self, agent: HostUid) -> bool {
        let node = self.nodes.get(&NodeId(agent.host.0));
        node.is_some_and(|node| node.has_rejoined && node.facts.agent == agent)
    }

    /// What a node that is not dead has said of itself.
    #[cfg(test)]
    pub(in crate::cluster) fn node_facts(&self, node: NodeId) -> Option<&NodeDescriptor> {
        self.nodes.get(&node).map(|node| &node.facts)
    }

    /// What has become of a node, as far as that is remembered.
    pub(in crate::cluster) fn node_state(&self, node: NodeId) -> Option<NodeState> {
        let past = || self.history.node(node).map(|_| NodeState::Dead);
        self.nodes.get(&node).map(|node| node.state).or_else(past)
    }

    /// What has become of a job, as far as that is remembered.
    pub(in crate::cluster) fn job_state(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).map(|job| job.state)
    }

    /// What a job's driver, or whoever submitted it, has said of it.
    pub(in crate::cluster) fn job_facts(&self, job: JobId) -> Option<&JobDescriptor> {
        self.jobs.get(&job).map(|job| &job.facts)
    }

    /// The driver of an open job.
    pub(in crate::cluster) fn driver(&self, job: JobId) -> Option<HostUid> {
        self.jobs.get(&job).filter(|job| job.state.is_open())?.facts.driver
    }

    /// Where a worker runs that has not ended, and for which job.
    pub(in crate::cluster) fn worker(&self, worker: WorkerId) -> Option<(NodeId, JobId)> {
        self.workers.get(&worker).map(|worker| (worker.node, worker.job))
    }

    /// Where a worker runs, or ran, as far as that is remembered.
    pub(in crate::cluster) fn node_of_worker(&self, worker: WorkerId) -> Option<NodeId> {
        let past = || self.history.worker(worker).map(|past| past.summary.node_id);
        self.workers.get(&worker).map(|worker| worker.node).or_else(past)
    }

    /// The living agent, driver or ready worker that has a host of that id, in its present life.
    pub(in crate::cluster) fn owner_of_host(&self, host: HostId) -> Option<HostUid> {
        let agent = self.nodes.get(&NodeId(host.0)).map(|node| node.facts.agent);
        let jobs = self.open_jobs.iter().filter_map(|job| self.jobs.get(job));
        let mut drivers = jobs.flat_map(|job| [job.facts.driver, job.facts.user_host]).flatten();
        agent
            .or_else(|| drivers.find(|driver| driver.host == host))
            .or_else(|| self.hosts.get(&host).map(|(worker, _)| *worker))
    }

    /// How the worker ended that had a host; nothing while it lives, or may.
    ///
    /// Nobody has the address of a worker before it was ready, and that the control plane knows before all
    /// others. So a host of which it knows nothing is of a worker that has ended, once every node has said
    /// what runs there. It is to be asked about hosts of workers alone.
    pub(in crate::cluster) fn host_exit_cause(&self, host: HostUid) -> Option<String> {
        if self.worker_of(host).is_some() {
            return None;
        }
        if let Some(past) = self.history.worker_of(host) {
            let WorkerSummary { pid, node_id, cause, .. } = &past.summary;
            let cause = cause.as_deref().unwrap_or("it has ended");
            return Some(format!("worker {pid} on node {node_id}: {cause}"));
        }
        self.all_rejoined().then(|| "its worker ended long ago, or while the head was away".to_owned())
    }

    /// Whether all nodes have come back since the head was started.
    pub(super) fn all_rejoined(&self) -> bool {
        self.nodes.values().all(|node| node.has_rejoined)
    }

    /// The ready worker that has a host.
    pub(in crate::cluster) fn worker_of(&self, host: HostUid) -> Option<WorkerId> {
        self.hosts.get(&host.host).filter(|(lives, _)| *lives == host).map(|(_, worker)| *worker)
    }

    /// The job of an actor that is not dead.
    pub(in crate::cluster) fn job_of_actor(&self, actor: ActorKey) -> Option<JobId> {
        self.actors.get(&actor).map(|actor| actor.job)
    }

    /// Whether a host is of a worker of the job, or of its driver. Until all nodes are back after a start of
    /// the head, a host that is not known may be a worker's.
    pub(in crate::cluster) fn may_speak_for(&self, host: HostUid, job: JobId) -> bool {
        let is_driver = self
            .jobs
            .get(&job)
            .is_some_and(|job| [job.facts.driver, job.facts.user_host].contains(&Some(host)));
        is_driver
            || match self.worker_of(host).and_then(|worker| self.workers.get(&worker)) {
                Some(worker) => worker.job == job,
                None => !self.all_rejoined() && self.owner_of_host(host.host).is_none(),
            }
    }

    /// Where an actor lives, or is being made.
    pub(in crate::cluster) fn worker_of_actor(&self, actor: ActorKey) -> Option<WorkerId> {
        self.actors.get(&actor)?.phase.worker()
    }
}
