//! Actors that run in a worker, as its agent knows them.

use std::collections::BTreeMap;

use crate::cluster::model::{ActorKey, ActorLocation};
use crate::cluster::protocol::worker::ActorEvent;
use crate::id::ActorIncarnation;

/// Actors that run in a worker, by their incarnations: a worker that was cut off, or paused, may run an incarnation that
/// was replaced beside a later one.
#[derive(Debug, Default)]
pub(in crate::cluster) struct WorkerActors(BTreeMap<(ActorKey, ActorIncarnation), (String, ActorLocation)>);

impl WorkerActors {
    /// Applies an event of the worker.
    pub(in crate::cluster) fn on_event(&mut self, event: &ActorEvent) {
        match event {
            ActorEvent::Started { actor, class, at } => {
                self.0.insert((*actor, at.target.incarnation), (class.clone(), *at));
            }
            ActorEvent::Stopped { actor, incarnation, .. } => drop(self.0.remove(&(*actor, *incarnation))),
        }
    }

    /// Checks whether an incarnation of the actor runs.
    #[cfg(any(feature = "cli", test))]
    pub(in crate::cluster) fn contains(&self, actor: ActorKey) -> bool {
        let incarnations = (actor, ActorIncarnation(0))..=(actor, ActorIncarnation(u32::MAX));
        self.0.range(incarnations).next().is_some()
    }

    /// Lists the incarnations for a join report.
    pub(in crate::cluster) fn report(&self) -> Vec<(ActorKey, String, ActorLocation)> {
        self.0.iter().map(|((actor, _), (class, at))| (*actor, class.clone(), *at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, HostId, HostUid, Incarnation, Target};
    use crate::spec::{End, EndReason};

    #[test]
    fn end_of_an_earlier_incarnation_leaves_the_later_one() {
        let actor = ActorKey(7);
        let at = |number| {
            let target =
                Target { actor: ActorId::managed(actor.0).unwrap(), incarnation: ActorIncarnation(number) };
            ActorLocation { host: HostUid { host: HostId(1), incarnation: Incarnation(1) }, target }
        };
        let started = |number| ActorEvent::Started { actor, class: "Counter".to_owned(), at: at(number) };
        let stopped = |number| {
            let end = End::new(EndReason::Stopped, "it stopped");
            ActorEvent::Stopped { actor, incarnation: ActorIncarnation(number), end, handled: 0 }
        };
        let mut actors = WorkerActors::default();
        actors.on_event(&started(1));
        actors.on_event(&started(3));
        assert_eq!(actors.report().len(), 2);
        actors.on_event(&stopped(1));
        assert_eq!(actors.report(), [(actor, "Counter".to_owned(), at(3))]);
        assert!(actors.contains(actor) && !actors.contains(ActorKey(8)));
        actors.on_event(&stopped(3));
        assert!(!actors.contains(actor));
    }
}
