//! Membership view of one process: the live workers, the route to the head, and the choice of a worker.
//!
//! | question | answered by |
//! |---|---|
//! | worker of an actor without constraints, local cluster | round robin ([`Membership::next_for_actor`]) |
//! | worker of any other actor | the control plane ([`place`]) |
//! | worker of a task | least tasks in flight from this process, on a reachable node ([`Placement::place_task`]) |
//! | location of a named actor | the control plane ([`find`]) |
//! | end of a worker | [`EndedHosts`], and for older ends the control plane ([`host_status`]) |
//! | end of a node or a job | the control plane ([`watch`]) |
//!
//! Changes come as [`MembershipUpdate`]s: those of the workers from the driver, those of the head from the node's
//! agent.

mod ended_hosts;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};

use rustc_hash::FxHashSet;
use tokio::sync::Notify;
use tokio::time::timeout;

use self::ended_hosts::EndedHosts;
use super::control_plane::state::{ControlReply, WorkerEntry};
use super::control_service::{ControlRequest, HeadHandle};
use super::model::{ActorKey, ActorSpec, JobId, WorkerAddress};
use super::protocol::worker::HeadInfo;
use crate::background;
use crate::cluster::control_service::head_route::{HeadConnection, HeadRoute};
use crate::cluster::protocol::MembershipUpdate;
use crate::config::{END_TEXT_BYTES_MAX, HEAD_RPC_TIMEOUT, NEXT_WORKER_TIMEOUT, WATCH_RETRY_MAX};
use crate::host::{
    Assignment, EndFuture, Host, HostStatus, HostStatusFuture, KillFuture, LocateFuture, Located,
    LookupFuture, NextWorker, PlaceFuture, Placement, PlacementError, PlacementResult, PlanFuture, TaskSlot,
    Watched,
};
use crate::id::{ActorIncarnation, HostId, HostUid, Target};
use crate::lock::{Guard, Mutex, RwLock};
use crate::registry::{Inbound, decode};
use crate::spec::{ActorLocation, Copies, End, EndReason, HolderAddress, HolderRequest, Lifetime, Recipe};

/// Live workers of the cluster, as one process knows them.
#[derive(Debug, Default)]
pub(super) struct Membership {
    workers: RwLock<Vec<MemberEntry>>,
    ended: Mutex<EndedHosts>,
    head: HeadRoute,
    /// Round-robin counters; they only grow, and wrap around.
    next_actor_worker: AtomicUsize,
    next_task_worker: AtomicUsize,
    /// Set if ended workers are replaced, so that a process without a worker waits for one.
    expects_replacements: AtomicBool,
    /// Wakes those who wait for a worker, in the order of their waits. A `watch` wakes them in a random one.
    joined: Arc<Notify>,
}

/// Live worker.
#[derive(Debug)]
struct MemberEntry {
    member: WorkerAddress,
    /// Tasks of this process in flight on the worker.
    tasks: Arc<AtomicUsize>,
    /// False while the head does not hear the worker's node.
    is_reachable: bool,
}

impl MemberEntry {
    fn new(member: WorkerAddress) -> Self {
        Self { member, tasks: Arc::default(), is_reachable: true }
    }
}

impl Membership {
    /// Membership of a process that runs the control plane itself.
    pub(super) fn with_head(head: HeadHandle, job: JobId) -> Self {
        let connection = HeadConnection { head, job, tracks_all_actors: false };
        let head = HeadRoute { connection: Arc::new(RwLock::new(Some(connection))), ..HeadRoute::default() };
        Self { head, ..Self::default() }
    }

    /// Applies an update to the view and to the peers of this process's host.
    pub(super) fn apply(&self, change: &MembershipUpdate, host: &Host) {
        match change {
            MembershipUpdate::Snapshot { members, head } => {
                self.set_head(head, host);
                self.set(members, host);
            }
            MembershipUpdate::Joined(member) => {
                add_peers(member, host);
                let mut entries = self.entries_mut();
                if entries.iter().all(|entry| entry.member != *member) {
                    entries.push(MemberEntry::new(*member));
                }
                drop(entries);
                self.joined.notify_waiters();
            }
            MembershipUpdate::Left { member, end } => {
                self.entries_mut().retain(|entry| entry.member != *member);
                {
                    // Before the calls to the hosts fail: watchers look here then.
                    let mut end = end.clone();
                    end.cut(END_TEXT_BYTES_MAX);
                    let (mut ended, end) = (self.ended.lock(), Arc::new(end));
                    ended.add(member.actors, Arc::clone(&end));
                    ended.add(member.tasks, end);
                }
                host.mark_peer_down(member.actors, &end.text);
                host.mark_peer_down(member.tasks, &end.text);
            }
            MembershipUpdate::Reachability { workers, is_reachable } => {
                self.set_reachability(workers, *is_reachable);
            }
            MembershipUpdate::Moved { at, member } => {
                add_peers(member, host);
                host.actor_moved(*at);
            }
            MembershipUpdate::Head(head) => self.set_head(head, host),
            MembershipUpdate::Several(changes) => changes.iter().for_each(|change| self.apply(change, host)),
        }
    }

    fn set_head(&self, info: &HeadInfo, host: &Host) {
        let is_local = |connection: &HeadConnection| matches!(connection.head, HeadHandle::Local(_));
        // In a local cluster the driver is the head. Its own update must not replace the direct handle by a
        // network route to itself.
        if self.head.connection.read().as_ref().is_some_and(is_local) {
            return;
        }
        let connection = HeadConnection {
            head: HeadHandle::Remote(info.head),
            job: info.job,
            tracks_all_actors: info.tracks_all_actors,
        };
        *self.head.connection.write() = Some(connection);
        // Only now: this fails the requests to the head's previous incarnation, and their retries must find the
        // new one.
        if let Some(at) = info.at {
            host.supersede(info.head, at);
        }
    }

    fn set(&self, members: &[WorkerAddress], host: &Host) {
        // Peers first. Once an entry is visible, a placement may choose it and dial it.
        for member in members {
            add_peers(member, host);
        }
        *self.entries_mut() = members.iter().copied().map(MemberEntry::new).collect();
        self.joined.notify_waiters();
    }

    fn set_reachability(&self, workers: &[HostUid], is_reachable: bool) {
        let workers: FxHashSet<HostUid> = workers.iter().copied().collect();
        let mut entries = self.entries_mut();
        entries
            .iter_mut()
            .filter(|entry| workers.contains(&entry.member.tasks))
            .for_each(|entry| entry.is_reachable = is_reachable);
    }

    /// Declares whether ended workers are replaced. Those who wait for a worker check it again.
    pub(super) fn expect_replacements(&self, expected: bool) {
        self.expects_replacements.store(expected, Ordering::Relaxed);
        self.joined.notify_waiters();
    }

    /// Membership service: applies an update that the driver or the agent sent.
    pub(super) fn serve(&self, host: &Host, inbound: Inbound) {
        let (body, _, mut responder) = inbound.into_parts::<()>();
        match decode::<MembershipUpdate>(&body) {
            Ok(change) => {
                responder.start();
                self.apply(&change, host);
                responder.reply(());
            }
            Err(failure) => responder.fail(failure),
        }
    }

    /// Fails the open requests of this process to the head: its job is over.
    pub(super) fn end_job(&self, why: &str) {
        self.head.end_job(why);
    }

    /// Addresses of the live workers.
    pub(super) fn list(&self) -> Vec<WorkerAddress> {
        self.entries().iter().map(|entry| entry.member).collect()
    }

    /// Update that gives another process the present view.
    pub(super) fn snapshot(&self, head: HeadInfo) -> MembershipUpdate {
        let entries = self.entries();
        let members = entries.iter().map(|entry| entry.member).collect();
        let unreachable = entries.iter().filter(|entry| !entry.is_reachable);
        let workers = unreachable.map(|entry| entry.member.tasks).collect();
        MembershipUpdate::Several(vec![
            MembershipUpdate::Snapshot { members, head },
            MembershipUpdate::Reachability { workers, is_reachable: false },
        ])
    }

    fn entries(&self) -> Guard<RwLockReadGuard<'_, Vec<MemberEntry>>> {
        self.workers.read()
    }

    fn entries_mut(&self) -> Guard<RwLockWriteGuard<'_, Vec<MemberEntry>>> {
        self.workers.write()
    }

    /// Next worker in round-robin order.
    fn next_for_actor(&self) -> Result<Assignment, PlacementError> {
        let entries = self.entries();
        let index = self.next_actor_worker.fetch_add(1, Ordering::Relaxed).checked_rem(entries.len());
        let index = index.ok_or(PlacementError::NoWorker)?;
        Ok(Assignment { host: entries[index].member.actors, actor: None, alive: None })
    }

    /// Sends the head a request that may be handled twice.
    pub(super) async fn ask(
        &self,
        host: &Host,
        request: ControlRequest,
    ) -> Result<ControlReply, PlacementError> {
        self.head.clone().ask(host.clone(), |_| request.clone(), true).await
    }

    /// Sends the head a report about an assignment, in the background.
    fn tell_head(&self, host: &Host, report: ControlRequest) {
        let Ok(connection) = self.head.connection() else { return };
        let (io, host) = (host.io().clone(), host.clone());
        background::spawn_on(&io, async move {
            // If the head is unreachable, the assignment is released when the job ends.
            let _ = connection.head.ask(host, report).await;
        });
    }

    /// True if a worker is live as far as this process knows.
    fn is_listed(&self, host: HostUid) -> bool {
        self.entries().iter().any(|entry| entry.member.actors == host || entry.member.tasks == host)
    }

    /// True if the control plane is in this process, as it is in the driver of a local cluster.
    fn is_head(&self) -> bool {
        self.head.connection().is_ok_and(|connection| matches!(connection.head, HeadHandle::Local(_)))
    }

    fn tracks_all_actors(&self) -> bool {
        self.head.connection().is_ok_and(|connection| connection.tracks_all_actors)
    }
}

/// Update with the reachability of workers that the head has listed.
pub(super) fn reachability_of(workers: &[WorkerEntry]) -> MembershipUpdate {
    let update = |is_reachable| {
        let those = workers.iter().filter(|worker| worker.is_reachable == is_reachable);
        MembershipUpdate::Reachability {
            workers: those.map(|worker| worker.member.tasks).collect(),
            is_reachable,
        }
    };
    MembershipUpdate::Several(vec![update(true), update(false)])
}

/// Adds the hosts of a worker to this host's peers.
pub(super) fn add_peers(member: &WorkerAddress, host: &Host) {
    for (identity, address) in [(member.actors, member.actors_at), (member.tasks, member.tasks_at)] {
        if identity != host.identity() {
            host.add_peer(identity, address);
        }
    }
}

/// Requests an assignment from the head, and adds the assigned worker to this host's peers.
async fn place(route: HeadRoute, host: Host, spec: ActorSpec) -> Result<Assignment, PlacementError> {
    // A repeated request may find that its first attempt was carried out and its reply was lost. A name that the
    // first attempt took would then be refused as taken, so such a request is sent once.
    let may_repeat = spec.name.is_none() || spec.get_if_exists;
    let request_ids = Arc::clone(&route.next_request_id);
    let number = || request_ids.fetch_add(1, Ordering::Relaxed);
    let place = |job| ControlRequest::Place { job, spec: spec.clone(), recipe: None, number: number() };
    match route.ask(host.clone(), place, may_repeat).await? {
        ControlReply::Placed { actor, member, alive } => {
            add_peers(&member, &host);
            let at = alive.unwrap_or(ActorLocation { host: member.actors, target: Target::HOST });
            Ok(Assignment { host: at.host, actor: Some(actor), alive: alive.map(|at| at.target) })
        }
        _ => Err(unexpected_reply()),
    }
}

/// Requests a managed actor from the head, and adds its worker to this host's peers.
async fn place_managed(
    route: HeadRoute,
    host: Host,
    spec: ActorSpec,
    recipe: Recipe,
) -> Result<ActorLocation, PlacementError> {
    // A restarted head knows the actor by this number, so a repeated request creates no second one.
    let number = route.next_request_id.fetch_add(1, Ordering::Relaxed);
    let place = |job| ControlRequest::Place { job, spec: spec.clone(), recipe: Some(recipe.clone()), number };
    let mut unclaimed =
        UnclaimedRequest { route: route.clone(), host: host.clone(), number, is_claimed: false };
    match route.ask(host.clone(), place, true).await? {
        ControlReply::Created { at, member, .. } | ControlReply::Placed { member, alive: Some(at), .. } => {
            unclaimed.is_claimed = true;
            add_peers(&member, &host);
            Ok(at)
        }
        _ => Err(unexpected_reply()),
    }
}

/// Request for a managed actor. Dropped before its reply is there, it tells the head that nothing has the actor's
/// address: a restarted head may know the actor from its records, and would keep it until the end of the job.
struct UnclaimedRequest {
    route: HeadRoute,
    host: Host,
    number: u64,
    is_claimed: bool,
}

impl Drop for UnclaimedRequest {
    fn drop(&mut self) {
        if self.is_claimed {
            return;
        }
        let (route, host, number) = (self.route.clone(), self.host.clone(), self.number);
        background::spawn_on(self.host.io(), async move {
            tokio::select! {
                () = abandon(route, &host, number) => {}
                // The actor ends with this process's job.
                () = host.closing() => {}
            }
        });
    }
}

/// Cancels a request at the present head, once it answers.
async fn abandon(route: HeadRoute, host: &Host, number: u64) {
    loop {
        match route.clone().ask(host.clone(), |_| ControlRequest::Cancel { number }, true).await {
            Ok(_) | Err(PlacementError::JobEnded { .. }) => return,
            Err(_) => tokio::time::sleep(WATCH_RETRY_MAX).await,
        }
    }
}

/// Locates a managed actor, and adds its worker to this host's peers.
async fn locate(
    route: HeadRoute,
    host: Host,
    actor: ActorKey,
    gone: Option<ActorIncarnation>,
) -> Result<Located, PlacementError> {
    match route.ask(host.clone(), |_| ControlRequest::Locate { actor, gone }, true).await? {
        ControlReply::Found { at, member, .. } => {
            add_peers(&member, &host);
            Ok(Located::At(at))
        }
        ControlReply::Gone(end) => Ok(Located::Gone(end)),
        _ => Err(unexpected_reply()),
    }
}

fn unexpected_reply() -> PlacementError {
    PlacementError::Head { text: "it sent an unexpected reply".to_owned() }
}

/// Looks up a named actor at the head; returns its class and location.
async fn find(
    route: HeadRoute,
    host: Host,
    namespace: Option<String>,
    name: String,
) -> Result<(String, ActorLocation), PlacementError> {
    let find = |job| ControlRequest::Find { job, namespace: namespace.clone(), name: name.clone() };
    match route.ask(host.clone(), find, true).await? {
        ControlReply::Found { class, at, member, .. } => {
            add_peers(&member, &host);
            Ok((class, at))
        }
        _ => Err(unexpected_reply()),
    }
}

/// Status of a worker's host, from the head. If the head does not answer, it is `known`, and the caller asks again.
async fn host_status(route: HeadRoute, host: Host, of: HostUid, known: HostStatus) -> HostStatus {
    let request = route.ask(host, |_| ControlRequest::HostStatus { host: of }, true);
    match timeout(HEAD_RPC_TIMEOUT, request).await {
        Ok(Ok(ControlReply::End(Some(end)))) => HostStatus::Ended(end),
        Ok(Ok(ControlReply::End(None))) if known == HostStatus::Unknown => HostStatus::Alive,
        _ => known,
    }
}

/// End of a node, a job or a managed actor, from the head, which replies when it comes.
async fn watch(route: HeadRoute, host: Host, watched: Watched) -> End {
    let request = |_| match watched {
        Watched::Node(node) => ControlRequest::WatchNode { node },
        Watched::Job(job) => ControlRequest::WatchJob { job },
        Watched::Actor(actor) => ControlRequest::WatchActor { actor },
    };
    loop {
        match route.clone().ask(host.clone(), request, true).await {
            Ok(ControlReply::End(Some(end))) => return end,
            Err(PlacementError::JobEnded { text }) => return End::new(EndReason::JobEnded, text),
            // The head is away, or has too many watchers.
            _ => tokio::time::sleep(WATCH_RETRY_MAX).await,
        }
    }
}

impl Placement for Membership {
    fn place_actor(
        &self,
        host: &Host,
        class: &'static str,
        constraints: Option<&ActorSpec>,
    ) -> PlacementResult {
        if constraints.is_none() && !self.tracks_all_actors() {
            return PlacementResult::Now(self.next_for_actor());
        }
        let constraints = constraints.cloned().unwrap_or_default();
        let mut spec = ActorSpec { class: class.to_owned(), ..constraints };
        if !self.tracks_all_actors() {
            // A local cluster ends with its driver, so no actor in it can outlive the job.
            spec.lifetime = Lifetime::Job;
        }
        PlacementResult::Later(Box::pin(place(self.head.clone(), host.clone(), spec)))
    }

    fn place_managed(
        &self,
        host: &Host,
        class: &'static str,
        spec: ActorSpec,
        recipe: Recipe,
    ) -> PlaceFuture {
        let spec = ActorSpec { class: class.to_owned(), ..spec };
        Box::pin(place_managed(self.head.clone(), host.clone(), spec, recipe))
    }

    fn kill(&self, host: &Host, actor: ActorKey) -> KillFuture {
        let (route, host) = (self.head.clone(), host.clone());
        Box::pin(async move { route.ask(host, |_| ControlRequest::Kill { actor }, true).await.map(drop) })
    }

    fn locate(&self, host: &Host, actor: ActorKey, gone: Option<ActorIncarnation>) -> LocateFuture {
        Box::pin(locate(self.head.clone(), host.clone(), actor, gone))
    }

    fn check_holders(&self, host: &Host, copies: Copies) -> KillFuture {
        let (route, host) = (self.head.clone(), host.clone());
        Box::pin(
            async move { route.ask(host, |_| ControlRequest::CheckHolders { copies }, true).await.map(drop) },
        )
    }

    fn propose_holders(&self, host: &Host, request: HolderRequest) -> PlanFuture {
        let (route, host) = (self.head.clone(), host.clone());
        Box::pin(async move {
            let propose = |_| ControlRequest::ProposeHolders(request.clone());
            match route.ask(host.clone(), propose, true).await? {
                ControlReply::Holders(plan) => {
                    for HolderAddress { host: holder, at, .. } in plan.sources.iter().chain(&plan.holders) {
                        host.add_peer(*holder, *at);
                    }
                    Ok(Some(plan))
                }
                ControlReply::Done => Ok(None),
                _ => Err(unexpected_reply()),
            }
        })
    }

    fn activate_holders(
        &self,
        host: &Host,
        actor: ActorKey,
        incarnation: ActorIncarnation,
        number: u64,
    ) -> KillFuture {
        let (route, host) = (self.head.clone(), host.clone());
        let activate = move |_| ControlRequest::ActivateHolders { actor, incarnation, number };
        Box::pin(async move { route.ask(host, activate, true).await.map(drop) })
    }

    fn find_actor(&self, host: &Host, namespace: Option<&str>, name: &str) -> LookupFuture {
        let (namespace, name) = (namespace.map(str::to_owned), name.to_owned());
        Box::pin(find(self.head.clone(), host.clone(), namespace, name))
    }

    fn spawn_failed(&self, host: &Host, actor: ActorKey, why: &str) {
        self.tell_head(host, ControlRequest::SpawnFailed { actor, why: why.to_owned() });
    }

    fn spawn_given_up(&self, host: &Host, actor: ActorKey) {
        self.tell_head(host, ControlRequest::SpawnGivenUp { actor });
    }

    /// In a local cluster the driver reports ended workers to every process, and is asked only about hosts that a
    /// process has never heard of. The end of the head is not the end of a worker.
    fn host_status(&self, host: &Host, of: HostUid) -> HostStatusFuture {
        let ended = self.ended.lock().of(of);
        let known = match ended {
            // The driver does not know how a worker ended while the head was away; the head may.
            Some(end) if end.reason == EndReason::Unknown && self.tracks_all_actors() => {
                let known = HostStatus::Ended(end);
                return Box::pin(host_status(self.head.clone(), host.clone(), of, known));
            }
            Some(end) => HostStatus::Ended(end),
            None if of.host == HostId::HEAD => HostStatus::Unknown,
            None if self.tracks_all_actors() => {
                let (route, known) = (self.head.clone(), HostStatus::Unknown);
                return Box::pin(host_status(route, host.clone(), of, known));
            }
            None if self.is_listed(of) => HostStatus::Alive,
            None if self.is_head() => HostStatus::Unknown,
            None => {
                let (route, known) = (self.head.clone(), HostStatus::Unknown);
                return Box::pin(host_status(route, host.clone(), of, known));
            }
        };
        Box::pin(std::future::ready(known))
    }

    fn watch(&self, host: &Host, watched: Watched) -> EndFuture {
        Box::pin(watch(self.head.clone(), host.clone(), watched))
    }

    /// Worker with the fewest tasks of this process in flight; workers with equally few take turns.
    ///
    /// Tasks of other processes are not known here; counting its own ones costs no message. A worker whose node is
    /// unreachable comes last. It is used if there is no other: then the head alone may be cut off.
    fn place_task(&self, avoided: &[HostUid]) -> Option<TaskSlot> {
        let entries = self.entries();
        let start = self.next_task_worker.fetch_add(1, Ordering::Relaxed).checked_rem(entries.len())?;
        // `min_by_key` returns the first minimum, so the scan starts at another worker each time. Otherwise tasks
        // that run one after another would all run on the first worker.
        let (before, after) = entries.split_at(start);
        let rank = |entry: &&MemberEntry| {
            let tasks = entry.tasks.load(Ordering::Relaxed);
            (!entry.is_reachable, avoided.contains(&entry.member.tasks), tasks)
        };
        let entry = after.iter().chain(before).min_by_key(rank)?;
        Some(TaskSlot::take(entry.member.tasks, Arc::clone(&entry.tasks)))
    }

    fn task_hosts(&self) -> usize {
        self.entries().len()
    }

    fn next_worker(&self) -> Option<NextWorker> {
        if !self.expects_replacements.load(Ordering::Relaxed) {
            return None;
        }
        // It counts from here, and not from its first poll.
        let joined = Arc::clone(&self.joined).notified_owned();
        Some(Box::pin(async move { timeout(NEXT_WORKER_TIMEOUT, joined).await.is_ok() }))
    }
}

#[cfg(test)]
mod tests;
