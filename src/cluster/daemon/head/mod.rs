//! Daemon of the head: the control plane, its durable state, and the services of agents, drivers and operators.
//!
//! The head binds no port. Connections arrive through the acceptor of the agent on its node, over a socket in the
//! session directory. Messages between a cluster's programs never pass through the head, and continue while it
//! is down. A head that restarts with the same state directory has the same identity and state.
//!
//! ```text
//!  agents, drivers ──▶ Host ──▶ services ─┐                 ┌─▶ StateStore  records
//!  operators ─▶ TokenRpcServer ─▶ HeadAdminService ─▶ ControlPlane ─┤
//!                                 tick ───┘      events  actions └─▶ Outbox ─▶ agents, drivers
//! ```

mod admin_service;
#[cfg(feature = "cli")]
pub(in crate::cluster) mod ca;
mod certificates;
#[cfg(feature = "dashboard")]
mod dashboard;
#[cfg(not(feature = "dashboard"))]
#[path = "no_dashboard.rs"]
mod dashboard;
mod inbound;
mod incarnation;
mod lists;
mod reports;
mod services;
mod store;
mod timelines;

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::{DaemonError, failed};
use super::host::start_host;
use super::options::{DashboardOptions, DashboardStatus, HeadOptions, HeadReady, LeaseOptions};
use super::signals::ShutdownSignals;
use crate::cluster::control_plane::state::{Action, ControlEvent, Settings};
use crate::cluster::control_service::{ActionExecutor, ControlPlane, Persistence};
use crate::cluster::daemon::head::ca::CertificateAuthority;
use crate::cluster::daemon::logs::daemon_log;
use crate::cluster::daemon::token_rpc_server::TokenRpcServer;
use crate::cluster::head_core::HeadCore;
use crate::cluster::open_files;
use crate::cluster::security::{CertificateRequest, Claims, Token};
use crate::config::{CERTIFICATE_VALID, HANDOFF_QUEUE_MAX};
use crate::host::{Host, fresh_identity};
use crate::id::{HostId, HostUid};
use crate::transport::{Credentials, Role, Routed};

use dashboard::Dashboard;
use inbound::InboundConnections;
use reports::JobReports;
use store::{StateStore, Write};
use timelines::Timelines;

/// State of a head that its tasks share.
#[derive(Debug)]
struct Head {
    authority: CertificateAuthority,
    host: Host,
    control: Arc<ControlPlane>,
    /// Host and control plane with the requests of agents and drivers.
    core: Arc<HeadCore>,
    store: StateStore,
    /// Dashboard of the head, once it is served.
    dashboard: OnceLock<Dashboard>,
    reports: JobReports,
    timelines: Timelines,
}

/// Reference to the head for the callbacks of its parts, set as soon as the head exists.
///
/// The head owns its host and its control plane, and both call the head. Their callbacks are built before the
/// head, so they take this cell. It is weak: a strong reference would be a cycle, and the store, which flushes
/// in its destructor, would never be dropped.
type HeadCell = Arc<OnceLock<Weak<Head>>>;

/// Runs a head until SIGTERM, and calls `ready` as soon as it accepts requests.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start.
///
/// # Cancel safety
///
/// Dropping the future ends the head immediately, as a kill does.
pub(crate) async fn run(options: HeadOptions, ready: impl FnOnce(HeadReady)) -> Result<(), DaemonError> {
    // 1. Log and signals. The handlers come before the store is open: SIGTERM during the start then ends the
    //    head through phase 6, and not in the middle of a write.
    daemon_log::init(&options.session_dir.join("logs"), "head.log");
    open_files::raise_limit();
    let mut shutdown = ShutdownSignals::install()?;

    // 2. Durable state. The lock of the database keeps out a second head with the same directory. The incarnation
    //    is on disk before the host exists: peers reject a head with an earlier incarnation than one they know.
    let authority = open_authority(&options.state_dir)?;
    let token = authority.token().clone();
    let (store, records) = StateStore::open(&options.state_dir.join("head.redb"))
        .await
        .map_err(failed("the head's database, head.redb in the state directory, cannot be opened"))?;
    let incarnation = incarnation::choose(&store, &records, fresh_identity().incarnation).await;
    let identity = HostUid { host: HostId::HEAD, incarnation };

    // 3. Host and control plane. Nothing can connect yet: the host gets its connections from the inbound loop,
    //    which starts last.
    let claims = Claims { role: Role::Head, hosts: vec![identity], job: None, node: None };
    let credentials = certify(&authority, &claims).map_err(failed("the head's certificate"))?;
    let (host_queue, arrivals) = mpsc::channel(HANDOFF_QUEUE_MAX);
    let head =
        Head::start(authority, store, identity, (&credentials, arrivals), settings(options.leases)).await?;

    // 4. Recovery, before the first request. A member that rejoins must find its record, and an id that was
    //    allocated before its watermark is on disk could be allocated again by the next head.
    let mut tasks = JoinSet::new();
    head.control.apply(ControlEvent::Restored(records));
    tasks.spawn(report_store_health(Arc::clone(&head)));
    // A full disk does not stop the head: it runs on, and allocates no ids until the disk has room.
    let _ = head.store.flushed().await;
    if let Some((jobs, workers, actors)) = head.store.progress().borrow().watermarks {
        head.control.apply(ControlEvent::WatermarksDurable { jobs, workers, actors });
    }

    // 5. Services. The token RPC server has its queue before the inbound loop can fill it, and the agent is
    //    started, by `ready`, when all of them run.
    let token_rpc_queue = start_token_rpc(&head, &credentials, &token);
    let inbound = InboundConnections { head: Arc::downgrade(&head), host_queue, token_rpc_queue };
    tasks.spawn(inbound.receive_loop(options.agent_socket));
    tasks.spawn(tick(Arc::clone(&head)));
    tasks.spawn(reports::run(Arc::downgrade(&head), head.reports.open(), options.state_dir.clone()));
    tasks.spawn(renew_loop(Arc::clone(&head), credentials, claims));
    let dashboard = start_dashboard(&head, options.dashboard.as_ref(), &options.state_dir)?;
    ready(HeadReady { token: token.to_string(), dashboard });

    // 6. Shutdown. Some tasks hold strong references to the head; the store flushes when the last one is dropped.
    shutdown.recv().await;
    if let Some(dashboard) = head.dashboard.get() {
        dashboard.stop().await;
    }
    tasks.abort_all();
    head.host.abort();
    Ok(())
}

/// Settings of the state: those of the options, and defaults.
fn settings(leases: LeaseOptions) -> Settings {
    Settings {
        node_unreachable_after: leases.unreachable_after(),
        node_lease: leases.dead_after(),
        job_lease: leases.dead_after(),
        ..Settings::default()
    }
}

/// Starts the dashboard, if there is to be one.
fn start_dashboard(
    head: &Arc<Head>,
    options: Option<&DashboardOptions>,
    state_dir: &Path,
) -> Result<DashboardStatus, DaemonError> {
    let Some(options) = options else { return Ok(DashboardStatus::Off) };
    match Dashboard::start(head, options, state_dir) {
        Ok(dashboard) => {
            let link = dashboard.link();
            // The cell is new, so this cannot fail.
            let _ = head.dashboard.set(dashboard);
            Ok(DashboardStatus::Serving { link })
        }
        Err(error) if options.is_required => Err(DaemonError::Failed(error.to_string())),
        Err(error) => {
            tracing::warn!(%error, "the head runs without its dashboard");
            Ok(DashboardStatus::Unavailable { why: error.to_string() })
        }
    }
}

/// Opens the certificate authority, or creates it together with the state directory.
fn open_authority(state_dir: &Path) -> Result<CertificateAuthority, DaemonError> {
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    created.map_err(failed("cannot create the state directory"))?;
    let authority = CertificateAuthority::open(state_dir).map_err(failed("the cluster's authority"))?;
    Ok(authority.valid_for(certificates_valid()))
}

/// Starts the token RPC server, and returns the queue of its connections.
fn start_token_rpc(head: &Arc<Head>, credentials: &Credentials, token: &Token) -> mpsc::Sender<TcpStream> {
    let (queue, connections) = mpsc::channel(HANDOFF_QUEUE_MAX);
    let service = admin_service::HeadAdminService::of(head);
    tokio::spawn(TokenRpcServer::new(credentials, token.clone(), service).run(connections));
    queue
}

/// Environment variable that shortens the validity of certificates, since tests cannot wait for their expiry.
const VALID_SECONDS: &str = "ROADSHOW_TEST_CERTIFICATE_SECONDS";

/// Validity of the certificates that this head issues, at most [`CERTIFICATE_VALID`].
fn certificates_valid() -> Duration {
    shortened(std::env::var(VALID_SECONDS).ok().as_deref(), cfg!(debug_assertions))
}

/// Applies the variable only outside of releases: certificates that expire immediately would stop the cluster.
fn shortened(seconds: Option<&str>, is_for_tests: bool) -> Duration {
    let seconds = seconds.filter(|_| is_for_tests).and_then(|seconds| seconds.parse().ok());
    seconds.map_or(CERTIFICATE_VALID, |seconds| Duration::from_secs(seconds).min(CERTIFICATE_VALID))
}

/// Issues a certificate together with its key.
fn certify(authority: &CertificateAuthority, claims: &Claims) -> Result<Credentials, String> {
    let request = CertificateRequest::new().map_err(|error| error.to_string())?;
    let chain = authority.issue(request.csr(), claims).map_err(|error| error.to_string())?;
    request.credentials(chain).map_err(|error| error.to_string())
}

/// Renews the head's own certificate, long before it expires.
async fn renew_loop(head: Arc<Head>, credentials: Credentials, claims: Claims) {
    loop {
        credentials.wait_for_renewal().await;
        let renewed = certify(&head.authority, &claims);
        if let Err(error) = renewed.and_then(|fresh| credentials.renew(&fresh).map_err(|it| it.to_string())) {
            tracing::error!(error, "cannot renew the head's certificate");
        }
    }
}

/// Sends clock ticks to the state, which has no clock of its own.
async fn tick(head: Arc<Head>) {
    loop {
        head.control.next_tick().await;
        head.control.apply(ControlEvent::Tick);
    }
}

/// Reports durable id watermarks and disk errors to the state.
async fn report_store_health(head: Arc<Head>) {
    let (mut progress, mut last_alert, mut last_watermarks) = (head.store.progress(), None, None);
    loop {
        let (error, watermarks) = {
            // The guard is dropped before `apply`: the writer thread would wait for it.
            let progress = progress.borrow_and_update();
            (progress.last_error.clone(), progress.watermarks)
        };
        if let Some((jobs, workers, actors)) = watermarks.filter(|it| last_watermarks != Some(*it)) {
            last_watermarks = watermarks;
            head.control.apply(ControlEvent::WatermarksDurable { jobs, workers, actors });
        }
        if error != last_alert {
            last_alert.clone_from(&error);
            head.control.apply(ControlEvent::PersistenceStatus { trouble: error });
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

impl Head {
    /// Starts the host and the control plane, and connects their callbacks to the head.
    async fn start(
        authority: CertificateAuthority,
        store: StateStore,
        identity: HostUid,
        (credentials, arrivals): (&Credentials, mpsc::Receiver<TcpStream>),
        settings: Settings,
    ) -> Result<Arc<Self>, DaemonError> {
        let cell = HeadCell::default();
        // The host binds no port, so its address names none.
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let transport = Routed::new(credentials.clone(), address, arrivals);
        let services = services::host_services(Arc::clone(&cell));
        let host = start_host(identity, authority.token(), transport, address, services).await?;
        let (executor, flushed) = (executor(Arc::clone(&cell)), persistence(Arc::clone(&cell)));
        let persistence = persistence(Arc::clone(&cell));
        let control = Arc::new(ControlPlane::new(settings, executor, Some(persistence)));
        let core = HeadCore::new(host.clone(), Arc::clone(&control), flushed);
        let head = Arc::new(Self {
            authority,
            host,
            control,
            core,
            store,
            dashboard: OnceLock::new(),
            reports: JobReports::default(),
            timelines: Timelines::default(),
        });
        // The cell is new, so this cannot fail. A call before this point finds no head, and is refused.
        let _ = cell.set(Arc::downgrade(&head));
        Ok(head)
    }

    /// Executes the actions of an event. It runs under the lock of the state, so it only queues.
    fn execute(&self, actions: &[Action]) {
        // One group, so that a crash leaves all records of an event or none.
        self.store.change_all(actions.iter().filter_map(|action| match action {
            Action::Persist(record) => Some(Write::Put(Box::new(record.clone()))),
            Action::Delete(key) => Some(Write::Delete(*key)),
            _ => None,
        }));
        for action in actions {
            self.core.execute(action);
            if let Action::ReleaseJob { job, .. } = action {
                self.reports.request(*job);
            }
        }
    }
}

/// Callback of the control plane that executes its actions.
fn executor(cell: HeadCell) -> ActionExecutor {
    Box::new(move |actions: &[Action]| {
        if let Some(head) = cell.get().and_then(Weak::upgrade) {
            head.execute(actions);
        }
    })
}

/// Callback of the control plane that waits until all requested writes are on disk.
fn persistence(cell: HeadCell) -> Persistence {
    Box::new(move || {
        let head = cell.get().and_then(Weak::upgrade);
        Box::pin(async move {
            match head {
                Some(head) => head.store.flushed().await,
                None => Err("the head is ending".to_owned()),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_validity_is_shortened_only_for_tests() {
        assert_eq!(shortened(Some("4"), true), Duration::from_secs(4));
        for (seconds, is_for_tests) in [(Some("4"), false), (None, true), (Some("99999999"), true)] {
            assert_eq!(shortened(seconds, is_for_tests), CERTIFICATE_VALID, "{seconds:?}");
        }
    }
}
