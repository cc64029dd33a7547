//! Who is in the cluster, and whose turn it is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};

use super::control_plane::state::Answer;
use super::control_service::{ControlRequest, HeadHandle};
use super::model::{ActorKey, ActorSpec, JobId, WorkerAddress};
use super::protocol::worker::HeadInfo;
use crate::cluster::control_service::head_route::{HeadConnection, HeadRoute, answer};
use crate::cluster::protocol::MembershipUpdate;
use crate::config::HEAD_RPC_TIMEOUT;
use crate::host::{
    Assignment, Host, HostStatusFuture, LookupFuture, Placement, PlacementError, PlacementResult, TaskSlot,
};
use crate::id::{HostId, HostUid, Target};
use crate::lock::{Guard, RwLock};
use crate::registry::{Inbound, decode};
use crate::spec::{ActorLocation, Lifetime};

/// The workers that are left, as one process knows them.
#[derive(Debug, Default)]
pub(super) struct Membership {
    workers: RwLock<Vec<MemberEntry>>,
    head: HeadRoute,
    next_actor_worker: AtomicUsize,
    next_task_worker: AtomicUsize,
}

#[derive(Debug)]
struct MemberEntry {
    member: WorkerAddress,
    /// Tasks that this process has under way there.
    tasks: Arc<AtomicUsize>,
}

impl Membership {
    /// Those of a process that has the control plane itself.
    pub(super) fn with_head(head: HeadHandle, job: JobId) -> Self {
        let access = HeadConnection { head, job, places_all: false };
        let head = HeadRoute { access: Arc::new(RwLock::new(Some(access))), ..HeadRoute::default() };
        Self { head, ..Self::default() }
    }

    /// Takes up a change, for the members and for the hosts of this process.
    pub(super) fn apply(&self, change: &MembershipUpdate, host: &Host) {
        match change {
            MembershipUpdate::Snapshot { members, head } => {
                self.set_head(head, host);
                self.set(members, host);
            }
            MembershipUpdate::Joined(member) => {
                add_peers(member, host);
                let mut seats = self.seats_mut();
                if seats.iter().all(|seated| seated.member != *member) {
                    seats.push(MemberEntry { member: *member, tasks: Arc::default() });
                }
            }
            MembershipUpdate::Left { member, cause } => {
                self.seats_mut().retain(|seated| seated.member != *member);
                host.mark_peer_down(member.actors, cause);
                host.mark_peer_down(member.tasks, cause);
            }
            MembershipUpdate::Head(head) => self.set_head(head, host),
            MembershipUpdate::Several(changes) => changes.iter().for_each(|change| self.apply(change, host)),
        }
    }

    fn set_head(&self, is: &HeadInfo, host: &Host) {
        let is_here = |access: &HeadConnection| matches!(access.head, HeadHandle::Local(_));
        if self.head.access.read().as_ref().is_some_and(is_here) {
            return;
        }
        let access = HeadConnection {
            head: HeadHandle::Remote(is.head),
            job: is.job,
            places_all: is.tracks_all_actors,
        };
        *self.head.access.write() = Some(access);
        // After that: questions to the earlier life fail now, and are asked again of the present one.
        if let Some(at) = is.at {
            host.supersede(is.head, at);
        }
    }

    fn set(&self, members: &[WorkerAddress], host: &Host) {
        for member in members {
            add_peers(member, host);
        }
        let seats = members.iter().map(|&member| MemberEntry { member, tasks: Arc::default() }).collect();
        *self.seats_mut() = seats;
    }

    /// The membership service of a worker's host.
    pub(super) fn serve(&self, host: &Host, inbound: Inbound) {
        let (body, _, mut responder) = inbound.into_parts::<()>();
        match decode::<MembershipUpdate>(&body) {
            Ok(change) => {
                responder.start();
                self.apply(&change, host);
                responder.answer(());
            }
            Err(failure) => responder.fail(failure),
        }
    }

    /// The workers that are left.
    pub(super) fn list(&self) -> Vec<WorkerAddress> {
        self.seats().iter().map(|seated| seated.member).collect()
    }

    fn seats(&self) -> Guard<RwLockReadGuard<'_, Vec<MemberEntry>>> {
        self.workers.read()
    }

    fn seats_mut(&self) -> Guard<RwLockWriteGuard<'_, Vec<MemberEntry>>> {
        self.workers.write()
    }

    /// The next worker's turn.
    fn next_for_actor(&self) -> Result<Assignment, PlacementError> {
        let seats = self.seats();
        let turn = self.next_actor_worker.fetch_add(1, Ordering::Relaxed).checked_rem(seats.len());
        let turn = turn.ok_or(PlacementError::NoWorker)?;
        Ok(Assignment { host: seats[turn].member.actors, actor: None, alive: None })
    }

    /// Asks the head something.
    pub(super) async fn ask(&self, host: &Host, request: ControlRequest) -> Result<Answer, PlacementError> {
        answer(self.head.access()?.head.ask(host.clone(), request).await)
    }

    fn places_all(&self) -> bool {
        self.head.access().is_ok_and(|access| access.places_all)
    }
}

/// Makes the hosts of a worker known.
fn add_peers(member: &WorkerAddress, host: &Host) {
    for (identity, address) in [(member.actors, member.actors_at), (member.tasks, member.tasks_at)] {
        if identity != host.identity() {
            host.add_peer(identity, address);
        }
    }
}

/// Asks the head for a place, and makes the worker known where it is.
async fn place(way: HeadRoute, host: Host, spec: ActorSpec) -> Result<Assignment, PlacementError> {
    // A head that has heard of a name has given it, though nobody knows.
    let may_repeat = spec.name.is_none() || spec.get_if_exists;
    let asked = Arc::clone(&way.next_request_id);
    let number = || asked.fetch_add(1, Ordering::Relaxed);
    let place = |job| ControlRequest::Place { job, spec: spec.clone(), number: number() };
    match way.ask(host.clone(), place, may_repeat).await? {
        Answer::Placed { actor, member, alive } => {
            add_peers(&member, &host);
            let at = alive.unwrap_or(ActorLocation { host: member.actors, target: Target::HOST });
            Ok(Assignment { host: at.host, actor: Some(actor), alive: alive.map(|at| at.target) })
        }
        _ => Err(PlacementError::Head { text: "it gave another answer".to_owned() }),
    }
}

async fn find(
    way: HeadRoute,
    host: Host,
    namespace: Option<String>,
    name: String,
) -> Result<(String, ActorLocation), PlacementError> {
    let find = |job| ControlRequest::Find { job, namespace: namespace.clone(), name: name.clone() };
    match way.ask(host.clone(), find, true).await? {
        Answer::Found { class, at, member, .. } => {
            add_peers(&member, &host);
            Ok((class, at))
        }
        _ => Err(PlacementError::Head { text: "it gave another answer".to_owned() }),
    }
}

/// Asks the head how a worker has ended, if it has. One that is away does not say; it is asked again later.
async fn host_exit_cause(way: HeadRoute, host: Host, of: HostUid) -> Option<String> {
    let asking = way.ask(host, |_| ControlRequest::HostStatus { host: of }, true);
    match tokio::time::timeout(HEAD_RPC_TIMEOUT, asking).await {
        Ok(Ok(Answer::End(end))) => end,
        _ => None,
    }
}

impl Placement for Membership {
    fn place_actor(&self, host: &Host, class: &'static str, wishes: Option<&ActorSpec>) -> PlacementResult {
        if wishes.is_none() && !self.places_all() {
            return PlacementResult::Now(self.next_for_actor());
        }
        let wishes = wishes.cloned().unwrap_or_default();
        let mut spec = ActorSpec { class: class.to_owned(), ..wishes };
        if !self.places_all() {
            // A local cluster ends with its driver, and all that is in it.
            spec.lifetime = Lifetime::Job;
        }
        PlacementResult::Later(Box::pin(place(self.head.clone(), host.clone(), spec)))
    }

    fn find_actor(&self, host: &Host, namespace: Option<&str>, name: &str) -> LookupFuture {
        let (namespace, name) = (namespace.map(str::to_owned), name.to_owned());
        Box::pin(find(self.head.clone(), host.clone(), namespace, name))
    }

    fn spawn_failed(&self, host: &Host, actor: ActorKey, why: &str) {
        let Ok(access) = self.head.access() else { return };
        let (host, why) = (host.clone(), why.to_owned());
        let io = host.io().clone();
        io.spawn(async move {
            // A head that cannot be told learns of it when the job ends.
            let _ = access.head.ask(host, ControlRequest::SpawnFailed { actor, why }).await;
        });
    }

    /// In a local cluster the driver tells everybody. A head that has gone is another matter than a worker.
    fn host_exit_cause(&self, host: &Host, of: HostUid) -> HostStatusFuture {
        if of.host == HostId::HEAD || !self.places_all() {
            return Box::pin(std::future::ready(None));
        }
        Box::pin(host_exit_cause(self.head.clone(), host.clone(), of))
    }

    /// The worker with the fewest tasks of this process under way; those that have as few take turns.
    fn place_task(&self) -> Option<TaskSlot> {
        let seats = self.seats();
        let turn = self.next_task_worker.fetch_add(1, Ordering::Relaxed).checked_rem(seats.len())?;
        let (before, after) = seats.split_at(turn);
        let seated = after.iter().chain(before).min_by_key(|seated| seated.tasks.load(Ordering::Relaxed))?;
        Some(TaskSlot::take(seated.member.tasks, Arc::clone(&seated.tasks)))
    }

    fn task_hosts(&self) -> usize {
        self.seats().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use crate::id::{HostId, HostUid, Incarnation};

    fn members(count: u64) -> Membership {
        let identity = |host| HostUid { host: HostId(host), incarnation: Incarnation(1) };
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let seats = (0..count).map(|n| MemberEntry {
            member: WorkerAddress {
                actors: identity(n),
                actors_at: at,
                tasks: identity(100 + n),
                tasks_at: at,
            },
            tasks: Arc::default(),
        });
        Membership { workers: RwLock::new(seats.collect()), ..Membership::default() }
    }

    #[test]
    fn actors_go_to_the_workers_in_turn() {
        let members = members(3);
        let hosts: Vec<_> = (0..6).map(|_| members.next_for_actor().unwrap().host.host.0).collect();
        assert_eq!(hosts, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_task_goes_to_the_worker_with_the_fewest() {
        let members = members(2);
        let first = members.place_task().unwrap();
        let second = members.place_task().unwrap();
        assert_ne!(first.host, second.host);
        let (kept, freed) = (second.host, first.host);
        drop(first);
        let third = members.place_task().unwrap();
        assert_eq!(third.host, freed);
        assert_ne!(third.host, kept);
    }

    #[test]
    fn a_cluster_without_workers_places_nothing() {
        assert_eq!(members(0).next_for_actor(), Err(PlacementError::NoWorker));
        assert!(members(0).place_task().is_none());
    }
}
