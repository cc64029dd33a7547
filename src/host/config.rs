//! What a host is made from, and why it cannot start.

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

/// What calls to a host itself do, by the hash of the asked service's name.
pub type HostServices = Box<dyn Fn(&Host, TypeHash, Inbound) + Send + Sync>;

/// What a host is made from.
pub struct HostConfig {
    /// Who it is.
    pub identity: HostUid,
    /// What every member of the cluster knows.
    pub secret: Secret,
    /// Its limits.
    pub limits: Limits,
    /// How it reaches others.
    pub transport: Arc<dyn Transport>,
    /// Where it listens; `None` for a host that only dials.
    pub listen: Option<SocketAddr>,
    /// Accepts, dials, shakes hands, serves pulses and keeps deadlines: a runtime that runs no handler.
    pub io: Handle,
    /// Serves links, and so hosts spawned actors.
    pub executor: Executor,
    /// What calls to the host itself do.
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

/// A host cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// Types of this executable cannot be told apart.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's words.
        source: io::Error,
    },
}
