//! Driver of a job on a cluster of nodes: joins the cluster, ships its executable, and calls its workers.
//!
//! ```text
//!   user's thread                          I/O thread ("roadshow-io")
//!   user's host --- links ---> workers     control host <--- links ---> head, agents
//!     actors, calls, spawns                  heartbeat loop, event loop, membership broadcast,
//!                                            provisioning of nodes, output of workers
//! ```
//!
//! The two hosts are separate because user code may compute for seconds. Heartbeats, which keep the job's lease,
//! must not wait for it.

mod address;
mod delivery;
mod events;
mod heartbeat;
mod membership_broadcast;
mod output;
mod provision;
mod sources;
mod token;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::control_plane::state::{ControlReply, JobEvent};
use super::executable::Executable;
use super::io_thread::IoThread;
use super::membership::Membership;
use super::model::{JobDescriptor, JobId, JobState, NodeDescriptor, NodeId, WorkerAddress, WorkerId};
use super::output::{Display, Retention};
use super::protocol::worker::HeadInfo;
use super::protocol::{JOB, JOB_EVENT, JobRequest, OUTPUT};
use super::security::Claims;
use super::security::enrol::{Admitted, DriverEnrolment};
use super::{authorization, control_service, host_info};
use crate::background;
use crate::cluster::error::ClusterError;
use crate::cluster::launch::contract;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::Variables;
use crate::cluster::worker_info::WorkerInfo;
use crate::config::{HEAD_RPC_TIMEOUT, HISTORY_MAX, JOB_EVENT_QUEUE_MAX, Limits, OUTPUT_FLUSH_TIMEOUT};
use crate::host::{Executor, Host, HostConfig, HostServices, SendError, deadline_in, fresh_identity};
use crate::id::HostUid;
use crate::lock::{Locked, Mutex};
use crate::observe::{Chain, log};
use crate::remote::{ClusterRef, actor_services, call_host};
use crate::transport::{Credentials, Role, Routed};

use membership_broadcast::MembershipBroadcast;
use sources::Sources;

pub(super) use address::address;
pub(super) use token::variable;

/// Options of a driver that joins a cluster.
#[derive(Debug)]
pub(super) struct JoinOptions {
    /// Address of the head, as given: `host:port`.
    pub(super) address: String,
    pub(super) limits: Limits,
    /// Variables added to the workers' environment.
    pub(super) environment: Variables,
    /// Namespace of names; empty for the job's own.
    pub(super) namespace: String,
    /// Folding of equal lines of several workers; `None` leaves it to the environment.
    pub(super) dedup_logs: Option<bool>,
    pub(super) stack_bytes: usize,
}

/// Job that this process drives. Dropping it ends the job.
pub(super) struct RemoteCluster {
    shared: Arc<DriverShared>,
    /// Handles the events that the head sends.
    event_task: JoinHandle<()>,
    /// Renews the job's lease and rejoins the head.
    heartbeat_task: JoinHandle<()>,
    /// Sends membership changes to the workers.
    broadcast_task: JoinHandle<()>,
    io: IoThread,
    /// The first worker is ready: the user has the cluster.
    started: bool,
    /// Reason for which the start failed; the job's message if it is dropped before it has started.
    start_error: String,
    ended: bool,
}

/// State shared by the tasks of a driver.
#[derive(Debug)]
struct DriverShared {
    /// Control host: links to the head and the agents.
    control: Host,
    /// Host of the user's actors and calls.
    host: Host,
    /// Certificate and key of both hosts.
    credentials: Credentials,
    /// Token, or agent, through which the driver enrols again.
    admission: DriverEnrolment,
    /// All addresses that the head's name resolved to.
    heads: Vec<SocketAddr>,
    job: JobId,
    descriptor: JobDescriptor,
    members: Arc<Membership>,
    executable: Executable,
    launch: WorkerSettings,
    /// Prints the workers' output.
    display: Display,
    view: Mutex<ClusterView>,
    /// Membership changes not yet sent to the workers.
    broadcast: MembershipBroadcast,
    /// Sources of the executable for nodes that lack it.
    sources: Sources,
    /// Number of workers that became ready or failed.
    startup: watch::Sender<StartupProgress>,
}

/// Settings with which the job's workers are started.
#[derive(Clone, Debug)]
struct WorkerSettings {
    arguments: Vec<String>,
    environment: Variables,
    limits: Limits,
    stack_bytes: usize,
}

/// Driver's view of the cluster: the head, the workers and the agents.
#[derive(Debug)]
struct ClusterView {
    head: HostUid,
    /// Address at which the head answered last.
    head_at: SocketAddr,
    workers: Vec<KnownWorker>,
    /// Agents of the nodes that have the executable, without lost nodes.
    agents: BTreeMap<NodeId, HostUid>,
}

impl ClusterView {
    fn new(head: HostUid, head_at: SocketAddr) -> Self {
        Self { head, head_at, workers: Vec::new(), agents: BTreeMap::new() }
    }

    /// Removes the record of the worker that ended first once there are more than [`HISTORY_MAX`].
    fn forget_ended(&mut self) {
        let ended = self.workers.iter().filter(|known| known.ended.is_some()).count();
        if ended > HISTORY_MAX
            && let Some(first) = self.workers.iter().position(|known| known.ended.is_some())
        {
            self.workers.remove(first);
        }
    }

    /// Removes an agent. A later incarnation on the same node stays.
    fn forget_agent(&mut self, agent: HostUid) {
        self.agents.retain(|_, known| *known != agent);
    }
}

/// Worker of this job, running or ended.
#[derive(Clone, Debug)]
struct KnownWorker {
    node: NodeId,
    worker: WorkerId,
    member: WorkerAddress,
    pid: u32,
    ended: Option<String>,
}

/// Progress of the workers that the start waits for.
#[derive(Clone, Debug, Default)]
struct StartupProgress {
    ready: u32,
    failed: u32,
    last_failure: Option<String>,
    /// Reason for which a node that joined later was rejected.
    refused: Option<String>,
}

impl DriverShared {
    fn view(&self) -> Locked<'_, ClusterView> {
        self.view.lock()
    }

    fn head(&self) -> HostUid {
        self.view().head
    }

    /// Removes an agent that is lost or cannot be used.
    fn forget_agent(&self, agent: HostUid) {
        self.view().forget_agent(agent);
        self.sources.forget(agent);
    }

    /// Identity and address of the head, as sent to the workers.
    fn head_info(&self) -> HeadInfo {
        let view = self.view();
        HeadInfo { head: view.head, at: Some(view.head_at), job: self.job, tracks_all_actors: true }
    }

    /// Sends the head a request about the job.
    async fn ask(&self, request: JobRequest) -> Result<control_service::ControlResult, SendError> {
        call_host(&self.control, self.head(), JOB, request, deadline_in(HEAD_RPC_TIMEOUT)).await
    }
}

/// Nodes that a new job may use.
struct InitialNodes {
    nodes: Vec<NodeDescriptor>,
    /// The head has restarted and nodes may still rejoin, so there can be more than these.
    rejoining: bool,
}

/// Joins the cluster and provisions its nodes; returns once a worker is ready.
pub(super) async fn join(options: JoinOptions) -> Result<(ClusterRef, RemoteCluster), ClusterError> {
    let arguments = contract::arguments()?;
    log::fall_back();
    let io = IoThread::start(options.stack_bytes)?;
    let runtime = io.handle().clone();
    let executor = Executor::here_or(&runtime);
    // On the I/O thread, since the user's thread may be blocked in user code while the head waits for replies.
    let joined = background::spawn_on(io.handle(), async move {
        enrol_and_start(options, arguments, runtime, executor).await
    });
    let (shared, events, initial) = joined.await.map_err(std::io::Error::other)??;
    // Heartbeats begin before provisioning: shipping a large executable may take longer than the job's lease.
    let event_task = background::spawn_on(io.handle(), events::event_loop(Arc::clone(&shared), events));
    let heartbeat_task = background::spawn_on(io.handle(), heartbeat::heartbeat_loop(Arc::clone(&shared)));
    let broadcast_task = background::spawn_on(io.handle(), membership_broadcast::run(Arc::clone(&shared)));
    let mut cluster = RemoteCluster {
        shared: Arc::clone(&shared),
        event_task,
        heartbeat_task,
        broadcast_task,
        io,
        started: false,
        start_error: "the start was cancelled".to_owned(),
        ended: false,
    };
    let handle = ClusterRef::new(shared.host.clone());
    // `cluster` exists from here on: if this future fails or is dropped, its `Drop` ends the job at the head.
    let provisioning = background::spawn_on(cluster.io.handle(), async move {
        provision::provision_initial_nodes(&shared, initial).await
    });
    let provisioned = provisioning.await.map_err(std::io::Error::other)?;
    provisioned.inspect_err(|error| cluster.start_error = Chain(error).to_string())?;
    cluster.started = true;
    Ok((handle, cluster))
}

/// Enrols with the head, starts both hosts, and starts the job.
async fn enrol_and_start(
    options: JoinOptions,
    arguments: Vec<String>,
    io: tokio::runtime::Handle,
    executor: Executor,
) -> Result<(Arc<DriverShared>, mpsc::Receiver<JobEvent>, InitialNodes), ClusterError> {
    // 1. Local checks. They fail without the head, so a user with a missing or malformed token or an unreadable executable
    //    leaves no trace in the cluster. Hashing reads the whole file, hence the blocking pool.
    let heads = address::resolve(&options.address).await?;
    let submitted = token::Submitted::find()?;
    let admission = token::admission(&heads, &submitted)?;
    let executable = tokio::task::spawn_blocking(Executable::of_this_process).await;
    let executable = executable.map_err(std::io::Error::other)??;
    // 2. Enrolment. The host ids are drawn before, since the certificate names them.
    let identities = [fresh_identity(), fresh_identity()];
    let claims = Claims { role: Role::Driver, hosts: identities.to_vec(), job: None, node: None };
    let admitted = admission.enrol(&heads, &claims).await?;
    let (head, head_at) = (admitted.enrolment.head, admitted.head_at);
    // 3. Hosts. Both dial only: a driver may sit behind NAT, so the head and the agents answer over the links
    //    that it opens.
    let (event_sender, events) = mpsc::channel(JOB_EVENT_QUEUE_MAX);
    let display = Display::start(&io, Retention::InLogs, options.dedup_logs)?;
    let services = control_services(event_sender, display.clone());
    let (control, host) = start_hosts(&options, &io, executor, identities, &admitted, services).await?;
    // The links to the head name its incarnation; after a restart of the head, `heartbeat` supersedes this one.
    control.supersede(head, head_at);
    // 4. Start of the job. The hosts exist by now: the head sends events as soon as it knows the job.
    let descriptor = descriptor(identities, &options.namespace);
    let (job, initial) = start_job(&control, head, submitted.job(), &descriptor, &options.address).await?;
    // The submitted job is used up only now: a failed attempt leaves it to the next one.
    submitted.take();
    // 5. Shared state. The user's host can place actors as soon as it knows the head.
    let members = Arc::new(Membership::default());
    members.expect_replacements(true);
    host.set_placement(Arc::clone(&members) as _);
    let JoinOptions { environment, limits, stack_bytes, .. } = options;
    let launch = WorkerSettings { arguments, environment, limits, stack_bytes };
    let shared = Arc::new(DriverShared {
        control,
        host,
        credentials: admitted.enrolment.credentials,
        admission,
        heads,
        job,
        descriptor,
        members,
        executable,
        launch,
        display,
        broadcast: MembershipBroadcast::default(),
        sources: Sources::default(),
        view: Mutex::new(ClusterView::new(head, head_at)),
        startup: watch::Sender::new(StartupProgress::default()),
    });
    shared
        .members
        .apply(&MembershipUpdate::Snapshot { members: Vec::new(), head: shared.head_info() }, &shared.host);
    Ok((shared, events, initial))
}

/// Services of the control host: what the head and the agents call.
fn control_services(events: mpsc::Sender<JobEvent>, display: Display) -> HostServices {
    Box::new(move |host, service, inbound| {
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            JOB_EVENT => events::receive(&events, inbound),
            OUTPUT => output::receive(&display, inbound),
            _ => actor_services(host, service, inbound),
        }
    })
}

/// Starts the control host and the user's host.
async fn start_hosts(
    options: &JoinOptions,
    io: &tokio::runtime::Handle,
    executor: Executor,
    [control, host]: [HostUid; 2],
    admitted: &Admitted,
    services: HostServices,
) -> Result<(Host, Host), ClusterError> {
    let start = |identity, executor, services| {
        Host::start(HostConfig {
            identity,
            secret: admitted.secret.clone(),
            limits: options.limits.clone(),
            transport: Arc::new(Routed::dial_only(admitted.enrolment.credentials.clone())),
            listen: None,
            io: io.clone(),
            executor,
            services,
        })
    };
    let control = start(control, Executor::Runtime(io.clone()), services).await?;
    Ok((control, start(host, executor, Box::new(actor_services)).await?))
}

/// Description of this driver for the head.
fn descriptor([control, host]: [HostUid; 2], namespace: &str) -> JobDescriptor {
    JobDescriptor {
        entrypoint: entrypoint(),
        hostname: host_info::hostname(),
        pid: std::process::id(),
        driver: Some(control),
        user_host: Some(host),
        namespace: namespace.to_owned(),
        runs_on: None,
    }
}

/// Starts the job at the head, as the submitted one if there is one.
async fn start_job(
    control: &Host,
    head: HostUid,
    submitted: Option<JobId>,
    descriptor: &JobDescriptor,
    address: &str,
) -> Result<(JobId, InitialNodes), ClusterError> {
    let request = JobRequest::Start { job: submitted, descriptor: descriptor.clone() };
    let deadline = deadline_in(HEAD_RPC_TIMEOUT);
    let started: control_service::ControlResult = call_host(control, head, JOB, request, deadline)
        .await
        .map_err(|error| ClusterError::head(address, &error.to_string()))?;
    match started {
        Ok(ControlReply::Job { job, nodes, rejoining, .. }) => Ok((job, InitialNodes { nodes, rejoining })),
        Ok(_) => Err(ClusterError::head(address, "it sent an unexpected reply")),
        Err(denied) => Err(ClusterError::head(address, &denied.to_string())),
    }
}

/// Command line of this program; bytes that are not UTF-8 are replaced.
fn entrypoint() -> String {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

impl RemoteCluster {
    pub(super) fn workers(&self) -> Vec<WorkerInfo> {
        let info = |known: &KnownWorker| WorkerInfo {
            host: known.member.actors,
            tasks: known.member.tasks,
            pid: known.pid,
            address: known.member.actors_at,
            ended: known.ended.clone(),
            stopped: false,
        };
        self.shared.view().workers.iter().map(info).collect()
    }

    pub(super) fn members(&self) -> &Membership {
        &self.shared.members
    }

    /// Ends the job. The caller has shut the user's host down before.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        self.ended = true;
        // A heartbeat after the end would be answered "job ended" and logged as an error.
        self.heartbeat_task.abort();
        let ending =
            self.end(OUTPUT_FLUSH_TIMEOUT, JobState::Succeeded, "the driver has shut its cluster down");
        ending.await.map_err(std::io::Error::other)?;
        Ok(())
    }

    /// Reports the end of the job to the head, also to one that restarts within the driver's lease. A submitted
    /// job ends with its process instead, as its agent reports.
    ///
    /// Output printed by now is flushed first, for at most `flush_within`: agents send nothing more once the job
    /// is over.
    fn end(&self, flush_within: Duration, state: JobState, message: &str) -> JoinHandle<()> {
        let (shared, message) = (Arc::clone(&self.shared), message.to_owned());
        background::spawn_on(self.io.handle(), async move {
            output::flush(&shared, flush_within).await;
            if let Err(why) = heartbeat::report_end(&shared, state, &message).await {
                log::warn!(job = %shared.job, why, "could not report the end of the job; it ends with the lease");
            }
            shared.control.shutdown("the driver has ended").await;
        })
    }
}

/// Time that dropping a cluster may block to report the end of the job.
const DROP_TIMEOUT: Duration = Duration::from_millis(500);

impl Drop for RemoteCluster {
    fn drop(&mut self) {
        self.event_task.abort();
        self.heartbeat_task.abort();
        self.broadcast_task.abort();
        if self.ended {
            return;
        }
        let (state, message) = match std::thread::panicking() {
            true => (JobState::Failed, "the driver panicked"),
            false if !self.started => (JobState::Failed, self.start_error.as_str()),
            false => (JobState::Succeeded, "the driver has dropped its cluster"),
        };
        let ending = self.end(DROP_TIMEOUT / 2, state, message);
        let (over, ended) = std::sync::mpsc::sync_channel(1);
        // `drop` cannot await: it blocks this thread while the I/O thread reports, for a bounded time.
        background::spawn_on(self.io.handle(), async move {
            // The receiver is gone if that time has passed.
            let _ = (ending.await, over.send(()));
        });
        let _ = ended.recv_timeout(DROP_TIMEOUT);
    }
}
