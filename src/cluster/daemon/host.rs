//! Host of a daemon.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::error::{DaemonError, failed};
use crate::cluster::security::Token;
use crate::config::{INBOUND_PEER_EXPIRY, Limits};
use crate::host::{Executor, Host, HostConfig, HostServices};
use crate::id::HostUid;
use crate::observe::Chain;
use crate::transport::Routed;

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
