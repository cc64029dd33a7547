//! Configuration of a host, and the errors of its start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;
use tokio::runtime::Handle;

use super::{Executor, Host};
use crate::config::Limits;
use crate::id::{HostUid, TypeHash};
use crate::registry::{Inbound, RegistryError};
use crate::session::Secret;
use crate::transport::Transport;

/// Handler of calls to the host itself, by the hash of the service's name.
pub type HostServices = Box<dyn Fn(&Host, TypeHash, Inbound) + Send + Sync>;

/// Configuration of a host.
pub struct HostConfig {
    /// Host id and incarnation.
    pub identity: HostUid,
    /// Secret shared by all members of the cluster.
    pub secret: Secret,
    /// Limits of the host.
    pub limits: Limits,
    /// Transport to other hosts.
    pub transport: Arc<dyn Transport>,
    /// Address to listen on; `None` for a host that only dials.
    pub listen: Option<SocketAddr>,
    /// Runtime for accepting, dialling, handshakes, heartbeats and deadlines; it runs no handlers.
    pub io: Handle,
    /// Executor that drives links, and therefore runs spawned actors.
    pub executor: Executor,
    /// Handler of calls to the host itself.
    pub services: HostServices,
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("identity", &self.identity)
            .field("limits", &self.limits)
            .field("transport", &self.transport)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Error of a host's start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// Types of this executable collide.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address that was requested.
        address: SocketAddr,
        /// Error of the operating system.
        source: io::Error,
    },
}
