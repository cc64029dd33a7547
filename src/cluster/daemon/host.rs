//! Host of a daemon, and the signals that stop the daemon.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// SIGTERM and SIGINT of a daemon: a request to shut down gracefully.
pub(super) struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    /// Replaces the default action of both signals, which ends the process without cleanup.
    pub(super) fn install() -> Result<Self, DaemonError> {
        let handler = |kind, error| signal(kind).map_err(failed(error));
        Ok(Self {
            terminate: handler(SignalKind::terminate(), "cannot install a handler of SIGTERM")?,
            interrupt: handler(SignalKind::interrupt(), "cannot install a handler of SIGINT")?,
        })
    }

    /// Waits for the next signal, and returns its name. A signal since [`Self::install`] counts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no signal.
    pub(super) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
