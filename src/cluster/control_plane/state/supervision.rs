//! Supervision: consequences of an actor's end or restart for its parent, its children and its siblings.
//!
//! | event | consequence |
//! |---|---|
//! | the parent ends, or restarts | its children end; the next incarnation of the parent creates others |
//! | a child restarts | as the parent's [`Supervision`] says, the other children restart, too |
//! | a child fails more often than its policy allows | the parent fails: it restarts, or ends, by its own policy |
//! | an essential actor fails for good | its job fails; the message names the actor that began it |
//! | a child stops by itself, or is killed | none |
//!
//! Each consequence is deferred to the end of the event, so a tree of any depth takes constant stack.

use std::collections::VecDeque;
use std::sync::Arc;

use super::actor::ActorPhase;
use super::managed::Loss;
use super::{ClusterState, ControlError};
use crate::cluster::model::{ActorKey, ActorSpec, JobId, JobState};
use crate::config::InjectedBug;
use crate::spec::{End, EndReason, Supervision};

/// Place of a managed actor in the tree of its job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) parent: Option<ActorKey>,
    /// Strategy for its own children.
    pub(super) supervision: Supervision,
    pub(super) essential: bool,
}

/// Consequences that wait for the end of the event.
#[derive(Debug, Default)]
pub(super) struct Consequences(VecDeque<Consequence>);

#[derive(Debug)]
enum Consequence {
    /// The actor ends, since its parent's incarnation has ended.
    End(ActorKey, Arc<End>),
    /// The actor restarts, since a sibling does.
    Restart(ActorKey, Arc<End>),
    /// The actor fails, since a child has failed for good.
    Fail(ActorKey, Arc<End>),
    /// The job fails, since an essential actor has failed for good.
    FailJob(JobId, String),
}

/// Start of the text of an end that has passed from a child to its parent.
const ESCALATED: &str = "its descendant ";

impl ClusterState {
    /// Checks the parent that a request names: it must be the incarnation that makes the request.
    pub(super) fn check_parent(&self, job: JobId, spec: &ActorSpec) -> Result<(), ControlError> {
        if spec.restart.is_none() && (spec.parent.is_some() || spec.essential) {
            let text = "a child or an essential actor needs a restart policy: Restart::on_failure().at_most(0) never \
                        restarts it";
            return Err(ControlError::Infeasible(text.to_owned()));
        }
        let Some((parent, incarnation)) = spec.parent else { return Ok(()) };
        let known = self.actors.get(&parent).filter(|actor| actor.job == job);
        match known.and(self.managed.get(&parent)) {
            Some(managed) if managed.incarnation == incarnation => Ok(()),
            Some(_) => Err(ControlError::Unknown(format!(
                "the parent {parent} has been restarted: its next incarnation spawns its own children"
            ))),
            None => Err(ControlError::Unknown(format!(
                "there is no restartable actor {parent} in this job that could be a parent, or it has ended"
            ))),
        }
    }

    /// Adds an actor to the children of its parent.
    pub(super) fn add_child(&mut self, key: ActorKey, parent: Option<ActorKey>) {
        if let Some(parent) = parent.and_then(|parent| self.managed.get_mut(&parent)) {
            parent.children.insert(key);
        }
    }

    /// Defers the consequences of a restart for children and siblings.
    pub(super) fn supervise_restart(&mut self, key: ActorKey, cause: &Arc<End>) {
        if self.settings.injected_bug != Some(InjectedBug::OrphanedChildren) {
            self.end_children(key, "restarts", cause);
        }
        let Some(parent) = self.managed.get(&key).and_then(|managed| managed.place.parent) else { return };
        // A restart that a sibling has caused has no further consequence: all that restart have been chosen.
        if cause.reason == EndReason::Linked {
            return;
        }
        let Some(parent) = self.managed.get(&parent) else { return };
        let siblings = parent.children.iter().copied().filter(|sibling| *sibling != key);
        let restarted: Vec<_> = match parent.place.supervision {
            Supervision::OneForOne => return,
            Supervision::OneForAll => siblings.collect(),
            // Keys grow with the time of the request.
            Supervision::RestForOne => siblings.filter(|sibling| *sibling > key).collect(),
        };
        let end = Arc::new(End::new(EndReason::Linked, format!("its sibling {key} restarts: {cause}")));
        let restarts = restarted.into_iter().map(|sibling| Consequence::Restart(sibling, Arc::clone(&end)));
        self.deferred.consequences.0.extend(restarts);
    }

    /// Defers the consequences of an end for children, the parent and the job. The actor is still among the managed.
    pub(super) fn supervise_end(&mut self, key: ActorKey, job: JobId, class: &str, end: &Arc<End>) {
        self.end_children(key, "has ended", end);
        let Some(managed) = self.managed.get(&key) else { return };
        let (place, has_failed) = (managed.place, managed.has_failed_for_good(end));
        if let Some(parent) = place.parent.and_then(|parent| self.managed.get_mut(&parent)) {
            parent.children.remove(&key);
        }
        // The error of a first start is the spawner's.
        if !has_failed {
            return;
        }
        let text = match end.text.starts_with(ESCALATED) {
            // The actor that began it stays named, through all levels.
            true => end.text.clone(),
            false => format!("{ESCALATED}{class} {key} failed: {end}"),
        };
        if let Some(parent) = place.parent {
            let end = Arc::new(End::new(end.reason, text.clone()));
            self.deferred.consequences.0.push_back(Consequence::Fail(parent, end));
        }
        if place.essential {
            let why = match end.text.strip_prefix(ESCALATED) {
                Some(origin) => format!("the essential actor {class} {key} failed: {ESCALATED}{origin}"),
                None => format!("the essential actor {class} {key} failed: {end}"),
            };
            self.deferred.consequences.0.push_back(Consequence::FailJob(job, why));
        }
    }

    fn end_children(&mut self, key: ActorKey, what: &str, cause: &End) {
        let Some(managed) = self.managed.get_mut(&key) else { return };
        let children = std::mem::take(&mut managed.children);
        if children.is_empty() {
            return;
        }
        let end = Arc::new(End::new(EndReason::Linked, format!("its parent {key} {what}: {cause}")));
        let ends = children.into_iter().map(|child| Consequence::End(child, Arc::clone(&end)));
        self.deferred.consequences.0.extend(ends);
    }

    /// Carries out the next consequence; false if there is none.
    pub(super) fn run_consequence(&mut self) -> bool {
        match self.deferred.consequences.0.pop_front() {
            None => return false,
            Some(Consequence::End(child, end)) => {
                self.stop_incarnation(child);
                self.end_actor(child, &end, ControlError::Unknown);
            }
            Some(Consequence::Restart(sibling, end)) => {
                // One that restarts already, or is not created yet, starts afresh anyway. One that its node has not
                // reported since the head restarted is stopped when it is.
                if self.has_incarnation(sibling) {
                    self.replace(sibling, &end, Loss::External);
                }
            }
            Some(Consequence::Fail(parent, end)) => {
                if self.has_incarnation(parent) {
                    self.replace(parent, &end, Loss::Failure);
                }
            }
            Some(Consequence::FailJob(job, why)) => {
                self.stop_driver(job, &why);
                self.end_job(job, JobState::Failed, None, &why);
            }
        }
        true
    }

    /// Checks whether an incarnation of an actor may run.
    fn has_incarnation(&self, key: ActorKey) -> bool {
        let phase = self.actors.get(&key).map(|actor| actor.phase);
        matches!(phase, Some(ActorPhase::Assigned(_) | ActorPhase::Alive(..) | ActorPhase::Unaccounted))
    }
}
