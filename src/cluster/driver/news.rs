//! News from the head to a driver.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Known, Shared, equip, spread};
use crate::cluster::members::Change;
use crate::cluster::model::{Member, NodeDescriptor, NodeId, WorkerId};
use crate::cluster::state::{News, WorkerEntry};
use crate::observe::log;
use crate::registry::{Inbound, decode};
use crate::wire::CallFailure;

/// Takes what the head sends; it is answered once there is room for it.
pub(super) fn receive(tell: &mpsc::Sender<News>, inbound: Inbound) {
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
pub(super) async fn take_all(shared: Arc<Shared>, mut told: mpsc::Receiver<News>) {
    while let Some(news) = told.recv().await {
        take(&shared, news);
    }
}

/// Does what one piece of news asks for.
pub(super) fn take(shared: &Arc<Shared>, news: News) {
    match news {
        News::NodeUp(facts) => equip_later(shared, facts),
        News::NodeGone { agent } => shared.forget_agent(agent),
        News::WorkerUp { node, worker, member, pid } => {
            worker_up(shared, Known { node, worker, member, pid, ended: None });
        }
        News::WorkerDown { worker, member, cause, node } => {
            worker_down(shared, node, worker, member, cause);
        }
        News::Stopped { why } => {
            log::error!(job = %shared.job, why, "the job is over");
            let all: Vec<_> = shared.standing().workers.iter().map(|known| known.member).collect();
            for member in all {
                let cause = format!("the job is over: {why}");
                shared.members.apply(&Change::Ended { member, cause }, &shared.host);
            }
        }
    }
}

/// Sends the executable to a node that has come, and goes on meanwhile.
fn equip_later(shared: &Arc<Shared>, facts: NodeDescriptor) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let equipped = equip::equip(&shared, &facts).await;
        equip::log_tally(&shared);
        if let Err(error) = equipped {
            log::warn!(node = %facts.id(), %error, "a node cannot be used for this job");
            let refused = format!("node {}: {error}", facts.id());
            shared.settled.send_modify(|settled| settled.refused = Some(refused));
        }
    });
}

fn worker_up(shared: &Arc<Shared>, up: Known) {
    let member = up.member;
    {
        let mut standing = shared.standing();
        if standing.workers.iter().any(|known| known.worker == up.worker) {
            return;
        }
        standing.workers.push(up);
    }
    shared.members.apply(&Change::Joined(member), &shared.host);
    shared.spread.add(Change::Joined(member));
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let members = shared.members.list();
        let are = Change::Snapshot { members, head: shared.head_info() };
        spread::tell_all(&shared, vec![member], &are).await;
        shared.settled.send_modify(|settled| settled.ready += 1);
    });
}

fn worker_down(shared: &Arc<Shared>, node: NodeId, worker: WorkerId, member: Option<Member>, cause: String) {
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
            let change = Change::Ended { member, cause };
            shared.members.apply(&change, &shared.host);
            shared.spread.add(change);
        }
        // One that this driver never had a seat on, such as that of a detached actor.
        (None, Some(member)) => shared.members.apply(&Change::Ended { member, cause }, &shared.host),
        (None, None) => {
            log::warn!(%node, cause, "a worker was not started");
            shared.settled.send_modify(|settled| {
                settled.failed += 1;
                settled.last_failure = Some(format!("node {node}: {cause}"));
            });
        }
    }
}

/// Takes up what a head says after it was away.
pub(super) fn reconcile(shared: &Arc<Shared>, nodes: Vec<NodeDescriptor>, workers: Vec<WorkerEntry>) {
    for WorkerEntry { node, worker, member, pid } in workers {
        worker_up(shared, Known { node, worker, member, pid, ended: None });
    }
    nodes.into_iter().for_each(|facts| equip_later(shared, facts));
}

/// The workers that have not ended, as far as is known.
pub(super) fn living(shared: &Shared) -> Vec<Known> {
    shared.standing().workers.iter().filter(|known| known.ended.is_none()).cloned().collect()
}

/// Those that lived before the head was asked, and that it does not have, have ended unseen. All of its nodes
/// have to have had the time to come back to it.
pub(super) fn sweep(shared: &Arc<Shared>, before: Vec<Known>, workers: &[WorkerEntry]) {
    let is_listed = |known: &Known| workers.iter().any(|working| working.worker == known.worker);
    for Known { node, worker, member, .. } in before.into_iter().filter(|known| !is_listed(known)) {
        let cause = "it ended while the head was away".to_owned();
        worker_down(shared, node, worker, Some(member), cause);
    }
}
