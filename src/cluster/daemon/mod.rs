//! Daemons of a cluster, as the command starts them: the head, and one agent for each node.

pub(super) mod agent;
mod handoff;
pub(super) mod head;
mod job_users;
mod logs;
mod options;
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
use crate::transport::Routed;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) use job_users::is_known;
pub use job_users::{JobUser, JobUsers, JobUsersError, UidRange};
pub use options::{AgentOptions, AgentReady, HeadOptions, HeadReady};

/// Reason that a daemon cannot start, or cannot continue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The cluster rejects the daemon: a wrong token, or another cluster.
    #[error("{0}")]
    Refused(String),
    /// The head does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// A resource of this machine is missing: a port, a file, or memory.
    #[error("{0}")]
    Failed(String),
}

/// Runs a head until SIGTERM, and calls `ready` as soon as the agent of its node may start.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start or continue.
///
/// # Cancel safety
///
/// Dropping the future ends the head immediately, as a kill does.
pub async fn run_head(options: HeadOptions, ready: impl FnOnce(HeadReady)) -> Result<(), DaemonError> {
    head::run(options, ready).await
}

/// Runs an agent until SIGTERM or until its node is drained, and calls `ready` once the node has joined.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start or continue.
///
/// # Cancel safety
///
/// Dropping the future ends the agent and its workers immediately, as a kill does.
pub async fn run_agent(options: AgentOptions, ready: impl FnOnce(AgentReady)) -> Result<(), DaemonError> {
    agent::run(options, ready).await
}

/// Memory of this machine in bytes, or the limit of this process' control groups if that is lower.
pub fn memory_bytes() -> u64 {
    host_info::memory_bytes()
}

/// Builds a [`DaemonError::Failed`] from an error, with a description of the failed operation.
pub(super) fn failed<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> DaemonError {
    move |error| DaemonError::Failed(format!("{what}: {error}"))
}

/// SIGTERM and SIGINT of a daemon: a request to shut down gracefully.
struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    /// Replaces the default action of both signals, which ends the process without cleanup.
    fn install() -> Result<Self, DaemonError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())
                .map_err(failed("cannot install a handler of SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt())
                .map_err(failed("cannot install a handler of SIGINT"))?,
        })
    }

    /// Waits for the next signal, and returns its name. A signal since [`Self::install`] counts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no signal.
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
/// Starts the host of a daemon, on the daemon's only thread.
pub(super) async fn start_host(
    identity: HostUid,
    token: &Token,
    transport: Routed,
    address: SocketAddr,
    services: HostServices,
) -> Result<Host, DaemonError> {
    let host = Host::start(HostConfig {
        identity,
        secret: token.session_secret(),
        limits: Limits::default(),
        transport: Arc::new(transport),
        listen: Some(address),
        io: Handle::current(),
        executor: Executor::Runtime(Handle::current()),
        services,
    });
    let host = host.await.map_err(|error| failed("the daemon's host cannot start")(Chain(&error)))?;
    // A daemon never dials most of its peers. Without expiry each driver that ever connected would cost memory
    // until the daemon ends.
    host.expire_inbound_peers(INBOUND_PEER_EXPIRY);
    Ok(host)
}
