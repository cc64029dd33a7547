//! Worker of a cluster, as a program sees it.

use std::net::SocketAddr;

use crate::id::HostUid;

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The host of its actors.
    pub host: HostUid,
    /// The host of its tasks.
    pub tasks: HostUid,
    /// Its process: this one for a worker within it.
    pub pid: u32,
    /// Where the host of its actors listens.
    pub address: SocketAddr,
    /// How it ended, if it has.
    pub ended: Option<String>,
    /// Its process is stopped, by SIGSTOP or a debugger: it lives, and answers when it is continued. Always false
    /// on a cluster of nodes, where `roadshow status` shows it.
    pub stopped: bool,
}
