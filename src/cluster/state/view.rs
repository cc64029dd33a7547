//! What can be asked of the state, and changes nothing.

use super::State;
use super::actor::{Actor, Phase};
use super::node::Node;
use super::past::PastActor;
use super::worker::Worker;
use crate::cluster::model::Waiting;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorState, JobFacts, JobId, JobInfo, JobState, Lifetime, NodeFacts, NodeId,
    NodeInfo, NodeState, TaskCount, TaskInfo, Trouble, TroubleWith, WorkerId, WorkerState, WorkerSummary,
};
use crate::id::{HostId, Identity};

/// For people.
impl State {
    /// All nodes; dead ones as far as they are remembered.
    pub(in crate::cluster) fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes: Vec<NodeInfo> = self.nodes.values().map(|node| self.node_info(node)).collect();
        nodes.sort_by_key(|node| (node.started_ms, node.node_id));
        nodes.extend(self.past.nodes.iter().map(|past| past.info.clone()));
        nodes
    }

    pub(super) fn node_info(&self, node: &Node) -> NodeInfo {
        let NodeFacts { agent: _, address, hostname, pid, is_head, resources, labels, session_dir, .. } =
            node.facts.clone();
        let node_id = node.facts.id();
        let workers = node.workers.iter().filter_map(|worker| self.workers.get(worker));
        NodeInfo {
            usage: None,
            node_id,
            state: if node.is_back { node.state } else { NodeState::Awaited },
            address,
            hostname,
            pid,
            is_head,
            resources,
            available: self.schedule.available(node_id),
            labels,
            workers: node.workers.len(),
            actors: workers.map(|worker| worker.living).sum(),
            session_dir,
            started_ms: node.joined.0,
            cause: None,
        }
    }

    /// All jobs; ended ones as far as they are remembered.
    pub(in crate::cluster) fn jobs(&self) -> Vec<JobInfo> {
        let info = |(id, job): (&JobId, &super::job::Job)| JobInfo {
            job_id: *id,
            state: job.state,
            entrypoint: job.facts.entrypoint.clone(),
            hostname: job.facts.hostname.clone(),
            pid: job.facts.pid,
            runs_on: job.facts.runs_on,
            started_ms: job.started.0,
            ended_ms: job.ended.map(|ended| ended.0),
            exit_code: job.exit_code,
            message: job.message.clone(),
        };
        self.jobs.iter().map(info).collect()
    }

    /// All actors; dead ones as far as they are remembered.
    pub(in crate::cluster) fn actors(&self) -> Vec<ActorInfo> {
        let mut actors: Vec<ActorInfo> = Vec::with_capacity(self.actors.len() + self.past.actors.len());
        let mut reasons = Reasons::default();
        for (key, actor) in &self.actors {
            let at = match actor.phase {
                Phase::Parked(node) => (Some(node), None),
                phase => (self.node_of(phase), phase.worker()),
            };
            let mut info = self.actor_info(*key, actor, at);
            info.pid = at.1.and_then(|worker| self.workers.get(&worker)).map(|worker| worker.pid);
            info.cause = self.why_it_waits(actor, &mut reasons);
            actors.push(info);
        }
        actors.sort_unstable_by_key(|actor| actor.actor_id);
        actors.extend(self.past.actors.iter().map(|past| self.past_actor_info(past)));
        actors
    }

    fn past_actor_info(&self, past: &PastActor) -> ActorInfo {
        let place = past.at.map(|(node, worker, _)| (node, worker));
        let mut info = self.actor_info(past.key, &past.actor, place.unzip());
        info.state = ActorState::Dead;
        info.pid = past.at.map(|(.., pid)| pid);
        info.cause = Some(past.cause.to_string());
        info
    }

    fn actor_info(
        &self,
        actor_id: ActorKey,
        actor: &Actor,
        (node_id, worker_id): (Option<NodeId>, Option<WorkerId>),
    ) -> ActorInfo {
        let named = actor.named.as_ref();
        let namespace = named.map(|named| named.namespace.clone());
        let jobs_own = || self.jobs.get(&actor.job).map(|job| job.facts.namespace.clone());
        ActorInfo {
            actor_id,
            class: self.classes.name(actor.class).to_owned(),
            state: actor.phase.state(),
            job_id: actor.job,
            name: named.map(|named| named.name.clone()),
            namespace: namespace.or_else(jobs_own).unwrap_or_default(),
            lifetime: if actor.detached { Lifetime::Detached } else { Lifetime::Job },
            resources: self.schedule.taken(actor.shape),
            node_id,
            worker_id,
            pid: None,
            cause: None,
        }
    }

    /// All workers; ended ones as far as they are remembered.
    pub(in crate::cluster) fn workers(&self) -> Vec<WorkerSummary> {
        let state = |worker: &Worker| match worker.member {
            _ if worker.suspended => WorkerState::Suspended,
            Some(_) => WorkerState::Alive,
            None => WorkerState::Starting,
        };
        let living = self.workers.iter().map(|(id, worker)| worker.summary(*id, state(worker), None));
        let mut workers: Vec<WorkerSummary> = living.collect();
        workers.sort_unstable_by_key(|worker| worker.worker_id);
        workers.extend(self.past.workers.iter().map(|past| past.summary.clone()));
        workers
    }

    /// The tasks of all workers, by function.
    pub(in crate::cluster) fn tasks(&self) -> Vec<TaskInfo> {
        let mut tasks = Vec::new();
        for (&worker_id, worker) in &self.workers {
            let (job_id, node_id) = (worker.job, worker.node);
            let info = |count: &TaskCount| TaskInfo { job_id, worker_id, node_id, count: count.clone() };
            tasks.extend(worker.tasks.iter().map(info));
        }
        for past in &self.past.workers {
            let WorkerSummary { worker_id, job_id, node_id, .. } = past.summary;
            let info = |count: &TaskCount| TaskInfo { job_id, worker_id, node_id, count: over(count) };
            tasks.extend(past.tasks.iter().map(info));
        }
        tasks.sort_by_key(|task| task.worker_id);
        tasks
    }

    /// The actors that somebody waits for, and why.
    pub(in crate::cluster) fn waiting(&self) -> Vec<Waiting> {
        let mut reasons = Reasons::default();
        let mut waiting: Vec<Waiting> = Vec::with_capacity(self.unplaced.len());
        for actor_id in self.unplaced.keys() {
            let Some(actor) = self.actors.get(actor_id) else { continue };
            waiting.push(Waiting {
                actor_id: *actor_id,
                class: self.classes.name(actor.class).to_owned(),
                job_id: actor.job,
                reason: self.why_it_waits(actor, &mut reasons).unwrap_or_default(),
            });
        }
        waiting.sort_unstable_by_key(|waiting| waiting.actor_id);
        waiting
    }

    /// What an actor waits for that has not begun.
    fn why_it_waits(&self, actor: &Actor, reasons: &mut Reasons) -> Option<String> {
        match actor.phase {
            Phase::Alive(..) => None,
            Phase::Placed(_) => Some("it has a place, and has not begun yet".to_owned()),
            Phase::Missing => Some("its node is not back since the head was started anew".to_owned()),
            Phase::Starting(worker) => Some(format!("worker {worker} is being started for it")),
            Phase::Parked(node) => {
                let pool = self.jobs.get(&actor.job).and_then(|job| job.pools.get(&node));
                let trouble = pool.and_then(|pool| self.why_it_crashes(node, pool));
                let trouble = trouble.map_or_else(String::new, |trouble| format!("; its {trouble}"));
                Some(format!("workers of its job are being started on node {node}{trouble}"))
            }
            Phase::Waiting => {
                let queue = (actor.job, actor.shape);
                let reason = reasons.0.entry(queue).or_insert_with(|| {
                    let troubles = self.troubles_of(actor.job).take(TROUBLES_TOLD_MAX);
                    let troubles: String = troubles.map(|trouble| format!("; its {trouble}")).collect();
                    format!("{}{troubles}", self.schedule.why_not_now(queue))
                });
                Some(reason.clone())
            }
        }
    }

    /// Where no more workers of a job are started, or they crash, and why.
    fn troubles_of(&self, job: JobId) -> impl Iterator<Item = String> {
        let pools = self.jobs.get(&job).into_iter().flat_map(|job| &job.pools);
        pools.filter_map(|(node, pool)| match &pool.given_up {
            Some(cause) => Some(format!("workers could not be started on node {node}: {cause}")),
            None => self.why_it_crashes(*node, pool),
        })
    }

    /// What an operator should see to.
    pub(in crate::cluster) fn troubles(&self) -> Vec<Trouble> {
        let starts = self.open_jobs.iter().flat_map(|job| {
            let with = TroubleWith::WorkerStarts;
            self.troubles_of(*job).map(move |text| Trouble { with, text: format!("job {job}: its {text}") })
        });
        let mut suspended: Vec<_> = self.workers.iter().filter(|(_, worker)| worker.suspended).collect();
        suspended.sort_unstable_by_key(|(id, _)| **id);
        let suspended = suspended.into_iter().map(|(id, Worker { node, job, pid, .. })| {
            let mut text = format!("job {job}: its worker {id} on node {node} is stopped by a signal");
            // Before it is ready its number is not known here.
            if *pid > 0 {
                text += &format!("; `kill -CONT {pid}` there lets it go on");
            }
            Trouble { with: TroubleWith::SuspendedWorker, text }
        });
        let own = self
            .can_keep()
            .err()
            .map(|denied| Trouble { with: TroubleWith::HeadState, text: denied.to_string() });
        own.into_iter().chain(starts).chain(suspended).take(TROUBLES_MAX).collect()
    }
}

/// So many nodes on which workers cannot be started are told of to who waits.
const TROUBLES_TOLD_MAX: usize = 3;

/// So many troubles are shown to operators: who sees to these sees the others then.
const TROUBLES_MAX: usize = 100;

/// The tasks of a worker that has ended: what had not ended by then has failed with it.
fn over(count: &TaskCount) -> TaskCount {
    let lost = count.queued + count.running;
    TaskCount { queued: 0, running: 0, failed: count.failed + lost, ..count.clone() }
}

/// The reasons of queues, each worked out once.
#[derive(Default)]
struct Reasons(rustc_hash::FxHashMap<crate::cluster::schedule::Queue, String>);

/// For the head.
impl State {
    /// Whether that life of an agent has joined and was not given up. If not, it has to join again.
    pub(in crate::cluster) fn is_member(&self, agent: Identity) -> bool {
        let node = self.nodes.get(&NodeId(agent.host.0));
        node.is_some_and(|node| node.is_back && node.facts.agent == agent)
    }

    /// What a node that is not dead has said of itself.
    #[cfg(test)]
    pub(in crate::cluster) fn node_facts(&self, node: NodeId) -> Option<&NodeFacts> {
        self.nodes.get(&node).map(|node| &node.facts)
    }

    /// What has become of a node, as far as that is remembered.
    #[cfg(test)]
    pub(in crate::cluster) fn node_state(&self, node: NodeId) -> Option<NodeState> {
        let past = || self.past.node(node).map(|_| NodeState::Dead);
        self.nodes.get(&node).map(|node| node.state).or_else(past)
    }

    /// What has become of a job, as far as that is remembered.
    pub(in crate::cluster) fn job_state(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).map(|job| job.state)
    }

    /// What a job's driver, or whoever submitted it, has said of it.
    pub(in crate::cluster) fn job_facts(&self, job: JobId) -> Option<&JobFacts> {
        self.jobs.get(&job).map(|job| &job.facts)
    }

    /// The driver of an open job.
    pub(in crate::cluster) fn driver(&self, job: JobId) -> Option<Identity> {
        self.jobs.get(&job).filter(|job| job.state.is_open())?.facts.driver
    }

    /// Where a worker runs that has not ended, and for which job.
    pub(in crate::cluster) fn worker(&self, worker: WorkerId) -> Option<(NodeId, JobId)> {
        self.workers.get(&worker).map(|worker| (worker.node, worker.job))
    }

    /// Where a worker runs, or ran, as far as that is remembered.
    pub(in crate::cluster) fn node_of_worker(&self, worker: WorkerId) -> Option<NodeId> {
        let past = || self.past.worker(worker).map(|past| past.summary.node_id);
        self.workers.get(&worker).map(|worker| worker.node).or_else(past)
    }

    /// The living agent, driver or ready worker that has a host of that id, in its present life.
    pub(in crate::cluster) fn holder(&self, host: HostId) -> Option<Identity> {
        let agent = self.nodes.get(&NodeId(host.0)).map(|node| node.facts.agent);
        let jobs = self.open_jobs.iter().filter_map(|job| self.jobs.get(job));
        let mut drivers = jobs.flat_map(|job| [job.facts.driver, job.facts.caller]).flatten();
        agent
            .or_else(|| drivers.find(|driver| driver.host == host))
            .or_else(|| self.hosts.get(&host).map(|(worker, _)| *worker))
    }

    /// How the worker ended that had a host; nothing while it lives, or may.
    ///
    /// Nobody has the address of a worker before it was ready, and that the control plane knows before all
    /// others. So a host of which it knows nothing is of a worker that has ended, once every node has said
    /// what runs there. It is to be asked about hosts of workers alone.
    pub(in crate::cluster) fn end_of(&self, host: Identity) -> Option<String> {
        if self.worker_of(host).is_some() {
            return None;
        }
        if let Some(past) = self.past.worker_of(host) {
            let WorkerSummary { pid, node_id, cause, .. } = &past.summary;
            let cause = cause.as_deref().unwrap_or("it has ended");
            return Some(format!("worker {pid} on node {node_id}: {cause}"));
        }
        self.all_back().then(|| "its worker ended long ago, or while the head was away".to_owned())
    }

    /// Whether all nodes have come back since the head was started.
    pub(super) fn all_back(&self) -> bool {
        self.nodes.values().all(|node| node.is_back)
    }

    /// The ready worker that has a host.
    pub(in crate::cluster) fn worker_of(&self, host: Identity) -> Option<WorkerId> {
        self.hosts.get(&host.host).filter(|(lives, _)| *lives == host).map(|(_, worker)| *worker)
    }

    /// The job of an actor that is not dead.
    pub(in crate::cluster) fn job_of_actor(&self, actor: ActorKey) -> Option<JobId> {
        self.actors.get(&actor).map(|actor| actor.job)
    }

    /// Whether a host is of a worker of the job, or of its driver. Until all nodes are back after a start of
    /// the head, a host that is not known may be a worker's.
    pub(in crate::cluster) fn may_speak_for(&self, host: Identity, job: JobId) -> bool {
        let is_driver =
            self.jobs.get(&job).is_some_and(|job| [job.facts.driver, job.facts.caller].contains(&Some(host)));
        is_driver
            || match self.worker_of(host).and_then(|worker| self.workers.get(&worker)) {
                Some(worker) => worker.job == job,
                None => !self.all_back() && self.holder(host.host).is_none(),
            }
    }

    /// Where an actor lives, or is being made.
    pub(in crate::cluster) fn worker_of_actor(&self, actor: ActorKey) -> Option<WorkerId> {
        self.actors.get(&actor)?.phase.worker()
    }
}
