//! Where a program runs: today a local cluster, the worker processes that the driver starts itself.
//!
//! The driver starts workers of its own executable and tells all of them about each other. A worker
//! has two hosts: one for actors, and one for tasks with a thread of its own. Secrets travel over a
//! socket pair that only the two processes hold; the same pair is the worker's lifeline: when the
//! driver ends, by whatever cause, the operating system closes it and the worker ends, too.
//!
//! For tests the workers may be threads of the driver's process instead ([`Cluster::in_process`]);
//! all else is the same.
//!
//! Owns processes, membership and placement. Knows nothing of messages beyond what hosts offer.

#[cfg(feature = "cli")]
pub mod admin;
mod bootstrap;
mod error;
mod hosts;
mod io_thread;
mod local;
mod members;
#[cfg(feature = "cli")]
mod membership;
pub mod model;
mod process;
#[cfg(feature = "cli")]
mod rehearsal;
#[cfg(feature = "cli")]
mod schedule;
#[cfg(feature = "cli")]
#[cfg_attr(not(test), expect(dead_code, reason = "the head asks it for more than a rehearsal does"))]
mod state;
mod thread;
mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use crate::config::{Limits, WORKERS_MAX};
use crate::id::Identity;
use crate::remote::ClusterRef;
use crate::transport::Memory;

pub use error::ClusterError;
#[cfg(feature = "cli")]
pub use rehearsal::Rehearsal;
pub use thread::InProcess;
pub use worker::{WorkerTest, divert};

use local::LocalCluster;

/// The cluster that this program drives; dropping it ends the workers.
///
/// It derefs to [`ClusterRef`], which has `spawn`, `run` and the rest.
pub struct Cluster {
    handle: ClusterRef,
    local: LocalCluster,
}

impl Cluster {
    /// Starts a local cluster: a worker for each core, or `ROADSHOW_WORKERS` of them.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] if `ROADSHOW_ADDRESS` names a cluster (joining one is not built yet), or the
    /// workers cannot be started.
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
        Self::builder().workers(workers).start().await
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
        ClusterBuilder { workers: None, limits: Limits::default(), in_process: None }
    }

    /// A reference to the cluster, to be handed to actors.
    #[must_use]
    pub fn handle(&self) -> ClusterRef {
        self.handle.clone()
    }

    /// The workers that were started, in the order in which they take actors.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.local.workers()
    }

    /// Ends the cluster: waits for open calls, says goodbye, and sees every worker end.
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
        self.local.stop().await
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
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    workers: Option<usize>,
    limits: Limits,
    in_process: Option<InProcess>,
}

impl ClusterBuilder {
    /// How many workers to start; one a core by default.
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
        let workers = match self.workers {
            Some(0) => return Err(ClusterError::NoWorkers),
            Some(asked) if asked > WORKERS_MAX => {
                return Err(ClusterError::TooManyWorkers { asked, limit: WORKERS_MAX });
            }
            Some(workers) => workers,
            None => default_workers()?,
        };
        let (handle, local) = local::start(workers, self.limits, self.in_process).await?;
        Ok(Cluster { handle, local })
    }
}

/// How many workers the environment asks for.
fn default_workers() -> Result<usize, ClusterError> {
    if let Some(address) = std::env::var_os("ROADSHOW_ADDRESS") {
        return Err(ClusterError::RemoteCluster { address: address.to_string_lossy().into_owned() });
    }
    let value = std::env::var_os("ROADSHOW_WORKERS").unwrap_or_default();
    if value.is_empty() {
        return Ok(std::thread::available_parallelism().map_or(1, Into::into));
    }
    let workers = value.to_str().and_then(|value| value.trim().parse().ok());
    let workers = workers.filter(|workers| (1..=WORKERS_MAX).contains(workers));
    workers.ok_or_else(|| ClusterError::WorkersSetting { value: value.to_string_lossy().into_owned() })
}
