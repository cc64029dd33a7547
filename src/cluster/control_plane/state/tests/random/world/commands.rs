//! Commands of the head to its nodes.

use super::*;

impl World {
    /// Receives the command to stop an incarnation, which an unlinked node misses.
    pub(super) fn stop_commanded(
        &mut self,
        node: NodeId,
        worker: WorkerId,
        actor: ActorKey,
        at: ActorLocation,
    ) {
        assert!(!self.must_live.contains(&actor), "{actor} was stopped although nothing has ended it");
        let believed = self.harness.state.actors.get(&actor).map(|actor| actor.phase);
        let is_present = believed == Some(ActorPhase::Alive(worker, at.target));
        let is_stopping = self.harness.state.stopping.contains(&actor);
        assert!(!self.managed.contains(&actor) || !is_present || is_stopping, "{actor} is stopped");
        let linked = self.nodes.get(&node.0).filter(|actual| actual.linked);
        let runs = linked.and_then(|actual| actual.workers.get(&worker)?.actors.get(&actor));
        if runs == Some(&at.target.incarnation) {
            self.told_to_stop.insert((worker, actor, at.target.incarnation));
        }
    }

    /// Receives the command to create an incarnation, which an unlinked node misses.
    pub(super) fn start_commanded(
        &mut self,
        node: NodeId,
        worker: WorkerId,
        actor: ActorKey,
        at: ActorLocation,
    ) {
        let incarnation = at.target.incarnation;
        assert_eq!(at, managed_location(worker, actor, incarnation.0));
        let is_new = self.started_on.insert((actor, incarnation), worker);
        assert!(is_new.is_none_or(|before| before == worker), "{actor} is created twice as {incarnation}");
        assert!(is_new.is_some() || !self.killed.contains(&actor), "{actor} restarts although it was killed");
        let linked = self.nodes.get_mut(&node.0).filter(|actual| actual.linked);
        let Some(worker) = linked.and_then(|actual| actual.workers.get_mut(&worker)) else { return };
        // A repeated command, or one about an incarnation that was replaced.
        if worker.actors.get(&actor).is_some_and(|present| *present >= incarnation) {
            return;
        }
        worker.starts.insert(actor, incarnation);
    }
}
