//! The daemons of a real cluster, as the command starts them: the head, and the agent of each node.

pub(super) mod agent;
mod handoff;
pub(super) mod head;
mod job_users;
mod logs;
mod options;
mod removal;
#[cfg(test)]
pub(crate) mod test_ca;
mod token_rpc_server;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;
use tokio::runtime::Handle;

use super::host_info;
use super::security::Token;
use crate::config::{INBOUND_PEER_EXPIRY, Limits};
use crate::host::{Executor, Host, HostConfig, HostServices};
use crate::id::HostUid;
use crate::observe::Chain;
use crate::transport::Routed;

pub(super) use job_users::is_known;
pub use job_users::{JobUser, JobUsers, JobUsersError, UidRange};
pub use options::{AgentOptions, AgentReady, HeadOptions, HeadReady};

pub use removal::{RemoveTreeError, remove_tree};

/// Why a daemon cannot start, or cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The cluster does not take it: a wrong token, another cluster.
    #[error("{0}")]
    Refused(String),
    /// The head does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// What it needs of this machine is not to be had: a port, a file, memory.
    #[error("{0}")]
    Failed(String),
}

/// Runs a head until SIGTERM; `ready` hears when its node's agent may start.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start or go on.
///
/// # Cancel safety
///
/// Dropping the future ends the head at once, as a kill would.
pub async fn run_head(options: HeadOptions, ready: impl FnOnce(HeadReady)) -> Result<(), DaemonError> {
    head::run(options, ready).await
}

/// Runs an agent until SIGTERM or until its node is drained; `ready` hears when the node has joined.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start or go on.
///
/// # Cancel safety
///
/// Dropping the future ends the agent and its workers at once, as a kill would.
pub async fn run_agent(options: AgentOptions, ready: impl FnOnce(AgentReady)) -> Result<(), DaemonError> {
    agent::run(options, ready).await
}

/// Memory of this machine in bytes, or what the control groups of this process leave of it.
pub fn memory_bytes() -> u64 {
    host_info::memory_bytes()
}

/// What went wrong, and with what.
pub(super) fn failed<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> DaemonError {
    move |error| DaemonError::Failed(format!("{what}: {error}"))
}

/// The host of a daemon, on its one thread. Who came to it by itself and is away is forgotten.
pub(super) async fn start_host(
    identity: HostUid,
    token: &Token,
    transport: Routed,
    address: SocketAddr,
    calls: HostServices,
) -> Result<Host, DaemonError> {
    let host = Host::start(HostConfig {
        identity,
        secret: token.session_secret(),
        limits: Limits::default(),
        transport: Arc::new(transport),
        listen: Some(address),
        io: Handle::current(),
        executor: Executor::Runtime(Handle::current()),
        services: calls,
    });
    let host = host.await.map_err(|error| failed("the daemon's host cannot start")(Chain(&error)))?;
    host.expire_inbound_peers(INBOUND_PEER_EXPIRY);
    Ok(host)
}
