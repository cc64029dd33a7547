//! Requests for managed actors and for their locations: those that wait, and those that are repeated.
//!
//! A request keeps its identity when it is repeated to a restarted head, which knows it from the actor's record. So the
//! requester gets the actor of its first request, or gives it up, and no actor stays without an address.

use super::actor::ActorPhase;
use super::placement::OpenRequest;
use super::{ClusterState, ControlError, ControlReply, JobEvent, RequestId, Ticket};
use crate::cluster::model::{ActorKey, ActorLocation};
use crate::id::ActorIncarnation;
use crate::spec::{End, EndReason};

impl ClusterState {
    /// Answers a repeated request with the actor that the first one has created, once it is alive.
    pub(super) fn resume_request(&mut self, ticket: Ticket, key: ActorKey) {
        if let Some(ControlReply::Found { actor, at, member, .. }) = self.found(key) {
            return self.reply(ticket, Ok(ControlReply::Created { actor, at, member }));
        }
        self.open_requests.insert(ticket, OpenRequest::Place(key));
        let earlier = self.managed.get_mut(&key).and_then(|managed| managed.spawner.replace(ticket));
        if let Some(earlier) = earlier.filter(|earlier| self.open_requests.remove(earlier).is_some()) {
            self.reply(earlier, Err(ControlError::Unknown("the request was repeated".to_owned())));
        }
    }

    /// Checks whether a request has created an actor that has not ended.
    pub(in crate::cluster) fn is_requested(&self, id: RequestId) -> bool {
        self.requested.contains_key(&id)
    }

    /// Kills the actor of a request whose requester has got no reply: it would restart until the end of its job.
    pub(super) fn abandon(&mut self, id: RequestId) {
        if let Some(key) = self.requested.get(&id).copied() {
            self.kill_actor(key);
        }
    }

    /// Checks whether an actor is managed and has not ended.
    pub(in crate::cluster) fn is_managed(&self, key: ActorKey) -> bool {
        self.managed.contains_key(&key)
    }

    /// Refuses the request for an actor whose first incarnation was not created, since the disk does not take its record.
    pub(super) fn start_not_persisted(&mut self, key: ActorKey, at: ActorLocation, why: String) {
        let is_wanted = self.actors.get(&key).is_some_and(|actor| match actor.phase {
            ActorPhase::Assigned(worker) => self.awaits_start(key, worker, at),
            _ => false,
        });
        let Some(managed) = self.managed.get_mut(&key).filter(|_| is_wanted) else { return };
        let Some(ticket) = managed.spawner.take() else { return };
        self.open_requests.remove(&ticket);
        let end = End::new(EndReason::Refused, format!("it was not created: {why}"));
        self.reply(ticket, Err(ControlError::NotPersisted(why)));
        self.end_actor(key, &end.into(), ControlError::NotPersisted);
    }

    /// Answers the requests that waited for a managed actor, which is alive now.
    pub(super) fn managed_is_alive(&mut self, key: ActorKey) {
        let Some(located) = self.found(key) else { return };
        let Some(managed) = self.managed.get_mut(&key) else { return };
        let restarted = std::mem::take(&mut managed.is_restarting);
        let present = managed.incarnation;
        // A request that knows this incarnation to be gone waits for the next one.
        let mut locators = Vec::new();
        managed.locators.retain(|ticket, gone| {
            let waits = gone.is_some_and(|gone| present <= gone);
            if !waits {
                locators.push(*ticket);
            }
            waits
        });
        let spawner = managed.spawner.take();
        let ControlReply::Found { actor, at, member, .. } = &located else { return };
        if let Some(ticket) = spawner {
            let placed = ControlReply::Created { actor: *actor, at: *at, member: *member };
            self.open_requests.remove(&ticket);
            self.reply(ticket, Ok(placed));
        }
        if restarted && let Some(job) = self.actors.get(&key).map(|actor| actor.job) {
            self.notify_driver(job, JobEvent::ActorMoved { at: *at, member: *member });
        }
        for ticket in locators {
            self.open_requests.remove(&ticket);
            self.reply(ticket, Ok(located.clone()));
        }
    }

    /// Looks up a managed actor: answered once an incarnation after `gone` is alive, or with the actor's end.
    pub(super) fn locate(&mut self, ticket: Ticket, key: ActorKey, gone: Option<ActorIncarnation>) {
        let Some(managed) = self.managed.get(&key) else {
            return self.reply(ticket, Ok(ControlReply::Gone(self.end_of_actor(key))));
        };
        let is_later = gone.is_none_or(|gone| managed.incarnation > gone);
        match self.found(key).filter(|_| is_later) {
            Some(located) => self.reply(ticket, Ok(located)),
            None => {
                self.open_requests.insert(ticket, OpenRequest::Locate(key));
                if let Some(managed) = self.managed.get_mut(&key) {
                    managed.locators.insert(ticket, gone);
                }
            }
        }
    }

    pub(super) fn cancel_locator(&mut self, ticket: Ticket, key: ActorKey) {
        self.open_requests.remove(&ticket);
        if let Some(managed) = self.managed.get_mut(&key) {
            managed.locators.remove(&ticket);
        }
    }
}
