//! Acceptor of a node: accepts the connections of its one port, and routes each by its preamble.
//!
//! It reads the preamble and nothing else, and authenticates nothing. It knows no hosts or servers: the
//! destinations are the [`ConnectionRouter`]'s.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::cluster::daemon::handoff::HandoffError;
use crate::config::{ACCEPT_BACKOFF, HANDSHAKE_TIMEOUT, HANDSHAKES_OPEN_MAX};
use crate::host::unauthenticated::{RejectionLog, UnauthenticatedConnections};
use crate::transport::{PREAMBLE_BYTES, Route, RouteError, explained};

/// Destinations of accepted connections.
pub(crate) trait ConnectionRouter: Send + Sync + 'static {
    /// Routes a connection, behind its preamble. Must not block: the acceptor calls it for every connection.
    ///
    /// # Errors
    ///
    /// [`HandoffError`] if no process takes the connection, which is then closed.
    fn route(&self, route: Route, stream: net::TcpStream) -> Result<(), HandoffError>;
}

/// Acceptor on a bound port.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
    stats: Arc<RejectionStats>,
}

/// Rejected connections: their number, and a rate-limited log of the reasons.
#[derive(Debug, Default)]
struct RejectionStats {
    rejected: AtomicU64,
    refusals: RejectionLog,
}

/// Reason that a connection is rejected.
#[derive(Debug, Error)]
enum RejectReason {
    #[error("a connection sent no preamble within {HANDSHAKE_TIMEOUT:?}")]
    Silent,
    #[error("a connection ended before its preamble: {0}")]
    Disconnected(io::Error),
    #[error(transparent)]
    Preamble(#[from] RouteError),
    #[error("cannot route a connection for {route:?}: {why}")]
    NoRoute { route: Route, why: HandoffError },
}

impl From<io::Error> for RejectReason {
    fn from(error: io::Error) -> Self {
        Self::Disconnected(error)
    }
}

impl Acceptor {
    /// Binds the address. Port 0 selects a free port.
    ///
    /// # Errors
    ///
    /// The error of the operating system if the address cannot be bound.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing bound.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, stats: Arc::default() })
    }

    /// Bound address, with the actual port.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of rejected connections.
    #[cfg(test)]
    pub(crate) fn rejected(&self) -> u64 {
        self.stats.rejected.load(Ordering::Relaxed)
    }

    /// Accepts connections and routes them, for ever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connections whose preamble is incomplete. It may be called again.
    pub(crate) async fn accept_loop<R: ConnectionRouter>(&self, router: Arc<R>) {
        let mut unauthenticated = UnauthenticatedConnections::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let (stats, router) = (Arc::clone(&self.stats), Arc::clone(&router));
                    let connection = async move {
                        if let Err(error) = route_connection(stream, &*router).await {
                            stats.rejected.fetch_add(1, Ordering::Relaxed);
                            stats.refusals.record(&error);
                        }
                    };
                    let spawned = unauthenticated.spawn(Some(from.ip()), HANDSHAKES_OPEN_MAX, connection);
                    if let Err(overload) = spawned {
                        self.stats.rejected.fetch_add(1, Ordering::Relaxed);
                        self.stats.refusals.record(&overload);
                    }
                }
                Err(error) => {
                    // Usually the limit of open files. A pause instead of a busy loop: the connection stays in the
                    // backlog, so the next `accept` fails in the same way.
                    let error = explained(error);
                    tracing::warn!(%error, address = %self.address, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

async fn route_connection(mut stream: TcpStream, router: &impl ConnectionRouter) -> Result<(), RejectReason> {
    // Exactly the preamble is read: the next byte belongs to the destination, which may be another process.
    let mut preamble = [0; PREAMBLE_BYTES];
    let read = timeout(HANDSHAKE_TIMEOUT, stream.read_exact(&mut preamble)).await;
    read.map_err(|_| RejectReason::Silent)??;
    let route = Route::read(preamble)?;
    // Deregistered from this runtime, since the destination registers the socket with its own.
    router.route(route, stream.into_std()?).map_err(|why| RejectReason::NoRoute { route, why })
}

#[cfg(test)]
mod tests;
