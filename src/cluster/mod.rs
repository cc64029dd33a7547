//! Where a program runs: a cluster of nodes, or the worker processes that a driver starts itself.
//!
//! In a local cluster the driver starts workers of its own executable and tells all of them about each
//! other. A worker has two hosts: one for actors, and one for tasks with a thread of its own. Secrets
//! travel over a socket pair that only the two processes hold; the same pair is the worker's lifeline: when
//! the driver ends, by whatever cause, the operating system closes it and the worker ends, too. For tests
//! the workers may be threads of the driver's process instead ([`Cluster::in_process`]).
//!
//! In a cluster of nodes ([`model`] has the words) a `head` decides and an `agent` on each node starts the
//! workers; the `driver` side joins and sends its executable along. The decisions are those of `state`, in
//! which a local cluster places its actors with wishes, too.
//!
//! Owns processes, membership and placement. Knows nothing of messages beyond what hosts offer.

#![cfg_attr(
    not(feature = "cli"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "without the command the daemons are absent, and what they alone use is not"
    )
)]

#[cfg(feature = "cli")]
pub mod admin;
#[cfg(feature = "cli")]
mod agent;
mod asking;
mod bootstrap;
mod control;
#[cfg(feature = "cli")]
pub mod daemon;
mod desk;
#[cfg(feature = "cli")]
mod door;
mod driver;
mod enrolment;
mod error;
mod executable;
#[cfg(feature = "cli")]
mod head;
mod hosts;
mod io_thread;
mod lifeline;
mod local;
mod local_head;
mod local_output;
mod logs;
mod machine;
mod members;
mod membership;
#[cfg(feature = "cli")]
mod memory;
pub mod model;
mod passing;
mod process;
mod protocol;
#[cfg(feature = "cli")]
mod rehearsal;
mod schedule;
#[cfg(test)]
mod scratch;
mod setup;
mod state;
mod thread;
pub(crate) mod trust;
mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use crate::config::{Limits, WORKERS_MAX};
use crate::host::PlaceError;
use crate::id::Identity;
use crate::remote::ClusterRef;
use crate::transport::Memory;

pub use desk::DeskError;
pub use error::ClusterError;
pub use executable::{ElfError, ExecutableError, Platform, PlatformMismatch};
#[cfg(feature = "cli")]
pub use rehearsal::Rehearsal;
pub use setup::WorkerSetup;
pub use thread::InProcess;
pub use worker::{WorkerTest, divert};

use control::ControlRequest;
use driver::{JoinOptions, RemoteCluster};
use local::LocalCluster;
use model::{ActorInfo, ActorKey, NodeInfo};
use state::Answer;

/// The cluster that this program drives; dropping it ends the workers.
///
/// It derefs to [`ClusterRef`], which has `spawn`, `run` and the rest.
pub struct Cluster {
    handle: ClusterRef,
    workers: Workers,
}

/// What runs the workers.
enum Workers {
    Local(LocalCluster),
    Remote(RemoteCluster),
}

impl Cluster {
    /// Joins the cluster whose head `ROADSHOW_ADDRESS` names; without it, starts a local cluster: a worker
    /// for each core, or `ROADSHOW_WORKERS` of them.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] if the cluster cannot be joined, or the workers cannot be started.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the workers that were started.
    pub async fn init() -> Result<Self, ClusterError> {
        Self::builder().start().await
    }

    /// Starts a local cluster of `workers` processes.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] if there are to be none, or they cannot be started.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the workers that were started.
    pub async fn local(workers: usize) -> Result<Self, ClusterError> {
        Self::builder().workers(workers).local().start().await
    }

    /// Starts a cluster of `workers` within this process, over a network in memory: for tests.
    ///
    /// It differs from [`Cluster::local`] only in where the workers live: two threads each, for
    /// actors and for tasks. Messages between them are encoded and pass a link. Nothing needs to be
    /// diverted; the process's globals are everybody's.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] if there are to be none, or they cannot be started.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the workers that were started.
    ///
    /// # Examples
    ///
    /// ```
    /// use roadshow::Cluster;
    ///
    /// #[roadshow::task]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// # #[roadshow::main]
    /// # async fn main() -> Result<(), roadshow::Error> {
    /// let cluster = Cluster::in_process(2).await?;
    /// assert_eq!(cluster.run(square::task(7)).await?, 49);
    /// cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_process(workers: usize) -> Result<Self, ClusterError> {
        Self::builder().workers(workers).in_process(InProcess::Memory(Memory::new(0))).start().await
    }

    /// A cluster with other settings.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// A reference to the cluster, to be handed to actors.
    #[must_use]
    pub fn handle(&self) -> ClusterRef {
        self.handle.clone()
    }

    /// The workers that were started, in the order in which they take actors.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        match &self.workers {
            Workers::Local(local) => local.workers(),
            Workers::Remote(remote) => remote.workers(),
        }
    }

    /// The nodes of the cluster; a local cluster is one.
    ///
    /// # Errors
    ///
    /// [`PlaceError::Head`] if the cluster's head does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, PlaceError> {
        match self.ask(ControlRequest::Nodes).await? {
            Answer::Nodes(nodes) => Ok(nodes),
            _ => Err(PlaceError::Head { text: "it gave another answer".to_owned() }),
        }
    }

    /// The actors that the cluster keeps account of, of all jobs: in a cluster of nodes all that were
    /// spawned, in a local one those that were spawned with wishes.
    ///
    /// # Errors
    ///
    /// [`PlaceError::Head`] if the cluster's head does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn actors(&self) -> Result<Vec<ActorInfo>, PlaceError> {
        match self.ask(ControlRequest::Actors).await? {
            Answer::Actors(actors) => Ok(actors),
            _ => Err(PlaceError::Head { text: "it gave another answer".to_owned() }),
        }
    }

    /// Has an actor end, of whatever job. It handles first what it was sent before.
    ///
    /// # Errors
    ///
    /// [`PlaceError::Unknown`] if there is no such actor, [`PlaceError::Head`] if the cluster's head does
    /// not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll the actor may end or not.
    pub async fn kill(&self, actor: ActorKey) -> Result<(), PlaceError> {
        self.ask(ControlRequest::Kill { actor }).await.map(drop)
    }

    async fn ask(&self, request: ControlRequest) -> Result<Answer, PlaceError> {
        let members = match &self.workers {
            Workers::Local(local) => local.members(),
            Workers::Remote(remote) => remote.members(),
        };
        members.ask(&self.handle.host, request).await
    }

    /// Ends the cluster: waits for open calls, says goodbye, and sees every worker end.
    ///
    /// What workers had printed before their last results is on the terminal then, if that takes it.
    ///
    /// # Errors
    ///
    /// [`ClusterError::WorkerKilled`] if a worker did not end by itself in time and was killed;
    /// [`ClusterError::WorkerBusy`] if it is in this process, where it cannot be killed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the workers.
    pub async fn shutdown(mut self) -> Result<(), ClusterError> {
        self.handle.host.shutdown("the driver has ended").await;
        match &mut self.workers {
            Workers::Local(local) => local.stop().await,
            Workers::Remote(remote) => remote.stop().await,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.handle.host.abort();
    }
}

impl Deref for Cluster {
    type Target = ClusterRef;

    fn deref(&self) -> &ClusterRef {
        &self.handle
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The host of its actors.
    pub host: Identity,
    /// The host of its tasks.
    pub tasks: Identity,
    /// Its process: this one for a worker within it.
    pub pid: u32,
    /// Where the host of its actors listens.
    pub address: SocketAddr,
    /// How it ended, if it has.
    pub ended: Option<String>,
    /// Whether its process is stopped, by SIGSTOP or a debugger: it lives, and answers when it is
    /// continued.
    pub stopped: bool,
}

/// Settings of a cluster to be started.
#[derive(Clone, Debug, Default)]
pub struct ClusterBuilder {
    workers: Option<usize>,
    limits: Limits,
    in_process: Option<InProcess>,
    local: bool,
    address: Option<String>,
    environment: Vec<(String, String)>,
    namespace: String,
    dedup_logs: Option<bool>,
}

impl ClusterBuilder {
    /// Joins the cluster whose head is at `host:port`, whatever the environment says.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Gives the workers on a cluster's nodes a variable of their environment. They have nothing of the
    /// driver's but what is said here; workers of a local cluster have all of it.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The namespace of the job's names, to share them with other jobs; by default a job has its own.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Whether equal lines that several workers print are shown once and then counted; they are by default.
    ///
    /// It counts before `ROADSHOW_DEDUP_LOGS`. Lines of one worker are never folded against each other.
    #[must_use]
    pub fn dedup_logs(mut self, dedup: bool) -> Self {
        self.dedup_logs = Some(dedup);
        self
    }

    /// Starts a local cluster, whatever the environment says.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// How many workers to start in a local cluster; one a core by default. A cluster's nodes have as
    /// many as their operators say.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The limits of every host of the cluster.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the workers threads of this process, connected by `network`; see [`Cluster::in_process`].
    #[must_use]
    pub fn in_process(mut self, network: InProcess) -> Self {
        self.in_process = Some(network);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// As [`Cluster::init`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the workers that were started.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        if let Some(address) = self.joins() {
            let Self { limits, environment, namespace, dedup_logs, .. } = self;
            let options = JoinOptions { address, limits, environment, namespace, dedup_logs };
            let (handle, remote) = driver::join(options).await?;
            return Ok(Cluster { handle, workers: Workers::Remote(remote) });
        }
        let workers = match self.workers {
            Some(0) => return Err(ClusterError::NoWorkers),
            Some(asked) if asked > WORKERS_MAX => {
                return Err(ClusterError::TooManyWorkers { asked, limit: WORKERS_MAX });
            }
            Some(workers) => workers,
            None => default_workers()?,
        };
        let Self { limits, namespace, in_process, dedup_logs, .. } = self;
        let (handle, local) = local::start(workers, limits, namespace, in_process, dedup_logs).await?;
        Ok(Cluster { handle, workers: Workers::Local(local) })
    }

    /// The cluster to join, if it is not to be a local one: what the program says counts before what the
    /// environment does.
    fn joins(&self) -> Option<String> {
        let local = self.local || self.in_process.is_some();
        self.address.clone().or_else(|| driver::address().filter(|_| !local))
    }
}

/// How many workers the environment asks for.
fn default_workers() -> Result<usize, ClusterError> {
    let value = std::env::var_os("ROADSHOW_WORKERS").unwrap_or_default();
    if value.is_empty() {
        return Ok(std::thread::available_parallelism().map_or(1, Into::into));
    }
    let workers = value.to_str().and_then(|value| value.trim().parse().ok());
    let workers = workers.filter(|workers| (1..=WORKERS_MAX).contains(workers));
    workers.ok_or_else(|| ClusterError::WorkersSetting { value: value.to_string_lossy().into_owned() })
}
