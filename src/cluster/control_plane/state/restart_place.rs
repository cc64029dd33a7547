//! Places of restarts: the node that the next incarnation of a managed actor must have, or must not have.

use super::ClusterState;
use crate::cluster::model::{ActorKey, WorkerId};
use crate::spec::RestartPlace;

impl ClusterState {
    /// Notes the node on which an incarnation is about to be created, for the next ones; before its record is written.
    pub(super) fn note_node(&mut self, key: ActorKey, worker: WorkerId) {
        let place = self.managed.get(&key).map(|managed| managed.policy.place);
        let node = self.workers.get(&worker).map(|worker| worker.node);
        let (Some(place), Some(node), Some(actor)) = (place, node, self.actors.get(&key)) else { return };
        if place == RestartPlace::Anywhere || self.settings.is_single_node {
            return;
        }
        let (before, mut spec) = (actor.shape, self.spec(actor));
        match place {
            RestartPlace::SameNode => spec.node = Some(node),
            RestartPlace::OtherNode | RestartPlace::Anywhere => spec.avoided = Some(node),
        }
        let shape = self.schedule.shape_of(&spec);
        // The resources are those of before, so what the actor holds stays the same.
        if let Some(actor) = self.actors.get_mut(&key) {
            actor.shape = shape;
        }
        self.schedule.drop_shape(before);
    }
}
