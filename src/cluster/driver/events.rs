//! News from the head to a driver.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{KnownWorker, Shared, membership_broadcast, provision};
use crate::cluster::control_plane::state::{JobEvent, WorkerEntry};
use crate::cluster::model::{NodeDescriptor, NodeId, WorkerAddress, WorkerId};
use crate::cluster::protocol::MembershipUpdate;
use crate::observe::log;
use crate::registry::{Inbound, decode};
use crate::wire::CallFailure;

/// Takes what the head sends; it is answered once there is room for it.
pub(super) fn receive(tell: &mpsc::Sender<JobEvent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let news = match decode(&body) {
        Ok(news) => news,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    responder.release_credit();
    let tell = tell.clone();
    tokio::spawn(async move {
        match tell.send(news).await {
            Ok(()) => responder.answer(()),
            Err(_) => responder.fail(CallFailure::Closing),
        }
    });
}

/// Does what news ask for.
pub(super) async fn event_loop(shared: Arc<Shared>, mut told: mpsc::Receiver<JobEvent>) {
    while let Some(news) = told.recv().await {
        on_job_event(&shared, news);
    }
}

/// Does what one piece of news asks for.
pub(super) fn on_job_event(shared: &Arc<Shared>, news: JobEvent) {
    match news {
        JobEvent::NodeUp(facts) => equip_later(shared, facts),
        JobEvent::NodeGone { agent } => shared.forget_agent(agent),
        JobEvent::WorkerUp { node, worker, member, pid } => {
            worker_up(shared, KnownWorker { node, worker, member, pid, ended: None });
        }
        JobEvent::WorkerDown { worker, member, cause, node } => {
            worker_down(shared, node, worker, member, cause);
        }
        JobEvent::Stopped { why } => {
            log::error!(job = %shared.job, why, "the job is over");
            let all: Vec<_> = shared.standing().workers.iter().map(|known| known.member).collect();
            for member in all {
                let cause = format!("the job is over: {why}");
                shared.members.apply(&MembershipUpdate::Left { member, cause }, &shared.host);
            }
        }
    }
}

/// Sends the executable to a node that has come, and goes on meanwhile.
fn equip_later(shared: &Arc<Shared>, facts: NodeDescriptor) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let equipped = provision::provision(&shared, &facts).await;
        provision::log_tally(&shared);
        if let Err(error) = equipped {
            log::warn!(node = %facts.id(), %error, "a node cannot be used for this job");
            let refused = format!("node {}: {error}", facts.id());
            shared.startup.send_modify(|settled| settled.refused = Some(refused));
        }
    });
}

fn worker_up(shared: &Arc<Shared>, up: KnownWorker) {
    let member = up.member;
    {
        let mut standing = shared.standing();
        if standing.workers.iter().any(|known| known.worker == up.worker) {
            return;
        }
        standing.workers.push(up);
    }
    shared.members.apply(&MembershipUpdate::Joined(member), &shared.host);
    shared.spread.add(MembershipUpdate::Joined(member));
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let members = shared.members.list();
        let are = MembershipUpdate::Snapshot { members, head: shared.head_info() };
        membership_broadcast::tell_all(&shared, vec![member], &are).await;
        shared.startup.send_modify(|settled| settled.ready += 1);
    });
}

fn worker_down(
    shared: &Arc<Shared>,
    node: NodeId,
    worker: WorkerId,
    member: Option<WorkerAddress>,
    cause: String,
) {
    let known = {
        let mut standing = shared.standing();
        let known = standing.workers.iter_mut().find(|known| known.worker == worker && known.ended.is_none());
        let ended = known.map(|known| {
            known.ended = Some(cause.clone());
            (known.member, known.pid)
        });
        standing.forget_ended();
        ended
    };
    match (known, member) {
        (Some((member, pid)), _) => {
            log::warn!(%node, pid, cause, "a worker has ended");
            let cause = format!("worker {pid} on node {node}: {cause}");
            let change = MembershipUpdate::Left { member, cause };
            shared.members.apply(&change, &shared.host);
            shared.spread.add(change);
        }
        // One that this driver never had a seat on, such as that of a detached actor.
        (None, Some(member)) => shared.members.apply(&MembershipUpdate::Left { member, cause }, &shared.host),
        (None, None) => {
            log::warn!(%node, cause, "a worker was not started");
            shared.startup.send_modify(|settled| {
                settled.failed += 1;
                settled.last_failure = Some(format!("node {node}: {cause}"));
            });
        }
    }
}

/// Takes up what a head says after it was away.
pub(super) fn reconcile(shared: &Arc<Shared>, nodes: Vec<NodeDescriptor>, workers: Vec<WorkerEntry>) {
    for WorkerEntry { node, worker, member, pid } in workers {
        worker_up(shared, KnownWorker { node, worker, member, pid, ended: None });
    }
    nodes.into_iter().for_each(|facts| equip_later(shared, facts));
}

/// The workers that have not ended, as far as is known.
pub(super) fn live_workers(shared: &Shared) -> Vec<KnownWorker> {
    shared.standing().workers.iter().filter(|known| known.ended.is_none()).cloned().collect()
}

/// Those that lived before the head was asked, and that it does not have, have ended unseen. All of its nodes
/// have to have had the time to come back to it.
pub(super) fn remove_unlisted(shared: &Arc<Shared>, before: Vec<KnownWorker>, workers: &[WorkerEntry]) {
    let is_listed = |known: &KnownWorker| workers.iter().any(|working| working.worker == known.worker);
    for KnownWorker { node, worker, member, .. } in before.into_iter().filter(|known| !is_listed(known)) {
        let cause = "it ended while the head was away".to_owned();
        worker_down(shared, node, worker, Some(member), cause);
    }
}
