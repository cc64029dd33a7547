//! Requests for actors: placement, names, look-ups and cancellation.

use std::sync::Arc;

use super::actor::{ActorPhase, UnplacedActor};
use super::supervision::Place;
use super::{ClusterState, ControlError, ControlReply, RequestId, Ticket};
use crate::cluster::model::{ActorKey, ActorSpec, JobId, NodeId};
use crate::config::{ACTOR_CONSTRAINTS_MAX, ACTOR_NAME_BYTES_MAX, RECIPE_BYTES_MAX};
use crate::id::ActorIncarnation;
use crate::spec::{End, EndReason, Recipe};

/// Request that waits for a reply.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpenRequest {
    /// Request for a new actor, which is pending.
    Place(ActorKey),
    /// Request that waits for another request's actor to be created or to end.
    ///
    /// Its recipe counts against the limit of its job meanwhile.
    WaitForActor { owner: ActorKey, job: Option<JobId>, recipe_bytes: usize },
    /// Request for the location of a managed actor that restarts.
    Locate(ActorKey),
}

/// Request for an actor.
#[derive(Debug)]
pub(super) struct PlacementRequest {
    pub(super) ticket: Ticket,
    pub(super) job: JobId,
    pub(super) spec: ActorSpec,
    pub(super) recipe: Option<Arc<Recipe>>,
    pub(super) id: Option<RequestId>,
}

/// Request that waits for an actor which another request is creating.
#[derive(Debug)]
pub(super) enum NameWaiter {
    /// Wants an actor of that name, whichever request creates it.
    Place(Box<PlacementRequest>),
    /// Wants the location of the actor.
    Find { ticket: Ticket },
}

impl NameWaiter {
    fn ticket(&self) -> Ticket {
        match self {
            Self::Place(request) => request.ticket,
            Self::Find { ticket } => *ticket,
        }
    }

    fn job(&self) -> Option<JobId> {
        match self {
            Self::Place(request) => Some(request.job),
            Self::Find { .. } => None,
        }
    }

    fn recipe_bytes(&self) -> usize {
        match self {
            Self::Place(request) => request.recipe.as_ref().map_or(0, |recipe| recipe.len()),
            Self::Find { .. } => 0,
        }
    }
}

impl ClusterState {
    pub(super) fn place(&mut self, request: PlacementRequest) {
        let ticket = request.ticket;
        if let Err(error) = self.try_place(request) {
            self.reply(ticket, Err(error));
        }
    }

    fn try_place(&mut self, request: PlacementRequest) -> Result<(), ControlError> {
        let PlacementRequest { ticket, job: job_id, mut spec, recipe, id } = request;
        let job = self.active_job(job_id)?;
        check_sizes(&spec)?;
        if spec.name.is_some() && spec.namespace.is_empty() {
            spec.namespace.clone_from(&job.descriptor.namespace);
        }
        // Also of a request that waits for a name.
        check_recipe_size(recipe.as_deref())?;
        // A request that was answered, or was about to be, when the head ended.
        if let Some(actor) = id.and_then(|id| self.requested.get(&id).copied()) {
            self.resume_request(ticket, actor);
            return Ok(());
        }
        // The name decides first: a request for an existing actor needs no room, whatever it asks for.
        let owner = spec.name.as_ref().and_then(|name| self.names.owner(&spec.namespace, name));
        if let Some(owner) = owner {
            return self.place_existing(PlacementRequest { ticket, job: job_id, spec, recipe, id }, owner);
        }
        self.check_recipe(job_id, &spec, recipe.as_deref())?;
        if let Some(why) = spec.node.and_then(|node| self.why_unavailable(node)) {
            return Err(ControlError::Infeasible(why));
        }
        // Before the shape is interned, which would number the unknown names for good.
        if !self.schedule.knows(&spec) {
            return Err(ControlError::Infeasible(self.schedule.explain_infeasible(&spec)));
        }
        let shape = self.schedule.shape_of(&spec);
        if !self.schedule.is_feasible(shape) {
            self.schedule.drop_shape(shape);
            return Err(ControlError::Infeasible(self.schedule.explain_infeasible(&spec)));
        }
        let key = match self.new_actor(spec.is_durable()) {
            Ok(key) => key,
            Err(error) => {
                self.schedule.drop_shape(shape);
                return Err(error);
            }
        };
        let place = Place {
            parent: spec.parent.map(|(parent, _)| parent),
            supervision: spec.supervision,
            essential: spec.essential,
        };
        let managed = spec.restart.zip(recipe);
        self.add_actor(key, job_id, spec, shape, ActorPhase::Waiting);
        // The request for a managed actor is answered once it is alive, and not with its assignment.
        let placed = if managed.is_some() { None } else { Some(ticket) };
        let requester = id.filter(|_| placed.is_some()).map(|id| id.from);
        self.pending.insert(key, UnplacedActor { ticket: placed, requester, failed: 0 });
        if let Some((policy, recipe)) = managed {
            self.add_managed(key, job_id, (policy, place), recipe, ActorIncarnation(0), id);
            self.managed.get_mut(&key).expect("it was added above").spawner = Some(ticket);
            self.persist_recipe(key);
        }
        self.open_requests.insert(ticket, OpenRequest::Place(key));
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.unassigned_actors.insert(key);
        }
        // Last: scheduling may answer the request, and looks it up in the tables above.
        self.schedule(key);
        Ok(())
    }

    /// Handles a request for a name that already has an owner.
    fn place_existing(&mut self, request: PlacementRequest, owner: ActorKey) -> Result<(), ControlError> {
        let spec = &request.spec;
        let missing = || ControlError::Unknown(format!("actor {owner} is gone"));
        let actor = self.actors.get(&owner).ok_or_else(missing)?;
        let class = self.classes.name(actor.class);
        if !spec.get_if_exists || class != spec.class {
            let name = spec.name.as_deref().unwrap_or_default();
            let alive =
                if matches!(actor.phase, ActorPhase::Alive(..)) { "" } else { ", which is being created" };
            return Err(ControlError::NameTaken(format!(
                "the name {name} of the namespace {} is taken by actor {owner} of type {class} of job {}{alive}: \
                 take another name, or kill that actor",
                spec.namespace, actor.job
            )));
        }
        let alive = matches!(actor.phase, ActorPhase::Alive(..));
        if !alive {
            self.check_recipe_room(request.job, request.recipe.as_deref())?;
        }
        self.add_waiter(NameWaiter::Place(Box::new(request)), owner);
        // Answered like a waiter, so that requests before and after the creation get the same reply.
        if alive {
            self.reply_to_waiters(owner);
        }
        Ok(())
    }

    /// Makes a request wait for the named actor.
    fn add_waiter(&mut self, waiter: NameWaiter, owner: ActorKey) {
        let (ticket, job, recipe_bytes) = (waiter.ticket(), waiter.job(), waiter.recipe_bytes());
        let named = self.actors.get_mut(&owner).and_then(|actor| actor.named.as_mut());
        let Some(named) = named else { return };
        named.waiters.insert(ticket, waiter);
        self.open_requests.insert(ticket, OpenRequest::WaitForActor { owner, job, recipe_bytes });
        if let Some(job) = job.and_then(|job| self.jobs.get_mut(&job)) {
            job.waiting_tickets.insert(ticket);
            job.recipe_bytes += recipe_bytes;
        }
    }

    /// Answers the requests that waited for an actor which is alive now.
    pub(super) fn reply_to_waiters(&mut self, owner: ActorKey) {
        let named = self.actors.get_mut(&owner).and_then(|actor| actor.named.as_mut());
        let waiters = named.map(|named| std::mem::take(&mut named.waiters)).unwrap_or_default();
        for (ticket, waiter) in waiters {
            self.unregister_waiter(ticket);
            let found = self.found(owner).ok_or_else(|| ControlError::Unknown("it is gone".to_owned()));
            let reply = found.map(|found| match (waiter, found) {
                (NameWaiter::Place(_), ControlReply::Found { actor, at, member, .. }) => {
                    ControlReply::Placed { actor, member, alive: Some(at) }
                }
                (_, found) => found,
            });
            self.reply(ticket, reply);
        }
    }

    /// Answer that describes an alive actor.
    pub(super) fn found(&self, key: ActorKey) -> Option<ControlReply> {
        let actor = self.actors.get(&key)?;
        let ActorPhase::Alive(worker, target) = actor.phase else { return None };
        Some(ControlReply::Found {
            actor: key,
            class: self.classes.name(actor.class).to_owned(),
            at: self.address(worker, target)?,
            member: self.workers.get(&worker)?.member?,
        })
    }

    fn unregister_waiter(&mut self, ticket: Ticket) {
        if let Some(OpenRequest::WaitForActor { job: Some(job), recipe_bytes, .. }) =
            self.open_requests.remove(&ticket)
            && let Some(job) = self.jobs.get_mut(&job)
        {
            job.waiting_tickets.remove(&ticket);
            job.recipe_bytes = job.recipe_bytes.saturating_sub(recipe_bytes);
        }
    }

    /// Removes a waiting request without a reply.
    pub(super) fn cancel_waiter(&mut self, ticket: Ticket) {
        let Some(OpenRequest::WaitForActor { owner, .. }) = self.open_requests.get(&ticket).copied() else {
            return;
        };
        self.unregister_waiter(ticket);
        let named = self.actors.get_mut(&owner).and_then(|actor| actor.named.as_mut());
        if let Some(named) = named {
            named.waiters.remove(&ticket);
        }
    }

    /// Handles a request again whose actor has died.
    pub(super) fn retry(&mut self, waiter: NameWaiter) {
        // The request may have been cancelled, or refused with its job, since it was queued.
        if !self.open_requests.contains_key(&waiter.ticket()) {
            return;
        }
        self.unregister_waiter(waiter.ticket());
        match waiter {
            NameWaiter::Place(request) => self.place(*request),
            NameWaiter::Find { ticket } => {
                let text = "it was not created, or has ended since";
                self.reply(ticket, Err(ControlError::Unknown(text.to_owned())));
            }
        }
    }

    pub(super) fn find(&mut self, ticket: Ticket, namespace: &str, name: &str) {
        let owner = self.names.owner(namespace, name);
        let phase = owner.and_then(|owner| Some((owner, self.actors.get(&owner)?.phase)));
        match phase {
            // The actor may be alive already: the process that created it can know so, and look it up, before
            // the worker's report has arrived.
            Some((owner, ActorPhase::Unaccounted | ActorPhase::Assigned(_) | ActorPhase::Starting(_))) => {
                self.add_waiter(NameWaiter::Find { ticket }, owner);
            }
            Some((owner, ActorPhase::Alive(..))) => {
                let found = self.found(owner);
                let missing = || ControlError::Unknown(format!("the actor {name} is gone"));
                self.reply(ticket, found.ok_or_else(missing));
            }
            // A restart is short as a rule, and its caller has a timeout of its own.
            Some((owner, _)) if self.is_restarting(owner) => {
                self.add_waiter(NameWaiter::Find { ticket }, owner);
            }
            // An actor without a worker may stay pending forever, and a look-up must not wait with it.
            Some(_) => {
                let text = format!("the actor {name} of the namespace {namespace} waits for a node");
                self.reply(ticket, Err(ControlError::Unknown(text)));
            }
            None => {
                let text = format!("no actor has the name {name} in the namespace {namespace}");
                self.reply(ticket, Err(ControlError::Unknown(text)));
            }
        }
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        match self.open_requests.get(&ticket).copied() {
            Some(OpenRequest::Place(actor)) => {
                // Removed first, so that `end_actor` does not answer a request that was cancelled.
                self.open_requests.remove(&ticket);
                let end = End::new(EndReason::Killed, "its request was cancelled").into();
                self.end_actor(actor, &end, ControlError::Unknown);
            }
            Some(OpenRequest::WaitForActor { .. }) => self.cancel_waiter(ticket),
            Some(OpenRequest::Locate(actor)) => self.cancel_locator(ticket, actor),
            None => self.watchers.cancel(ticket),
        }
    }

    /// Selects a node for an actor, or queues it.
    pub(super) fn schedule(&mut self, key: ActorKey) {
        let Some(actor) = self.actors.get(&key) else { return };
        let queue = (actor.job, actor.shape);
        // An actor never passes others of its queue: all of them need the same.
        let node = match self.jobs.get_mut(&actor.job) {
            Some(job) if !self.waiting.has(queue) => self.schedule.select_node(queue, &mut job.round_robin),
            _ => None,
        };
        match node {
            Some(node) => self.bind_to_node(key, node),
            None => {
                let takes_any = self.schedule.requires_resources(queue.1);
                self.waiting.add(self.now, queue, key, takes_any);
            }
        }
    }

    /// Binds an actor to a node that has room.
    pub(super) fn bind_to_node(&mut self, key: ActorKey, node: NodeId) {
        let Some(actor) = self.actors.get_mut(&key) else { return };
        let (job, detached, shape) = (actor.job, actor.detached, actor.shape);
        if self.schedule.requires_resources(shape) {
            self.waiting.count_placement();
        }
        // Resources are held from here on, although the worker may not exist yet: otherwise the next actor
        // could be placed on the same room.
        self.schedule.allocate(node, shape);
        if detached {
            let worker = self.start_worker(node, job, Some(key));
            return self.attach_to_worker(key, worker, ActorPhase::Starting(worker));
        }
        if let Some(worker) = self.least_busy(job, node) {
            return self.assign(key, worker);
        }
        self.set_phase(key, ActorPhase::AwaitingWorker(node));
        if let Some(pool) = self.pool(job, node) {
            pool.awaiting_worker.insert(key);
        }
    }
}

/// Checks the size of the recipe of a restartable actor.
fn check_recipe_size(recipe: Option<&Recipe>) -> Result<(), ControlError> {
    match recipe.map_or(0, Recipe::len) {
        bytes if bytes > RECIPE_BYTES_MAX => Err(ControlError::Infeasible(format!(
            "the arguments of an actor that is restarted take {bytes} bytes, and at most {RECIPE_BYTES_MAX} are allowed: \
             send larger data in a message, or name a file"
        ))),
        _ => Ok(()),
    }
}

fn check_sizes(spec: &ActorSpec) -> Result<(), ControlError> {
    let name = spec.name.as_ref().map_or(0, String::len);
    let longest = spec.class.len().max(spec.namespace.len()).max(name);
    if longest > ACTOR_NAME_BYTES_MAX {
        return Err(ControlError::Infeasible(format!(
            "a name of {longest} bytes is too long: at most {ACTOR_NAME_BYTES_MAX} are allowed"
        )));
    }
    let constraints = spec.resources.0.len().max(spec.labels.len());
    if constraints > ACTOR_CONSTRAINTS_MAX {
        return Err(ControlError::Infeasible(format!(
            "{constraints} resources or labels are too many: at most {ACTOR_CONSTRAINTS_MAX} are allowed"
        )));
    }
    Ok(())
}
