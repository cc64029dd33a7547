//! A node's door: the one port of the node, and the way from it to whom a connection is for.
//!
//! It reads the preamble and nothing else, proves nothing and trusts nothing. Knows no host and no desk:
//! who is behind it is for [`ConnectionRouter`] to say.

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

/// Where connections go from the door.
pub(crate) trait ConnectionRouter: Send + Sync + 'static {
    /// Takes a connection, past its preamble, to whom it is for. Must not wait.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if nobody takes it; it is closed then.
    fn route(&self, route: Route, stream: net::TcpStream) -> Result<(), HandoffError>;
}

/// A port that is bound.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
    stats: Arc<RejectionStats>,
}

/// What is known of those who did not get in.
#[derive(Debug, Default)]
struct RejectionStats {
    rejected: AtomicU64,
    refusals: RejectionLog,
}

/// Why somebody does not get in.
#[derive(Debug, Error)]
enum RejectReason {
    #[error("a connection did not say within {HANDSHAKE_TIMEOUT:?} whom it is for")]
    Silent,
    #[error("a connection ended before it said whom it is for: {0}")]
    Disconnected(io::Error),
    #[error(transparent)]
    Preamble(#[from] RouteError),
    #[error("nobody takes a connection for {route:?}: {why}")]
    NoRoom { route: Route, why: HandoffError },
}

impl From<io::Error> for RejectReason {
    fn from(error: io::Error) -> Self {
        Self::Disconnected(error)
    }
}

impl Acceptor {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// The operating system's, when the address cannot be bound.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing bound.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, stats: Arc::default() })
    }

    /// The address bound, with the true port.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were closed since nobody took them.
    #[cfg(test)]
    pub(crate) fn rejected(&self) -> u64 {
        self.stats.rejected.load(Ordering::Relaxed)
    }

    /// Takes connections to where they are for, for ever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connections that have not said whom they are for. It may be called again.
    pub(crate) async fn accept_loop<R: ConnectionRouter>(&self, rooms: Arc<R>) {
        let mut strangers = UnauthenticatedConnections::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let (watch, rooms) = (Arc::clone(&self.stats), Arc::clone(&rooms));
                    let attending = async move {
                        if let Err(error) = route_connection(stream, &*rooms).await {
                            watch.rejected.fetch_add(1, Ordering::Relaxed);
                            watch.refusals.record(&error);
                        }
                    };
                    if let Err(crowded) = strangers.spawn(Some(from.ip()), HANDSHAKES_OPEN_MAX, attending) {
                        self.stats.rejected.fetch_add(1, Ordering::Relaxed);
                        self.stats.refusals.record(&crowded);
                    }
                }
                Err(error) => {
                    let error = explained(error);
                    tracing::warn!(%error, address = %self.address, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

async fn route_connection(mut stream: TcpStream, rooms: &impl ConnectionRouter) -> Result<(), RejectReason> {
    let mut preamble = [0; PREAMBLE_BYTES];
    let read = timeout(HANDSHAKE_TIMEOUT, stream.read_exact(&mut preamble)).await;
    read.map_err(|_| RejectReason::Silent)??;
    let route = Route::read(preamble)?;
    rooms.route(route, stream.into_std()?).map_err(|why| RejectReason::NoRoom { route, why })
}

#[cfg(test)]
mod tests;
