//! Log of the cluster's events, for people: bounded, and not persisted.

use std::collections::VecDeque;

use super::actor::{Actor, ActorPhase};
use super::{ClusterState, Millis};
use crate::cluster::model::{
    ActorKey, EventId, EventInfo, EventKind, JobId, JobState, NodeId, Severity, WorkerId, cut,
};
use crate::config::{ACTOR_EVENTS_MAX, ACTOR_EVENTS_PER_WORKER_MAX, EVENT_TEXT_BYTES_MAX, EVENTS_MAX};

/// Latest events, oldest first.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    all: VecDeque<EventInfo>,
    /// Number of deaths of actors among them.
    actor_events: usize,
    /// Id of the last event.
    last: u64,
}

/// Objects that an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventSubject {
    pub(super) node: Option<NodeId>,
    pub(super) worker: Option<WorkerId>,
    pub(super) job: Option<JobId>,
    pub(super) actor: Option<ActorKey>,
}

impl EventLog {
    fn add(&mut self, event: EventInfo) {
        self.last = event.event_id.0;
        let is_of_actor = is_about_actor(event.kind);
        self.actor_events += usize::from(is_of_actor);
        self.all.push_back(event);
        let excess = match self.actor_events > ACTOR_EVENTS_MAX {
            // Within its own limit, so that a storm of them displaces no event of another kind.
            true => self.all.iter().position(|event| is_about_actor(event.kind)),
            false => (self.all.len() > EVENTS_MAX).then_some(0),
        };
        let removed = excess.and_then(|at| self.all.remove(at));
        self.actor_events -= usize::from(removed.is_some_and(|event| is_about_actor(event.kind)));
    }

    /// Id of the next event: the time in microseconds, so that the ids also grow across restarts of the head.
    fn next_id(&self, now: Millis) -> EventId {
        EventId(now.0.saturating_mul(1000).max(self.last + 1))
    }

    /// Id of the last event; 0 before the first one.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Events with lower ids, latest first.
    pub(super) fn before(&self, id: EventId) -> impl Iterator<Item = &EventInfo> {
        let end = self.all.partition_point(|event| event.event_id < id);
        self.all.range(..end).rev()
    }

    pub(super) fn get(&self, id: EventId) -> Option<&EventInfo> {
        let at = self.all.binary_search_by_key(&id, |event| event.event_id).ok()?;
        self.all.get(at)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &EventInfo> + Clone {
        self.all.iter()
    }
}

/// Checks whether an event is about a single actor: there may be very many of these.
fn is_about_actor(kind: EventKind) -> bool {
    matches!(kind, EventKind::ActorDied | EventKind::ActorRestarted)
}

impl ClusterState {
    /// Adds an event to the log.
    pub(super) fn record_event(
        &mut self,
        severity: Severity,
        kind: EventKind,
        subject: EventSubject,
        mut text: String,
    ) {
        cut(&mut text, EVENT_TEXT_BYTES_MAX);
        let EventSubject { node, worker, job, actor } = subject;
        self.events.add(EventInfo {
            event_id: self.events.next_id(self.now),
            time_ms: self.now.0,
            severity,
            kind,
            node_id: node,
            worker_id: worker,
            job_id: job,
            actor_id: actor,
            text,
        });
    }

    /// Records the join of a node.
    pub(super) fn record_node_join(&mut self, id: NodeId, how: &str) {
        let Some(node) = self.nodes.get(&id) else { return };
        let text = format!("{how}: {} at {}", node.descriptor.hostname, node.descriptor.address);
        let subject = EventSubject { node: Some(id), ..EventSubject::default() };
        self.record_event(Severity::Info, EventKind::NodeJoined, subject, text);
    }

    /// Records the start of a node's drain.
    pub(super) fn record_node_drain(&mut self, id: NodeId) {
        let subject = EventSubject { node: Some(id), ..EventSubject::default() };
        let text = "it accepts no new work, and stops when its jobs have ended".to_owned();
        self.record_event(Severity::Info, EventKind::NodeDraining, subject, text);
    }

    /// Records that a node has become unreachable, or reachable again.
    pub(super) fn record_node_reachability(&mut self, id: NodeId, kind: EventKind, text: String) {
        let subject = EventSubject { node: Some(id), ..EventSubject::default() };
        let severity = if kind == EventKind::NodeUnreachable { Severity::Warning } else { Severity::Info };
        self.record_event(severity, kind, subject, text);
    }

    /// Records the death of a node.
    pub(super) fn record_node_death(&mut self, id: NodeId, why: &str, severity: Severity) {
        let subject = EventSubject { node: Some(id), ..EventSubject::default() };
        self.record_event(severity, EventKind::NodeDead, subject, why.to_owned());
    }

    /// Records the death of a worker that nothing has asked to end.
    pub(super) fn record_worker_death(&mut self, id: WorkerId, cause: &str) {
        let Some(worker) = self.workers.get(&id) else { return };
        let subject =
            EventSubject { node: Some(worker.node), worker: Some(id), job: Some(worker.job), actor: None };
        let what = if worker.member.is_some() { "" } else { "it was not ready: " };
        let text = match worker.alive_actors {
            0 => format!("{what}{cause}"),
            1 => format!("{what}{cause}; 1 actor ended with it"),
            actors => format!("{what}{cause}; {actors} actors ended with it"),
        };
        self.record_event(Severity::Error, EventKind::WorkerDied, subject, text);
    }

    /// Records the deaths of the first actors of a worker that ends unasked, without those that may restart.
    pub(super) fn record_deaths_with(&mut self, id: WorkerId, cause: &str) {
        let Some(worker) = self.workers.get(&id) else { return };
        let dies = |key: &&ActorKey| {
            let actor = self.actors.get(key).filter(|_| !self.managed.contains_key(key));
            actor.is_some_and(|actor| matches!(actor.phase, ActorPhase::Alive(..)))
        };
        let first: Vec<_> =
            worker.actors.iter().filter(dies).take(ACTOR_EVENTS_PER_WORKER_MAX).copied().collect();
        for actor in first {
            self.record_actor_death(actor, &format!("its worker ended: {cause}"));
        }
    }

    /// Records the death of an actor.
    pub(super) fn record_actor_death(&mut self, key: ActorKey, cause: &str) {
        let Some(actor) = self.actors.get(&key) else { return };
        let worker = actor.phase.worker();
        let subject =
            EventSubject { node: self.node_of(actor.phase), worker, job: Some(actor.job), actor: Some(key) };
        let text = format!("{}: {cause}", self.described(actor));
        self.record_event(Severity::Error, EventKind::ActorDied, subject, text);
    }

    /// Type name of an actor, and its own name if it has one.
    pub(super) fn described(&self, actor: &Actor) -> String {
        let class = self.classes.name(actor.class);
        match &actor.named {
            Some(named) => format!("{class} {:?}", named.name),
            None => class.to_owned(),
        }
    }

    /// Records the submission or the start of a job.
    pub(super) fn record_job_start(&mut self, id: JobId, kind: EventKind) {
        let Some(job) = self.jobs.get(&id) else { return };
        let subject = EventSubject { node: job.descriptor.runs_on, job: Some(id), ..EventSubject::default() };
        let text = job.descriptor.entrypoint.clone();
        self.record_event(Severity::Info, kind, subject, text);
    }

    /// Records the end of a job.
    pub(super) fn record_job_end(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let severity = if job.state == JobState::Failed { Severity::Error } else { Severity::Info };
        let subject = EventSubject { node: job.descriptor.runs_on, job: Some(id), ..EventSubject::default() };
        let text = match &job.message {
            Some(message) => format!("{}: {message}", job.state.word()),
            None => job.state.word().to_owned(),
        };
        self.record_event(severity, EventKind::JobEnded, subject, text);
    }
}
