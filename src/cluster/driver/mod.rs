//! The driver's side of a real cluster: it joins as a job, sends its executable along, and talks to its workers.
//!
//! It has two hosts. One is the user's, on the thread of the user's actors, and dials workers. The other is
//! on the I/O thread, speaks with the head and the agents, and so says that the driver lives whatever the
//! user's code computes.

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

use super::control_plane::state::{Answer, JobEvent};
use super::executable::Executable;
use super::io_thread::IoThread;
use super::membership::Membership;
use super::model::{JobDescriptor, JobId, JobState, NodeDescriptor, NodeId, WorkerAddress, WorkerId};
use super::output::{Display, Kept};
use super::protocol::worker::HeadInfo;
use super::protocol::{JOB, JOB_EVENT, JobRequest, OUTPUT};
use super::security::Claims;
use super::security::enrol::{Admitted, DriverEnrolment};
use super::{authorization, control_service, host_info};
use crate::cluster::error::ClusterError;
use crate::cluster::launch::contract;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::protocol::Variables;
use crate::cluster::worker_info::WorkerInfo;
use crate::config::{HEAD_RPC_TIMEOUT, HISTORY_MAX, JOB_EVENT_QUEUE_MAX, Limits, OUTPUT_FLUSH_TIMEOUT};
use crate::host::{Executor, Host, HostConfig, SendError, deadline_in, fresh_identity};
use crate::id::HostUid;
use crate::lock::{Locked, Mutex};
use crate::observe::{Chain, log};
use crate::remote::{ClusterRef, actor_services, call_host};
use crate::transport::{Credentials, Role, Routed};

use membership_broadcast::Spread;
use sources::Sources;

pub(super) use address::address;
pub(super) use token::variable;

/// What a driver joins with.
#[derive(Debug)]
pub(super) struct JoinOptions {
    /// The head, as it was given: `host:port`.
    pub(super) address: String,
    pub(super) limits: Limits,
    /// What the environment of workers has beside what every worker has.
    pub(super) environment: Variables,
    /// The namespace of names; the job's own if none is given.
    pub(super) namespace: String,
    /// Whether equal lines of several workers are folded; the environment says so if it is none.
    pub(super) dedup_logs: Option<bool>,
    pub(super) stack_bytes: usize,
}

/// The job that this process drives. Dropping it ends the job.
pub(super) struct RemoteCluster {
    shared: Arc<Shared>,
    /// Takes what the head and agents send.
    event_task: JoinHandle<()>,
    /// Says that the driver is there.
    heartbeat_task: JoinHandle<()>,
    /// Tells workers of each other.
    spreading: JoinHandle<()>,
    io: IoThread,
    /// Whether it has got as far as its first worker.
    started: bool,
    /// Why it has not got there.
    start_error: String,
    ended: bool,
}

/// What the tasks of a driver share.
#[derive(Debug)]
struct Shared {
    /// The host that speaks with the head and the agents.
    control: Host,
    /// The user's host.
    host: Host,
    credentials: Credentials,
    admission: DriverEnrolment,
    /// All addresses of the head.
    heads: Vec<SocketAddr>,
    job: JobId,
    facts: JobDescriptor,
    members: Arc<Membership>,
    executable: Executable,
    launch: WorkerSettings,
    /// Prints what workers write.
    display: Display,
    standing: Mutex<ClusterView>,
    /// Changes that the workers are to be told of.
    spread: Spread,
    /// Sources of the executable for nodes that lack it.
    sources: Sources,
    /// How many workers have come or failed to.
    startup: watch::Sender<StartupProgress>,
}

/// How this driver's workers are started.
#[derive(Clone, Debug)]
struct WorkerSettings {
    arguments: Vec<String>,
    environment: Variables,
    limits: Limits,
    stack_bytes: usize,
}

/// What the driver knows of its cluster.
#[derive(Debug)]
struct ClusterView {
    head: HostUid,
    /// The address at which the head answered last.
    head_at: SocketAddr,
    workers: Vec<KnownWorker>,
    /// Of the nodes that were sent the executable, without those that are lost.
    agents: BTreeMap<NodeId, HostUid>,
}

impl ClusterView {
    /// Forgets the worker that ended first, if more have than are listed.
    fn forget_ended(&mut self) {
        let ended = self.workers.iter().filter(|known| known.ended.is_some()).count();
        if ended > HISTORY_MAX
            && let Some(first) = self.workers.iter().position(|known| known.ended.is_some())
        {
            self.workers.remove(first);
        }
    }

    /// Forgets an agent, unless a later life of its node is there by now.
    fn forget_agent(&mut self, agent: HostUid) {
        self.agents.retain(|_, known| *known != agent);
    }
}

/// A worker of this job.
#[derive(Clone, Debug)]
struct KnownWorker {
    node: NodeId,
    worker: WorkerId,
    member: WorkerAddress,
    pid: u32,
    ended: Option<String>,
}

/// Workers that were waited for at the start.
#[derive(Clone, Debug, Default)]
struct StartupProgress {
    ready: u32,
    failed: u32,
    last_failure: Option<String>,
    /// Why a node that came later cannot be used.
    refused: Option<String>,
}

impl Shared {
    fn standing(&self) -> Locked<'_, ClusterView> {
        self.standing.lock()
    }

    fn head(&self) -> HostUid {
        self.standing().head
    }

    /// Forgets an agent that is lost, or cannot be used.
    fn forget_agent(&self, agent: HostUid) {
        self.standing().forget_agent(agent);
        self.sources.forget(agent);
    }

    /// Where the head is, for those who ask it.
    fn head_info(&self) -> HeadInfo {
        let standing = self.standing();
        HeadInfo { head: standing.head, at: Some(standing.head_at), job: self.job, tracks_all_actors: true }
    }

    /// Asks the head something about the job.
    async fn ask(&self, request: JobRequest) -> Result<control_service::Reply, SendError> {
        call_host(&self.control, self.head(), JOB, request, deadline_in(HEAD_RPC_TIMEOUT)).await
    }
}

/// The nodes that a new job may use.
struct InitialNodes {
    nodes: Vec<NodeDescriptor>,
    /// Whether there may be others: the head was away, and they are not back yet.
    rejoining: bool,
}

/// Joins the cluster, with workers on all of its nodes.
pub(super) async fn join(options: JoinOptions) -> Result<(ClusterRef, RemoteCluster), ClusterError> {
    let arguments = contract::arguments()?;
    log::fall_back();
    let io = IoThread::start(options.stack_bytes)?;
    let runtime = io.handle().clone();
    let executor = Executor::here_or(&runtime);
    // The user's thread may compute; nothing of this waits for it.
    let joined =
        io.handle().spawn(async move { enrol_and_start(options, arguments, runtime, executor).await });
    let (shared, news, found) = joined.await.map_err(std::io::Error::other)??;
    let hearing = io.handle().spawn(events::event_loop(Arc::clone(&shared), news));
    let keeping = io.handle().spawn(heartbeat::heartbeat_loop(Arc::clone(&shared)));
    let spreading = io.handle().spawn(membership_broadcast::run(Arc::clone(&shared)));
    let mut cluster = RemoteCluster {
        shared: Arc::clone(&shared),
        event_task: hearing,
        heartbeat_task: keeping,
        spreading,
        io,
        started: false,
        start_error: "it was given up before".to_owned(),
        ended: false,
    };
    let handle = ClusterRef::new(shared.host.clone());
    let waiting =
        cluster.io.handle().spawn(async move { provision::provision_initial_nodes(&shared, found).await });
    let waited = waiting.await.map_err(std::io::Error::other)?;
    waited.inspect_err(|error| cluster.start_error = Chain(error).to_string())?;
    cluster.started = true;
    Ok((handle, cluster))
}

/// Becomes a member, and the driver of a job.
async fn enrol_and_start(
    options: JoinOptions,
    arguments: Vec<String>,
    io: tokio::runtime::Handle,
    executor: Executor,
) -> Result<(Arc<Shared>, mpsc::Receiver<JobEvent>, InitialNodes), ClusterError> {
    let heads = address::resolve(&options.address).await?;
    let submitted = token::Submitted::find()?;
    let admission = token::admission(&heads, &submitted)?;
    let executable = tokio::task::spawn_blocking(Executable::of_this_process).await;
    let executable = executable.map_err(std::io::Error::other)??;
    let (control_id, host_id) = (fresh_identity(), fresh_identity());
    let claims = Claims { role: Role::Driver, hosts: vec![control_id, host_id], job: None, node: None };
    let Admitted { head_at, enrolment: enrolled, secret } = admission.enrol(&heads, &claims).await?;
    let (tell, told) = mpsc::channel(JOB_EVENT_QUEUE_MAX);
    let display = Display::start(&io, Kept::InLogs, options.dedup_logs)?;
    let shown = display.clone();
    let start = |identity, executor, calls| {
        Host::start(HostConfig {
            identity,
            secret: secret.clone(),
            limits: options.limits.clone(),
            transport: Arc::new(Routed::dial_only(enrolled.credentials.clone())),
            listen: None,
            io: io.clone(),
            executor,
            services: calls,
        })
    };
    let services = Box::new(move |host: &Host, service, inbound| {
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            JOB_EVENT => events::receive(&tell, inbound),
            OUTPUT => output::receive(&shown, inbound),
            _ => actor_services(host, service, inbound),
        }
    });
    let control = start(control_id, Executor::Runtime(io.clone()), services).await?;
    let host = start(host_id, executor, Box::new(actor_services)).await?;
    control.supersede(enrolled.head, head_at);
    let facts = JobDescriptor {
        entrypoint: entrypoint(),
        hostname: host_info::hostname(),
        pid: std::process::id(),
        driver: Some(control_id),
        user_host: Some(host_id),
        namespace: options.namespace.clone(),
        runs_on: None,
    };
    let request = JobRequest::Start { job: submitted.job(), facts: facts.clone() };
    let deadline = deadline_in(HEAD_RPC_TIMEOUT);
    let started: control_service::Reply = call_host(&control, enrolled.head, JOB, request, deadline)
        .await
        .map_err(|error| ClusterError::Head { address: options.address.clone(), why: error.to_string() })?;
    let (job, found) = match started {
        Ok(Answer::Job { job, nodes, rejoining: awaited, .. }) => {
            (job, InitialNodes { nodes, rejoining: awaited })
        }
        Ok(_) => return Err(ClusterError::head(&options.address, "it gave another answer")),
        Err(denied) => return Err(ClusterError::head(&options.address, &denied.to_string())),
    };
    submitted.take();
    let members = Arc::new(Membership::default());
    host.set_placement(Arc::clone(&members) as _);
    let JoinOptions { environment, limits, stack_bytes, .. } = options;
    let launch = WorkerSettings { arguments, environment, limits, stack_bytes };
    let shared = Arc::new(Shared {
        control,
        host,
        credentials: enrolled.credentials,
        admission,
        heads,
        job,
        facts,
        members,
        executable,
        launch,
        display,
        spread: Spread::default(),
        sources: Sources::default(),
        standing: Mutex::new(ClusterView {
            head: enrolled.head,
            head_at,
            workers: Vec::new(),
            agents: BTreeMap::new(),
        }),
        startup: watch::Sender::new(StartupProgress::default()),
    });
    shared
        .members
        .apply(&MembershipUpdate::Snapshot { members: Vec::new(), head: shared.head_info() }, &shared.host);
    Ok((shared, told, found))
}

/// How this program was called, as far as it is text.
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
        self.shared.standing().workers.iter().map(info).collect()
    }

    pub(super) fn members(&self) -> &Membership {
        &self.shared.members
    }

    /// Ends the job. The user's host has said goodbye before.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterError> {
        self.ended = true;
        // Who tells that the driver is there has nothing to tell any more.
        self.heartbeat_task.abort();
        let ending =
            self.end(OUTPUT_FLUSH_TIMEOUT, JobState::Succeeded, "the driver has shut its cluster down");
        ending.await.map_err(std::io::Error::other)?;
        Ok(())
    }

    /// Tells the head that the driver leaves the cluster, also one that comes back within the driver's lease.
    /// That is the end of the job; a submitted one ends with its process, as its agent reports.
    ///
    /// Before that, what was printed by now is shown, if it comes within `flush_within`: agents send nothing
    /// to a driver whose job is over.
    fn end(&self, flush_within: Duration, state: JobState, message: &str) -> JoinHandle<()> {
        let (shared, message) = (Arc::clone(&self.shared), message.to_owned());
        self.io.handle().spawn(async move {
            output::flush(&shared, flush_within).await;
            if let Err(why) = heartbeat::report_end(&shared, state, &message).await {
                log::warn!(job = %shared.job, why, "the head was not told that the driver has left");
            }
            shared.control.shutdown("the driver has ended").await;
        })
    }
}

/// How long a dropped cluster may take to tell the head.
const DROP_TIMEOUT: Duration = Duration::from_millis(500);

impl Drop for RemoteCluster {
    fn drop(&mut self) {
        self.event_task.abort();
        self.heartbeat_task.abort();
        self.spreading.abort();
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
        self.io.handle().spawn(async move {
            // Nobody waits any more when it took too long.
            let _ = (ending.await, over.send(()));
        });
        let _ = ended.recv_timeout(DROP_TIMEOUT);
    }
}
