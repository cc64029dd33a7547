//! The daemons of a real cluster, as the command starts them: the head, and the agent of each node.

pub(super) mod agent;
mod error;
mod handoff;
pub(super) mod head;
mod host;
mod job_users;
mod logs;
mod options;
mod removal;
#[cfg(test)]
pub(crate) mod test_ca;
mod token_rpc_server;

use super::host_info;

pub use error::DaemonError;
pub use job_users::{JobUser, JobUsers, JobUsersError, UidRange};
pub use options::{AgentOptions, AgentReady, HeadOptions, HeadReady};

pub use removal::{RemoveTreeError, remove_tree};

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
