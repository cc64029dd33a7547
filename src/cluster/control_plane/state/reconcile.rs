//! Reconciliation of a rejoining node: its report against the state.
//!
//! | reported | known | outcome |
//! |---|---|---|
//! | yes | yes | the worker stays; its actors are compared one by one |
//! | yes | no | adopted if the head has restarted and the worker is expected, else stopped |
//! | no | yes | the worker is gone: finished with the reported end, or stopped in case it is about to start |

use std::collections::BTreeSet;

use super::managed::Loss;
use super::worker::{LiveWorker, WorkerExit};
use super::{Action, ClusterState, ControlError};
use crate::cluster::control_plane::state::actor::ActorPhase;
use crate::cluster::model::NodeReport;
use crate::cluster::model::WorkerReport;
use crate::cluster::model::{ActorKey, ActorLocation, JobId, NodeId, NodeState, WorkerId};
use crate::id::ActorIncarnation;
use crate::spec::{End, EndReason};

impl ClusterState {
    /// Handles the join of an agent incarnation that is known: its link was lost, or the head restarted.
    pub(super) fn node_rejoined(&mut self, report: NodeReport) {
        let id = report.descriptor.id();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let first_join = !std::mem::replace(&mut node.has_rejoined, true);
        if first_join {
            self.member_rejoined();
            self.record_node_join(id, "it rejoined the restarted head");
        }
        self.fenced_node_rejoined(id, &report);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if first_join {
            node.leased_since = self.now;
        }
        let changed = node.descriptor != report.descriptor;
        // The command to stop may have been lost with the link. It is repeated if the node is still drained.
        node.is_stopping = false;
        node.holder = report.holder_address();
        node.descriptor = report.descriptor;
        let known_workers = node.workers.clone();
        if changed {
            self.schedule.change(id, &node.descriptor.resources, &node.descriptor.labels);
        }
        self.schedule.set_schedulability(id, node.schedulability());
        self.node_heard(id);
        if changed {
            self.deferred.capacity_shrunk = true;
            self.persist_node(id);
        }
        for (actor, incarnation, end) in report.ended {
            // A node speaks for its own actors, and for those of which nothing is known yet.
            let phase = self.actors.get(&actor).map(|actor| actor.phase);
            let is_here = phase.is_some_and(|phase| self.node_of(phase) == Some(id));
            if is_here || phase == Some(ActorPhase::Unaccounted) {
                self.actor_ended(actor, incarnation, end);
            }
        }
        let reported: BTreeSet<WorkerId> = report.workers.iter().map(|worker| worker.worker).collect();
        for worker in known_workers.difference(&reported) {
            // The agent may have received the command to start it after the report was made.
            self.actions.push(Action::StopWorker { node: id, worker: *worker });
            if let Some(ended) = report.ended_workers.iter().find(|ended| ended.worker == *worker) {
                self.worker_ended(*worker, &ended.end, ended.killed);
                continue;
            }
            let end = End::new(EndReason::Unknown, "it was gone when its node rejoined");
            self.record_worker_death(*worker, &end.text);
            self.finish_worker(*worker, &end, WorkerExit::Requested);
        }
        for worker in report.workers {
            self.worker_reported(id, worker, first_join);
        }
        self.reconcile_jobs(id, report.jobs, report.drivers);
        self.reconcile_states(id, &report.states);
        if first_join && self.nodes.get(&id).is_some_and(|node| node.state == NodeState::Draining) {
            // Exclusive actors that the head had told to stop, before it restarted.
            self.move_actors_from(id, &End::new(EndReason::Evicted, "its node is draining"), false);
        }
        if first_join && self.all_rejoined() {
            self.restart_unaccounted();
        }
        if first_join || changed {
            self.notify_jobs(id);
        }
        self.deferred.freed.insert(id);
        self.deferred.maybe_drained.insert(id);
    }

    /// Reconciles pinned executables and drivers; the node may have missed the end of a job.
    pub(super) fn reconcile_jobs(&mut self, node: NodeId, pinned: Vec<JobId>, drivers: Vec<JobId>) {
        for job in pinned {
            self.executable_pinned(job, node);
        }
        for job in drivers {
            self.driver_started(job, node);
        }
    }

    /// Reconciles one worker of the report.
    fn worker_reported(&mut self, node: NodeId, report: WorkerReport, adopt: bool) {
        let id = report.worker;
        // An agent may report any id: it keeps only workers that the head has started on this very node.
        let known = self.workers.get(&id).is_some_and(|worker| {
            (worker.node, worker.job, worker.detached) == (node, report.job, report.detached)
        });
        // Only the first report to this incarnation of the head can contain workers that it does not know
        // but has to keep.
        let adopted = !known && adopt && !self.workers.contains_key(&id) && self.is_expected(&report);
        if adopted {
            if report.detached.is_none() {
                self.add_pool(report.job, node);
            }
            self.add_worker(id, LiveWorker::new(node, report.job, report.detached));
        }
        if !known && !adopted {
            self.actions.push(Action::StopWorker { node, worker: id });
            return;
        }
        // A starting worker has no actors. Its readiness follows as an event.
        let Some(member) = report.member else { return };
        self.worker_ready(id, member, report.pid);
        self.worker_suspended(id, report.suspended);
        self.task_counts(id, report.tasks);
        let of_actor = |(actor, _, at): &(ActorKey, String, ActorLocation)| (*actor, at.target.incarnation);
        let reported: BTreeSet<_> = report.actors.iter().map(of_actor).collect();
        for (actor, class, at) in report.actors {
            self.reconcile_actor(actor, Some(&class), id, at);
        }
        self.end_unreported(id, &reported);
        self.restart_missed(id);
    }

    /// Checks whether a worker of an earlier head incarnation still has a purpose.
    fn is_expected(&self, report: &WorkerReport) -> bool {
        match report.detached {
            None => self.is_active(report.job),
            Some(actor) => {
                let known = self.actors.get(&actor);
                known.is_some_and(|actor| actor.detached && actor.phase == ActorPhase::Unaccounted)
            }
        }
    }

    /// Ends actors of a worker that the report does not contain.
    fn end_unreported(&mut self, worker: WorkerId, reported: &BTreeSet<(ActorKey, ActorIncarnation)>) {
        let actors = self.workers.get(&worker).map(|worker| worker.actors.clone());
        for key in actors.into_iter().flatten() {
            // Only alive ones: an assigned actor may be created at any moment, so its absence proves nothing.
            let Some(ActorPhase::Alive(_, target)) = self.actors.get(&key).map(|actor| actor.phase) else {
                continue;
            };
            if !reported.contains(&(key, target.incarnation)) {
                let end = End::new(EndReason::Unknown, "it was gone when its node rejoined").into();
                self.lose_actor(key, &end, Loss::External, ControlError::Unknown);
            }
        }
    }
}
