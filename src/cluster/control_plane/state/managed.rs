//! Managed actors: their recipes, incarnations and restarts, and the requests that wait for their locations.
//!
//! A managed actor keeps its key and its name over all of its incarnations. The control plane creates each of them,
//! the first one included, by [`Action::StartActor`]. Reports about an earlier incarnation change nothing.
//!
//! ```text
//!   Assigned ---> Alive ---- failure, loss of the worker or the node ----.
//!      ^                                                                 v   more failures than the policy allows,
//!      '---- Waiting, AwaitingWorker <---- back-off ---- BackingOff <----+-> a stop, a kill, the end of the job:
//!                     ^                                                  |   dead
//!                     '------------ nothing that the actor did ----------'
//! ```
//!
//! A restart that cannot be placed stays pending, with its reason, until a node has room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::actor::{ActorPhase, UnplacedActor};
use super::exclusive::Fence;
use super::supervision::Place;
use super::{
    Action, ClusterState, ControlError, ControlReply, Millis, Record, RecordKey, RequestId, Ticket, millis,
};
use crate::cluster::model::{ActorKey, ActorLocation, ActorSpec, JobId, Lifetime, WorkerId};
use crate::config::{RECIPES_PER_JOB_BYTES_MAX, RESTART_FAILURES_COUNTED_MAX};
use crate::id::{ActorId, ActorIncarnation, Target};
use crate::spec::{End, EndReason, Recipe, Restart};

/// State of an actor that is restarted, beside that of any actor.
#[derive(Debug)]
pub(super) struct ManagedActor {
    pub(super) recipe: Arc<Recipe>,
    pub(super) policy: Restart,
    /// Present incarnation, or the next one while the actor restarts.
    pub(super) incarnation: ActorIncarnation,
    /// Number of restarts, of which failures are a part.
    pub(super) restarts: u32,
    /// Times of the failures within the period, oldest first.
    pub(super) failures: VecDeque<Millis>,
    /// Request for the actor, until it was alive once.
    pub(super) spawner: Option<Ticket>,
    /// Identity of that request, if it came from another process.
    pub(super) request: Option<RequestId>,
    /// Requests that wait for its location, each with the incarnation that it knows to be gone.
    pub(super) locators: BTreeMap<Ticket, Option<ActorIncarnation>>,
    /// End of its back-off.
    pub(super) backs_off_until: Option<Millis>,
    /// Cause of the last restart.
    pub(super) restart_cause: Option<Arc<End>>,
    /// Set from a restart until the next incarnation is alive.
    pub(super) is_restarting: bool,
    /// Set once it has failed more often than its policy allows.
    is_exhausted: bool,
    /// End and loss of the present incarnation, which was told to stop so that the next one can begin.
    pub(super) replaced_by: Option<(Arc<End>, Loss)>,
    /// Earlier incarnations that must end before the next one begins.
    pub(super) fences: Vec<Fence>,
    pub(super) place: Place,
    /// Children of the present incarnation.
    pub(super) children: BTreeSet<ActorKey>,
}

/// Kind of an end, as far as a restart depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The actor or its process failed. It counts against the policy.
    Failure,
    /// Something outside of the actor's process ended it.
    External,
}

impl ManagedActor {
    fn new(recipe: Arc<Recipe>, policy: Restart, incarnation: ActorIncarnation) -> Self {
        Self {
            recipe,
            policy,
            incarnation,
            restarts: incarnation.0,
            failures: VecDeque::new(),
            spawner: None,
            request: None,
            locators: BTreeMap::new(),
            backs_off_until: None,
            restart_cause: None,
            is_restarting: false,
            is_exhausted: false,
            replaced_by: None,
            fences: Vec::new(),
            place: Place::default(),
            children: BTreeSet::new(),
        }
    }

    /// Checks whether an end is a failure that concerns others: that of the first start goes to the spawner.
    pub(super) fn has_failed_for_good(&self, end: &End) -> bool {
        self.spawner.is_none() && (end.reason.is_failure() || self.is_exhausted)
    }

    /// Counts a failure; returns the back-off, or `None` if the policy allows no further restart.
    fn count_failure(&mut self, now: Millis) -> Option<u64> {
        let period = millis(self.policy.period);
        while self.failures.front().is_some_and(|first| now.since(*first) >= period) {
            self.failures.pop_front();
        }
        if self.failures.len() >= self.policy.failures_max as usize {
            return None;
        }
        // A policy that allows any number must not use up the head's memory.
        if self.failures.len() == RESTART_FAILURES_COUNTED_MAX {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        Some(millis(self.policy.delay(self.failures.len())))
    }
}

/// Target of a managed actor's incarnation on any host.
pub(super) fn target(key: ActorKey, incarnation: ActorIncarnation) -> Option<Target> {
    Some(Target { actor: ActorId::managed(key.0)?, incarnation })
}

impl ClusterState {
    /// Checks a request for a managed actor.
    pub(super) fn check_recipe(
        &self,
        job: JobId,
        spec: &ActorSpec,
        recipe: Option<&Recipe>,
    ) -> Result<(), ControlError> {
        self.check_parent(job, spec)?;
        let (Some(_), Some(recipe)) = (spec.restart, recipe) else {
            return match (spec.restart, recipe) {
                (None, None) => Ok(()),
                _ => Err(ControlError::Infeasible("a restart policy and a recipe go together".to_owned())),
            };
        };
        if spec.lifetime == Lifetime::Detached {
            let text =
                "an actor that outlives its job cannot be restarted: the job's executable is gone by then";
            return Err(ControlError::Infeasible(text.to_owned()));
        }
        self.check_recipe_room(job, Some(recipe))
    }

    /// Checks the total size of the recipes of a job, with those of requests that wait for a name.
    pub(super) fn check_recipe_room(&self, job: JobId, recipe: Option<&Recipe>) -> Result<(), ControlError> {
        let bytes = recipe.map_or(0, Recipe::len);
        let held = self.jobs.get(&job).map_or(0, |job| job.recipe_bytes);
        if held + bytes > RECIPES_PER_JOB_BYTES_MAX {
            return Err(ControlError::Infeasible(format!(
                "the arguments of the job's restartable actors take {held} bytes already, and {bytes} more exceed the \
                 limit of {RECIPES_PER_JOB_BYTES_MAX}"
            )));
        }
        Ok(())
    }

    /// Adds the managed part of an actor.
    pub(super) fn add_managed(
        &mut self,
        key: ActorKey,
        job: JobId,
        (policy, place): (Restart, Place),
        recipe: Arc<Recipe>,
        incarnation: ActorIncarnation,
        request: Option<RequestId>,
    ) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.recipe_bytes += recipe.len();
        }
        let managed = ManagedActor { request, place, ..ManagedActor::new(recipe, policy, incarnation) };
        self.managed.insert(key, managed);
        self.requested.extend(request.map(|request| (request, key)));
        self.add_child(key, place.parent);
    }

    /// Writes the recipe of a managed actor, once.
    pub(super) fn persist_recipe(&mut self, key: ActorKey) {
        if let Some(managed) = self.managed.get(&key) {
            let recipe = (*managed.recipe).clone();
            self.actions.push(Action::Persist(Record::Recipe { actor: key, recipe }));
        }
    }

    /// Writes the present incarnation of an actor.
    pub(super) fn persist_actor(&mut self, key: ActorKey) {
        let Some(actor) = self.actors.get(&key) else { return };
        let incarnation = self.incarnation(key);
        let mut spec = self.spec(actor);
        if let Some(managed) = self.managed.get(&key) {
            let Place { parent, supervision, essential } = managed.place;
            // The incarnation was checked with the request.
            spec.parent = parent.map(|parent| (parent, self.incarnation(parent)));
            (spec.restart, spec.supervision, spec.essential) = (Some(managed.policy), supervision, essential);
        }
        let is_killed = self.stopping.contains(&key);
        let request = self.managed.get(&key).and_then(|managed| managed.request);
        let is_replaced = self.managed.get(&key).is_some_and(|managed| managed.replaced_by.is_some());
        let record =
            Record::Actor { actor: key, job: actor.job, spec, incarnation, is_killed, is_replaced, request };
        self.actions.push(Action::Persist(record));
    }

    /// Present incarnation of an actor: the first one if it is not managed.
    pub(super) fn incarnation(&self, key: ActorKey) -> ActorIncarnation {
        self.managed.get(&key).map_or(ActorIncarnation(0), |managed| managed.incarnation)
    }

    /// Commands the creation of an assigned incarnation.
    pub(super) fn start_incarnation(&mut self, key: ActorKey, worker_id: WorkerId) {
        let (Some(managed), Some(worker)) = (self.managed.get(&key), self.workers.get(&worker_id)) else {
            return;
        };
        let (Some(member), Some(target)) = (worker.member, target(key, managed.incarnation)) else { return };
        self.actions.push(Action::StartActor {
            node: worker.node,
            worker: worker_id,
            actor: key,
            at: ActorLocation { host: member.actors, target },
            recipe: Arc::clone(&managed.recipe),
            lease: self.lease_of_start(key, worker.node),
        });
    }

    /// Checks whether an incarnation whose creation was commanded is still wanted. A killed actor ends with its lease.
    pub(in crate::cluster) fn awaits_start(
        &self,
        key: ActorKey,
        worker: WorkerId,
        at: ActorLocation,
    ) -> bool {
        let phase = self.actors.get(&key).map(|actor| actor.phase);
        phase == Some(ActorPhase::Assigned(worker))
            && at.target.incarnation == self.incarnation(key)
            && !self.stopping.contains(&key)
    }

    /// Repeats the commands for assigned incarnations of a worker, which its agent may have missed.
    pub(super) fn restart_missed(&mut self, worker: WorkerId) {
        let actors = self.workers.get(&worker).map(|worker| worker.actors.clone()).unwrap_or_default();
        for key in actors {
            if self.actors.get(&key).is_some_and(|actor| actor.phase == ActorPhase::Assigned(worker)) {
                self.start_incarnation(key, worker);
            }
        }
    }

    /// Removes the managed part of an actor that has ended, and answers the requests that waited for it.
    pub(super) fn end_managed(&mut self, key: ActorKey, job: JobId, end: &End) {
        let Some(managed) = self.managed.remove(&key) else { return };
        if let Some(job) = self.jobs.get_mut(&job) {
            job.recipe_bytes = job.recipe_bytes.saturating_sub(managed.recipe.len());
        }
        managed.backs_off_until.map(|until| self.backing_off.remove(&(until, key)));
        managed.request.map(|request| self.requested.remove(&request));
        self.fenced.remove(&key);
        self.actions.push(Action::Delete(RecordKey::Recipe(key)));
        self.remove_holders(key, job);
        if let Some(ticket) = managed.spawner.filter(|ticket| self.open_requests.remove(ticket).is_some()) {
            let text = end.text.clone();
            let error = match end.reason {
                EndReason::Refused => ControlError::Refused(text),
                EndReason::Panicked => ControlError::Panicked(text),
                EndReason::LowMemory => ControlError::LowMemory(text),
                EndReason::JobEnded => ControlError::JobEnded(text),
                EndReason::Evicted => ControlError::Infeasible(text),
                _ => ControlError::Unknown(text),
            };
            self.reply(ticket, Err(error));
        }
        for ticket in managed.locators.into_keys() {
            self.open_requests.remove(&ticket);
            self.reply(ticket, Ok(ControlReply::Gone(end.clone())));
        }
        self.notify_actor_watchers(key, end);
    }

    /// Ends the present incarnation of an actor, and restarts it if its policy allows it.
    ///
    /// An actor that is not managed, or that was killed, ends for good.
    pub(super) fn lose_actor(
        &mut self,
        key: ActorKey,
        end: &Arc<End>,
        loss: Loss,
        to_error: fn(String) -> ControlError,
    ) {
        match self.restart_delay(key, end, loss) {
            Ok(delay_ms) => self.restart_actor(key, end, delay_ms),
            Err(last) => {
                let end = last.as_ref().unwrap_or(end);
                self.record_managed_death(key, end);
                self.end_actor(key, end, to_error);
            }
        }
    }

    /// Back-off of the restart after a loss; without a restart, the end if it is another than `end`.
    fn restart_delay(&mut self, key: ActorKey, end: &End, loss: Loss) -> Result<u64, Option<Arc<End>>> {
        let is_killed = self.stopping.contains(&key);
        let is_job_active = self.actors.get(&key).is_some_and(|actor| self.is_active(actor.job));
        let Some(managed) = self.managed.get_mut(&key) else { return Err(None) };
        if is_killed {
            return Err(Some(End::new(EndReason::Killed, "it was killed").into()));
        }
        // The spawner gets an error of the constructor itself, or that there is no memory for it.
        let is_refusal =
            matches!(end.reason, EndReason::Refused | EndReason::Panicked | EndReason::LowMemory);
        if !is_job_active || managed.spawner.is_some() && is_refusal {
            return Err(None);
        }
        // An agent may report any number, and the next one must be higher.
        if managed.incarnation.0 == u32::MAX {
            return Err(Some(
                End::new(end.reason, format!("{}; it has no further incarnation", end.text)).into(),
            ));
        }
        if loss == Loss::External {
            return Ok(0);
        }
        match managed.count_failure(self.now) {
            Some(delay_ms) => Ok(delay_ms),
            None => {
                managed.is_exhausted = true;
                let Restart { failures_max, period, .. } = managed.policy;
                let (restarts, text) = (managed.restarts, &end.text);
                let text = format!(
                    "{text}; it failed more than {failures_max} times within {period:?}, after {restarts} restarts"
                );
                Err(Some(End::new(end.reason, text).into()))
            }
        }
    }

    /// Starts the next incarnation of an actor, after a delay.
    fn restart_actor(&mut self, key: ActorKey, end: &Arc<End>, delay_ms: u64) {
        let Some(actor) = self.actors.get(&key) else { return };
        let (job, shape, phase, at) = (actor.job, actor.shape, actor.phase, actor.index_in_worker);
        self.record_restart(key, delay_ms, end);
        self.supervise_restart(key, end);
        match phase {
            ActorPhase::Assigned(_) | ActorPhase::Alive(..) => self.detach_from_worker(key, at, phase),
            ActorPhase::Unaccounted => drop(self.unaccounted.remove(&key)),
            // It is not created yet, and waits already.
            _ => return,
        }
        self.kill_leases.end(key);
        if let Some(node) = self.node_of(phase) {
            self.schedule.release(node, shape);
            self.deferred.freed.insert(node);
        }
        if let Some(managed) = self.managed.get_mut(&key) {
            managed.incarnation.0 += 1;
            managed.restarts = managed.restarts.saturating_add(1);
            (managed.is_restarting, managed.restart_cause) = (true, Some(Arc::clone(end)));
            managed.replaced_by = None;
        }
        // Before any process hears of the incarnation: a restarted head must not use its number again.
        self.persist_actor(key);
        self.pending.insert(key, UnplacedActor { ticket: None, requester: None, failed: 0 });
        if let Some(job) = self.jobs.get_mut(&job) {
            job.unassigned_actors.insert(key);
        }
        if delay_ms > 0 {
            let until = self.now.after(delay_ms);
            self.set_phase(key, ActorPhase::BackingOff);
            self.backing_off.insert((until, key));
            if let Some(managed) = self.managed.get_mut(&key) {
                managed.backs_off_until = Some(until);
            }
        } else if self.fenced.contains(&key) {
            self.set_phase(key, ActorPhase::BackingOff);
        } else {
            self.set_phase(key, ActorPhase::Waiting);
            // Placed after the event: its worker may still be in the tables.
            self.deferred.evicted.insert(key);
        }
    }

    /// Restarts the managed actors that no node has reported, once all have rejoined the restarted head.
    ///
    /// They were lost, or between two incarnations, while the head was away.
    pub(super) fn restart_unaccounted(&mut self) {
        let lost: Vec<_> =
            self.unaccounted.iter().copied().filter(|key| self.managed.contains_key(key)).collect();
        let end = Arc::new(End::new(EndReason::Unknown, "it was lost while the head was down"));
        for key in lost {
            self.fence_unaccounted(key);
            self.lose_actor(key, &end, Loss::External, ControlError::Unknown);
        }
    }

    /// Places the actors whose back-off has passed.
    pub(super) fn end_backoffs(&mut self) {
        while let Some(&(at, key)) = self.backing_off.first().filter(|(at, _)| *at <= self.now) {
            self.backing_off.remove(&(at, key));
            if let Some(managed) = self.managed.get_mut(&key) {
                managed.backs_off_until = None;
            }
            if !self.fenced.contains(&key) {
                self.set_phase(key, ActorPhase::Waiting);
                self.deferred.evicted.insert(key);
            }
        }
    }
}
