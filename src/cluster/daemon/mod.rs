//! Daemons of a cluster, as the command starts them: the head, and one agent for each node.

pub(super) mod agent;
mod error;
mod handoff;
pub(super) mod head;
mod host;
mod job_users;
mod logs;
mod options;
mod removal;
mod signals;
#[cfg(test)]
pub(crate) mod test_ca;
mod token_rpc_server;

use super::host_info;

pub use error::DaemonError;
pub use job_users::{JobUser, JobUsers, JobUsersError, UidRange};
pub use options::{
    AgentOptions, AgentReady, DashboardOptions, DashboardStatus, HeadOptions, HeadReady, LeaseOptions,
    LeaseOptionsError,
};

pub use removal::{RemoveTreeError, remove_tree};

/// True if this build can serve a dashboard: it has the feature `dashboard`.
pub const HAS_DASHBOARD: bool = cfg!(feature = "dashboard");

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
