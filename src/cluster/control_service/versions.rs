//! Versions of the head's tables: numbers that grow whenever rows may have changed.
//!
//! A viewer that has seen a version reloads a table only after its version has grown.

use crate::cluster::control_plane::state::ControlEvent;
use crate::cluster::listing::Kind;

/// Versions of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cluster) struct TableVersions {
    state: u64,
    tables: [u64; Kind::ALL.len()],
}

impl TableVersions {
    /// Version of the state, which statistics do not change.
    #[cfg_attr(
        all(not(feature = "dashboard"), not(test)),
        expect(dead_code, reason = "only the dashboard shows it")
    )]
    pub(in crate::cluster) fn snapshot(&self) -> u64 {
        self.state
    }

    /// Tables that may have changed since an earlier version.
    #[cfg_attr(
        all(not(feature = "dashboard"), not(test)),
        expect(dead_code, reason = "only the dashboard reloads tables")
    )]
    pub(in crate::cluster) fn changed_since(&self, before: &Self) -> impl Iterator<Item = Kind> {
        let (now, before) = (self.tables, before.tables);
        Kind::ALL.into_iter().filter(move |kind| now[*kind as usize] != before[*kind as usize])
    }

    /// Counts an event that may have changed rows of these tables. `state` is the version of the state after it.
    pub(in crate::cluster) fn count(&mut self, tables: &[Kind], state: u64) {
        self.state = state;
        for kind in tables {
            self.tables[*kind as usize] += 1;
        }
    }
}

/// Tables whose rows an event may change.
pub(super) fn changed_by(event: &ControlEvent) -> &'static [Kind] {
    use Kind::{Actors, Events, Jobs, Messages, Nodes, Tasks, Workers};
    match event {
        ControlEvent::Restored(_)
        | ControlEvent::NodeJoined(_)
        | ControlEvent::NodeLeft { .. }
        | ControlEvent::NodeDrain { .. }
        | ControlEvent::DriverLeft { .. }
        | ControlEvent::JobEnded { .. }
        | ControlEvent::WorkerEnded { .. } => &Kind::ALL,
        ControlEvent::TaskCounts { .. } => &[Tasks],
        ControlEvent::Statistics { statistics, .. } => {
            match (statistics.actors.is_empty(), statistics.messages.is_empty()) {
                (true, true) => &[Workers],
                (true, false) => &[Workers, Messages],
                (false, true) => &[Workers, Actors],
                (false, false) => &[Workers, Actors, Messages],
            }
        }
        ControlEvent::WorkerSuspended { .. } => &[Workers],
        ControlEvent::OwnAgent { .. }
        // It changes an alert, which the overview shows beside the nodes.
        | ControlEvent::PersistenceStatus { .. } => &[Nodes, Events],
        ControlEvent::JobSubmitted { .. }
        | ControlEvent::JobStarted { .. }
        | ControlEvent::NodeProvisioned { .. }
        | ControlEvent::DriverStarted { .. }
        => &[Jobs, Nodes, Workers, Events],
        ControlEvent::WorkerReady { .. }
        | ControlEvent::ActorStarted { .. }
        | ControlEvent::ActorEnded { .. }
        | ControlEvent::SpawnCancelled { .. }
        | ControlEvent::Place { .. }
        | ControlEvent::Abandoned { .. }
        | ControlEvent::Cancelled { .. }
        | ControlEvent::Kill { .. }
        | ControlEvent::KillWorkerOf { .. } => &[Nodes, Workers, Actors, Events],
        ControlEvent::NodeHeartbeat { .. }
        | ControlEvent::JobHeartbeat { .. }
        | ControlEvent::ExecutablePinned { .. }
        | ControlEvent::SpawnGivenUp { .. }
        | ControlEvent::StartNotPersisted { .. }
        | ControlEvent::Find { .. }
        | ControlEvent::Locate { .. }
        | ControlEvent::HolderStarted { .. }
        | ControlEvent::CheckHolders { .. }
        | ControlEvent::ProposeHolders { .. }
        | ControlEvent::ActivateHolders { .. }
        | ControlEvent::WatchNode { .. }
        | ControlEvent::WatchJob { .. }
        | ControlEvent::WatchActor { .. }
        | ControlEvent::WatermarksDurable { .. }
        | ControlEvent::Tick => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn counted_tables_differ_from_the_version_before() {
        let before = TableVersions::default();
        let mut now = before;
        now.count(changed_by(&ControlEvent::Tick), 0);
        assert_eq!(now, before);
        now.count(changed_by(&ControlEvent::PersistenceStatus { trouble: None }), 7);
        assert_eq!(now.snapshot(), 7);
        assert_eq!(now.changed_since(&before).collect::<Vec<_>>(), [Kind::Nodes, Kind::Events]);
        assert_eq!(now.changed_since(&now).count(), 0);
    }

    #[test]
    fn positions_of_kinds_are_their_numbers() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{kind:?}");
        }
    }
}
