//! Clusters: a cluster of nodes, or worker processes that a driver starts on its own machine.
//!
//! In a local cluster the driver starts workers of its own executable and sends each the list of all. A worker has
//! two hosts: one for actors, and one for tasks on a thread of its own. Secrets travel over a socket pair that only
//! the two processes hold. The same pair is the worker's control socket: when the driver ends, for whatever cause,
//! the kernel closes it and the worker ends too. For tests the workers may be threads of the driver's process
//! ([`Cluster::in_process`]).
//!
//! In a cluster of nodes a `head` places actors and an `agent` on each node starts the workers; the `driver` side
//! joins and ships its executable. `control_plane::state` makes the decisions, also for a local cluster that places
//! actors with constraints. [`model`] defines the terms.
//!
//! This module owns processes, membership and placement. It knows messages only through the interface of hosts.

#[cfg(feature = "cli")]
pub mod admin;
#[cfg_attr(
    not(any(feature = "cli", feature = "sim")),
    expect(dead_code, reason = "only the head and agents check jobs")
)]
mod authorization;
mod backoff;
mod builder;
#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, reason = "a local cluster has one node and persists nothing")
)]
#[cfg_attr(
    all(not(feature = "cli"), not(test)),
    expect(unused_imports, reason = "a local cluster has one node and persists nothing")
)]
mod control_plane;
mod control_service;
#[cfg(feature = "cli")]
pub mod daemon;
mod dial;
mod driver;
mod error;
#[cfg(any(feature = "cli", feature = "sim"))]
mod event_queue;
#[cfg_attr(
    all(not(feature = "cli"), not(test)),
    expect(dead_code, reason = "only agents check and store executables")
)]
mod executable;
#[cfg(any(feature = "cli", feature = "sim"))]
mod head_core;
mod holder;
mod host_info;
mod io_thread;
#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, unused_imports, reason = "only agents hand over connections and renew certificates")
)]
mod launch;
#[cfg_attr(
    all(not(feature = "cli"), not(test)),
    expect(dead_code, reason = "only the command filters and counts")
)]
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "only the command filters and counts"))]
mod listing;
mod local;
mod membership;
pub mod model;
#[cfg(any(feature = "cli", feature = "sim"))]
mod node_lease;
mod open_files;
#[cfg_attr(not(feature = "cli"), expect(dead_code, unused_imports, reason = "only agents write log files"))]
mod output;
// Not `expect`: the compiler calls it unfulfilled, and warns of unused types without it.
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, unused_imports, reason = "only the head and agents speak to each other")
)]
mod protocol;
#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, unreachable_pub, reason = "only the head and agents have the server side")
)]
pub(crate) mod security;
#[cfg(feature = "sim")]
pub(crate) mod sim;
#[cfg(test)]
mod test_dir;
mod worker;
#[cfg(any(feature = "cli", feature = "sim"))]
mod worker_actors;
mod worker_info;

use std::fmt;
use std::ops::Deref;

use crate::host::PlacementError;
use crate::remote::ClusterRef;
use crate::transport::Memory;

pub use builder::ClusterBuilder;
#[cfg(feature = "cli")]
pub use control_service::bench::ControlPlaneBench;
pub use error::ClusterError;
pub use executable::{ElfError, ExecutableError, Platform, PlatformMismatch};
pub use holder::MemoryStates;
pub use launch::contract::WorkerTest;
pub use local::thread_worker::InProcess;
pub use security::RequestError;
pub use security::token_rpc::TokenRpcError;
pub use worker::entry::run_if_worker;
pub use worker::setup::WorkerSetup;
pub use worker_info::WorkerInfo;

use control_plane::state::ControlReply;
use control_service::ControlRequest;
use driver::RemoteCluster;
use listing::{Page, Query, Row, joined};
use local::LocalCluster;
use model::{ActorInfo, ActorKey, NodeInfo};

/// Cluster that this program drives; dropping it ends the workers.
///
/// It derefs to [`ClusterRef`], which has `spawn`, `run` and the rest.
pub struct Cluster {
    handle: ClusterRef,
    backend: Backend,
}

/// Workers of a cluster, by the process that starts them.
enum Backend {
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
    ///
    /// # Examples
    ///
    /// ```no_run
    /// #[roadshow::main]
    /// async fn main() -> Result<(), roadshow::Error> {
    ///     let cluster = roadshow::Cluster::init().await?;
    ///     println!("{} workers", cluster.workers().len());
    ///     Ok(cluster.shutdown().await?)
    /// }
    /// ```
    pub async fn init() -> Result<Self, ClusterError> {
        Self::builder().start().await
    }

    /// Starts a local cluster of `workers` processes.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] if `workers` is zero, or the workers cannot be started.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the workers that were started.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// #[roadshow::main]
    /// async fn main() -> Result<(), roadshow::Error> {
    ///     let cluster = roadshow::Cluster::local(4).await?;
    ///     println!("{} workers", cluster.workers().len());
    ///     Ok(cluster.shutdown().await?)
    /// }
    /// ```
    pub async fn local(workers: usize) -> Result<Self, ClusterError> {
        Self::builder().workers(workers).local().start().await
    }

    /// Starts a cluster of `workers` within this process, over a network in memory: for tests.
    ///
    /// It differs from [`Cluster::local`] only in where the workers run: two threads each, for actors and for
    /// tasks. Messages between them are encoded and pass a link. The program needs no worker entry point, and all
    /// workers share the process's globals.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] if `workers` is zero, or the workers cannot be started.
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

    /// Builder of a cluster with other settings.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Reference to the cluster, to pass to actors.
    #[must_use]
    pub fn handle(&self) -> ClusterRef {
        self.handle.clone()
    }

    /// Workers that were started. A local cluster spawns actors on them in this order; on a cluster of nodes the
    /// head chooses.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        match &self.backend {
            Backend::Local(local) => local.workers(),
            Backend::Remote(remote) => remote.workers(),
        }
    }

    /// Nodes of the cluster; a local cluster is one node.
    ///
    /// # Errors
    ///
    /// [`PlacementError::Head`] if the cluster's head does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, PlacementError> {
        self.list(ControlRequest::Nodes, |reply| match reply {
            ControlReply::Nodes(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Actors that the cluster tracks, of all jobs. A cluster of nodes tracks every actor, a local one those that
    /// were spawned with constraints.
    ///
    /// # Errors
    ///
    /// [`PlacementError::Head`] if the cluster's head does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn actors(&self) -> Result<Vec<ActorInfo>, PlacementError> {
        self.list(ControlRequest::Actors, |reply| match reply {
            ControlReply::Actors(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Collects all rows of a table, page by page.
    async fn list<T: Row>(
        &self,
        request: fn(Query) -> ControlRequest,
        page: fn(ControlReply) -> Option<Page<T>>,
    ) -> Result<Vec<T>, PlacementError> {
        let (mut rows, mut query) = (Vec::new(), Query::filtered(Vec::new()));
        // A reply is limited in size: each page names the cursor of the next.
        loop {
            let other = || PlacementError::Head { text: "it sent an unexpected reply".to_owned() };
            let page = page(self.ask(request(query.clone())).await?).ok_or_else(other)?;
            rows.extend(page.rows);
            query.after = page.next;
            if query.after.is_none() {
                return Ok(joined(rows));
            }
        }
    }

    /// Stops an actor of any job, after the messages that it has received by then.
    ///
    /// Messages in flight from other hosts may fail as not delivered.
    /// [`RemoteAddr::stop`](crate::RemoteAddr::stop) instead takes effect after those of its own host.
    ///
    /// # Errors
    ///
    /// [`PlacementError::Unknown`] if there is no such actor, [`PlacementError::Head`] if the cluster's head does
    /// not answer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after its first poll, the actor may end or not.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("../remote/counter_example.txt")]
    /// let counter = cluster.spawn::<Counter>(40).name("total").await?;
    /// for actor in cluster.actors().await? {
    ///     println!("{} {}", actor.actor_id, actor.class);
    ///     cluster.kill(actor.actor_id).await?;
    /// }
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn kill(&self, actor: ActorKey) -> Result<(), PlacementError> {
        self.ask(ControlRequest::Kill { actor }).await.map(drop)
    }

    async fn ask(&self, request: ControlRequest) -> Result<ControlReply, PlacementError> {
        let members = match &self.backend {
            Backend::Local(local) => local.members(),
            Backend::Remote(remote) => remote.members(),
        };
        members.ask(&self.handle.host, request).await
    }

    /// Shuts this program's part of the cluster down: waits for open calls and closes all sessions.
    ///
    /// A local cluster ends with all of its workers; this waits for their end. On a cluster of nodes the job ends:
    /// the head and the agents end its workers in the background, and the cluster remains.
    ///
    /// When it returns, the terminal shows what workers printed before their last results, unless the terminal
    /// does not read.
    ///
    /// # Errors
    ///
    /// [`ClusterError::WorkerKilled`] if a worker did not end in time and was killed;
    /// [`ClusterError::WorkerBusy`] if it is a thread of this process, which cannot be killed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the workers.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[roadshow::main]
    /// # async fn main() -> Result<(), roadshow::Error> {
    /// let cluster = roadshow::Cluster::in_process(1).await?;
    /// // A drop ends the workers, too. It waits for no open call, and reports nothing.
    /// cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(mut self) -> Result<(), ClusterError> {
        // Before the workers: calls in flight still need them, and answers still need this host.
        self.handle.host.shutdown("the driver has ended").await;
        match &mut self.backend {
            Backend::Local(local) => local.stop().await,
            Backend::Remote(remote) => remote.stop().await,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before the workers are dropped: open calls fail now, and not when their links break.
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
