//! The transport of a real cluster: one port a node, and TLS wherever two machines could be involved.
//!
//! A node's door accepts, reads for whom a connection is, and hands it over. Between two addresses of the
//! loopback interface a link is plain, since no other machine can see it or have a part in it; all others
//! are under TLS with both certificates. Both sides see the addresses, so neither has to be told, and
//! there is no setting.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{self, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::credentials::Credentials;
use super::{BoxFuture, Incoming, Link, Listener, Route, Transport, tcp, tls};
use crate::id::HostUid;

/// How the hosts of a real cluster reach each other.
pub struct Routed {
    credentials: Credentials,
    inbound: Option<InboundQueue>,
    /// The rule by which a link is plain.
    is_plain: IsPlaintext,
}

/// Whether a link between two addresses, this side's and the other's, is plain.
type IsPlaintext = fn(SocketAddr, SocketAddr) -> bool;

/// What stands at a node's door for one of its hosts.
struct InboundQueue {
    address: SocketAddr,
    incoming: Mutex<Option<mpsc::Receiver<net::TcpStream>>>,
}

impl Routed {
    /// For a host that is dialled at `address`, its node's door, which sends it its connections behind their
    /// preambles.
    #[must_use]
    pub fn new(
        credentials: Credentials,
        address: SocketAddr,
        incoming: mpsc::Receiver<net::TcpStream>,
    ) -> Self {
        let door = InboundQueue { address, incoming: Mutex::new(Some(incoming)) };
        Self { credentials, inbound: Some(door), is_plain }
    }

    /// For a host that dials and listens nowhere.
    #[must_use]
    pub fn dial_only(credentials: Credentials) -> Self {
        Self { credentials, inbound: None, is_plain }
    }

    /// The same as if no address were on loopback, for tests, which have no other.
    #[cfg(all(test, feature = "cli"))]
    pub(crate) fn between_machines(mut self) -> Self {
        self.is_plain = |_, _| false;
        self
    }
}

/// Whether a connection between these two addresses cannot leave its machine.
fn is_plain(here: SocketAddr, there: SocketAddr) -> bool {
    // What came over IPv4 to a socket for both has the same address in another notation.
    [here, there].iter().all(|address| address.ip().to_canonical().is_loopback())
}

impl Transport for Routed {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let door = self.inbound.as_ref().filter(|door| door.address == address);
            let door = door.ok_or(ErrorKind::AddrNotAvailable)?;
            let incoming = door.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
            let incoming = incoming.ok_or(ErrorKind::AddrInUse)?;
            let (credentials, is_plain) = (self.credentials.clone(), self.is_plain);
            Ok(Box::new(RoutedListener { address, incoming, credentials, is_plain }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: SocketAddr, to: HostUid) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&Route::Host(to.host).preamble()).await?;
            if (self.is_plain)(stream.local_addr()?, stream.peer_addr()?) {
                tcp::open(stream)
            } else {
                tls::connect(stream, &self.credentials, to).await
            }
        })
    }

    /// The port is the door's: it refuses when the node's agent has ended, whatever its hosts do.
    fn refusal_means_host_down(&self, _address: SocketAddr) -> bool {
        false
    }
}

/// The place behind a door where a host's connections come in.
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
                // Nobody comes any more, and the host has links that go on.
                return std::future::pending().await;
            };
            let (credentials, is_plain) = (self.credentials.clone(), self.is_plain);
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
        let address = self.inbound.as_ref().map(|door| door.address);
        f.debug_struct("Routed").field("address", &address).finish_non_exhaustive()
    }
}

impl fmt::Debug for RoutedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests;
