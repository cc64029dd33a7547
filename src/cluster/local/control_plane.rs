//! The control plane of a local cluster: one node, one job, and workers that run already.
//!
//! Actors without wishes take no part in it: workers take turns for them. The others are kept account of
//! as in any cluster, but that nothing outlives the driver.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::cluster::control_plane::state::{Action, Event, Settings, Ticket};
use crate::cluster::control_service::ControlPlane;
use crate::cluster::host_info;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{ActorLocation, JobDescriptor, JobId, NodeDescriptor, WorkerAddress, WorkerId};
use crate::cluster::protocol::worker::{ActorEvent, Report};
use crate::config::TICK_EVERY;
use crate::host::Host;
use crate::observe::log;
use crate::remote::stop_on_host;

/// How many actors may be about to be stopped.
const STOPS_MAX: usize = 1024;

/// Nobody has to say that this process is there.
const NO_LEASE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The control plane, and what it needs of the driver.
#[derive(Debug)]
pub(crate) struct LocalControlPlane {
    control: Arc<ControlPlane>,
    /// The numbers that the state has given to workers.
    worker_ids: Arc<Mutex<Vec<WorkerId>>>,
    stops: Mutex<Option<mpsc::Receiver<ActorLocation>>>,
    io: Handle,
}

impl LocalControlPlane {
    /// The one job.
    pub(crate) const JOB: JobId = JobId(1);

    pub(crate) fn new(io: &Handle) -> Self {
        let numbers = Arc::new(Mutex::new(Vec::new()));
        let (stop, stops) = mpsc::channel(STOPS_MAX);
        let (given, runtime) = (Arc::clone(&numbers), io.clone());
        let hands = move |action: &Action| match action {
            Action::StartWorker { worker, .. } => {
                given.lock().unwrap_or_else(PoisonError::into_inner).push(*worker);
            }
            Action::StopActor { at, .. } if stop.try_send(*at).is_err() => {
                let actor = *at;
                // Not here: the control plane is locked.
                runtime.spawn(async move {
                    log::warn!(?actor, "too many actors are being stopped; this one goes on");
                });
            }
            _ => {}
        };
        let control = Arc::new(ControlPlane::new(
            Settings { node_lease: NO_LEASE, job_lease: NO_LEASE, ..Settings::default() },
            Box::new(hands),
            None,
        ));
        Self { control, worker_ids: numbers, stops: Mutex::new(Some(stops)), io: io.clone() }
    }

    pub(crate) fn control(&self) -> &Arc<ControlPlane> {
        &self.control
    }

    /// Takes the workers in, in their order, and gives their numbers.
    pub(crate) fn register_workers(
        &self,
        host: &Host,
        namespace: String,
        workers: Vec<(u32, WorkerAddress)>,
    ) -> Vec<WorkerId> {
        let facts = NodeDescriptor {
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
            hostname: facts.hostname.clone(),
            pid: facts.pid,
            driver: Some(host.identity()),
            user_host: Some(host.identity()),
            namespace,
            runs_on: None,
        };
        let node = facts.id();
        self.control.apply(Event::NodeJoined(NodeReport::idle(facts)));
        // Nobody waits for the answer: a new state calls its first job 1.
        self.control.apply(Event::JobStarted { ticket: Ticket(0), job: None, facts: job });
        self.control.apply(Event::NodeProvisioned { job: Self::JOB, node });
        let numbers = std::mem::take(&mut *self.worker_ids.lock().unwrap_or_else(PoisonError::into_inner));
        for (&worker, (pid, member)) in numbers.iter().zip(workers) {
            self.control.apply(Event::WorkerReady { worker, member, pid });
        }
        if let Some(stops) = self.stops.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.io.spawn(stop_actors(host.clone(), stops));
            self.io.spawn(tick(Arc::downgrade(&self.control)));
        }
        numbers
    }

    /// Takes what a worker reports.
    pub(crate) fn report_handler(&self, worker: WorkerId) -> impl FnMut(Report) + Send + 'static {
        let control = Arc::clone(&self.control);
        move |report| {
            if let Report::ActorEvents(lives) = report {
                for life in lives {
                    control.apply(match life {
                        ActorEvent::Started { actor, at, .. } => Event::ActorStarted { actor, worker, at },
                        ActorEvent::Stopped { actor, cause } => Event::ActorEnded { actor, cause },
                    });
                }
            }
        }
    }
}

/// Tells the control plane that time passes while actors wait: a reservation for one of them has an end.
async fn tick(control: Weak<ControlPlane>) {
    let mut ticks = tokio::time::interval(TICK_EVERY);
    loop {
        ticks.tick().await;
        let Some(control) = control.upgrade() else { return };
        if control.read(|state| state.waiting_count() > 0) {
            control.apply(Event::Tick);
        }
    }
}

async fn stop_actors(host: Host, mut stops: mpsc::Receiver<ActorLocation>) {
    while let Some(actor) = stops.recv().await {
        let host = host.clone();
        // In a task of its own: an actor that handles nothing holds up the stop of no other.
        tokio::spawn(async move {
            if let Err(error) = stop_on_host(&host, actor).await {
                log::debug!(?actor, %error, "an actor could not be stopped");
            }
        });
    }
}
