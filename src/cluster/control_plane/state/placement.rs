//! Places for actors, and names: who asks, who waits, who is denied.

use std::collections::BTreeMap;

use super::actor::{Actor, NameEntry, Phase, UnplacedActor};
use super::{Answer, ControlError, State, Ticket};
use crate::cluster::model::{ActorKey, ActorSpec, JobId, Lifetime, NodeId};
use crate::config::{ACTOR_CONSTRAINTS_MAX, ACTOR_NAME_BYTES_MAX};

/// What somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpenRequest {
    /// A place for an actor of his own.
    Place(ActorKey),
    /// What becomes of an actor that another has asked for.
    Follow { owner: ActorKey, job: Option<JobId> },
}

/// Who waits for what becomes of an actor that another has asked for.
#[derive(Debug)]
pub(super) enum NameWaiter {
    /// He asks for an actor of that name, whoever made it.
    Place { ticket: Ticket, job: JobId, spec: ActorSpec },
    /// He looks for it.
    Find { ticket: Ticket },
}

impl NameWaiter {
    fn ticket(&self) -> Ticket {
        match self {
            Self::Place { ticket, .. } | Self::Find { ticket } => *ticket,
        }
    }

    fn job(&self) -> Option<JobId> {
        match self {
            Self::Place { job, .. } => Some(*job),
            Self::Find { .. } => None,
        }
    }
}

impl State {
    pub(super) fn place(&mut self, ticket: Ticket, job: JobId, spec: ActorSpec) {
        if let Err(denied) = self.try_place(ticket, job, spec) {
            self.answer(ticket, Err(denied));
        }
    }

    fn try_place(&mut self, ticket: Ticket, job_id: JobId, mut spec: ActorSpec) -> Result<(), ControlError> {
        let job = self.served(job_id)?;
        check_sizes(&spec)?;
        if spec.name.is_some() && spec.namespace.is_empty() {
            spec.namespace.clone_from(&job.facts.namespace);
        }
        let owner = spec.name.as_ref().and_then(|name| self.names.owner(&spec.namespace, name));
        if let Some(owner) = owner {
            return self.place_existing(ticket, job_id, spec, owner);
        }
        if let Some(why) = spec.node.and_then(|node| self.why_unavailable(node)) {
            return Err(ControlError::Infeasible(why));
        }
        if !self.schedule.knows(&spec) {
            return Err(ControlError::Infeasible(self.schedule.explain_infeasible(&spec)));
        }
        let shape = self.schedule.shape_of(&spec);
        if !self.schedule.is_feasible(shape) {
            self.schedule.drop_shape(shape);
            return Err(ControlError::Infeasible(self.schedule.explain_infeasible(&spec)));
        }
        let detached = spec.lifetime == Lifetime::Detached;
        let key = match self.new_actor(spec.is_durable()) {
            Ok(key) => key,
            Err(denied) => {
                self.schedule.drop_shape(shape);
                return Err(denied);
            }
        };
        let class = self.classes.number(&spec.class);
        let named = spec.name.map(|name| {
            self.names.claim(&spec.namespace, &name, key);
            Box::new(NameEntry { namespace: spec.namespace, name, followers: BTreeMap::new() })
        });
        let actor =
            Actor { job: job_id, class, shape, detached, index_in_worker: 0, phase: Phase::Waiting, named };
        self.actors.insert(key, actor);
        self.pending.insert(key, UnplacedActor { ticket, failed: 0 });
        self.open_requests.insert(ticket, OpenRequest::Place(key));
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.unassigned_actors.insert(key);
        }
        self.schedule(key);
        Ok(())
    }

    /// Somebody asks for an actor by a name that has an owner.
    fn place_existing(
        &mut self,
        ticket: Ticket,
        job_id: JobId,
        spec: ActorSpec,
        owner: ActorKey,
    ) -> Result<(), ControlError> {
        let gone = || ControlError::Unknown(format!("actor {owner} is gone"));
        let actor = self.actors.get(&owner).ok_or_else(gone)?;
        let class = self.classes.name(actor.class);
        if !spec.get_if_exists || class != spec.class {
            let name = spec.name.unwrap_or_default();
            let alive = if matches!(actor.phase, Phase::Alive(..)) { "" } else { ", which is being made" };
            return Err(ControlError::NameTaken(format!(
                "the name {name} of the namespace {} is taken by actor {owner} of type {class} of job {}{alive}: \
                 take another name, or kill that actor",
                spec.namespace, actor.job
            )));
        }
        let alive = matches!(actor.phase, Phase::Alive(..));
        let follower = NameWaiter::Place { ticket, job: job_id, spec };
        self.add_waiter(follower, owner);
        if alive {
            self.answer_waiters(owner);
        }
        Ok(())
    }

    /// Somebody waits for what becomes of an actor with a name.
    fn add_waiter(&mut self, follower: NameWaiter, owner: ActorKey) {
        let (ticket, job) = (follower.ticket(), follower.job());
        let named = self.actors.get_mut(&owner).and_then(|actor| actor.named.as_mut());
        let Some(named) = named else { return };
        named.followers.insert(ticket, follower);
        self.open_requests.insert(ticket, OpenRequest::Follow { owner, job });
        if let Some(job) = job.and_then(|job| self.jobs.get_mut(&job)) {
            job.waiting_tickets.insert(ticket);
        }
    }

    /// Answers all who waited for an actor, which lives.
    pub(super) fn answer_waiters(&mut self, owner: ActorKey) {
        let named = self.actors.get_mut(&owner).and_then(|actor| actor.named.as_mut());
        let followers = named.map(|named| std::mem::take(&mut named.followers)).unwrap_or_default();
        for (ticket, follower) in followers {
            self.remove_waiter_entry(ticket);
            let found = self.found(owner).ok_or_else(|| ControlError::Unknown("it is gone".to_owned()));
            let answer = found.map(|found| match (follower, found) {
                (NameWaiter::Place { .. }, Answer::Found { actor, at, member, .. }) => {
                    Answer::Placed { actor, member, alive: Some(at) }
                }
                (_, found) => found,
            });
            self.answer(ticket, answer);
        }
    }

    /// What is told of a living actor.
    fn found(&self, key: ActorKey) -> Option<Answer> {
        let actor = self.actors.get(&key)?;
        let Phase::Alive(worker, target) = actor.phase else { return None };
        Some(Answer::Found {
            actor: key,
            class: self.classes.name(actor.class).to_owned(),
            at: self.address(worker, target)?,
            member: self.workers.get(&worker)?.member?,
        })
    }

    fn remove_waiter_entry(&mut self, ticket: Ticket) {
        if let Some(OpenRequest::Follow { job: Some(job), .. }) = self.open_requests.remove(&ticket)
            && let Some(job) = self.jobs.get_mut(&job)
        {
            job.waiting_tickets.remove(&ticket);
        }
    }

    /// Somebody who waited for an actor does so no longer.
    pub(super) fn cancel_waiter(&mut self, ticket: Ticket) {
        let Some(OpenRequest::Follow { owner, .. }) = self.open_requests.get(&ticket).copied() else {
            return;
        };
        self.remove_waiter_entry(ticket);
        let named = self.actors.get_mut(&owner).and_then(|actor| actor.named.as_mut());
        if let Some(named) = named {
            named.followers.remove(&ticket);
        }
    }

    /// Somebody has waited for an actor that is dead: what he wants is to be looked at anew.
    pub(super) fn retry(&mut self, follower: NameWaiter) {
        if !self.open_requests.contains_key(&follower.ticket()) {
            return;
        }
        self.remove_waiter_entry(follower.ticket());
        match follower {
            NameWaiter::Place { ticket, job, spec } => self.place(ticket, job, spec),
            NameWaiter::Find { ticket } => {
                let text = "it was not made, or has ended since";
                self.answer(ticket, Err(ControlError::Unknown(text.to_owned())));
            }
        }
    }

    pub(super) fn find(&mut self, ticket: Ticket, namespace: &str, name: &str) {
        let owner = self.names.owner(namespace, name);
        let phase = owner.and_then(|owner| Some((owner, self.actors.get(&owner)?.phase)));
        match phase {
            // Whether it lives is not known yet. Who made it may be done, while its worker has yet to say so.
            Some((owner, Phase::Unaccounted | Phase::Assigned(_) | Phase::Starting(_))) => {
                self.add_waiter(NameWaiter::Find { ticket }, owner);
            }
            Some((owner, Phase::Alive(..))) => {
                let found = self.found(owner);
                let gone = || ControlError::Unknown(format!("the actor {name} is gone"));
                self.answer(ticket, found.ok_or_else(gone));
            }
            Some(_) => {
                let text = format!("the actor {name} of the namespace {namespace} waits for a place");
                self.answer(ticket, Err(ControlError::Unknown(text)));
            }
            None => {
                let text = format!("no actor has the name {name} in the namespace {namespace}");
                self.answer(ticket, Err(ControlError::Unknown(text)));
            }
        }
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        match self.open_requests.get(&ticket).copied() {
            Some(OpenRequest::Place(actor)) => {
                self.open_requests.remove(&ticket);
                self.end_actor(actor, &"nobody waits for it any more".into(), ControlError::Unknown);
            }
            Some(OpenRequest::Follow { .. }) => self.cancel_waiter(ticket),
            None => {}
        }
    }

    /// Looks for a node for an actor, which waits if there is none.
    pub(super) fn schedule(&mut self, key: ActorKey) {
        let Some(actor) = self.actors.get(&key) else { return };
        let queue = (actor.job, actor.shape);
        // Behind those who want the same and have no place either.
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

    /// Gives an actor a place on a node, which has room.
    pub(super) fn bind_to_node(&mut self, key: ActorKey, node: NodeId) {
        let Some(actor) = self.actors.get_mut(&key) else { return };
        let (job, detached, shape) = (actor.job, actor.detached, actor.shape);
        if self.schedule.requires_resources(shape) {
            self.waiting.count_placement();
        }
        self.schedule.allocate(node, shape);
        if detached {
            let worker = self.start_worker(node, job, Some(key));
            return self.attach_to_worker(key, worker, Phase::Starting(worker));
        }
        if let Some(worker) = self.least_busy(job, node) {
            return self.assign(key, worker);
        }
        self.set_phase(key, Phase::AwaitingWorker(node));
        if let Some(pool) = self.pool(job, node) {
            pool.awaiting_worker.insert(key);
        }
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
    let wants = spec.resources.0.len().max(spec.labels.len());
    if wants > ACTOR_CONSTRAINTS_MAX {
        return Err(ControlError::Infeasible(format!(
            "{wants} resources or labels are too many: at most {ACTOR_CONSTRAINTS_MAX} are allowed"
        )));
    }
    Ok(())
}
