//! Statistics that workers report. They decide nothing, are not persisted, and do not change the version.

use rustc_hash::FxHashMap;

use super::ClusterState;
use crate::cluster::model::{
    ActorCount, ActorKey, MessageCount, WorkerId, WorkerStatistics, WorkerUsage, cut,
};
use crate::config::{ACTOR_NAME_BYTES_MAX, ENDED_MESSAGES_MAX, MESSAGE_NAMES_MAX};

/// Counts of the messages of actors that are not dead and have handled some.
///
/// In a table of their own: a cluster may have millions of actors that are idle.
pub(super) type ActorCounts = FxHashMap<ActorKey, (u64, u32)>;

/// Latest statistics of a worker.
#[derive(Debug, Default)]
pub(super) struct LatestStatistics {
    pub(super) usage: Option<WorkerUsage>,
    /// Counts by class and message, sorted by both names.
    pub(super) messages: Vec<MessageCount>,
}

impl LatestStatistics {
    fn merge(&mut self, usage: Option<WorkerUsage>, messages: Vec<MessageCount>) {
        self.usage = usage.or(self.usage);
        for mut count in messages {
            cut(&mut count.class, ACTOR_NAME_BYTES_MAX);
            cut(&mut count.message, ACTOR_NAME_BYTES_MAX);
            let names = (&count.class, &count.message);
            match self.messages.binary_search_by(|other| (&other.class, &other.message).cmp(&names)) {
                Ok(at) => self.messages[at] = count,
                Err(at) if self.messages.len() < MESSAGE_NAMES_MAX => self.messages.insert(at, count),
                // A worker that invents names must not use up the head's memory.
                Err(_) => {}
            }
        }
    }
}

impl LatestStatistics {
    /// Drops the rarest messages of a worker that has ended. The history has many workers, each with its own.
    pub(super) fn bound_ended(&mut self) {
        if self.messages.len() > ENDED_MESSAGES_MAX {
            self.messages.sort_unstable_by_key(|count| std::cmp::Reverse(count.handled));
            self.messages.truncate(ENDED_MESSAGES_MAX);
            self.messages.sort_unstable_by(|one, other| {
                (&one.class, &one.message).cmp(&(&other.class, &other.message))
            });
            self.messages.shrink_to_fit();
        }
    }
}

impl ClusterState {
    /// Merges statistics of a worker; what is not mentioned stays as it is.
    pub(super) fn merge_statistics(&mut self, id: WorkerId, statistics: WorkerStatistics) {
        let WorkerStatistics { usage, messages, actors } = statistics;
        let Some(worker) = self.workers.get_mut(&id) else {
            return self.merge_last_statistics(id, WorkerStatistics { usage, messages, actors });
        };
        worker.statistics.merge(usage, messages);
        for ActorCount { actor, handled, mailbox } in actors {
            // A worker reports its own actors only. The last count of an ended actor comes before its end.
            if self.worker_of_actor(actor) == Some(id) {
                self.actor_counts.insert(actor, (handled, mailbox));
            }
        }
    }

    /// Merges a report that arrives after the end of its worker.
    fn merge_last_statistics(&mut self, id: WorkerId, statistics: WorkerStatistics) {
        let WorkerStatistics { usage, messages, actors } = statistics;
        let Some(worker) = self.history.worker_mut(id) else { return };
        worker.statistics.merge(usage, messages);
        worker.statistics.bound_ended();
        worker.summary.usage = worker.statistics.usage;
        if actors.is_empty() {
            return;
        }
        // The history has no index of actors: one pass over it serves all of them.
        let counts: FxHashMap<_, _> = actors.iter().map(|count| (count.actor, count.handled)).collect();
        for record in self.history.actors.iter_mut() {
            let is_of_worker = record.at.is_some_and(|(_, worker, _)| worker == id);
            if let Some(handled) = counts.get(&record.key).filter(|_| is_of_worker) {
                // The last report can overtake an earlier one.
                record.handled = record.handled.max(Some(*handled));
            }
        }
    }
}
