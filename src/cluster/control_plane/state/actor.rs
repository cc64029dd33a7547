//! Actors, from the request for one to its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::ActorRecord;
use super::managed::Loss;
use super::names::Class;
use super::placement::NameWaiter;
use super::worker::WorkerExit;
use super::{Action, ClusterState, ControlError, ControlReply, Millis, RecordKey, Ticket};
use crate::cluster::control_plane::scheduler::ShapeId;
use crate::cluster::model::{
    ActorKey, ActorLocation, ActorSpec, ActorState, JobId, Lifetime, NodeId, WorkerId,
};
use crate::config::InjectedBug;
use crate::id::{ActorIncarnation, HostUid, Target};
use crate::spec::{End, EndReason};

/// Actor that is not dead. There may be millions, so rare data is boxed, or in tables of its own.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) job: JobId,
    pub(super) class: Class,
    pub(super) shape: ShapeId,
    pub(super) detached: bool,
    /// Index in the worker's list of actors.
    pub(super) index_in_worker: u32,
    pub(super) phase: ActorPhase,
    /// Time of the report that it was created; zero before.
    pub(super) started: Millis,
    pub(super) named: Option<Box<NameEntry>>,
}

/// Phase of an actor; the [module](super) has a diagram.
///
/// From [`AwaitingWorker`](Self::AwaitingWorker) to [`Alive`](Self::Alive) it holds resources of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActorPhase {
    /// Between a failure and the restart.
    BackingOff,
    /// Queued: no node has room.
    Waiting,
    /// Bound to a node on which no worker of the job is ready.
    AwaitingWorker(NodeId),
    /// Bound to a dedicated worker that is starting.
    Starting(WorkerId),
    /// Assigned to a ready worker, where the requester creates it.
    Assigned(WorkerId),
    /// Created in the worker.
    Alive(WorkerId, Target),
    /// Alive before the head restarted, and not reported since.
    Unaccounted,
}

/// Name of an actor, with the requests that wait for it.
#[derive(Debug)]
pub(super) struct NameEntry {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Requests that wait for the actor to be created or to end, oldest first.
    pub(super) waiters: BTreeMap<Ticket, NameWaiter>,
}

/// Request for an actor that is not assigned yet.
#[derive(Debug)]
pub(super) struct UnplacedActor {
    /// `None` for an actor that restarts.
    pub(super) ticket: Option<Ticket>,
    /// Host of the request, which creates the actor once it is assigned.
    pub(super) requester: Option<HostUid>,
    /// Number of its dedicated workers that failed to start.
    pub(super) failed: u32,
}

impl ActorPhase {
    pub(super) fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Starting(worker) | Self::Assigned(worker) | Self::Alive(worker, _) => Some(worker),
            Self::BackingOff | Self::Waiting | Self::AwaitingWorker(_) | Self::Unaccounted => None,
        }
    }

    pub(super) fn state(self) -> ActorState {
        match self {
            Self::Alive(..) => ActorState::Alive,
            _ => ActorState::PendingCreation,
        }
    }

    /// True while no process knows the assignment, so that it can still be changed.
    pub(super) fn is_unplaced(self) -> bool {
        matches!(self, Self::BackingOff | Self::Waiting | Self::AwaitingWorker(_) | Self::Starting(_))
    }
}

impl ClusterState {
    /// Checks whether the actor has, or will have, a record, and its kill is written before it is acknowledged.
    pub(in crate::cluster) fn is_recorded(&self, key: ActorKey) -> bool {
        self.actors.get(&key).is_some_and(|actor| self.is_durable(key, actor))
    }

    /// Checks whether later incarnations of the head need a record of the actor.
    fn is_durable(&self, key: ActorKey, actor: &Actor) -> bool {
        self.managed.contains_key(&key)
            || actor.named.is_some()
            || actor.detached
            || self.schedule.requires_resources(actor.shape)
    }

    /// Reconstructs the spec of the request.
    pub(super) fn spec(&self, actor: &Actor) -> ActorSpec {
        let mut spec = ActorSpec {
            class: self.classes.name(actor.class).to_owned(),
            lifetime: if actor.detached { Lifetime::Detached } else { Lifetime::Job },
            ..ActorSpec::default()
        };
        // The policy stays with the recipe.
        if let Some(named) = &actor.named {
            spec.name = Some(named.name.clone());
            spec.namespace.clone_from(&named.namespace);
        }
        self.schedule.describe(actor.shape, &mut spec);
        spec
    }

    /// Node whose resources the actor holds.
    pub(super) fn node_of(&self, phase: ActorPhase) -> Option<NodeId> {
        match phase {
            ActorPhase::AwaitingWorker(node) => Some(node),
            other => Some(self.workers.get(&other.worker()?)?.node),
        }
    }

    /// Location of an alive actor.
    pub(super) fn address(&self, worker: WorkerId, target: Target) -> Option<ActorLocation> {
        let member = self.workers.get(&worker)?.member?;
        Some(ActorLocation { host: member.actors, target })
    }

    pub(super) fn set_phase(&mut self, key: ActorKey, phase: ActorPhase) {
        if let Some(actor) = self.actors.get_mut(&key) {
            actor.phase = phase;
        }
    }

    /// Adds an actor to a worker's list.
    pub(super) fn attach_to_worker(&mut self, key: ActorKey, worker_id: WorkerId, phase: ActorPhase) {
        let (Some(actor), Some(worker)) = (self.actors.get_mut(&key), self.workers.get_mut(&worker_id))
        else {
            return;
        };
        actor.index_in_worker =
            u32::try_from(worker.actors.len()).expect("a worker has fewer than 2^32 actors");
        worker.actors.push(key);
        worker.alive_actors += usize::from(matches!(phase, ActorPhase::Alive(..)));
        actor.phase = phase;
    }

    /// Removes an actor from its worker's list.
    pub(super) fn detach_from_worker(&mut self, key: ActorKey, at: u32, phase: ActorPhase) {
        let Some(worker) = phase.worker().and_then(|worker| self.workers.get_mut(&worker)) else { return };
        worker.alive_actors -= usize::from(matches!(phase, ActorPhase::Alive(..)));
        let at_index = at as usize;
        if worker.actors.get(at_index) != Some(&key) {
            return;
        }
        // `swap_remove` takes constant time; a worker may have a million actors. The actor that moves into
        // the gap gets its index.
        worker.actors.swap_remove(at_index);
        let moved = worker.actors.get(at_index).copied();
        if let Some(moved) = moved.and_then(|moved| self.actors.get_mut(&moved)) {
            moved.index_in_worker = at;
        }
    }

    /// Assigns an actor to a worker, and answers its request.
    pub(super) fn assign(&mut self, key: ActorKey, worker: WorkerId) {
        let Some(member) = self.workers.get(&worker).and_then(|worker| worker.member) else { return };
        match self.actors.get_mut(&key) {
            // A dedicated worker has had the actor in its list since it was started.
            Some(actor) if actor.phase == ActorPhase::Starting(worker) => {
                actor.phase = ActorPhase::Assigned(worker)
            }
            Some(_) => self.attach_to_worker(key, worker, ActorPhase::Assigned(worker)),
            None => return,
        }
        let Some(unplaced) = self.pending.remove(&key) else { return };
        unplaced.ticket.map(|ticket| self.open_requests.remove(&ticket));
        self.note_node(key, worker);
        let actor = &self.actors[&key];
        // Written before the reply is sent: the requester may rely on the name and the detached lifetime.
        if self.is_durable(key, actor) {
            self.persist_actor(key);
        }
        let actor = &self.actors[&key];
        let (job, detached) = (actor.job, actor.detached);
        // A detached actor stays in the set of its job until it is created: if its creator ends before that,
        // the job has to end it.
        if !detached {
            self.mark_assigned(job, key);
        }
        if let Some(creator) = unplaced.requester {
            self.creators.insert(key, creator);
            if !self.may_speak_for(creator, job) {
                self.creator_ended(key);
            }
        }
        match unplaced.ticket {
            Some(ticket) => {
                self.reply(ticket, Ok(ControlReply::Placed { actor: key, member, alive: None }));
            }
            // The control plane creates managed actors itself.
            None => self.start_incarnation(key, worker),
        }
    }

    /// Handles the report that an actor was created.
    pub(super) fn actor_started(&mut self, key: ActorKey, worker: WorkerId, at: ActorLocation) {
        if self.workers.get(&worker).is_some_and(|worker| worker.member.is_some()) {
            self.reconcile_actor(key, None, worker, at);
        }
    }

    /// Records an actor that a worker reports, or stops it if it does not belong there.
    pub(super) fn reconcile_actor(
        &mut self,
        key: ActorKey,
        class: Option<&str>,
        worker: WorkerId,
        at: ActorLocation,
    ) {
        let phase = self.actors.get(&key).map(|actor| (actor.phase, actor.detached));
        if phase.is_some() && !self.is_present_incarnation(key, at.target) {
            self.fence_reported(key, worker, at.target);
            return self.stop_actor(key, worker, at);
        }
        let dedicated = self.workers.get(&worker).and_then(|worker| worker.detached);
        match phase {
            Some((ActorPhase::Assigned(placed), _)) if placed == worker => {
                self.mark_alive(key, worker, at.target);
                // A kill during the constructor takes effect now; no message could interrupt it.
                self.repeat_stop(key, worker, at);
            }
            Some((ActorPhase::Alive(lives, _), _)) if lives == worker => {
                self.set_phase(key, ActorPhase::Alive(worker, at.target));
                self.repeat_stop(key, worker, at);
            }
            Some((ActorPhase::Unaccounted, detached)) if dedicated == detached.then_some(key) => {
                self.unaccounted.remove(&key);
                let (node, actor) = (self.workers[&worker].node, &self.actors[&key]);
                // Nothing was allocated while the actor was unaccounted, since its node was not known.
                self.schedule.allocate(node, actor.shape);
                self.attach_to_worker(key, worker, ActorPhase::Assigned(worker));
                self.mark_alive(key, worker, at.target);
                // It was killed, or to be replaced, before the head restarted.
                self.repeat_stop(key, worker, at);
            }
            // A managed actor has a record until its end, so one without a record has ended.
            None if dedicated.is_none()
                && at.target.actor.managed_number().is_none()
                && self.may_predate_head(key, worker) =>
            {
                self.adopt_actor(key, class.unwrap_or("(not known)"), worker);
                self.mark_alive(key, worker, at.target);
            }
            _ => self.stop_actor(key, worker, at),
        }
    }

    /// Commands the stop of an actor that was killed, or of an incarnation that is to be replaced.
    fn repeat_stop(&mut self, key: ActorKey, worker: WorkerId, at: ActorLocation) {
        if self.is_to_stop(key) {
            self.stop_actor(key, worker, at);
        }
    }

    /// Checks the incarnation of a reported actor. After a restart of the head with an older copy of its database, a
    /// later one counts as the present one.
    fn is_present_incarnation(&mut self, key: ActorKey, reported: Target) -> bool {
        let Some(managed) = self.managed.get_mut(&key) else { return true };
        let is_unaccounted = self.unaccounted.contains(&key);
        if !is_unaccounted || reported.incarnation <= managed.incarnation {
            return reported.incarnation == managed.incarnation;
        }
        managed.incarnation = reported.incarnation;
        // Another restart of the head must not use the number again either.
        self.persist_actor(key);
        true
    }

    pub(super) fn stop_actor(&mut self, actor: ActorKey, worker: WorkerId, at: ActorLocation) {
        let Some(node) = self.workers.get(&worker).map(|worker| worker.node) else { return };
        // The end of a killed actor is final in any case.
        let is_final = at.target.actor.managed_number().is_none() || self.stopping.contains(&actor);
        self.actions.push(match is_final {
            true => Action::StopActor { node, worker, actor, at },
            false => Action::StopIncarnation { node, worker, actor, at },
        });
    }

    /// Checks whether an unknown actor may be from an earlier incarnation of the head, which wrote no record
    /// of it.
    fn may_predate_head(&self, key: ActorKey, worker: WorkerId) -> bool {
        let job = self.workers.get(&worker).map(|worker| worker.job);
        self.ids.predates_restart(key)
            && job.is_some_and(|job| self.is_active(job))
            && self.history.actor(key).is_none()
    }

    fn adopt_actor(&mut self, key: ActorKey, class: &str, worker: WorkerId) {
        let job = self.workers[&worker].job;
        let class = self.classes.number(class);
        // Without a record, the actor had no name and no resources, and was not detached.
        let shape = self.schedule.shape_of(&ActorSpec::default());
        let actor = Actor {
            job,
            class,
            shape,
            detached: false,
            index_in_worker: 0,
            phase: ActorPhase::Waiting,
            started: Millis::default(),
            named: None,
        };
        self.actors.insert(key, actor);
        self.attach_to_worker(key, worker, ActorPhase::Assigned(worker));
    }

    /// Adds an actor to the tables, and claims its name.
    pub(super) fn add_actor(
        &mut self,
        key: ActorKey,
        job: JobId,
        spec: ActorSpec,
        shape: ShapeId,
        phase: ActorPhase,
    ) {
        let class = self.classes.number(&spec.class);
        let detached = spec.lifetime == Lifetime::Detached;
        let named = spec.name.map(|name| {
            self.names.claim(&spec.namespace, &name, key);
            Box::new(NameEntry { namespace: spec.namespace, name, waiters: BTreeMap::new() })
        });
        let (index_in_worker, started) = (0, Millis::default());
        self.actors
            .insert(key, Actor { job, class, shape, detached, index_in_worker, phase, started, named });
    }

    /// Marks an assigned actor as created.
    fn mark_alive(&mut self, key: ActorKey, worker_id: WorkerId, target: Target) {
        let Some(actor) = self.actors.get_mut(&key) else { return };
        actor.phase = ActorPhase::Alive(worker_id, target);
        actor.started = self.now;
        let (job, named) = (actor.job, actor.named.is_some());
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.alive_actors += 1;
        }
        self.mark_assigned(job, key);
        self.creators.remove(&key);
        self.start_leases.end(key);
        self.kill_leases.end(key);
        // Waiters for the name do not get an actor that was killed in the meantime: they wait for its end,
        // and for the next owner of the name.
        if named && !self.stopping.contains(&key) {
            self.reply_to_waiters(key);
        }
        self.managed_is_alive(key);
    }

    /// Checks whether an actor may be created at any moment, and then outlives its job.
    ///
    /// Its creator can know of the creation, and end, before the worker's report arrives.
    pub(super) fn may_still_start(&self, key: ActorKey) -> bool {
        let actor = self.actors.get(&key);
        actor.is_some_and(|actor| actor.detached && matches!(actor.phase, ActorPhase::Assigned(_)))
    }

    /// Gives the actors that a worker's hosts were creating some time to appear. The assignment of one that was on its
    /// way to the worker would last until the end of the job otherwise.
    pub(super) fn creators_ended(&mut self, hosts: [HostUid; 2]) {
        let created = self.creators.iter().filter(|(_, creator)| hosts.contains(creator));
        let mut created: Vec<_> = created.map(|(key, _)| *key).collect();
        // The hash map has no fixed order.
        created.sort_unstable();
        created.into_iter().for_each(|key| self.creator_ended(key));
    }

    fn creator_ended(&mut self, key: ActorKey) {
        self.creators.remove(&key);
        self.start_leases.grant(self.now, key);
    }

    /// Gives an actor that its requester no longer waits for some time to appear.
    ///
    /// A request that was cancelled on its way creates nothing and reports nothing, so the assignment would last until
    /// the end of the job.
    pub(super) fn spawn_given_up(&mut self, key: ActorKey) {
        let phase = self.actors.get(&key).map(|actor| actor.phase);
        // The head itself creates a managed actor.
        if matches!(phase, Some(ActorPhase::Assigned(_))) && !self.managed.contains_key(&key) {
            self.creator_ended(key);
        }
    }

    /// Fails an actor that was not created in time after its request or its requester ended, or a detached one after
    /// its job ended.
    pub(super) fn start_lease_expired(&mut self, key: ActorKey) {
        let within = self.settings.start_lease.as_secs_f64();
        let is_active = self.actors.get(&key).is_some_and(|actor| self.is_active(actor.job));
        let ended = if is_active { "request" } else { "job" };
        let cause = format!("it was not created within {within} s of the end of its {ended}");
        self.end_actor(key, &End::new(EndReason::Evicted, cause).into(), ControlError::JobEnded);
    }

    /// Fails a killed actor of which its worker has reported nothing.
    ///
    /// Its spawn request may never have reached the worker, which then has nothing to report. If the
    /// constructor runs after all, the worker's report of its return stops the actor.
    pub(super) fn kill_lease_expired(&mut self, key: ActorKey) {
        let within = self.settings.kill_lease.as_secs_f64();
        let cause = format!("it was killed, and its constructor did not return within {within} s");
        self.end_actor(key, &End::new(EndReason::Killed, cause).into(), ControlError::Unknown);
    }

    /// Handles the report that an actor ended, or was not created.
    pub(super) fn actor_ended(&mut self, key: ActorKey, incarnation: ActorIncarnation, end: End) {
        self.fenced_incarnation_ended(key, incarnation);
        // Unassigned actors are unknown to workers, so such a report cannot be about them.
        let known = self.actors.get(&key).is_some_and(|actor| !actor.phase.is_unplaced());
        if known {
            // A report about an earlier incarnation, which was replaced.
            if incarnation != self.incarnation(key)
                && self.settings.injected_bug != Some(InjectedBug::StaleIncarnation)
            {
                return;
            }
            if end.reason == EndReason::Panicked && !self.managed.contains_key(&key) {
                self.record_actor_death(key, &end.text);
            }
            let replaced_by = self.managed.get_mut(&key).and_then(|managed| managed.replaced_by.take());
            match replaced_by {
                // It was told to stop, or ended before it heard of that.
                Some((end_of_replaced, loss))
                    if matches!(end.reason, EndReason::Killed | EndReason::LeaseExpired) =>
                {
                    return self.lose_actor(key, &end_of_replaced, loss, ControlError::Unknown);
                }
                None if end.reason == EndReason::LeaseExpired => {
                    return self.lose_actor(key, &end.into(), Loss::External, ControlError::Unknown);
                }
                _ => {}
            }
            // An unknown reason is that of a worker which is about to end.
            match end.reason.is_failure() || end.reason == EndReason::Unknown {
                true => self.lose_actor(key, &end.into(), Loss::Failure, ControlError::Unknown),
                false => self.end_actor(key, &end.into(), ControlError::Unknown),
            }
        }
    }

    /// Handles a cancelled spawn.
    ///
    /// An actor that is alive nevertheless is stopped, since no process has its address. It holds its
    /// resources until it has ended.
    pub(super) fn spawn_cancelled(&mut self, key: ActorKey, cause: &str) {
        match self.actors.get(&key).map(|actor| actor.phase) {
            Some(ActorPhase::Alive(worker, target)) => self.stop_alive(key, worker, target),
            // It would restart for ever, with an address that no process has.
            Some(_) if self.managed.contains_key(&key) => self.kill_actor(key),
            _ => self.actor_ended(key, self.incarnation(key), End::new(EndReason::Stopped, cause)),
        }
    }

    fn stop_alive(&mut self, key: ActorKey, worker: WorkerId, target: Target) {
        if let Some(at) = self.address(worker, target) {
            self.mark_killed(key);
            self.stop_actor(key, worker, at);
        }
    }

    /// Notes that an actor is to end, also for later incarnations of the head. Returns false if that is known.
    fn mark_killed(&mut self, key: ActorKey) -> bool {
        let is_new = self.stopping.insert(key);
        if is_new && self.is_recorded(key) {
            self.persist_actor(key);
        }
        is_new
    }

    /// Ends an actor: releases what it holds, refuses its request, and adds it to the history.
    ///
    /// The indexes that an end updates, in this order:
    ///
    /// ```text
    ///   actors                                first: the calls below must not find the actor again
    ///   queue | pool | unaccounted | worker   by phase, exactly one of them
    ///   stopping, creators, start_leases, kill_leases
    ///   scheduler, deferred.freed             finds the node through the worker, which is still there
    ///   unassigned_actors of the job
    ///   record                                written only once the actor was assigned
    ///   pending, open_requests                the request is refused
    ///   names, deferred.retries               waiters retry after the event, when the name is free
    ///   dedicated worker                      stopped; the actor is detached from it already
    ///   history                               keeps the shape until the row is displaced
    /// ```
    pub(super) fn end_actor(&mut self, key: ActorKey, end: &Arc<End>, to_error: fn(String) -> ControlError) {
        let Some(mut actor) = self.actors.remove(&key) else { return };
        let phase = actor.phase;
        let at = phase.worker().and_then(|worker| {
            let found = self.workers.get(&worker)?;
            Some((found.node, worker, found.pid))
        });
        match phase {
            ActorPhase::BackingOff => {}
            ActorPhase::Waiting => self.stop_waiting((actor.job, actor.shape), key),
            ActorPhase::AwaitingWorker(node) => self.remove_awaiting_worker(actor.job, node, key),
            ActorPhase::Unaccounted => drop(self.unaccounted.remove(&key)),
            ActorPhase::Starting(_) | ActorPhase::Assigned(_) | ActorPhase::Alive(..) => {
                self.detach_from_worker(key, actor.index_in_worker, phase)
            }
        }
        self.stopping.remove(&key);
        self.creators.remove(&key);
        self.start_leases.end(key);
        self.kill_leases.end(key);
        if let Some(node) = self.node_of(phase) {
            self.schedule.release(node, actor.shape);
            self.deferred.freed.insert(node);
        }
        self.mark_assigned(actor.job, key);
        // The record is written with the assignment, so before that there is none to delete. One that restarts was
        // assigned before.
        if (!phase.is_unplaced() || self.is_restarting(key)) && self.is_durable(key, &actor) {
            self.actions.push(Action::Delete(RecordKey::Actor(key)));
        }
        let restarts = self.managed.get(&key).map_or(0, |managed| managed.restarts);
        if self.managed.contains_key(&key) {
            let class = self.classes.shared_name(actor.class);
            self.supervise_end(key, actor.job, &class, end);
            self.end_managed(key, actor.job, end);
        }
        if let Some(unplaced) = self.pending.remove(&key)
            && let Some(ticket) = unplaced.ticket
            && self.open_requests.remove(&ticket).is_some()
        {
            self.reply(ticket, Err(to_error(end.text.clone())));
        }
        if let Some(named) = &mut actor.named {
            self.names.free(&named.namespace, &named.name);
            self.deferred.retries.extend(std::mem::take(&mut named.waiters).into_values());
        }
        // An unaccounted actor also has a dedicated worker if that one has rejoined without it.
        let has_dedicated = phase.worker().is_some() || phase == ActorPhase::Unaccounted;
        let dedicated = self.dedicated_workers.get(&key).copied().filter(|_| has_dedicated);
        if let Some(worker) = dedicated {
            let text = format!("its actor has ended: {end}");
            self.stop_worker(worker, &End::new(EndReason::Killed, text));
        }
        let (ended, handled) = (self.now, self.actor_counts.remove(&key).map(|(handled, _)| handled));
        self.record_ended_actor(ActorRecord {
            key,
            actor,
            at,
            end: Arc::clone(end),
            ended,
            restarts,
            handled,
        });
    }

    /// Unbinds an unassigned actor from its node; it is scheduled again after the event.
    pub(super) fn evict(&mut self, key: ActorKey) {
        let Some(actor) = self.actors.get(&key) else { return };
        let (job, shape, phase, at) = (actor.job, actor.shape, actor.phase, actor.index_in_worker);
        match phase {
            ActorPhase::AwaitingWorker(node) => self.remove_awaiting_worker(job, node, key),
            ActorPhase::Starting(_) => self.detach_from_worker(key, at, phase),
            // An assigned actor cannot move: its creator has the address of the worker.
            _ => return,
        }
        if let Some(node) = self.node_of(phase) {
            self.schedule.release(node, shape);
            self.deferred.freed.insert(node);
        }
        self.set_phase(key, ActorPhase::Waiting);
        self.deferred.evicted.insert(key);
    }

    /// Kills an actor.
    pub(super) fn kill(&mut self, ticket: Ticket, key: ActorKey) {
        let reply = match (self.actors.contains_key(&key), self.history.actor(key)) {
            (true, _) | (_, Some(_)) => Ok(ControlReply::Done),
            _ => Err(ControlError::Unknown(format!("there is no actor {key}, or it ended long ago"))),
        };
        self.kill_actor(key);
        self.reply(ticket, reply);
    }

    pub(super) fn kill_actor(&mut self, key: ActorKey) {
        let Some(actor) = self.actors.get(&key) else { return };
        match actor.phase {
            ActorPhase::Alive(worker, target) => self.stop_alive(key, worker, target),
            // Its constructor may be running, which no message interrupts. Once it returns, the actor is
            // stopped.
            ActorPhase::Assigned(_) => {
                if self.mark_killed(key) {
                    self.kill_leases.grant(self.now, key);
                }
            }
            _ => {
                let when =
                    if self.is_restarting(key) { "while it restarted" } else { "before it was created" };
                let end = End::new(EndReason::Killed, format!("it was killed {when}"));
                self.end_actor(key, &end.into(), ControlError::Unknown);
            }
        }
    }

    /// Kills the worker of an actor that may be stuck in a handler.
    ///
    /// A replacement is started, unless the worker was dedicated to a detached actor.
    pub(super) fn kill_worker_of(&mut self, ticket: Ticket, key: ActorKey) {
        let worker = match self.actors.get(&key).map(|actor| actor.phase) {
            Some(ActorPhase::Assigned(worker) | ActorPhase::Alive(worker, _)) => worker,
            // The actor has not been handed to a worker, so nothing can be stuck.
            _ => return self.kill(ticket, key),
        };
        if let Some(node) = self.workers.get(&worker).map(|worker| worker.node) {
            self.actions.push(Action::StopWorker { node, worker });
        }
        // The actor itself ends for good; other managed actors of the worker restart.
        self.stopping.insert(key);
        self.fence_actors_of_killed_worker(worker);
        // `failed` is false: a kill is no crash, and must not delay the replacement.
        let end = End::new(EndReason::Killed, format!("it was killed to end the actor {key}"));
        self.finish_worker(worker, &end, WorkerExit::Requested);
        self.reply(ticket, Ok(ControlReply::Done));
    }
}
