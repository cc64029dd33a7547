//! Control plane of a local cluster: one node and one job. Its first workers run already; it requests one for each
//! that ends.
//!
//! Actors without constraints bypass it: they are placed round robin. It tracks the others as in any cluster, but
//! nothing outlives the driver, and nothing is persisted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::state_holder::StateHolder;
use crate::background;
use crate::cluster::control_plane::state::{Action, ControlEvent, JobEvent, Settings, Ticket};
use crate::cluster::control_service::ControlPlane;
use crate::cluster::host_info;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{
    ActorKey, ActorLocation, JobDescriptor, JobId, NodeDescriptor, WorkerAddress, WorkerId,
};
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::worker::{ActorEvent, WorkerMessage};
use crate::config::WORKERS_MAX;
use crate::host::{ActorEnd, Host};
use crate::observe::log;
use crate::remote::{StartOutcome, start_incarnation, stop_on_host};
use crate::spec::{LeaseGrant, Recipe};

/// Most locations of restarted actors that wait to be announced.
const MOVES_MAX: usize = 1024;

/// Lease that never expires in practice: driver and control plane are one process.
const NO_LEASE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Control plane, with its connections to the driver.
#[derive(Debug)]
pub(crate) struct LocalControlPlane {
    control: Arc<ControlPlane>,
    notices: Mutex<Option<mpsc::Receiver<LocalNotice>>>,
    /// Set before the first actor is placed.
    start_parts: Arc<OnceLock<StartParts>>,
    io: Handle,
}

/// Notice of the control plane for the driver and its workers.
#[derive(Debug)]
pub(crate) enum LocalNotice {
    /// A restarted actor is alive at another location.
    Moved(MembershipUpdate),
    /// The job has failed, for this reason.
    Stopped(String),
}

/// Driver's host, and the control plane, for the start of actors.
type StartParts = (Host, Weak<ControlPlane>);

impl LocalControlPlane {
    /// Id of the only job.
    pub(crate) const JOB: JobId = JobId(1);

    /// Creates the control plane, and a channel with the workers that it requests.
    ///
    /// There are at most as many requests as workers.
    pub(super) fn new(io: &Handle, holder: Arc<StateHolder>) -> (Self, mpsc::Receiver<WorkerId>) {
        let (request, requests) = mpsc::channel(WORKERS_MAX);
        let (moved, moves) = mpsc::channel(MOVES_MAX);
        let shared = Arc::<OnceLock<StartParts>>::default();
        let (runtime, started) = (io.clone(), Arc::clone(&shared));
        let states = Arc::clone(&holder);
        let execute = move |action: &Action| match action {
            Action::StartWorker { worker, .. } => {
                // The receiver is gone in a cluster whose workers are threads. It is never full.
                let _ = request.try_send(*worker);
            }
            Action::StartActor { actor, worker, at, recipe, lease, .. } => {
                let Some(parts) = started.get() else { return };
                // An exclusive one ends before the control plane hears of its end, so its lease need not end.
                let lease = lease.map(|_| LeaseGrant::ENDLESS);
                let start = start_actor(parts.clone(), *actor, *worker, *at, (**recipe).clone(), lease);
                background::spawn_on(&runtime, start);
            }
            Action::NotifyDriver { event: JobEvent::ActorMoved { at, member }, .. } => {
                // If it is full, senders learn the location when a message fails.
                let _ =
                    moved.try_send(LocalNotice::Moved(MembershipUpdate::Moved { at: *at, member: *member }));
            }
            Action::NotifyDriver { event: JobEvent::Stopped { why }, .. } => {
                let (moved, why) = (moved.clone(), why.clone());
                background::spawn_on(
                    &runtime,
                    async move { drop(moved.send(LocalNotice::Stopped(why)).await) },
                );
            }
            Action::StopActor { at, .. } | Action::StopIncarnation { at, .. } => {
                let Some((host, _)) = started.get() else { return };
                // In a task of its own: an actor that handles nothing holds up the stop of no other.
                background::spawn_on(&runtime, stop_actor(host.clone(), *at));
            }
            Action::RemoveState { key, .. } => states.remove(*key),
            _ => {}
        };
        let control = Arc::new(ControlPlane::new(
            Settings {
                node_unreachable_after: NO_LEASE,
                node_lease: NO_LEASE,
                job_lease: NO_LEASE,
                is_single_node: true,
                ..Settings::default()
            },
            Box::new(move |actions: &[Action]| actions.iter().for_each(&execute)),
            None,
        ));
        control.set_holder(holder.start());
        let notices = Mutex::new(Some(moves));
        (Self { control, notices, start_parts: shared, io: io.clone() }, requests)
    }

    pub(crate) fn control(&self) -> &Arc<ControlPlane> {
        &self.control
    }

    /// Registers the ready workers with the state. Returns their ids in the same order, the channel of later requests,
    /// and that of the locations of restarted actors.
    pub(crate) fn register_workers(
        &self,
        host: &Host,
        namespace: String,
        workers: Vec<(u32, WorkerAddress)>,
        mut requests: mpsc::Receiver<WorkerId>,
    ) -> (Vec<WorkerId>, mpsc::Receiver<WorkerId>, mpsc::Receiver<LocalNotice>) {
        // Only this sets it.
        let _ = self.start_parts.set((host.clone(), Arc::downgrade(&self.control)));
        let descriptor = NodeDescriptor {
            agent: host.identity(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hostname: host_info::hostname(),
            pid: std::process::id(),
            is_head: true,
            resources: host_info::resources(None, None),
            labels: Default::default(),
            workers: u32::try_from(workers.len()).unwrap_or(u32::MAX),
            platform: String::new(),
            session_dir: String::new(),
        };
        let job = JobDescriptor {
            entrypoint: String::new(),
            hostname: descriptor.hostname.clone(),
            pid: descriptor.pid,
            driver: Some(host.identity()),
            user_host: Some(host.identity()),
            namespace,
            runs_on: None,
        };
        let node = descriptor.id();
        self.control.apply(ControlEvent::NodeJoined(NodeReport::idle(descriptor)));
        // The ticket's answer is not needed: a new state gives its first job the id 1.
        self.control.apply(ControlEvent::JobStarted { ticket: Ticket(0), job: None, descriptor: job });
        self.control.apply(ControlEvent::NodeProvisioned { job: Self::JOB, node });
        // The events above made the state request the node's workers. They run already, so each request is answered
        // immediately.
        let worker_ids: Vec<_> = std::iter::from_fn(|| requests.try_recv().ok()).collect();
        for (&worker, (pid, member)) in worker_ids.iter().zip(workers) {
            self.control.apply(ControlEvent::WorkerReady { worker, member, pid });
        }
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner).take();
        let moves = notices.expect("workers are registered once");
        background::spawn_on(&self.io, tick(Arc::downgrade(&self.control)));
        (worker_ids, requests, moves)
    }

    /// Handler of a worker's reports.
    pub(crate) fn report_handler(&self, worker: WorkerId) -> impl FnMut(WorkerMessage) + Send + 'static {
        let control = Arc::clone(&self.control);
        move |report| {
            if let WorkerMessage::ActorEvents(events) = report {
                for event in events {
                    control.apply(match event {
                        ActorEvent::Started { actor, at, .. } => {
                            ControlEvent::ActorStarted { actor, worker, at }
                        }
                        ActorEvent::Stopped { actor, incarnation, end, .. } => {
                            ControlEvent::ActorEnded { actor, incarnation, end }
                        }
                    });
                }
            }
        }
    }
}

/// Advances the state's clock while actors wait, since a reservation for one of them may expire, and while the
/// replacement of a worker is delayed.
async fn tick(control: Weak<ControlPlane>) {
    loop {
        let Some(due) = control.upgrade().map(|control| control.next_tick()) else { return };
        due.await;
        let Some(control) = control.upgrade() else { return };
        if control.read(|state| state.waiting_count() > 0 || state.is_backing_off()) {
            control.apply(ControlEvent::Tick);
        }
    }
}

/// Creates an incarnation of a managed actor in a worker.
async fn start_actor(
    (host, control): StartParts,
    actor: ActorKey,
    worker: WorkerId,
    at: ActorLocation,
    recipe: Recipe,
    lease: Option<LeaseGrant>,
) {
    // The lease is endless.
    if let StartOutcome::NotSent(ActorEnd { incarnation, end, .. }) =
        start_incarnation(&host, at, recipe, lease).await
        && let Some(control) = control.upgrade()
    {
        log::debug!(%worker, %actor, %end, "an actor was not started");
        control.apply(ControlEvent::ActorEnded { actor, incarnation, end });
    }
}

async fn stop_actor(host: Host, actor: ActorLocation) {
    if let Err(error) = stop_on_host(&host, actor).await {
        log::debug!(?actor, %error, "an actor could not be stopped");
    }
}
