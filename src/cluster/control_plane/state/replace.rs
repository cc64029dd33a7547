//! Replacement of incarnations of managed actors that may run: on drained and silent nodes, and in trees.

use std::sync::Arc;

use super::actor::ActorPhase;
use super::managed::{Loss, target};
use super::{ClusterState, ControlError};
use crate::cluster::model::{ActorKey, ActorLocation, NodeId};
use crate::spec::{End, EndReason};

impl ClusterState {
    /// Restarts the managed actors of a node elsewhere, all of them or those for which another node has room now.
    ///
    /// Their incarnations there may still run, and are stopped when the node can be reached.
    pub(super) fn move_actors_from(&mut self, node: NodeId, why: &End, only_if_room: bool) {
        let workers = self.nodes.get(&node).map(|node| node.workers.clone()).unwrap_or_default();
        let why = Arc::new(why.clone());
        for id in workers {
            let actors = self.workers.get(&id).map(|worker| worker.actors.clone()).unwrap_or_default();
            let can_move = |key: &ActorKey| {
                let Some(actor) = self.actors.get(key).filter(|_| self.managed.contains_key(key)) else {
                    return false;
                };
                let queue = (actor.job, actor.shape);
                // One that has no other place is better off here.
                let mut others = self.nodes.keys().filter(|other| **other != node);
                match only_if_room {
                    true => others.any(|other| self.schedule.fits(*other, queue)),
                    false => self.schedule.only_node(actor.shape) != Some(node),
                }
            };
            for key in actors.into_iter().filter(can_move).collect::<Vec<_>>() {
                self.replace(key, &why, Loss::External);
            }
        }
    }

    /// Commands the stop of an incarnation that may run, while its actor goes on without it.
    pub(super) fn stop_incarnation(&mut self, key: ActorKey) {
        let phase = self.actors.get(&key).map(|actor| actor.phase);
        let Some(ActorPhase::Assigned(worker) | ActorPhase::Alive(worker, _)) = phase else { return };
        let member = self.workers.get(&worker).and_then(|worker| worker.member);
        if let (Some(target), Some(member)) = (target(key, self.incarnation(key)), member) {
            self.stop_actor(key, worker, ActorLocation { host: member.actors, target });
        }
    }

    /// Replaces the incarnation of a managed actor, which may run: stops it, and restarts the actor.
    pub(super) fn replace(&mut self, key: ActorKey, end: &Arc<End>, loss: Loss) {
        let phase = self.actors.get(&key).map(|actor| actor.phase);
        let node = phase.and_then(|phase| self.node_of(phase));
        let is_silent = node.and_then(|node| self.nodes.get(&node)).is_some_and(|node| node.is_unreachable);
        if !self.is_exclusive(key) || is_silent {
            self.stop_incarnation(key);
            return self.lose_actor(key, end, loss, ControlError::Unknown);
        }
        if let Some(managed) = self.managed.get_mut(&key) {
            managed.replaced_by = Some((Arc::clone(end), loss));
        }
        // A restarted head would take the end of the incarnation for that of the actor. The stop waits for the record.
        self.persist_actor(key);
        // One that is being created is stopped once it is.
        if matches!(phase, Some(ActorPhase::Alive(..))) {
            self.stop_incarnation(key);
        }
    }

    /// Restores that the incarnation of an actor was told to stop so that the next one can begin.
    pub(super) fn restore_replacement(&mut self, key: ActorKey) {
        if let Some(managed) = self.managed.get_mut(&key) {
            let end = End::new(EndReason::Evicted, "it was to be replaced when the head restarted");
            managed.replaced_by = Some((end.into(), Loss::External));
        }
    }

    /// Checks whether an incarnation was told to stop, and goes on until it has ended.
    pub(super) fn is_to_stop(&self, key: ActorKey) -> bool {
        self.stopping.contains(&key)
            || self.managed.get(&key).is_some_and(|managed| managed.replaced_by.is_some())
    }
}
