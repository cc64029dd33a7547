//! Head of a simulated cluster: the core of the real head, with a simulated disk.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Shared;
use super::disk::DiskWriter;
use super::network::{Machine, head_at};
use crate::background::gate::Gate;
use crate::cluster::authorization;
use crate::cluster::control_plane::state::{Action, ControlEvent, Record, Settings};
use crate::cluster::control_service::{ActionExecutor, CONTROL, ControlPlane, Persistence};
use crate::cluster::head_core::{HeadCore, checks};
use crate::cluster::model::NodeId;
use crate::cluster::protocol::{JOB, NODE, NodeReply, NodeRequest};
use crate::config::INBOUND_PEER_EXPIRY;
use crate::host::entropy::unix_time;
use crate::host::{Executor, Host, HostConfig, HostServices};
use crate::id::{HostId, HostUid, Incarnation};
use crate::wire::CallFailure;

/// Running head.
#[derive(Debug)]
pub(super) struct SimHead {
    pub(super) host: Host,
    pub(super) control: Arc<ControlPlane>,
    pub(super) gate: Gate,
    tasks: Mutex<JoinSet<()>>,
}

/// Core of the head for its callbacks, which are built before it.
type CoreCell = Arc<OnceLock<Weak<HeadCore>>>;

impl SimHead {
    /// Starts a head in the order of the real one: disk, incarnation, recovery, host.
    pub(super) async fn start(shared: &Arc<Shared>) -> Self {
        let gate = Gate::default();
        gate.wrap(Self::start_behind(gate.clone(), shared)).await
    }

    async fn start_behind(gate: Gate, shared: &Arc<Shared>) -> Self {
        let (writer, records, _) = shared.disk.open();
        let mut tasks = JoinSet::new();
        tasks.spawn(gate.wrap(writer.clone().sync()));
        let incarnation = next_incarnation(&records);
        writer.put(Record::Incarnation { incarnation: incarnation.0 });
        let _ = writer.clone().flushed().await;
        shared.journal.note(format_args!("the head starts with {} records", records.len()));
        let cell = CoreCell::default();
        let settings = Settings { injected_bug: shared.plan.injected_bug, ..Settings::default() };
        let executor = executor(writer.clone(), Arc::clone(&cell));
        let control = Arc::new(ControlPlane::new(settings, executor, Some(persistence(&writer))));
        control.apply(ControlEvent::Restored(records));
        let _ = writer.clone().flushed().await;
        tasks.spawn(gate.wrap(report_watermarks(Arc::clone(&control), writer.clone())));
        let identity = HostUid { host: HostId::HEAD, incarnation };
        let host = Host::start(HostConfig {
            identity,
            secret: shared.secret(),
            limits: shared.limits(),
            transport: shared.network.at(Machine::Head),
            listen: Some(head_at()),
            io: Handle::current(),
            executor: Executor::here_or(&Handle::current()),
            services: services(Arc::clone(&cell), Arc::clone(&control)),
        })
        .await
        .expect("the head's address is free");
        host.expire_inbound_peers(INBOUND_PEER_EXPIRY);
        let core = HeadCore::new(host.clone(), Arc::clone(&control), persistence(&writer));
        // The cell is new, so this cannot fail. No call has arrived yet: this thread has not waited since.
        let _ = cell.set(Arc::downgrade(&core));
        tasks.spawn(gate.wrap(tick(Arc::clone(&control), core)));
        shared.register([identity]);
        Self { host, control, gate, tasks: Mutex::new(tasks) }
    }

    /// Kills the head, and returns the number of unsynced writes that are lost.
    pub(super) fn kill(&self, shared: &Shared) -> usize {
        shared.unregister([self.host.identity()]);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.host.abort();
        self.control.abandon_requests();
        // Its tasks end, also those of a paused process.
        self.gate.set_closed(false);
        // What it has not synced is lost, and whatever still runs of it writes nothing any more.
        shared.disk.open().2
    }
}

/// Incarnation later than all before, as the real head chooses it.
fn next_incarnation(records: &[Record]) -> Incarnation {
    let last = records.iter().filter_map(|record| match record {
        Record::Incarnation { incarnation } => Some(incarnation + 1),
        _ => None,
    });
    let now = u64::try_from(unix_time().as_micros()).unwrap_or(u64::MAX);
    Incarnation(last.max().unwrap_or(0).max(now))
}

fn executor(writer: DiskWriter, cell: CoreCell) -> ActionExecutor {
    Box::new(move |actions: &[Action]| {
        for action in actions {
            // In one poll of this thread, so the disk syncs the records of an event together.
            match action {
                Action::Persist(record) => writer.put(record.clone()),
                Action::Delete(key) => writer.delete(*key),
                _ => {}
            }
        }
        if let Some(core) = cell.get().and_then(Weak::upgrade) {
            actions.iter().for_each(|action| core.execute(action));
        }
    })
}

fn persistence(writer: &DiskWriter) -> Persistence {
    let writer = writer.clone();
    Box::new(move || Box::pin(writer.clone().flushed()))
}

fn services(cell: CoreCell, control: Arc<ControlPlane>) -> HostServices {
    Box::new(move |host, service, inbound| {
        let Some(core) = cell.get().and_then(Weak::upgrade) else {
            return inbound.fail(&CallFailure::ActorStopped);
        };
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            CONTROL => control.serve(host, inbound),
            NODE => {
                let (handling, control) = (Arc::clone(&core), Arc::clone(&control));
                core.serve_node(inbound, move |from, request| match request {
                    NodeRequest::SignCertificate { hosts, .. } => sign(&control, from, hosts),
                    request => handling.handle_node_request(from, request),
                });
            }
            JOB => core.serve_job(inbound),
            _ => inbound.fail(&CallFailure::ActorStopped),
        }
    })
}

/// Checks the request for a worker's certificate as the real head does. A simulated link has no certificates.
fn sign(control: &ControlPlane, agent: HostUid, hosts: [HostUid; 2]) -> NodeReply {
    if !control.read(|state| state.is_member(agent)) {
        return NodeReply::Unknown;
    }
    match control.read(|state| checks::check_owned_by(state, NodeId(agent.host.0), &hosts)) {
        Ok(()) => NodeReply::Signed { chain: Vec::new() },
        Err(text) => NodeReply::Failed { text },
    }
}

/// Reports durable watermarks of ids to the state.
async fn report_watermarks(control: Arc<ControlPlane>, writer: DiskWriter) {
    let mut last = None;
    while let Ok(progress) = writer.wait_for(|progress| progress.watermarks != last).await {
        last = progress.watermarks;
        if let Some((jobs, workers, actors)) = last {
            control.apply(ControlEvent::WatermarksDurable { jobs, workers, actors });
        }
    }
}

/// Sends clock ticks to the state. It also keeps the core alive for as long as the head runs.
async fn tick(control: Arc<ControlPlane>, core: Arc<HeadCore>) {
    loop {
        control.next_tick().await;
        control.apply(ControlEvent::Tick);
        // Moved into the future, and not only captured by it.
        let _ = &core;
    }
}
