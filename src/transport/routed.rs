//! Transport of a real cluster: one port for each node, and TLS between machines.
//!
//! A node's acceptor accepts connections, reads the preamble, and passes each one to its host. A
//! link between two loopback addresses is plain, as no other machine can observe or modify it.
//! Every other link uses TLS with both certificates. Both sides see both addresses, so they agree
//! without a negotiation or a setting.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{self, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::credentials::Credentials;
use super::{BoxFuture, Incoming, Link, Listener, Route, Transport, tcp, tls};
use crate::config::HEAD_LINK_TIMEOUT;
use crate::id::{HostId, HostUid};

/// Transport between the hosts of a real cluster.
pub struct Routed {
    credentials: Credentials,
    inbound: Option<InboundQueue>,
    /// Rule that decides whether a link is plain.
    is_plain: IsPlaintext,
}

/// Rule by the local and the remote address.
type IsPlaintext = fn(SocketAddr, SocketAddr) -> bool;

/// Connections of one host that the node's acceptor passes on.
struct InboundQueue {
    address: SocketAddr,
    incoming: Mutex<Option<mpsc::Receiver<net::TcpStream>>>,
}

impl Routed {
    /// Creates the transport of a host that is dialled at `address`, its node's acceptor, which
    /// sends the host's connections without their preambles.
    #[must_use]
    pub fn new(
        credentials: Credentials,
        address: SocketAddr,
        incoming: mpsc::Receiver<net::TcpStream>,
    ) -> Self {
        let inbound = InboundQueue { address, incoming: Mutex::new(Some(incoming)) };
        Self { credentials, inbound: Some(inbound), is_plain }
    }

    /// Creates the transport of a host that only dials.
    #[must_use]
    pub fn dial_only(credentials: Credentials) -> Self {
        Self { credentials, inbound: None, is_plain }
    }

    /// Treats no address as loopback, for tests, which have no other addresses.
    #[cfg(all(test, feature = "cli"))]
    pub(crate) fn between_machines(mut self) -> Self {
        self.is_plain = |_, _| false;
        self
    }
}

/// Returns whether a connection between these addresses cannot leave its machine.
fn is_plain(here: SocketAddr, there: SocketAddr) -> bool {
    // An IPv4 peer of a dual-stack socket has an IPv4-mapped IPv6 address.
    [here, there].iter().all(|address| address.ip().to_canonical().is_loopback())
}

impl Transport for Routed {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inbound = self.inbound.as_ref().filter(|inbound| inbound.address == address);
            let inbound = inbound.ok_or(ErrorKind::AddrNotAvailable)?;
            let incoming = inbound.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The receiver can be taken once. A second listener would steal connections of the
            // first.
            let incoming = incoming.ok_or(ErrorKind::AddrInUse)?;
            let (credentials, is_plain) = (self.credentials.clone(), self.is_plain);
            Ok(Box::new(RoutedListener { address, incoming, credentials, is_plain }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: SocketAddr, to: HostUid) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // Heartbeats to the head must not wait for the next retransmission after an outage.
            if to.host == HostId::HEAD {
                tcp::limit_unacked_time(&stream, HEAD_LINK_TIMEOUT);
            }
            // In the clear, before TLS: the acceptor routes the connection without the keys of the
            // host behind it.
            stream.write_all(&Route::Host(to.host).preamble()).await?;
            if (self.is_plain)(stream.local_addr()?, stream.peer_addr()?) {
                tcp::open(stream)
            } else {
                tls::connect(stream, &self.credentials, to).await
            }
        })
    }

    /// Returns `false`: the port belongs to the acceptor, which also refuses when only the agent
    /// has ended.
    fn refusal_means_host_down(&self, _address: SocketAddr) -> bool {
        false
    }
}

/// Listener for the connections that the node's acceptor passes on.
struct RoutedListener {
    address: SocketAddr,
    incoming: mpsc::Receiver<net::TcpStream>,
    credentials: Credentials,
    is_plain: IsPlaintext,
}

impl Listener for RoutedListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async move {
            let Some(stream) = self.incoming.recv().await else {
                // The acceptor has ended. An error would end the host, but its established links
                // still work.
                return std::future::pending().await;
            };
            let (credentials, is_plain) = (self.credentials.clone(), self.is_plain);
            // Read before TLS: connections that never finish it are limited by this address.
            let source = stream.peer_addr().ok().map(|address| address.ip());
            Ok(Incoming { source, opening: Box::pin(establish(stream, credentials, is_plain)) })
        })
    }
}

async fn establish(
    stream: net::TcpStream,
    credentials: Credentials,
    rule: IsPlaintext,
) -> io::Result<Box<dyn Link>> {
    // The socket was accepted elsewhere, and `from_std` requires a non-blocking one.
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = TcpStream::from_std(stream)?;
    if rule(stream.local_addr()?, stream.peer_addr()?) {
        tcp::open(stream)
    } else {
        tls::accept(stream, &credentials).await
    }
}

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.inbound.as_ref().map(|inbound| inbound.address);
        f.debug_struct("Routed").field("address", &address).finish_non_exhaustive()
    }
}

impl fmt::Debug for RoutedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutedListener").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests;
