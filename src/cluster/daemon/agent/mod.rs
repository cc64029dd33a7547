//! The daemon of a node: it has the node's port, runs the workers that the head orders, and keeps their files.
//!
//! Everything that arrives at the port goes through the door to whom it is for: the agent's own host and
//! desk, a worker, or the head if that is on this node. The agent joins the head as long as it runs, and
//! again whenever the head was gone; what its workers do goes on meanwhile. When the agent ends, its
//! workers end.

#[cfg(feature = "cli")]
pub(in crate::cluster) mod acceptor;
mod accounts;
mod certificates;
mod driver_enrolment;
mod drivers;
mod events;
mod executable_exchange;
mod jobs;
mod join;
#[cfg(feature = "cli")]
pub(in crate::cluster) mod oom;
mod orphans;
mod output;
mod router;
mod services;
#[cfg(feature = "cli")]
mod store;
mod workers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::{DaemonError, failed};
use super::host::start_host;
use super::options::{AgentOptions, AgentReady};
use crate::cluster::daemon::agent::store::Store;
use crate::cluster::daemon::handoff::HeadSocket;
use crate::cluster::daemon::logs::daemon_log;
use crate::cluster::daemon::token_rpc_server::TokenRpcServer;
use crate::cluster::executable::this_machine;
use crate::cluster::launch::descendants;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{JobId, NodeDescriptor};
use crate::cluster::open_files;
use crate::cluster::output::LogName;
use crate::cluster::protocol::NodeEvent;
use crate::cluster::security::Token;
use crate::config::{HANDOFF_QUEUE_MAX, JOIN_TIMEOUT};
use crate::host::{Host, fresh_identity};
use crate::id::HostUid;
use crate::transport::{Credentials, Routed};
use acceptor::Acceptor;

use accounts::Accounts;
use drivers::Drivers;
use events::EventQueue;
use executable_exchange::Exchange;
use jobs::Jobs;
use orphans::Orphans;
use output::Outputs;
use router::NodeRouter;
use workers::Workers;

/// One agent, as its tasks share it.
#[derive(Debug)]
struct Agent {
    facts: NodeDescriptor,
    token: Token,
    credentials: Credentials,
    host: Host,
    /// All addresses of the head.
    heads: Vec<SocketAddr>,
    /// The address at which the head answered last.
    head_addr: Mutex<SocketAddr>,
    head: Mutex<Option<HostUid>>,
    workers: Workers,
    drivers: Drivers,
    jobs: Jobs,
    accounts: Accounts,
    outputs: Outputs,
    executables: Store,
    exchange: Exchange,
    events: EventQueue,
    orphans: Orphans,
    /// Cancelled when the agent is to end.
    shutdown: CancellationToken,
}

impl Agent {
    /// Takes note of what the head is to hear.
    fn record(&self, event: NodeEvent) {
        self.events.push(event);
    }

    /// What the node is and has on it, in place of all that the head has not heard of.
    fn report(&self) -> NodeReport {
        self.events.clear();
        NodeReport {
            facts: self.facts.clone(),
            workers: self.workers.report(),
            jobs: self.jobs.pinned_jobs(),
            drivers: self.drivers.running(),
        }
    }

    /// A job is over: its executable is kept for as long as workers of it still run, and no longer.
    fn end_job(&self, job: JobId) {
        self.jobs.mark_ended(job);
        self.jobs.release_if_idle(job, &self.workers);
    }

    /// Whether the process that a log is of still runs here.
    fn is_writing(&self, log: LogName) -> bool {
        match log {
            LogName::Worker { worker, .. } => self.workers.contains(worker),
            LogName::Driver { job, .. } => self.drivers.runs(job),
        }
    }

    /// The head is another one, or is reached elsewhere.
    fn set_head(&self, head: HostUid, at: SocketAddr) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        *self.head_addr.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Where the head answered last.
    fn head_at(&self) -> SocketAddr {
        *self.head_addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head, as it was last known.
    fn head(&self) -> Option<HostUid> {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs an agent until it is to end. `ready` hears when the node has joined.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start, or the head does not take it.
///
/// # Cancel safety
///
/// Dropping the future ends the workers at once.
pub(crate) async fn run(options: AgentOptions, ready: impl FnOnce(AgentReady)) -> Result<(), DaemonError> {
    daemon_log::init(&options.session_dir.join("logs"), "agent.log");
    open_files::raise_limit();
    orphans::adopt();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("SIGTERM cannot be waited for"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("SIGINT cannot be waited for"))?;
    let ended_early = || DaemonError::Failed("it was ended before it had joined".to_owned());
    let (agent, rooms) = tokio::select! {
        started = start(options) => started?,
        _ = terminate.recv() => return Err(ended_early()),
        _ = interrupt.recv() => return Err(ended_early()),
    };
    let (tell_joined, joined) = oneshot::channel();
    let joining = tokio::spawn(join::membership_loop(Arc::clone(&agent), rooms.heads(), tell_joined));
    let certificates = tokio::spawn(certificates::renew_loop(Arc::clone(&agent)));
    let trimming = tokio::spawn(Jobs::enforce_retention(Arc::clone(&agent)));
    let reaping = tokio::spawn(orphans::reap());
    let refused = tokio::select! {
        joined = joined => match joined {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(DaemonError::Failed("the task that joins the head has ended".to_owned())),
        },
        _ = terminate.recv() => Some(ended_early()),
        _ = interrupt.recv() => Some(ended_early()),
    };
    if let Some(error) = refused {
        rooms.close();
        return Err(error);
    }
    ready(AgentReady { address: agent.facts.address, node_id: agent.facts.id() });
    let cause = tokio::select! {
        _ = terminate.recv() => "its agent was asked to end (SIGTERM)",
        _ = interrupt.recv() => "its agent was interrupted (SIGINT)",
        () = agent.shutdown.cancelled() => "the node was drained",
    };
    joining.abort();
    certificates.abort();
    trimming.abort();
    join::leave(&agent, cause).await;
    agent.drivers.stop_all();
    agent.workers.stop_all().await;
    reaping.abort();
    // Whatever is left below this process, adopted or not.
    let accounts = agent.accounts.clone();
    let ending = tokio::task::spawn_blocking(move || {
        descendants::end_all(std::process::id(), None);
        accounts.close();
    });
    drop(ending.await);
    agent.host.abort();
    rooms.close();
    Ok(())
}

/// Makes an agent up to where it can join.
async fn start(options: AgentOptions) -> Result<(Arc<Agent>, Arc<NodeRouter>), DaemonError> {
    let token: Token = options.token.parse().map_err(|error| DaemonError::Refused(format!("{error}")))?;
    let checked = options.job_users.check(options.host, &options.heads);
    checked.map_err(|error| DaemonError::Refused(error.to_string()))?;
    let store = Store::open(&options.session_dir.join("executables"));
    let executables = store.map_err(failed("the executables cannot be kept"))?;
    let jobs = Jobs::new(&options.session_dir).map_err(failed("the session's directory cannot be used"))?;
    let accounts = Accounts::new(&options.job_users, &options.session_dir);
    let accounts = accounts.map_err(failed("the session's directory cannot be used"))?;
    let identity = fresh_identity();
    let head_room = options.head_socket.as_deref().map(|path| HeadSocket::listen(path, identity)).transpose();
    let head_room = head_room.map_err(failed("the head's socket cannot be made"))?;
    let head_comes = head_room.as_ref().map(HeadSocket::wait_connected);
    let (agent_queue, arrivals) = mpsc::channel(HANDOFF_QUEUE_MAX);
    let (desk_door, visitors) = mpsc::channel(HANDOFF_QUEUE_MAX);
    let rooms = Arc::new(NodeRouter::new(identity.host, agent_queue, desk_door, head_room));
    let listen = SocketAddr::new(options.host, options.port);
    let door = Acceptor::bind(listen).await.map_err(|error| {
        let next = "stop what listens there, or give another --port";
        DaemonError::Failed(format!("cannot listen on {listen}: {error}; {next}"))
    })?;
    let address = door.address();
    let (opened, closing) = (Arc::clone(&rooms), rooms.closing());
    tokio::spawn(async move { closing.run_until_cancelled(door.accept_loop(opened)).await });
    let heads = if options.heads.is_empty() { vec![address] } else { options.heads.clone() };
    let facts = NodeDescriptor {
        agent: identity,
        address,
        hostname: options.node_name.clone(),
        pid: std::process::id(),
        is_head: options.is_head(),
        resources: options.resources.clone(),
        labels: options.labels.clone(),
        workers: options.workers,
        platform: this_machine().to_string(),
        session_dir: options.session_dir.display().to_string(),
    };
    if let Some(head_comes) = head_comes {
        // One that does not come is told of by the attempt to enrol.
        drop(tokio::time::timeout(JOIN_TIMEOUT, head_comes).await);
    }
    let (head_at, credentials, head) = join::enrol_with_retry(&token, &heads, identity).await?;
    // By this a program of the same user finds the token that lies beside it.
    jobs::write_private(&options.session_dir.join("head_address"), &head_at.to_string())
        .map_err(failed("the session's directory cannot be used"))?;
    let itself = Arc::new(OnceLock::new());
    let transport = Routed::new(credentials.clone(), address, arrivals);
    let calls = services::host_services(Arc::clone(&itself));
    let host = start_host(identity, &token, transport, address, calls).await?;
    host.supersede(head, head_at);
    let agent = Arc::new(Agent {
        facts,
        token,
        credentials,
        host,
        heads,
        head_addr: Mutex::new(head_at),
        head: Mutex::new(Some(head)),
        workers: Workers::default(),
        drivers: Drivers::default(),
        jobs,
        accounts,
        outputs: Outputs::default(),
        executables,
        exchange: Exchange::default(),
        events: EventQueue::default(),
        orphans: Orphans::default(),
        shutdown: CancellationToken::new(),
    });
    // It was not set before.
    let _ = itself.set(Arc::downgrade(&agent));
    rooms.serve(&agent);
    let desk =
        TokenRpcServer::new(&agent.credentials, agent.token.clone(), services::AgentAdminService::of(&agent));
    tokio::spawn(desk.run(visitors));
    Ok((agent, rooms))
}
