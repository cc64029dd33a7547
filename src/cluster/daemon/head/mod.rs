//! The control plane's process: the state, what keeps it, and those who ask and are told.
//!
//! It binds no port: connections come through the door of the agent on its node, over a socket in the
//! session's directory. What a cluster's programs say to each other never passes through it, and all goes
//! on while it is away. Started again with the same state directory it is the same head.

mod admin_service;
#[cfg(feature = "cli")]
pub(in crate::cluster) mod ca;
mod certificates;
mod inbound;
mod incarnation;
mod lists;
mod outbox;
mod services;
mod store;

use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{DaemonError, HeadOptions, HeadReady, failed, start_host};
use crate::cluster::control_plane::state::{Action, Event, Settings};
use crate::cluster::control_service::{ControlPlane, Persistence};
use crate::cluster::daemon::head::ca::CertificateAuthority;
use crate::cluster::daemon::logs::daemon_log;
use crate::cluster::daemon::token_rpc_server::TokenRpcServer;
use crate::cluster::model::NodeId;
use crate::cluster::open_files;
use crate::cluster::protocol::AgentCommand;
use crate::cluster::security::{CertificateRequest, Claims};
use crate::config::{CERTIFICATE_VALID, HANDOFF_QUEUE_MAX, TICK_EVERY};
use crate::host::{Host, fresh_identity};
use crate::id::{HostId, HostUid};
use crate::transport::{Credentials, Role, Routed};

use outbox::Outbox;
use store::{Store, Write};

/// One head, as its tasks share it.
#[derive(Debug)]
struct Head {
    authority: CertificateAuthority,
    host: Host,
    control: Arc<ControlPlane>,
    orders: Mutex<Outbox>,
    store: Store,
}

/// Runs a head until it is to end. `ready` hears when it can be asked.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start.
///
/// # Cancel safety
///
/// Dropping the future ends the head at once, as a kill would.
pub(crate) async fn run(options: HeadOptions, ready: impl FnOnce(HeadReady)) -> Result<(), DaemonError> {
    daemon_log::init(&options.session_dir.join("logs"), "head.log");
    open_files::raise_limit();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("SIGTERM cannot be waited for"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("SIGINT cannot be waited for"))?;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.state_dir);
    made.map_err(failed("the state directory cannot be made"))?;
    let authority =
        CertificateAuthority::open(&options.state_dir).map_err(failed("the cluster's authority"))?;
    let authority = authority.valid_for(certificates_valid());
    let (store, records) = Store::open(&options.state_dir.join("head.redb"))
        .await
        .map_err(failed("the head's database, head.redb in the state directory, cannot be opened"))?;
    let token = authority.token().clone();
    let incarnation = incarnation::begin(&store, &records, fresh_identity().incarnation).await;
    let identity = HostUid { host: HostId::HEAD, incarnation };
    let claims = Claims { role: Role::Head, hosts: vec![identity], job: None, node: None };
    let credentials = certify(&authority, &claims).map_err(failed("the head's certificate"))?;
    let (door, arrivals) = mpsc::channel(HANDOFF_QUEUE_MAX);
    let itself = Arc::new(OnceLock::<Weak<Head>>::new());
    let hands = {
        let itself = Arc::clone(&itself);
        Box::new(move |action: &Action| {
            if let Some(head) = itself.get().and_then(Weak::upgrade) {
                head.execute(action);
            }
        })
    };
    let address = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let transport = Routed::new(credentials.clone(), address, arrivals);
    let calls = services::calls(Arc::clone(&itself));
    let host = start_host(identity, &token, transport, address, calls).await?;
    let keeper: Persistence = {
        let itself = Arc::clone(&itself);
        Box::new(move || {
            let head = itself.get().and_then(Weak::upgrade);
            Box::pin(async move {
                match head {
                    Some(head) => head.store.flushed().await,
                    None => Err("the head is ending".to_owned()),
                }
            })
        })
    };
    let control = Arc::new(ControlPlane::new(Settings::default(), hands, Some(keeper)));
    let orders = Mutex::new(Outbox::default());
    let head = Arc::new(Head { authority, host, control, orders, store });
    // It was not set before.
    let _ = itself.set(Arc::downgrade(&head));
    head.control.apply(Event::Restored(records));
    let keeping = tokio::spawn(report_store_health(Arc::clone(&head)));
    // The numbers of this life are on disk before anything is given one. Where the disk is full the head
    // runs on without new ones.
    let _ = head.store.flushed().await;
    if let Some((jobs, workers, actors)) = head.store.progress().borrow().given {
        head.control.apply(Event::WatermarksDurable { jobs, workers, actors });
    }
    let (desk_door, visitors) = mpsc::channel(HANDOFF_QUEUE_MAX);
    tokio::spawn(
        TokenRpcServer::new(&credentials, token.clone(), admin_service::HeadAdminService::of(&head))
            .run(visitors),
    );
    let doorway = inbound::Doorway { head: Arc::downgrade(&head), door, desk: desk_door };
    let doorway = tokio::spawn(doorway.receive_loop(options.agent_socket));
    let ticking = tokio::spawn(tick(Arc::clone(&head)));
    let certified = tokio::spawn(renew_loop(Arc::clone(&head), credentials, claims));
    ready(HeadReady { token: token.to_string() });
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    doorway.abort();
    ticking.abort();
    keeping.abort();
    certified.abort();
    head.host.abort();
    Ok(())
}

/// Tests shorten the lives of certificates, since they cannot wait for their ends.
const VALID_SECONDS: &str = "ROADSHOW_TEST_CERTIFICATE_SECONDS";

/// Validity of certificates. Nothing makes it longer.
fn certificates_valid() -> Duration {
    shortened(std::env::var(VALID_SECONDS).ok().as_deref(), cfg!(debug_assertions))
}

/// In a release the variable is not obeyed: certificates that expire at once would stop the cluster.
fn shortened(seconds: Option<&str>, is_for_tests: bool) -> Duration {
    let seconds = seconds.filter(|_| is_for_tests).and_then(|seconds| seconds.parse().ok());
    seconds.map_or(CERTIFICATE_VALID, |seconds| Duration::from_secs(seconds).min(CERTIFICATE_VALID))
}

/// A new certificate, with its key.
fn certify(authority: &CertificateAuthority, claims: &Claims) -> Result<Credentials, String> {
    let request = CertificateRequest::new().map_err(|error| error.to_string())?;
    let chain = authority.issue(request.csr(), claims).map_err(|error| error.to_string())?;
    request.credentials(chain).map_err(|error| error.to_string())
}

/// Renews the head's own certificate, long before it ends.
async fn renew_loop(head: Arc<Head>, credentials: Credentials, claims: Claims) {
    loop {
        credentials.wait_for_renewal().await;
        let renewed = certify(&head.authority, &claims);
        if let Err(error) = renewed.and_then(|fresh| credentials.renew(&fresh).map_err(|it| it.to_string())) {
            tracing::error!(error, "the head's certificate was not renewed");
        }
    }
}

/// Tells the state that time has passed.
async fn tick(head: Arc<Head>) {
    let mut ticks = tokio::time::interval(TICK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        head.control.apply(Event::Tick);
    }
}

/// Tells the state which numbers are on disk, and whether the disk takes what is to be kept.
async fn report_store_health(head: Arc<Head>) {
    let (mut progress, mut told, mut numbers) = (head.store.progress(), None, None);
    loop {
        let (trouble, given) = {
            let progress = progress.borrow_and_update();
            (progress.last_error.clone(), progress.given)
        };
        if let Some((jobs, workers, actors)) = given.filter(|given| numbers != Some(*given)) {
            numbers = given;
            head.control.apply(Event::WatermarksDurable { jobs, workers, actors });
        }
        if trouble != told {
            told.clone_from(&trouble);
            head.control.apply(Event::PersistenceStatus { trouble });
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

impl Head {
    /// Carries out what the state wants done.
    fn execute(&self, action: &Action) {
        match action.clone() {
            Action::StartWorker { node, worker, job, detached } => {
                self.send_command(node, AgentCommand::StartWorker { worker, job, detached });
            }
            Action::StopWorker { node, worker } => {
                self.send_command(node, AgentCommand::StopWorker { worker })
            }
            Action::StopActor { node, worker, at, .. } => {
                self.send_command(node, AgentCommand::StopActor { worker, at })
            }
            Action::StopDriver { node, job } => self.send_command(node, AgentCommand::StopDriver { job }),
            Action::StopNode { node } => self.send_command(node, AgentCommand::StopNode),
            Action::ReleaseJob { job, nodes } => {
                nodes.into_iter().for_each(|node| self.send_command(node, AgentCommand::ReleaseJob { job }));
                self.orders().forget_job(job);
            }
            Action::ForgetAgent { agent } => self.orders().forget_agent(agent),
            Action::NotifyDriver { job, event } => self.orders().tell_driver(&self.host, job, event),
            Action::Persist(record) => self.store.change(Write::Put(record)),
            Action::Delete(key) => self.store.change(Write::Delete(key)),
            Action::Answer { .. } => {}
        }
    }

    fn send_command(&self, node: NodeId, order: AgentCommand) {
        self.orders().order(&self.host, node, order);
    }

    fn orders(&self) -> MutexGuard<'_, Outbox> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_shortened_for_tests_alone() {
        assert_eq!(shortened(Some("4"), true), Duration::from_secs(4));
        for (seconds, is_for_tests) in [(Some("4"), false), (None, true), (Some("99999999"), true)] {
            assert_eq!(shortened(seconds, is_for_tests), CERTIFICATE_VALID, "{seconds:?}");
        }
    }
}
