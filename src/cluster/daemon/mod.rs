//! The daemons of a real cluster, as the command starts them: the head, and the agent of each node.

mod options;

use thiserror::Error;

use super::{agent, head};

pub use options::{AgentOptions, AgentReady, HeadOptions, HeadReady};

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
