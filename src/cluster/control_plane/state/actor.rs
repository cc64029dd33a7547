//! Actors, from the moment that somebody asked for one to its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::ActorRecord;
use super::names::Class;
use super::placement::NameWaiter;
use super::{Action, Answer, ControlError, Record, RecordKey, State, Ticket};
use crate::cluster::control_plane::scheduler::ShapeId;
use crate::cluster::model::{
    ActorKey, ActorLocation, ActorSpec, ActorState, JobId, Lifetime, NodeId, WorkerId,
};
use crate::id::Target;

/// An actor that is not dead. There may be millions, so what few have is elsewhere.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) job: JobId,
    pub(super) class: Class,
    pub(super) shape: ShapeId,
    pub(super) detached: bool,
    /// Where it stands in its worker's list.
    pub(super) index_in_worker: u32,
    pub(super) phase: Phase,
    pub(super) named: Option<Box<NameEntry>>,
}

/// How far an actor has come. From [`AwaitingWorker`](Self::AwaitingWorker) to [`Alive`](Self::Alive) it holds what it
/// wants of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No node has room for it; it is in a queue.
    Waiting,
    /// This node has, where no worker of its job is ready.
    AwaitingWorker(NodeId),
    /// A worker of its own is being started.
    Starting(WorkerId),
    /// Whoever asked is making it there.
    Assigned(WorkerId),
    /// It lives there.
    Alive(WorkerId, Target),
    /// It lived when the head went away.
    Unaccounted,
}

#[derive(Debug)]
pub(super) struct NameEntry {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Questions about what becomes of it, in the order of asking.
    pub(super) followers: BTreeMap<Ticket, NameWaiter>,
}

/// What is known of an actor that somebody waits for.
#[derive(Debug)]
pub(super) struct UnplacedActor {
    pub(super) ticket: Ticket,
    /// How many workers of its own could not be started.
    pub(super) failed: u32,
}

impl Phase {
    pub(super) fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Starting(worker) | Self::Assigned(worker) | Self::Alive(worker, _) => Some(worker),
            Self::Waiting | Self::AwaitingWorker(_) | Self::Unaccounted => None,
        }
    }

    pub(super) fn state(self) -> ActorState {
        match self {
            Self::Alive(..) => ActorState::Alive,
            _ => ActorState::PendingCreation,
        }
    }

    /// Whether nobody was told of it.
    pub(super) fn is_unplaced(self) -> bool {
        matches!(self, Self::Waiting | Self::AwaitingWorker(_) | Self::Starting(_))
    }
}

impl State {
    /// Whether a later life of the head has to know the actor from this one.
    fn is_durable(&self, actor: &Actor) -> bool {
        actor.named.is_some() || actor.detached || self.schedule.requires_resources(actor.shape)
    }

    /// What the actor was asked to be.
    pub(super) fn spec(&self, actor: &Actor) -> ActorSpec {
        let mut spec = ActorSpec {
            class: self.classes.name(actor.class).to_owned(),
            lifetime: if actor.detached { Lifetime::Detached } else { Lifetime::Job },
            ..ActorSpec::default()
        };
        if let Some(named) = &actor.named {
            spec.name = Some(named.name.clone());
            spec.namespace.clone_from(&named.namespace);
        }
        self.schedule.describe(actor.shape, &mut spec);
        spec
    }

    /// The node that the actor holds something of.
    pub(super) fn node_of(&self, phase: Phase) -> Option<NodeId> {
        match phase {
            Phase::AwaitingWorker(node) => Some(node),
            other => Some(self.workers.get(&other.worker()?)?.node),
        }
    }

    /// Where a living actor is reached.
    pub(super) fn address(&self, worker: WorkerId, target: Target) -> Option<ActorLocation> {
        let member = self.workers.get(&worker)?.member?;
        Some(ActorLocation { host: member.actors, target })
    }

    pub(super) fn set_phase(&mut self, key: ActorKey, phase: Phase) {
        if let Some(actor) = self.actors.get_mut(&key) {
            actor.phase = phase;
        }
    }

    /// Puts an actor into a worker's list.
    pub(super) fn attach_to_worker(&mut self, key: ActorKey, worker_id: WorkerId, phase: Phase) {
        let (Some(actor), Some(worker)) = (self.actors.get_mut(&key), self.workers.get_mut(&worker_id))
        else {
            return;
        };
        actor.index_in_worker =
            u32::try_from(worker.actors.len()).expect("a worker has fewer actors than numbers");
        worker.actors.push(key);
        worker.alive_actors += usize::from(matches!(phase, Phase::Alive(..)));
        actor.phase = phase;
    }

    /// Takes an actor out of its worker's list.
    fn detach_from_worker(&mut self, key: ActorKey, at: u32, phase: Phase) {
        let Some(worker) = phase.worker().and_then(|worker| self.workers.get_mut(&worker)) else { return };
        worker.alive_actors -= usize::from(matches!(phase, Phase::Alive(..)));
        let at_index = at as usize;
        if worker.actors.get(at_index) != Some(&key) {
            return;
        }
        worker.actors.swap_remove(at_index);
        let moved = worker.actors.get(at_index).copied();
        if let Some(moved) = moved.and_then(|moved| self.actors.get_mut(&moved)) {
            moved.index_in_worker = at;
        }
    }

    /// Tells whoever asked for an actor where to make it.
    pub(super) fn assign(&mut self, key: ActorKey, worker: WorkerId) {
        let Some(member) = self.workers.get(&worker).and_then(|worker| worker.member) else { return };
        match self.actors.get_mut(&key) {
            Some(actor) if actor.phase == Phase::Starting(worker) => actor.phase = Phase::Assigned(worker),
            Some(_) => self.attach_to_worker(key, worker, Phase::Assigned(worker)),
            None => return,
        }
        let Some(unplaced) = self.pending.remove(&key) else { return };
        self.open_requests.remove(&unplaced.ticket);
        let actor = &self.actors[&key];
        if self.is_durable(actor) {
            let record = Record::Actor { actor: key, job: actor.job, spec: self.spec(actor) };
            self.actions.push(Action::Persist(record));
        }
        let (job, detached) = (actor.job, actor.detached);
        if !detached {
            self.mark_assigned(job, key);
        }
        self.answer(unplaced.ticket, Ok(Answer::Placed { actor: key, member, alive: None }));
    }

    /// An actor has begun, as far as whoever runs it says.
    pub(super) fn actor_began(&mut self, key: ActorKey, worker: WorkerId, at: ActorLocation) {
        if self.workers.get(&worker).is_some_and(|worker| worker.member.is_some()) {
            self.reconcile_actor(key, None, worker, at);
        }
    }

    /// Takes note of an actor in a worker, or has it ended if it is not to be there.
    pub(super) fn reconcile_actor(
        &mut self,
        key: ActorKey,
        class: Option<&str>,
        worker: WorkerId,
        at: ActorLocation,
    ) {
        let phase = self.actors.get(&key).map(|actor| (actor.phase, actor.detached));
        let own = self.workers.get(&worker).and_then(|worker| worker.detached);
        match phase {
            Some((Phase::Assigned(placed), _)) if placed == worker => {
                self.mark_alive(key, worker, at.target);
                if self.stopping.contains(&key) {
                    self.stop_actor(key, worker, at);
                }
            }
            Some((Phase::Alive(lives, _), _)) if lives == worker => {
                self.set_phase(key, Phase::Alive(worker, at.target));
                if self.stopping.contains(&key) {
                    self.stop_actor(key, worker, at);
                }
            }
            Some((Phase::Unaccounted, detached)) if own == detached.then_some(key) => {
                self.unaccounted.remove(&key);
                let (node, actor) = (self.workers[&worker].node, &self.actors[&key]);
                self.schedule.allocate(node, actor.shape);
                self.attach_to_worker(key, worker, Phase::Assigned(worker));
                self.mark_alive(key, worker, at.target);
            }
            None if own.is_none() && self.may_predate_head(key, worker) => {
                self.adopt_actor(key, class.unwrap_or("(not known)"), worker);
                self.mark_alive(key, worker, at.target);
            }
            _ => self.stop_actor(key, worker, at),
        }
    }

    fn stop_actor(&mut self, actor: ActorKey, worker: WorkerId, at: ActorLocation) {
        if let Some(node) = self.workers.get(&worker).map(|worker| worker.node) {
            self.actions.push(Action::StopActor { node, worker, actor, at });
        }
    }

    /// Whether an actor that is not known was given by an earlier life of the head, which kept nothing of it.
    fn may_predate_head(&self, key: ActorKey, worker: WorkerId) -> bool {
        let job = self.workers.get(&worker).map(|worker| worker.job);
        self.ids.predates_restart(key)
            && job.is_some_and(|job| self.is_served(job))
            && self.history.actor(key).is_none()
    }

    fn adopt_actor(&mut self, key: ActorKey, class: &str, worker: WorkerId) {
        let job = self.workers[&worker].job;
        let class = self.classes.number(class);
        let shape = self.schedule.shape_of(&ActorSpec::default());
        let actor = Actor {
            job,
            class,
            shape,
            detached: false,
            index_in_worker: 0,
            phase: Phase::Waiting,
            named: None,
        };
        self.actors.insert(key, actor);
        self.attach_to_worker(key, worker, Phase::Assigned(worker));
    }

    /// An actor that was placed has begun.
    fn mark_alive(&mut self, key: ActorKey, worker_id: WorkerId, target: Target) {
        let Some(actor) = self.actors.get_mut(&key) else { return };
        actor.phase = Phase::Alive(worker_id, target);
        let (job, named) = (actor.job, actor.named.is_some());
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.alive_actors += 1;
        }
        self.mark_assigned(job, key);
        self.start_leases.end(key);
        // Those that wait for one that was killed meanwhile wait for its end, and for the next of that name.
        if named && !self.stopping.contains(&key) {
            self.answer_waiters(key);
        }
    }

    /// Whether an actor outlives its job as soon as it begins, and may have begun: whoever spawned it can
    /// know so, and end, before the node has said it.
    pub(super) fn may_still_start(&self, key: ActorKey) -> bool {
        let actor = self.actors.get(&key);
        actor.is_some_and(|actor| actor.detached && matches!(actor.phase, Phase::Assigned(_)))
    }

    /// Whoever had a place for a detached actor has ended without making it.
    pub(super) fn start_lease_expired(&mut self, key: ActorKey) {
        let within = self.settings.start_lease.as_secs_f64();
        let cause = format!("it was not created within {within} s of the end of its job");
        self.end_actor(key, &cause.as_str().into(), ControlError::JobEnded);
    }

    /// An actor has ended, as far as whoever runs it, or did not get it to run, says.
    pub(super) fn actor_ended(&mut self, key: ActorKey, cause: &str) {
        let known = self.actors.get(&key).is_some_and(|actor| !actor.phase.is_unplaced());
        if known {
            self.end_actor(key, &cause.into(), ControlError::Unknown);
        }
    }

    /// The host that asked for an actor has given its spawning up. An actor that lives all the same is
    /// stopped, since no process has its address; it keeps what it holds until it has ended.
    pub(super) fn not_spawned(&mut self, key: ActorKey, cause: &str) {
        match self.actors.get(&key).map(|actor| actor.phase) {
            Some(Phase::Alive(worker, target)) => self.end_alive(key, worker, target),
            _ => self.actor_ended(key, cause),
        }
    }

    fn end_alive(&mut self, key: ActorKey, worker: WorkerId, target: Target) {
        if let Some(at) = self.address(worker, target) {
            self.stopping.insert(key);
            self.stop_actor(key, worker, at);
        }
    }

    /// Ends an actor: frees what it had, and lists it as dead. Whoever waits for it is denied.
    pub(super) fn end_actor(&mut self, key: ActorKey, cause: &Arc<str>, denied: fn(String) -> ControlError) {
        let Some(mut actor) = self.actors.remove(&key) else { return };
        let phase = actor.phase;
        let at = phase.worker().and_then(|worker| {
            let found = self.workers.get(&worker)?;
            Some((found.node, worker, found.pid))
        });
        match phase {
            Phase::Waiting => self.stop_waiting((actor.job, actor.shape), key),
            Phase::AwaitingWorker(node) => self.remove_waiting(actor.job, node, key),
            Phase::Unaccounted => drop(self.unaccounted.remove(&key)),
            Phase::Starting(_) | Phase::Assigned(_) | Phase::Alive(..) => {
                self.detach_from_worker(key, actor.index_in_worker, phase)
            }
        }
        self.stopping.remove(&key);
        self.start_leases.end(key);
        if let Some(node) = self.node_of(phase) {
            self.schedule.release(node, actor.shape);
            self.deferred.freed.insert(node);
        }
        self.mark_assigned(actor.job, key);
        if !phase.is_unplaced() && self.is_durable(&actor) {
            self.actions.push(Action::Delete(RecordKey::Actor(key)));
        }
        if let Some(unplaced) = self.pending.remove(&key)
            && self.open_requests.remove(&unplaced.ticket).is_some()
        {
            self.answer(unplaced.ticket, Err(denied(cause.to_string())));
        }
        if let Some(named) = &mut actor.named {
            self.names.free(&named.namespace, &named.name);
            self.deferred.retries.extend(std::mem::take(&mut named.followers).into_values());
        }
        // A missing actor has one, too, if its worker is back since the head was started anew, without it.
        let has_own = phase.worker().is_some() || phase == Phase::Unaccounted;
        let own = self.dedicated_workers.get(&key).copied().filter(|_| has_own);
        if let Some(worker) = own {
            self.stop_worker(worker, &format!("its actor has ended: {cause}"));
        }
        self.add_past_actor(ActorRecord { key, actor, at, cause: Arc::clone(cause) });
    }

    /// Takes a place away from an actor that nobody was told of yet; it gets another.
    pub(super) fn evict(&mut self, key: ActorKey) {
        let Some(actor) = self.actors.get(&key) else { return };
        let (job, shape, phase, at) = (actor.job, actor.shape, actor.phase, actor.index_in_worker);
        match phase {
            Phase::AwaitingWorker(node) => self.remove_waiting(job, node, key),
            Phase::Starting(_) => self.detach_from_worker(key, at, phase),
            _ => return,
        }
        if let Some(node) = self.node_of(phase) {
            self.schedule.release(node, shape);
            self.deferred.freed.insert(node);
        }
        self.set_phase(key, Phase::Waiting);
        self.deferred.evicted.insert(key);
    }

    /// Somebody wants an actor to end.
    pub(super) fn kill(&mut self, ticket: Ticket, key: ActorKey) {
        let Some(actor) = self.actors.get(&key) else {
            let answer = match self.history.actor(key) {
                Some(_) => Ok(Answer::Done),
                None => Err(ControlError::Unknown(format!("there is no actor {key}, or it ended long ago"))),
            };
            return self.answer(ticket, answer);
        };
        match actor.phase {
            Phase::Alive(worker, target) => self.end_alive(key, worker, target),
            // Its constructor may run, which no message interrupts. Once that returns the actor is stopped.
            Phase::Assigned(_) => drop(self.stopping.insert(key)),
            _ => self.end_actor(key, &"it was killed before it was created".into(), ControlError::Unknown),
        }
        self.answer(ticket, Ok(Answer::Done));
    }

    /// Ends an actor that may handle no message any more, together with its worker. Another worker is started
    /// in its place, unless it was a detached actor's own.
    pub(super) fn kill_worker_of(&mut self, ticket: Ticket, key: ActorKey) {
        let worker = match self.actors.get(&key).map(|actor| actor.phase) {
            Some(Phase::Assigned(worker) | Phase::Alive(worker, _)) => worker,
            // Nothing of it runs.
            _ => return self.kill(ticket, key),
        };
        if let Some(node) = self.workers.get(&worker).map(|worker| worker.node) {
            self.actions.push(Action::StopWorker { node, worker });
        }
        self.finish_worker(worker, &format!("it was killed to end the actor {key}"), false);
        self.answer(ticket, Ok(Answer::Done));
    }
}
