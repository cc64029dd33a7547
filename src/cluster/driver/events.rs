//! Job events from the head: nodes and workers that come and go.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{DriverShared, KnownWorker, membership_broadcast, provision};
use crate::background;
use crate::cluster::control_plane::state::{JobEvent, WorkerEntry};
use crate::cluster::membership::reachability_of;
use crate::cluster::model::{NodeDescriptor, NodeId, WorkerAddress, WorkerId};
use crate::cluster::protocol::MembershipUpdate;
use crate::observe::log;
use crate::registry::{Inbound, decode};
use crate::spec::{End, EndReason};
use crate::wire::CallFailure;

/// Receives an event from the head. The reply follows once the queue has room, which slows the head down.
pub(super) fn receive(events: &mpsc::Sender<JobEvent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let event = match decode(&body) {
        Ok(event) => event,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    responder.release_credit();
    let events = events.clone();
    background::spawn(async move {
        match events.send(event).await {
            Ok(()) => responder.reply(()),
            Err(_) => responder.fail(CallFailure::Closing),
        }
    });
}

/// Handles the events in the order in which the head sent them.
pub(super) async fn event_loop(shared: Arc<DriverShared>, mut events: mpsc::Receiver<JobEvent>) {
    while let Some(event) = events.recv().await {
        on_job_event(&shared, event);
    }
}

/// Handles one event.
pub(super) fn on_job_event(shared: &Arc<DriverShared>, event: JobEvent) {
    match event {
        JobEvent::NodeUp(descriptor) => provision_later(shared, descriptor),
        JobEvent::NodeGone { agent } => shared.forget_agent(agent),
        JobEvent::WorkerUp { node, worker, member, pid } => {
            worker_up(shared, KnownWorker { node, worker, member, pid, ended: None });
        }
        JobEvent::WorkerDown { worker, member, end, node } => {
            worker_down(shared, node, worker, member, end);
        }
        JobEvent::Reachability { workers, is_reachable } => {
            apply_and_broadcast(shared, MembershipUpdate::Reachability { workers, is_reachable });
        }
        JobEvent::ActorMoved { at, member } => {
            apply_and_broadcast(shared, MembershipUpdate::Moved { at, member });
        }
        JobEvent::Stopped { why } => {
            log::error!(job = %shared.job, why, "the job is over");
            shared.members.end_job(&why);
            let all: Vec<_> = shared.view().workers.iter().map(|known| known.member).collect();
            for member in all {
                let end = End::new(EndReason::JobEnded, format!("the job is over: {why}"));
                shared.members.apply(&MembershipUpdate::Left { member, end }, &shared.host);
            }
        }
    }
}

fn apply_and_broadcast(shared: &DriverShared, change: MembershipUpdate) {
    shared.members.apply(&change, &shared.host);
    shared.broadcast.add(change);
}

/// Provisions a node in a task of its own: shipping an executable takes seconds, and other events must not wait.
fn provision_later(shared: &Arc<DriverShared>, descriptor: NodeDescriptor) {
    let shared = Arc::clone(shared);
    background::spawn(async move {
        let provisioned = provision::provision(&shared, &descriptor).await;
        provision::log_tally(&shared);
        if let Err(error) = provisioned {
            log::warn!(node = %descriptor.id(), %error, "the node cannot run this job's workers");
            let refused = format!("node {}: {error}", descriptor.id());
            shared.startup.send_modify(|startup| startup.refused = Some(refused));
        }
    });
}

fn worker_up(shared: &Arc<DriverShared>, up: KnownWorker) {
    let member = up.member;
    {
        let mut view = shared.view();
        // The head repeats workers after a rejoin: each is added once.
        if view.workers.iter().any(|known| known.worker == up.worker) {
            return;
        }
        view.workers.push(up);
    }
    apply_and_broadcast(shared, MembershipUpdate::Joined(member));
    // The new worker needs the whole list, which no broadcast contains. It counts as ready only after that, so
    // the first spawn on it can already place actors on the others.
    let shared = Arc::clone(shared);
    background::spawn(async move {
        let snapshot = shared.members.snapshot(shared.head_info());
        membership_broadcast::send_to_all(&shared, vec![member], &snapshot).await;
        shared.startup.send_modify(|startup| startup.ready += 1);
    });
}

fn worker_down(
    shared: &Arc<DriverShared>,
    node: NodeId,
    worker: WorkerId,
    member: Option<WorkerAddress>,
    end: End,
) {
    let known = {
        let mut view = shared.view();
        let known = view.workers.iter_mut().find(|known| known.worker == worker && known.ended.is_none());
        let ended = known.map(|known| {
            known.ended = Some(end.text.clone());
            (known.member, known.pid)
        });
        view.forget_ended();
        ended
    };
    match (known, member) {
        (Some((member, pid)), _) => {
            log::warn!(%node, pid, cause = end.text, "a worker has ended");
            let end = End::new(end.reason, format!("worker {pid} on node {node}: {end}"));
            apply_and_broadcast(shared, MembershipUpdate::Left { member, end });
        }
        // A worker that this driver never used, such as that of a detached actor: only calls to it must fail.
        (None, Some(member)) => shared.members.apply(&MembershipUpdate::Left { member, end }, &shared.host),
        (None, None) => {
            log::warn!(%node, cause = end.text, "a worker could not be started");
            shared.startup.send_modify(|startup| {
                startup.failed += 1;
                startup.last_failure = Some(format!("node {node}: {end}"));
            });
        }
    }
}

/// Applies the head's lists of nodes and workers after a rejoin.
pub(super) fn reconcile(shared: &Arc<DriverShared>, nodes: Vec<NodeDescriptor>, workers: Vec<WorkerEntry>) {
    let reachability = reachability_of(&workers);
    for WorkerEntry { node, worker, member, pid, .. } in workers {
        worker_up(shared, KnownWorker { node, worker, member, pid, ended: None });
    }
    apply_and_broadcast(shared, reachability);
    nodes.into_iter().for_each(|descriptor| provision_later(shared, descriptor));
}

/// Workers that have not ended, as far as the driver knows.
pub(super) fn live_workers(shared: &DriverShared) -> Vec<KnownWorker> {
    shared.view().workers.iter().filter(|known| known.ended.is_none()).cloned().collect()
}

/// Declares dead the workers of `before` that the head does not list. `before` was taken before the head was asked,
/// so a worker that came meanwhile is not affected. All nodes must have had time to rejoin the head.
pub(super) fn remove_unlisted(shared: &Arc<DriverShared>, before: Vec<KnownWorker>, workers: &[WorkerEntry]) {
    let is_listed = |known: &KnownWorker| workers.iter().any(|working| working.worker == known.worker);
    for KnownWorker { node, worker, member, .. } in before.into_iter().filter(|known| !is_listed(known)) {
        let end = End::new(EndReason::Unknown, "it ended while the head was unreachable");
        worker_down(shared, node, worker, Some(member), end);
    }
}
