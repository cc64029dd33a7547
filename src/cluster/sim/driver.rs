//! Driver of a simulated cluster: both hosts of a real driver, its view of the workers, and its lease.
//!
//! It follows the real driver's handling of events, provisioning and rejoins, without executables and certificates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::network::{Machine, head_at};
use super::{Shared, WorldError};
use crate::background::gate::Gate;
use crate::cluster::authorization;
use crate::cluster::backoff::Backoff;
use crate::cluster::control_plane::state::{ControlError, ControlReply, JobEvent, WorkerEntry};
use crate::cluster::control_service::{ControlRequest, ControlResult};
use crate::cluster::executable::Digest;
use crate::cluster::membership::{Membership, reachability_of};
use crate::cluster::model::{
    ActorKey, JobDescriptor, JobId, JobState, NodeDescriptor, WorkerAddress, WorkerId,
};
use crate::cluster::protocol::worker::HeadInfo;
use crate::cluster::protocol::{
    EXECUTABLE, ExecutableReply, ExecutableRequest, JOB, JOB_EVENT, JobRequest, JobSpec, MEMBERSHIP,
    MembershipUpdate,
};
use crate::config::{
    EXECUTABLE_TIMEOUT, HEAD_RPC_TIMEOUT, JOB_EVENT_QUEUE_MAX, JOB_LEASE, LEASE_RENEW_INTERVAL, NODE_LEASE,
    WORKER_START_TIMEOUT,
};
use crate::host::{
    Executor, Host, HostConfig, HostServices, PlacementError, SendError, deadline_in, fresh_identity,
};
use crate::id::HostUid;
use crate::registry::{Inbound, decode};
use crate::remote::{ClusterRef, SharedArgs, actor_services, ask_host_shared, call_host};
use crate::spec::{End, EndReason};
use crate::wire::CallFailure;

/// Time limit of an attempt to find the head.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which membership changes are collected before they are sent to the workers.
const COLLECT: Duration = Duration::from_millis(5);

/// Driver of a job. Clones are the same driver.
#[derive(Clone, Debug)]
pub struct SimDriver(Arc<DriverShared>);

#[derive(Debug)]
struct DriverShared {
    shared: Arc<Shared>,
    machine: Machine,
    control: Host,
    host: Host,
    head: Mutex<HostUid>,
    job: JobId,
    descriptor: JobDescriptor,
    members: Arc<Membership>,
    workers: Mutex<Vec<KnownWorker>>,
    changes: Mutex<Vec<MembershipUpdate>>,
    changed: Notify,
    /// Number of workers that became ready or failed.
    progress: watch::Sender<u32>,
    has_ended: AtomicBool,
    gate: Gate,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone, Copy, Debug)]
struct KnownWorker {
    worker: WorkerId,
    member: WorkerAddress,
    is_alive: bool,
}

impl SimDriver {
    /// Joins the cluster; returns once a worker is ready.
    pub(super) async fn join(shared: &Arc<Shared>, number: usize) -> Result<Self, WorldError> {
        let gate = Gate::default();
        gate.wrap(Self::join_behind(gate.clone(), shared, number)).await
    }

    async fn join_behind(gate: Gate, shared: &Arc<Shared>, number: usize) -> Result<Self, WorldError> {
        let machine = Machine::Driver(number);
        let (events, arrivals) = mpsc::channel(JOB_EVENT_QUEUE_MAX);
        let control = start_host(shared, machine, control_services(events)).await;
        let host = start_host(shared, machine, Box::new(actor_services)).await;
        let failed = |why: String| {
            control.abort();
            host.abort();
            WorldError(why)
        };
        let head =
            find_head(shared, machine).await.ok_or_else(|| failed("the head is not found".to_owned()))?;
        control.supersede(head, head_at());
        let descriptor = JobDescriptor {
            entrypoint: machine.to_string(),
            hostname: machine.to_string(),
            pid: 1,
            driver: Some(control.identity()),
            user_host: Some(host.identity()),
            namespace: shared.plan.namespace.clone(),
            runs_on: None,
        };
        let request = JobRequest::Start { job: None, descriptor: descriptor.clone() };
        let started: Result<ControlResult, _> =
            call_host(&control, head, JOB, request, deadline_in(HEAD_RPC_TIMEOUT)).await;
        let (job, nodes) = match started {
            Ok(Ok(ControlReply::Job { job, nodes, .. })) => (job, nodes),
            Ok(other) => return Err(failed(format!("the head does not start the job: {other:?}"))),
            Err(error) => return Err(failed(error.to_string())),
        };
        shared.register([control.identity(), host.identity()]);
        let members = Arc::new(Membership::default());
        members.expect_replacements(true);
        host.set_placement(Arc::clone(&members) as _);
        let driver = Arc::new(DriverShared {
            shared: Arc::clone(shared),
            machine,
            control,
            host,
            head: Mutex::new(head),
            job,
            descriptor,
            members,
            workers: Mutex::default(),
            changes: Mutex::default(),
            changed: Notify::new(),
            progress: watch::Sender::new(0),
            has_ended: AtomicBool::new(false),
            gate,
            tasks: Mutex::default(),
        });
        driver.note(format_args!("has started job {job}"));
        let snapshot = MembershipUpdate::Snapshot { members: Vec::new(), head: driver.head_info() };
        driver.members.apply(&snapshot, &driver.host);
        driver.spawn(event_loop(Arc::clone(&driver), arrivals));
        driver.spawn(heartbeat_loop(Arc::clone(&driver)));
        driver.spawn(broadcast_loop(Arc::clone(&driver)));
        nodes.into_iter().for_each(|node| provision_later(&driver, node));
        let mut progress = driver.progress.subscribe();
        let ready = tokio::time::timeout(WORKER_START_TIMEOUT, progress.wait_for(|ready| *ready > 0)).await;
        let is_ready = ready.is_ok();
        let driver = Self(driver);
        match is_ready {
            true => Ok(driver),
            false => {
                driver.end().await;
                Err(WorldError("no worker was ready in time".to_owned()))
            }
        }
    }

    /// Handle to the cluster, for spawns, tasks and look-ups.
    #[must_use]
    pub fn cluster(&self) -> ClusterRef {
        ClusterRef::new(self.0.host.clone())
    }

    /// Makes a future a part of the driver's program: it does nothing while the driver is paused.
    ///
    /// So do the futures that it spawns with [`spawn_local`](super::spawn_local).
    pub fn program<F: Future>(&self, program: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.gate.wrap(program)
    }

    pub(super) fn machine(&self) -> Machine {
        self.0.machine
    }

    pub(super) fn gate(&self) -> Gate {
        self.0.gate.clone()
    }

    /// Job of the driver.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.0.job
    }

    /// True once the head has ended the job, or the driver has.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Relaxed)
    }

    /// Ends an actor through the head.
    ///
    /// # Errors
    ///
    /// [`PlacementError`] if there is no such actor, or if the head does not answer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after its first poll, the actor may end or not.
    pub async fn end_actor(&self, actor: ActorKey) -> Result<(), PlacementError> {
        self.0.members.ask(&self.0.host, ControlRequest::Kill { actor }).await.map(drop)
    }

    /// Ends the job, as a shutdown of the cluster handle does.
    pub async fn end(&self) {
        let driver = &self.0;
        driver.has_ended.store(true, Ordering::Relaxed);
        driver.host.shutdown("the driver has ended").await;
        driver.stop_tasks();
        if let Err(why) = report_end(driver).await {
            driver.note(format_args!("could not report its end: {why}"));
        }
        driver.control.shutdown("the driver has ended").await;
        driver.close();
    }

    /// Kills the driver.
    pub(super) fn kill(&self) {
        self.0.note("is killed");
        self.0.has_ended.store(true, Ordering::Relaxed);
        self.0.stop_tasks();
        self.0.close();
    }
}

impl DriverShared {
    fn lock<'a, T>(&self, part: &'a Mutex<T>) -> MutexGuard<'a, T> {
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.shared.journal.note(format_args!("{} {what}", self.machine));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(self.gate.wrap(task));
    }

    fn stop_tasks(&self) {
        self.lock(&self.tasks).abort_all();
    }

    fn close(&self) {
        self.shared.unregister([self.control.identity(), self.host.identity()]);
        self.control.abort();
        self.host.abort();
        // Its tasks end, also those of a paused process.
        self.gate.set_closed(false);
    }

    fn head(&self) -> HostUid {
        *self.lock(&self.head)
    }

    fn head_info(&self) -> HeadInfo {
        HeadInfo { head: self.head(), at: Some(head_at()), job: self.job, tracks_all_actors: true }
    }

    async fn ask(&self, request: JobRequest) -> Result<ControlResult, SendError> {
        call_host(&self.control, self.head(), JOB, request, deadline_in(HEAD_RPC_TIMEOUT)).await
    }

    fn live_workers(&self) -> Vec<KnownWorker> {
        self.lock(&self.workers).iter().filter(|known| known.is_alive).copied().collect()
    }
}

async fn start_host(shared: &Arc<Shared>, machine: Machine, services: HostServices) -> Host {
    let config = HostConfig {
        identity: fresh_identity(),
        secret: shared.secret(),
        limits: shared.limits(),
        transport: shared.network.at(machine),
        listen: None,
        io: Handle::current(),
        executor: Executor::here_or(&Handle::current()),
        services,
    };
    Host::start(config).await.expect("a host without a listener starts")
}

/// Learns the present incarnation of the head, as the enrolment does.
async fn find_head(shared: &Shared, machine: Machine) -> Option<HostUid> {
    let round_trip = shared.network.round_trip(machine, Machine::Head);
    tokio::time::timeout(FIND_TIMEOUT, round_trip).await.ok()?;
    shared.head_identity()
}

fn control_services(events: mpsc::Sender<JobEvent>) -> HostServices {
    Box::new(move |host, service, inbound| {
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            JOB_EVENT => receive(&events, inbound),
            _ => actor_services(host, service, inbound),
        }
    })
}

fn receive(events: &mpsc::Sender<JobEvent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let event = match decode(&body) {
        Ok(event) => event,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    match events.try_send(event) {
        Ok(()) => responder.reply(()),
        // The queue is longer than any simulated cluster fills it.
        Err(_) => responder.fail(CallFailure::Closing),
    }
}

async fn event_loop(driver: Arc<DriverShared>, mut events: mpsc::Receiver<JobEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            JobEvent::NodeUp(node) => provision_later(&driver, node),
            JobEvent::NodeGone { .. } => {}
            JobEvent::WorkerUp { worker, member, .. } => worker_up(&driver, worker, member),
            JobEvent::WorkerDown { worker, member, end, .. } => worker_down(&driver, worker, member, end),
            JobEvent::Reachability { workers, is_reachable } => {
                driver.broadcast(MembershipUpdate::Reachability { workers, is_reachable });
            }
            JobEvent::ActorMoved { at, member } => driver.broadcast(MembershipUpdate::Moved { at, member }),
            JobEvent::Stopped { why } => on_job_ended(&driver, &why),
        }
    }
}

fn on_job_ended(driver: &DriverShared, why: &str) {
    driver.note(format_args!("learns that its job is over: {why}"));
    driver.has_ended.store(true, Ordering::Relaxed);
    driver.members.end_job(why);
    let all: Vec<_> = driver.lock(&driver.workers).iter().map(|known| known.member).collect();
    for member in all {
        let end = End::new(EndReason::JobEnded, format!("the job is over: {why}"));
        driver.members.apply(&MembershipUpdate::Left { member, end }, &driver.host);
    }
}

/// Provisions a node in a task of its own.
fn provision_later(driver: &Arc<DriverShared>, node: NodeDescriptor) {
    let provisioning = Arc::clone(driver);
    driver.spawn(async move {
        if let Err(why) = provision(&provisioning, &node).await {
            provisioning.note(format_args!("cannot use {}: {why}", node.hostname));
        }
    });
}

async fn provision(driver: &DriverShared, node: &NodeDescriptor) -> Result<(), String> {
    driver.control.add_peer(node.agent, node.address);
    let launch = ExecutableRequest::Launch(JobSpec {
        job: driver.job,
        digest: Digest([0; 32]),
        arguments: Vec::new(),
        environment: Vec::new(),
        limits: driver.shared.limits(),
        stack_bytes: 0,
        driver: driver.control.identity(),
    });
    let deadline = deadline_in(EXECUTABLE_TIMEOUT);
    match call_host(&driver.control, node.agent, EXECUTABLE, launch, deadline).await {
        Ok(ExecutableReply::Done) => {}
        Ok(other) => return Err(format!("{other:?}")),
        Err(error) => return Err(error.to_string()),
    }
    let reported = driver.ask(JobRequest::NodeProvisioned { job: driver.job, node: node.id() }).await;
    reported.map_err(|error| error.to_string())?.map_err(|denied| denied.to_string()).map(drop)
}

fn worker_up(driver: &Arc<DriverShared>, worker: WorkerId, member: WorkerAddress) {
    {
        let mut workers = driver.lock(&driver.workers);
        // The head repeats workers after a rejoin.
        if workers.iter().any(|known| known.worker == worker) {
            return;
        }
        workers.push(KnownWorker { worker, member, is_alive: true });
    }
    driver.broadcast(MembershipUpdate::Joined(member));
    let introducing = Arc::clone(driver);
    driver.spawn(async move {
        let snapshot = introducing.members.snapshot(introducing.head_info());
        introducing.send_to_all(vec![member], &snapshot).await;
        introducing.progress.send_modify(|ready| *ready += 1);
    });
}

fn worker_down(driver: &DriverShared, worker: WorkerId, member: Option<WorkerAddress>, end: End) {
    let known = {
        let mut workers = driver.lock(&driver.workers);
        let known = workers.iter_mut().find(|known| known.worker == worker && known.is_alive);
        known.map(|known| {
            known.is_alive = false;
            known.member
        })
    };
    let Some(gone) = known.or(member) else { return };
    let change = MembershipUpdate::Left { member: gone, end };
    match known {
        Some(_) => driver.broadcast(change),
        None => driver.members.apply(&change, &driver.host),
    }
}

impl DriverShared {
    /// Applies a change, and queues it for the workers.
    fn broadcast(&self, change: MembershipUpdate) {
        self.members.apply(&change, &self.host);
        self.lock(&self.changes).push(change);
        self.changed.notify_one();
    }

    async fn send_to_all(&self, workers: Vec<WorkerAddress>, change: &MembershipUpdate) {
        let Ok(encoded) = SharedArgs::new(change, self.host.limits().frame_bytes_max) else { return };
        join_all(workers.iter().flat_map(|member| [member.actors, member.tasks]).map(|to| {
            let encoded = encoded.clone();
            async move {
                let _: Result<(), _> = ask_host_shared(&self.host, to, MEMBERSHIP, encoded).await;
            }
        }))
        .await;
    }
}

/// Sends membership changes to the workers, many in one message.
async fn broadcast_loop(driver: Arc<DriverShared>) {
    loop {
        driver.changed.notified().await;
        tokio::time::sleep(COLLECT).await;
        let changes = std::mem::take(&mut *driver.lock(&driver.changes));
        let (sending, workers) = (Arc::clone(&driver), driver.members.list());
        driver.spawn(async move {
            sending.send_to_all(workers, &MembershipUpdate::Several(changes)).await;
        });
    }
}

/// Renews the job's lease until the job has ended; rejoins the head when it was unreachable.
async fn heartbeat_loop(driver: Arc<DriverShared>) {
    loop {
        tokio::time::sleep(LEASE_RENEW_INTERVAL).await;
        match driver.ask(JobRequest::Heartbeat { job: driver.job }).await {
            Ok(Ok(_)) => continue,
            Ok(Err(ControlError::JobEnded(why))) => return on_job_ended(&driver, &why),
            Ok(Err(denied)) => driver.note(format_args!("rejoins: {denied}")),
            Err(error) => driver.note(format_args!("lost the head: {error}")),
        }
        let mut backoff = Backoff::new();
        loop {
            match try_rejoin(&driver).await {
                Ok(()) => break,
                Err(Some(ended)) => return on_job_ended(&driver, &ended),
                Err(None) => backoff.pause().await,
            }
        }
    }
}

/// Makes one attempt to rejoin the head; fails with the cause if the job has ended.
async fn try_rejoin(driver: &Arc<DriverShared>) -> Result<(), Option<String>> {
    let head = find_head(&driver.shared, driver.machine).await.ok_or(None)?;
    driver.control.supersede(head, head_at());
    let is_new = std::mem::replace(&mut *driver.lock(&driver.head), head) != head;
    driver.control.redial(head);
    let before = driver.live_workers();
    match driver.ask(start_again(driver)).await {
        Ok(Ok(ControlReply::Job { nodes, workers, all_rejoined, .. })) => {
            driver.note("has rejoined");
            driver.members.apply(&MembershipUpdate::Head(driver.head_info()), &driver.host);
            if is_new || !all_rejoined {
                schedule_reconcile(driver);
            } else {
                remove_unlisted(driver, &before, &workers);
            }
            let reachability = reachability_of(&workers);
            for WorkerEntry { worker, member, .. } in workers {
                worker_up(driver, worker, member);
            }
            driver.broadcast(reachability);
            nodes.into_iter().for_each(|node| provision_later(driver, node));
            Ok(())
        }
        Ok(Err(ControlError::JobEnded(why) | ControlError::Unknown(why))) => Err(Some(why)),
        _ => Err(None),
    }
}

fn start_again(driver: &DriverShared) -> JobRequest {
    JobRequest::Start { job: Some(driver.job), descriptor: driver.descriptor.clone() }
}

/// Declares dead the workers of `before` that the head does not list.
fn remove_unlisted(driver: &DriverShared, before: &[KnownWorker], listed: &[WorkerEntry]) {
    for known in before.iter().filter(|known| listed.iter().all(|entry| entry.worker != known.worker)) {
        let end = End::new(EndReason::Unknown, "it ended while the head was unreachable");
        worker_down(driver, known.worker, Some(known.member), end);
    }
}

/// Compares the workers with the head's list once every node has rejoined it, or is dead.
fn schedule_reconcile(driver: &Arc<DriverShared>) {
    let reconciling = Arc::clone(driver);
    driver.spawn(async move {
        loop {
            tokio::time::sleep(NODE_LEASE + LEASE_RENEW_INTERVAL).await;
            let before = reconciling.live_workers();
            match reconciling.ask(start_again(&reconciling)).await {
                // The head has restarted again, and members still rejoin it.
                Ok(Ok(ControlReply::Job { all_rejoined: false, .. })) => {}
                Ok(Ok(ControlReply::Job { workers, .. })) => {
                    return remove_unlisted(&reconciling, &before, &workers);
                }
                // The next rejoin compares again.
                _ => return,
            }
        }
    });
}

/// Reports the end of the job to the head. A head that restarts meanwhile is searched for during the job's lease.
async fn report_end(driver: &DriverShared) -> Result<(), String> {
    let mut why = "it did not answer".to_owned();
    let mut backoff = Backoff::new();
    let reporting = async {
        loop {
            let message = "the driver has shut its cluster down".to_owned();
            let end = JobRequest::End { job: driver.job, state: JobState::Succeeded, message };
            match driver.ask(end).await {
                Ok(_) => return,
                Err(error) => why = error.to_string(),
            }
            backoff.pause().await;
            if let Some(head) = find_head(&driver.shared, driver.machine).await {
                driver.control.supersede(head, head_at());
                *driver.lock(&driver.head) = head;
                driver.control.redial(head);
            }
        }
    };
    tokio::time::timeout(JOB_LEASE, reporting).await.map_err(|_| why)
}
