//! Worker of a cluster, as a program sees it.

use std::net::SocketAddr;

use crate::id::HostUid;

/// Worker of a cluster, as returned by [`Cluster::workers`](crate::Cluster::workers).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Host of its actors.
    pub host: HostUid,
    /// Host of its tasks.
    pub tasks: HostUid,
    /// Process id; for a worker within this process, its own.
    pub pid: u32,
    /// Address at which the host of its actors listens.
    pub address: SocketAddr,
    /// Cause of its end; `None` while it runs.
    pub ended: Option<String>,
    /// Its process is stopped by SIGSTOP or a debugger; it answers when it is continued. Always false on a cluster
    /// of nodes, where `roadshow status` shows it.
    pub stopped: bool,
}
