//! What can be asked of the state, and changes nothing.

use super::State;
use super::actor::{Actor, Phase};
use super::node::Node;
use super::past::PastActor;
use crate::cluster::model::Waiting;
use crate::cluster::model::{
    ActorInfo, ActorKey, ActorState, JobFacts, JobId, JobInfo, JobState, Lifetime, Member, NodeFacts, NodeId,
    NodeInfo, TaskInfo, WorkerId, WorkerState, WorkerSummary,
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
            state: node.state,
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
        let state = |member: Option<Member>| match member {
            Some(_) => WorkerState::Alive,
            None => WorkerState::Starting,
        };
        let living = self.workers.iter().map(|(id, worker)| worker.summary(*id, state(worker.member), None));
        let mut workers: Vec<WorkerSummary> = living.collect();
        workers.sort_unstable_by_key(|worker| worker.worker_id);
        workers.extend(self.past.workers.iter().map(|past| past.summary.clone()));
        workers
    }

    /// The tasks of all workers, by function.
    pub(in crate::cluster) fn tasks(&self) -> Vec<TaskInfo> {
        let living = self.workers.iter().map(|(id, worker)| (*id, worker.job, worker.node, &worker.tasks));
        let past = self.past.workers.iter().map(|past| {
            let summary = &past.summary;
            (summary.worker_id, summary.job_id, summary.node_id, &past.tasks)
        });
        let mut workers: Vec<_> = living.chain(past).collect();
        workers.sort_unstable_by_key(|(worker, ..)| *worker);
        let tasks = workers.into_iter().flat_map(|(worker_id, job_id, node_id, tasks)| {
            tasks.iter().map(move |count| TaskInfo { job_id, worker_id, node_id, count: count.clone() })
        });
        tasks.collect()
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
                let trouble = pool.and_then(|pool| self.why_it_crashes(node, pool)).unwrap_or_default();
                Some(format!("workers of its job are being started on node {node}{trouble}"))
            }
            Phase::Waiting => {
                let queue = (actor.job, actor.shape);
                let reason = reasons.0.entry(queue).or_insert_with(|| {
                    let troubles = self.troubles(actor.job);
                    format!("{}{troubles}", self.schedule.why_not_now(queue))
                });
                Some(reason.clone())
            }
        }
    }

    /// Where no more workers of a job are started, or they crash, and why.
    fn troubles(&self, job: JobId) -> String {
        let pools = self.jobs.get(&job).into_iter().flat_map(|job| &job.pools);
        let troubles = pools.filter_map(|(node, pool)| match &pool.given_up {
            Some(cause) => Some(format!("; its workers could not be started on node {node}: {cause}")),
            None => self.why_it_crashes(*node, pool),
        });
        troubles.take(TROUBLES_TOLD_MAX).collect()
    }
}

/// So many nodes on which workers cannot be started are told of at most.
const TROUBLES_TOLD_MAX: usize = 3;

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
    pub(in crate::cluster) fn node_state(&self, node: NodeId) -> Option<crate::cluster::model::NodeState> {
        let past = || self.past.node(node).map(|_| crate::cluster::model::NodeState::Dead);
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
        let all_back = self.nodes.values().all(|node| node.is_back);
        all_back.then(|| "its worker ended long ago, or while the head was away".to_owned())
    }

    /// The ready worker that has a host.
    pub(in crate::cluster) fn worker_of(&self, host: Identity) -> Option<WorkerId> {
        self.hosts.get(&host.host).filter(|(lives, _)| *lives == host).map(|(_, worker)| *worker)
    }

    /// Where an actor lives, or is being made.
    pub(in crate::cluster) fn worker_of_actor(&self, actor: ActorKey) -> Option<WorkerId> {
        self.actors.get(&actor)?.phase.worker()
    }
}
