//! Control plane of a local cluster: one node and one job. Its first workers run already; it requests one for each
//! that ends.
//!
//! Actors without constraints bypass it: they are placed round robin. It tracks the others as in any cluster, but
//! nothing outlives the driver, and nothing is persisted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::background;
use crate::cluster::control_plane::state::{Action, ClusterState, ControlEvent, Settings, Ticket};
use crate::cluster::control_service::ControlPlane;
use crate::cluster::host_info;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{ActorLocation, JobDescriptor, JobId, NodeDescriptor, WorkerAddress, WorkerId};
use crate::cluster::protocol::worker::{ActorEvent, WorkerMessage};
use crate::config::{TICK_EVERY, WORKERS_MAX};
use crate::host::Host;
use crate::observe::log;
use crate::remote::stop_on_host;

/// Most actors that wait to be stopped.
const STOPS_MAX: usize = 1024;

/// Lease that never expires in practice: driver and control plane are one process.
const NO_LEASE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Control plane, with its connections to the driver.
#[derive(Debug)]
pub(crate) struct LocalControlPlane {
    control: Arc<ControlPlane>,
    stops: Mutex<Option<mpsc::Receiver<ActorLocation>>>,
    io: Handle,
}

impl LocalControlPlane {
    /// Id of the only job.
    pub(crate) const JOB: JobId = JobId(1);

    /// Creates the control plane, and a channel with the workers that it requests.
    ///
    /// There are at most as many requests as workers.
    pub(crate) fn new(io: &Handle) -> (Self, mpsc::Receiver<WorkerId>) {
        let (request, requests) = mpsc::channel(WORKERS_MAX);
        let (stop, stops) = mpsc::channel(STOPS_MAX);
        let runtime = io.clone();
        let executor = move |action: &Action| match action {
            Action::StartWorker { worker, .. } => {
                // The receiver is gone in a cluster whose workers are threads. It is never full.
                let _ = request.try_send(*worker);
            }
            Action::StopActor { at, .. } if stop.try_send(*at).is_err() => {
                let actor = *at;
                // In a task: the control plane is locked here, and a log line may block.
                background::spawn_on(&runtime, async move {
                    log::warn!(?actor, "the queue of actors to stop is full; this one keeps running");
                });
            }
            _ => {}
        };
        let control = Arc::new(ControlPlane::new(
            Settings {
                node_unreachable_after: NO_LEASE,
                node_lease: NO_LEASE,
                job_lease: NO_LEASE,
                ..Settings::default()
            },
            Box::new(executor),
            None,
        ));
        (Self { control, stops: Mutex::new(Some(stops)), io: io.clone() }, requests)
    }

    pub(crate) fn control(&self) -> &Arc<ControlPlane> {
        &self.control
    }

    /// Registers the ready workers with the state. Returns their ids in the same order, and the channel of later
    /// requests.
    pub(crate) fn register_workers(
        &self,
        host: &Host,
        namespace: String,
        workers: Vec<(u32, WorkerAddress)>,
        mut requests: mpsc::Receiver<WorkerId>,
    ) -> (Vec<WorkerId>, mpsc::Receiver<WorkerId>) {
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
        if let Some(stops) = self.stops.lock().unwrap_or_else(PoisonError::into_inner).take() {
            background::spawn_on(&self.io, stop_actors(host.clone(), stops));
            background::spawn_on(&self.io, tick(Arc::downgrade(&self.control)));
        }
        (worker_ids, requests)
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
                        ActorEvent::Stopped { actor, cause, .. } => ControlEvent::ActorEnded { actor, cause },
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
        let Some(is_backing_off) =
            control.upgrade().map(|control| control.read(ClusterState::is_backing_off))
        else {
            return;
        };
        // A delayed worker is not delayed further by a whole tick.
        tokio::time::sleep(if is_backing_off { TICK_EVERY / 3 } else { TICK_EVERY }).await;
        let Some(control) = control.upgrade() else { return };
        if control.read(|state| state.waiting_count() > 0 || state.is_backing_off()) {
            control.apply(ControlEvent::Tick);
        }
    }
}

async fn stop_actors(host: Host, mut stops: mpsc::Receiver<ActorLocation>) {
    while let Some(actor) = stops.recv().await {
        let host = host.clone();
        // In a task of its own: an actor that handles nothing holds up the stop of no other.
        background::spawn(async move {
            if let Err(error) = stop_on_host(&host, actor).await {
                log::debug!(?actor, %error, "an actor could not be stopped");
            }
        });
    }
}
