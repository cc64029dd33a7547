//! Versions of the head's tables: numbers that grow whenever rows may have changed.
//!
//! A viewer that has seen a version reloads a table only after its version has grown.

use crate::cluster::control_plane::state::ControlEvent;
use crate::cluster::listing::Kind;

/// Versions of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cluster) struct TableVersions {
    all: u64,
    tables: [u64; Kind::ALL.len()],
}

impl TableVersions {
    /// Number of events that may have changed rows.
    #[cfg_attr(
        all(not(feature = "dashboard"), not(test)),
        expect(dead_code, reason = "only the dashboard shows it")
    )]
    pub(in crate::cluster) fn snapshot(&self) -> u64 {
        self.all
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

    /// Counts an event that may have changed rows of these tables.
    pub(in crate::cluster) fn count(&mut self, tables: &[Kind]) {
        if !tables.is_empty() {
            self.all += 1;
        }
        for kind in tables {
            self.tables[*kind as usize] += 1;
        }
    }
}

/// Tables whose rows an event may change.
pub(super) fn changed_by(event: &ControlEvent) -> &'static [Kind] {
    use Kind::{Actors, Jobs, Nodes, Tasks, Workers};
    match event {
        ControlEvent::Restored(_)
        | ControlEvent::NodeJoined(_)
        | ControlEvent::NodeLeft { .. }
        | ControlEvent::JobEnded { .. }
        | ControlEvent::WorkerEnded { .. } => &Kind::ALL,
        ControlEvent::TaskCounts { .. } => &[Tasks],
        ControlEvent::WorkerSuspended { .. } => &[Workers],
        ControlEvent::OwnAgent { .. }
        | ControlEvent::NodeDrain { .. }
        // It changes an alert, which the overview shows beside the nodes.
        | ControlEvent::PersistenceStatus { .. } => &[Nodes],
        ControlEvent::JobSubmitted { .. }
        | ControlEvent::JobStarted { .. }
        | ControlEvent::NodeProvisioned { .. }
        | ControlEvent::DriverStarted { .. }
        | ControlEvent::DriverLeft { .. } => &[Jobs, Nodes, Workers],
        ControlEvent::WorkerReady { .. }
        | ControlEvent::ActorStarted { .. }
        | ControlEvent::ActorEnded { .. }
        | ControlEvent::SpawnCancelled { .. }
        | ControlEvent::Place { .. }
        | ControlEvent::Cancelled { .. }
        | ControlEvent::Kill { .. }
        | ControlEvent::KillWorkerOf { .. } => &[Nodes, Workers, Actors],
        ControlEvent::NodeHeartbeat { .. }
        | ControlEvent::JobHeartbeat { .. }
        | ControlEvent::ExecutablePinned { .. }
        | ControlEvent::Find { .. }
        | ControlEvent::WatermarksDurable { .. }
        | ControlEvent::Tick => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::model::NodeId;

    #[test]
    fn counted_tables_differ_from_the_version_before() {
        let before = TableVersions::default();
        let mut now = before;
        now.count(changed_by(&ControlEvent::Tick));
        assert_eq!(now, before);
        now.count(changed_by(&ControlEvent::NodeDrain { node: NodeId(1) }));
        assert_eq!(now.snapshot(), 1);
        assert_eq!(now.changed_since(&before).collect::<Vec<_>>(), [Kind::Nodes]);
        assert_eq!(now.changed_since(&now).count(), 0);
    }

    #[test]
    fn positions_of_kinds_are_their_numbers() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{kind:?}");
        }
    }
}
