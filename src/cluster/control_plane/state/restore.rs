//! Restoration of the state from the records of an earlier incarnation of the head.

use std::collections::BTreeMap;

use super::actor::ActorPhase;
use super::events::EventSubject;
use super::job::Job;
use super::managed::{Loss, ManagedActor};
use super::node::LiveNode;
use super::supervision::Place;
use super::{Action, ClusterState, ControlError, Millis, Record, RecordKey, RejoinPeriod, millis};
use crate::cluster::model::{
    ActorKey, ActorSpec, EventKind, JobDescriptor, JobId, JobState, Lifetime, NodeDescriptor, NodeState,
    Severity,
};
use crate::config::{InjectedBug, REJOIN_MAX};
use crate::id::ActorIncarnation;
use crate::spec::{End, EndReason};

impl Record {
    /// Key of the record.
    pub(in crate::cluster) fn key(&self) -> RecordKey {
        match self {
            Self::Job { job, .. } => RecordKey::Job(*job),
            Self::Actor { actor, .. } => RecordKey::Actor(*actor),
            Self::Recipe { actor, .. } => RecordKey::Recipe(*actor),
            Self::Holders { actor, .. } => RecordKey::Holders(*actor),
            Self::IdWatermarks { .. } => RecordKey::IdWatermarks,
            Self::Node { descriptor, .. } => RecordKey::Node(descriptor.id()),
            Self::Incarnation { .. } => RecordKey::Incarnation,
        }
    }
}

impl ClusterState {
    /// Restores nodes, then jobs, then actors.
    pub(super) fn restore(&mut self, mut records: Vec<Record>) {
        // Jobs refer to nodes, and actors to jobs. Ended jobs go in order of their ends, as the history is.
        records.sort_by_key(|record| match record {
            Record::IdWatermarks { .. } | Record::Incarnation { .. } => (0, 0),
            Record::Node { joined_ms, .. } => (1, *joined_ms),
            Record::Job { ended_ms, .. } => (2, ended_ms.unwrap_or(u64::MAX)),
            Record::Actor { actor, .. } => (3, actor.0),
            Record::Recipe { actor, .. } => (4, actor.0),
            Record::Holders { actor, .. } => (5, actor.0),
        });
        self.restored = self.now;
        // For a state directory without a record of watermarks.
        self.ids.start_first();
        let (mut policies, mut children) = (BTreeMap::new(), Vec::new());
        for record in records {
            match record {
                Record::IdWatermarks { jobs, workers, actors } => self.ids.start_at(jobs, workers, actors),
                Record::Node { descriptor, joined_ms, draining } => {
                    self.restore_node(descriptor, joined_ms, draining)
                }
                Record::Job { job, descriptor, state, started_ms, ended_ms, exit_code, message, left } => {
                    let ended = ended_ms.map(Millis);
                    let restored = Job {
                        ended,
                        exit_code,
                        message,
                        left,
                        has_rejoined: false,
                        ..Job::new(descriptor, state, Millis(started_ms))
                    };
                    self.restore_job(job, restored);
                }
                Record::Actor { actor, job, spec, incarnation, is_killed, is_replaced, request } => {
                    let place = Place {
                        parent: spec.parent.map(|(parent, _)| parent),
                        supervision: spec.supervision,
                        essential: spec.essential,
                    };
                    let policy = spec.restart.map(|policy| (policy, place));
                    if let Some(parent) = spec.parent {
                        children.push((actor, parent));
                    }
                    self.restore_actor(actor, job, spec, is_killed);
                    let managed = policy.map(|policy| (job, policy, incarnation, is_replaced, request));
                    policies.extend(managed.map(|managed| (actor, managed)));
                }
                Record::Recipe { actor, recipe } => {
                    let known = policies.remove(&actor).filter(|_| self.actors.contains_key(&actor));
                    match known {
                        Some((job, policy, incarnation, is_replaced, request)) => {
                            self.add_managed(actor, job, policy, recipe.into(), incarnation, request);
                            if is_replaced {
                                self.restore_replacement(actor);
                            }
                        }
                        None => self.actions.push(Action::Delete(RecordKey::Recipe(actor))),
                    }
                }
                Record::Holders { actor, configuration } => self.restore_holders(actor, configuration),
                Record::Incarnation { .. } => {}
            }
        }
        self.end_orphans(children);
        let (nodes, jobs) = (self.nodes.len(), self.open_jobs.len());
        let text = match (nodes, jobs) {
            (0, 0) => "it knows no node and no job yet".to_owned(),
            _ => format!("it waits for {nodes} nodes, and knows {jobs} jobs that have not ended"),
        };
        self.record_event(Severity::Info, EventKind::HeadStarted, EventSubject::default(), text);
        self.rejoin_period = Some(RejoinPeriod { until: self.now.after(millis(REJOIN_MAX)), last: self.now });
        // Written immediately, to learn without delay whether this incarnation can write at all.
        self.actions.push(Action::Persist(self.ids.id_watermarks()));
        if !self.unaccounted.is_empty() {
            // One lease suffices: a node that is alive rejoins within it.
            self.rejoin_deadline = Some(self.now.after(millis(self.settings.node_lease)));
        }
    }

    /// Ends the children of parents that ended, or restarted, as the head stopped: their records were not deleted.
    fn end_orphans(&mut self, children: Vec<(ActorKey, (ActorKey, ActorIncarnation))>) {
        for (child, (parent, incarnation)) in children {
            let is_parent = |managed: &ManagedActor| managed.incarnation == incarnation;
            if !self.managed.get(&parent).is_some_and(is_parent) {
                let end =
                    End::new(EndReason::Linked, format!("its parent {parent} ended while the head was down"));
                self.end_actor(child, &end.into(), ControlError::Unknown);
            }
        }
    }

    fn restore_node(&mut self, descriptor: NodeDescriptor, joined_ms: u64, draining: bool) {
        let state = if draining { NodeState::Draining } else { NodeState::Alive };
        let id = descriptor.id();
        let node = LiveNode { state, has_rejoined: false, ..LiveNode::new(descriptor, Millis(joined_ms)) };
        self.add_node(id, node);
    }

    fn restore_job(&mut self, id: JobId, job: Job) {
        let JobDescriptor { runs_on, .. } = job.descriptor;
        let open = job.state.is_open();
        let driver_there = runs_on.is_none_or(|node| self.nodes.contains_key(&node));
        // The record of an ended job only restores its row in the history.
        if !open {
            self.jobs.insert(id, job);
            return self.record_ended_job(id);
        }
        self.open_job(id, job);
        // The node was dead before the head stopped, and the driver with it.
        if !driver_there {
            self.end_job(id, JobState::Failed, None, "node lost: it was gone before the head was");
        }
    }

    fn restore_actor(&mut self, key: ActorKey, job_id: JobId, spec: ActorSpec, is_killed: bool) {
        let detached = spec.lifetime == Lifetime::Detached;
        // The head stopped between the end of the job and the deletion of this record.
        if !detached && !self.open_jobs.contains(&job_id) {
            self.actions.push(Action::Delete(RecordKey::Actor(key)));
            return;
        }
        let shape = self.schedule.shape_of(&spec);
        self.add_actor(key, job_id, spec, shape, ActorPhase::Unaccounted);
        self.unaccounted.insert(key);
        // It is stopped when its node reports it, and not restarted if none does.
        if is_killed && self.settings.injected_bug != Some(InjectedBug::ForgottenKill) {
            self.stopping.insert(key);
        }
        // No worker has reported the actor, so the job has to end it itself.
        if let Some(job) = self.jobs.get_mut(&job_id).filter(|_| !detached) {
            job.unassigned_actors.insert(key);
        }
    }

    /// Fails the actors that no node has reported until the rejoin deadline.
    pub(super) fn fail_unaccounted(&mut self) {
        self.rejoin_deadline = None;
        let end = End::new(EndReason::Unknown, "it was lost while the head was down").into();
        for actor in std::mem::take(&mut self.unaccounted) {
            self.fence_unaccounted(actor);
            self.lose_actor(actor, &end, Loss::External, ControlError::Unknown);
        }
    }
}
