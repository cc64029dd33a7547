//! A node is back: what its agent reports is compared with what is believed.

use std::collections::BTreeSet;

use super::worker::Worker;
use super::{Action, ControlError, State};
use crate::cluster::control_plane::state::actor::Phase;
use crate::cluster::model::NodeReport;
use crate::cluster::model::WorkerReport;
use crate::cluster::model::{ActorKey, JobId, NodeId, WorkerId};

impl State {
    /// The same life of an agent has joined again: its link, or the head, was gone.
    pub(super) fn node_rejoined(&mut self, report: NodeReport) {
        let id = report.facts.id();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let first = !std::mem::replace(&mut node.has_rejoined, true);
        if first {
            self.member_is_back();
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let changed = node.facts != report.facts;
        node.is_stopping = false;
        node.facts = report.facts;
        let believed = node.workers.clone();
        if changed {
            self.schedule.change(id, &node.facts.resources, &node.facts.labels);
        }
        self.schedule.set_schedulability(id, node.schedulability());
        self.node_leases.grant(self.now, id);
        if changed {
            self.deferred.capacity_shrunk = true;
            self.persist_node(id);
        }
        let reported: BTreeSet<WorkerId> = report.workers.iter().map(|worker| worker.worker).collect();
        for worker in believed.difference(&reported) {
            // It may still be about to start.
            self.actions.push(Action::StopWorker { node: id, worker: *worker });
            self.finish_worker(*worker, "it was gone when its node came back", false);
        }
        for worker in report.workers {
            self.worker_reported(id, worker, first);
        }
        self.reconcile_jobs(id, report.jobs, report.drivers);
        if first || changed {
            self.notify_jobs(id);
        }
        self.deferred.freed.insert(id);
        self.deferred.maybe_drained.insert(id);
    }

    /// Takes up what a node has of jobs; of those that are over it may not have heard.
    pub(super) fn reconcile_jobs(&mut self, node: NodeId, held: Vec<JobId>, drivers: Vec<JobId>) {
        for job in held {
            self.executable_pinned(job, node);
        }
        for job in drivers {
            self.driver_started(job, node);
        }
    }

    /// A worker runs on a node that is back. After the head was away it may be one of an earlier life.
    fn worker_reported(&mut self, node: NodeId, report: WorkerReport, adopt: bool) {
        let id = report.worker;
        let known = self.workers.get(&id).is_some_and(|worker| {
            (worker.node, worker.job, worker.detached) == (node, report.job, report.detached)
        });
        let adopted = !known && adopt && !self.workers.contains_key(&id) && self.is_expected(&report);
        if adopted {
            if report.detached.is_none() {
                self.add_pool(report.job, node);
            }
            self.add_worker(id, Worker::new(node, report.job, report.detached));
        }
        if !known && !adopted {
            self.actions.push(Action::StopWorker { node, worker: id });
            return;
        }
        let Some(member) = report.member else { return };
        self.worker_ready(id, member, report.pid);
        self.worker_suspended(id, report.suspended);
        self.task_counts(id, report.tasks);
        let reported: BTreeSet<ActorKey> = report.actors.iter().map(|(actor, ..)| *actor).collect();
        for (actor, class, at) in report.actors {
            self.reconcile_actor(actor, Some(&class), id, at);
        }
        self.end_unreported(id, &reported);
    }

    /// Whether a worker that an earlier life of the head has started has a reason to run.
    fn is_expected(&self, report: &WorkerReport) -> bool {
        match report.detached {
            None => self.is_served(report.job),
            Some(actor) => {
                let known = self.actors.get(&actor);
                known.is_some_and(|actor| actor.detached && actor.phase == Phase::Unaccounted)
            }
        }
    }

    /// Ends the actors of a worker that its agent does not know to live.
    fn end_unreported(&mut self, worker: WorkerId, reported: &BTreeSet<ActorKey>) {
        let actors = self.workers.get(&worker).map(|worker| worker.actors.clone());
        for key in actors.into_iter().flatten() {
            let alive = self.actors.get(&key).is_some_and(|actor| matches!(actor.phase, Phase::Alive(..)));
            if alive && !reported.contains(&key) {
                self.end_actor(key, &"it was gone when its node came back".into(), ControlError::Unknown);
            }
        }
    }
}
