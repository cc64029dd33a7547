//! Agent: the daemon of a node. It owns the node's port, and runs the workers and drivers that the head assigns.
//!
//! Its acceptor routes every connection of the port: to the agent's own host, its token RPC server, a worker, or
//! the head on this node. The agent is a member of the cluster while it runs, and rejoins whenever the head
//! restarts; its workers continue meanwhile. When the agent ends, its workers end.
//!
//! ```text
//!             ┌─▶ Host ──▶ services: commands of the head, executables and output of drivers
//!  Acceptor ──┼─▶ TokenRpcServer ──▶ AgentAdminService: logs, uploads, drivers to start
//!   (port)    ├─▶ worker processes, over their control sockets
//!             └─▶ head process, over its unix socket
//!
//!  Workers, Drivers ──▶ EventQueue ──▶ membership_loop ──▶ head
//! ```

#[cfg(feature = "cli")]
pub(in crate::cluster) mod acceptor;
mod accounts;
mod certificates;
mod disk_usage;
mod driver_enrolment;
mod drivers;
mod executable_exchange;
mod jobs;
mod join;
#[cfg(feature = "cli")]
mod orphans;
mod output;
mod router;
mod services;
mod spans;
mod statistics;
#[cfg(feature = "cli")]
mod store;
mod workers;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::{DaemonError, failed};
use super::host::start_host;
use super::options::{AgentOptions, AgentReady};
use super::signals::ShutdownSignals;
use crate::cluster::daemon::agent::store::ExecutableStore;
use crate::cluster::daemon::handoff::HeadSocket;
use crate::cluster::daemon::logs::daemon_log;
use crate::cluster::daemon::token_rpc_server::TokenRpcServer;
use crate::cluster::event_queue::EventQueue;
use crate::cluster::executable::this_machine;
use crate::cluster::holder::Holder;
use crate::cluster::launch::descendants;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{JobId, NodeDescriptor};
use crate::cluster::node_lease::NodeLease;
use crate::cluster::open_files;
use crate::cluster::output::LogName;
use crate::cluster::protocol::NodeEvent;
use crate::cluster::security::Token;
use crate::config::{HANDOFF_QUEUE_MAX, JOIN_TIMEOUT};
use crate::host::{Host, fresh_identity, machine_time};
use crate::id::HostUid;
use crate::transport::{Credentials, Routed};
use acceptor::Acceptor;

use accounts::Accounts;
use drivers::Drivers;

use executable_exchange::Exchange;
use jobs::Jobs;
use orphans::Orphans;
use output::Outputs;
use router::NodeRouter;
use spans::SpanQueue;
use statistics::StatisticsBuffer;
use workers::NodeWorkers;

/// State of an agent that its tasks share.
#[derive(Debug)]
struct Agent {
    descriptor: NodeDescriptor,
    token: Token,
    credentials: Credentials,
    host: Host,
    /// All addresses of the head, in the order of the attempts.
    heads: Vec<SocketAddr>,
    /// Address at which the head answered last.
    head_addr: Mutex<SocketAddr>,
    head: Mutex<Option<HostUid>>,
    workers: NodeWorkers,
    drivers: Drivers,
    jobs: Jobs,
    accounts: Accounts,
    outputs: Outputs,
    executables: ExecutableStore,
    exchange: Exchange,
    lease: NodeLease,
    events: EventQueue,
    statistics: StatisticsBuffer,
    spans: SpanQueue,
    orphans: Orphans,
    /// States of durable actors that this node keeps.
    holder: Holder,
    /// Cancelled when the node has been drained.
    shutdown: CancellationToken,
}

impl Agent {
    /// Queues an event for the head.
    fn record(&self, event: NodeEvent) {
        self.events.push(event);
    }

    /// Snapshot of the node for the head. It replaces the queued events.
    fn report(&self) -> NodeReport {
        self.events.clear();
        NodeReport {
            descriptor: self.descriptor.clone(),
            workers: self.workers.report(),
            jobs: self.jobs.pinned_jobs(),
            drivers: self.drivers.running(),
            ended: self.events.actor_ends(),
            ended_workers: self.events.worker_ends(),
            holder: Some(self.holder.id()),
            states: self.holder.keys(),
        }
    }

    /// Ends a job on this node. Its executable stays pinned until its last worker has ended.
    fn end_job(&self, job: JobId) {
        self.jobs.mark_ended(job);
        self.jobs.release_if_idle(job, &self.workers);
    }

    /// Returns true if the process that writes a log still runs.
    fn is_writing(&self, log: LogName) -> bool {
        match log {
            LogName::Worker { worker, .. } => self.workers.contains(worker),
            LogName::Driver { job, .. } => self.drivers.runs(job),
        }
    }

    /// Records the host and the address of the head, which may have restarted or moved.
    fn set_head(&self, head: HostUid, at: SocketAddr) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        *self.head_addr.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Address at which the head answered last.
    fn head_at(&self) -> SocketAddr {
        *self.head_addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Host of the head, as the agent last knew it.
    fn head(&self) -> Option<HostUid> {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reference to the agent for its host's services, set as soon as the agent exists.
///
/// The agent owns its host, whose services call the agent. They are built before it, so they take this cell; it
/// is weak, since a strong reference would be a cycle.
type AgentCell = Arc<OnceLock<Weak<Agent>>>;

/// Runs an agent until SIGTERM or the end of a drain, and calls `ready` once the node has joined.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start, or the head rejects it.
///
/// # Cancel safety
///
/// Dropping the future ends the workers immediately.
pub(crate) async fn run(options: AgentOptions, ready: impl FnOnce(AgentReady)) -> Result<(), DaemonError> {
    // 1. Log and process attributes. They come before the first child: a child inherits the limit of open files, and
    //    the kernel hands over only processes that lose their parent after `adopt`.
    daemon_log::init(&options.session_dir.join("logs"), "agent.log");
    open_files::raise_limit();
    orphans::adopt();
    let mut shutdown = ShutdownSignals::install()?;

    // 2. Start up to the enrolment. A signal interrupts it: a head that does not answer is waited for.
    let ended_early = || DaemonError::Failed("the agent was stopped before it had joined".to_owned());
    let (agent, router) = tokio::select! {
        started = start(options) => started?,
        _ = shutdown.recv() => return Err(ended_early()),
    };

    // 3. Membership and maintenance. The command that started the agent waits for `ready`, so the first join must
    //    end before it, with success or with the reason of the rejection.
    let mut tasks = JoinSet::new();
    let (notify_joined, joined) = oneshot::channel();
    tasks.spawn(join::membership_loop(Arc::clone(&agent), router.heads(), notify_joined));
    tasks.spawn(certificates::renew_loop(Arc::clone(&agent)));
    tasks.spawn(Jobs::enforce_retention(Arc::clone(&agent)));
    let reaping = tokio::spawn(orphans::reap());
    let rejected = tokio::select! {
        joined = joined => match joined {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(DaemonError::Failed("the task that joins the head has ended".to_owned())),
        },
        _ = shutdown.recv() => Some(ended_early()),
    };
    if let Some(error) = rejected {
        router.close();
        return Err(error);
    }
    ready(AgentReady { address: agent.descriptor.address, node_id: agent.descriptor.id() });

    // 4. Until a signal, or until the head orders the end of a drained node.
    let cause = tokio::select! {
        signal = shutdown.recv() => format!("its agent was stopped ({signal})"),
        () = agent.shutdown.cancelled() => "the node was drained".to_owned(),
    };

    // 5. Shutdown. Membership ends first, else the agent would rejoin after it has left. It leaves while its workers
    //    still run: the head then fails their actors with this cause, and not with the end of each worker. Adopted
    //    processes are reaped until the last worker has ended, since that is when most of them appear.
    tasks.abort_all();
    join::leave(&agent, &cause).await;
    agent.drivers.stop_all();
    agent.workers.stop_all().await;
    reaping.abort();
    end_descendants(&agent).await;
    agent.host.abort();
    router.close();
    Ok(())
}

/// Ends all processes that are left below this one, adopted or not, and releases the uids of the jobs.
async fn end_descendants(agent: &Agent) {
    let accounts = agent.accounts.clone();
    let ending = tokio::task::spawn_blocking(move || {
        descendants::end_all(std::process::id(), None);
        accounts.close();
    });
    drop(ending.await);
}

/// Starts an agent, up to the point where it can join.
async fn start(options: AgentOptions) -> Result<(Arc<Agent>, Arc<NodeRouter>), DaemonError> {
    // 1. The options, and the files of the session. Both fail without any effect on the cluster.
    let token: Token = options.token.parse().map_err(|error| DaemonError::Refused(format!("{error}")))?;
    let checked = options.job_users.check(options.host, &options.heads);
    checked.map_err(|error| DaemonError::Refused(error.to_string()))?;
    let (executables, jobs, accounts) = open_session(&options)?;

    // 2. The acceptor, before the enrolment: on the head's node the connection to the head arrives here, and the
    //    router hands it on. Port 0 is resolved here, and the head needs the actual address.
    let identity = fresh_identity();
    let head_socket =
        options.head_socket.as_deref().map(|path| HeadSocket::listen(path, identity)).transpose();
    let head_socket = head_socket.map_err(failed("cannot create the head's socket"))?;
    let head_connected = head_socket.as_ref().map(HeadSocket::wait_connected);
    let (agent_queue, arrivals) = mpsc::channel(HANDOFF_QUEUE_MAX);
    let (token_rpc_queue, token_rpc_connections) = mpsc::channel(HANDOFF_QUEUE_MAX);
    let router = Arc::new(NodeRouter::new(identity.host, agent_queue, token_rpc_queue, head_socket));
    let address = start_acceptor(SocketAddr::new(options.host, options.port), &router).await?;

    // 3. Enrolment, which gives the certificate that the host needs. On the head's node it waits for the head's
    //    process; if that does not connect, the enrolment fails and reports it.
    if let Some(head_connected) = head_connected {
        drop(tokio::time::timeout(JOIN_TIMEOUT, head_connected).await);
    }
    let heads = if options.heads.is_empty() { vec![address] } else { options.heads.clone() };
    let (head_at, credentials, head) = join::enrol_with_retry(&token, &heads, identity).await?;
    // A program of the same user reads this file to find the head, and the token beside it. It is written only
    // now: the address has been verified.
    jobs::write_private(&options.session_dir.join("head_address"), &head_at.to_string())
        .map_err(failed(SESSION_ERROR))?;

    // 4. The host, then the agent, then the services that refer to it.
    let cell = AgentCell::default();
    let transport = Routed::new(credentials.clone(), address, arrivals);
    let services = services::host_services(Arc::clone(&cell));
    let host = start_host(identity, &token, transport, address, services).await?;
    host.supersede(head, head_at);
    let agent = Arc::new(Agent {
        descriptor: descriptor(&options, identity, address),
        token,
        credentials,
        host,
        heads,
        head_addr: Mutex::new(head_at),
        head: Mutex::new(Some(head)),
        workers: NodeWorkers::default(),
        drivers: Drivers::default(),
        jobs,
        accounts,
        outputs: Outputs::default(),
        executables,
        exchange: Exchange::default(),
        lease: NodeLease::new(machine_time),
        events: EventQueue::default(),
        statistics: StatisticsBuffer::default(),
        spans: SpanQueue::default(),
        orphans: Orphans::default(),
        holder: Holder::new(),
        shutdown: CancellationToken::new(),
    });
    // The cell is new, so this cannot fail. A call before this point finds no agent, and is refused.
    let _ = cell.set(Arc::downgrade(&agent));
    router.serve(&agent);
    let service = services::AgentAdminService::of(&agent);
    let server = TokenRpcServer::new(&agent.credentials, agent.token.clone(), service);
    tokio::spawn(server.run(token_rpc_connections));
    Ok((agent, router))
}

const SESSION_ERROR: &str = "cannot use the session directory";

/// Opens the executables, the jobs and the accounts in the session directory.
fn open_session(options: &AgentOptions) -> Result<(ExecutableStore, Jobs, Accounts), DaemonError> {
    let session_dir: &Path = &options.session_dir;
    let executables = ExecutableStore::open(&session_dir.join("executables"));
    let executables = executables.map_err(failed("cannot open the store of executables"))?;
    let jobs = Jobs::new(session_dir).map_err(failed(SESSION_ERROR))?;
    let accounts = Accounts::new(&options.job_users, session_dir).map_err(failed(SESSION_ERROR))?;
    Ok((executables, jobs, accounts))
}

/// Binds the node's port, accepts its connections in the background, and returns the bound address.
async fn start_acceptor(listen: SocketAddr, router: &Arc<NodeRouter>) -> Result<SocketAddr, DaemonError> {
    let acceptor = Acceptor::bind(listen).await.map_err(|error| {
        let next = "stop what listens there, or give another --port";
        DaemonError::Failed(format!("cannot listen on {listen}: {error}; {next}"))
    })?;
    let address = acceptor.address();
    let (routes, closing) = (Arc::clone(router), router.closing());
    tokio::spawn(async move { closing.run_until_cancelled(acceptor.accept_loop(routes)).await });
    Ok(address)
}

/// Describes this node for the head.
fn descriptor(options: &AgentOptions, identity: HostUid, address: SocketAddr) -> NodeDescriptor {
    NodeDescriptor {
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
    }
}
