//! Byte streams between hosts, without regard to their content.
//!
//! A [`Transport`] creates [`Link`]s: it connects, or it listens and accepts.
//!
//! - [`Tcp`] is for a local cluster.
//! - [`Memory`] is its deterministic twin for tests.
//! - [`Routed`] is for a cluster of several machines: each node has one port, and links use TLS.
//!
//! A link is established on the thread that does the handshake, then moved to the thread that
//! serves it ([`Link::detach`]). So a message and its handler can share a thread. [`FrameReader`]
//! decodes the frames of a link.
//!
//! This module knows nothing of sessions, calls and their rules.

mod certificate;
mod credentials;
pub(crate) mod expiry;
mod framed;
mod large_frame_pool;
mod memory;
mod open_files;
mod route;
mod routed;
mod tcp;
mod tls;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::id::HostUid;

pub use certificate::{Certificate, Role, host_name, host_name_as};
pub(crate) use credentials::TOKEN_RPC_ALPN;
pub use credentials::{Credentials, CredentialsError};
pub use framed::{FrameReader, ReadError};
pub use memory::Memory;
pub(crate) use open_files::explained;
pub use route::{PREAMBLE_BYTES, Route, RouteError};
pub use routed::Routed;
pub use tcp::Tcp;
pub(crate) use tls::explain;
#[cfg(feature = "cli")]
pub(crate) use tls::linger;

/// Boxed future of a trait method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Network through which a host reaches others.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Listens on `address`; port 0 selects a free port.
    ///
    /// # Errors
    ///
    /// The operating system's, when the address cannot be bound.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing bound.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects to a host.
    ///
    /// # Errors
    ///
    /// The operating system's, if the port is closed or the network unreachable. Of kind
    /// `InvalidData` if the listener is another host, or rejects this host's certificate.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    fn connect(&self, address: SocketAddr, to: HostUid) -> BoxFuture<'_, io::Result<Box<dyn Link>>>;

    /// Returns whether a refused connection to `address` proves that the host itself has ended.
    fn refusal_means_host_down(&self, address: SocketAddr) -> bool;
}

/// Bound address that accepts connections.
pub trait Listener: Send + fmt::Debug {
    /// Returns the bound address, with the actual port.
    fn address(&self) -> SocketAddr;

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// The operating system's. Most concern one connection only: the next call may succeed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>>;
}

/// Accepted connection before it is a link.
///
/// Establishing the link may need the peer's reply. The accept loop must not wait for it, and the
/// caller must set a deadline.
pub struct Incoming {
    /// Address of the peer, by which unauthenticated connections are limited.
    pub source: Option<IpAddr>,
    /// Establishes the link.
    pub opening: BoxFuture<'static, io::Result<Box<dyn Link>>>,
}

impl IntoFuture for Incoming {
    type Output = io::Result<Box<dyn Link>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.opening
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Bidirectional, ordered byte stream.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {
    /// Removes the link from this thread's reactor, so that it can be attached to another one.
    ///
    /// # Errors
    ///
    /// The operating system's, if the link cannot be removed.
    fn detach(self: Box<Self>) -> io::Result<Box<dyn DetachedLink>>;

    /// Splits the link into its directions. Data is sent when the writer is flushed.
    fn into_split(self: Box<Self>) -> (LinkReader, LinkWriter);

    /// Returns the authenticated certificate of the other side; `None` for a link without TLS.
    fn certificate(&self) -> Option<&Certificate> {
        None
    }
}

/// Link between two reactors.
pub trait DetachedLink: Send + fmt::Debug {
    /// Attaches the link to the reactor of the runtime that runs this thread.
    ///
    /// # Errors
    ///
    /// The operating system's, when the link cannot be registered.
    fn attach(self: Box<Self>) -> io::Result<Box<dyn Link>>;
}

/// Receiving direction of a link.
pub type LinkReader = Box<dyn LinkRead>;

/// Receiver of a link's bytes.
pub trait LinkRead: AsyncRead + Send + Unpin {
    /// Returns whether the last data received was sent by the core that this thread runs on.
    ///
    /// A `true` may be wrong if the peer's kernel sent the data. `false` if unknown.
    fn shares_core(&self) -> bool {
        false
    }

    /// Returns whether the bytes come from a socket, which has input without help of this thread.
    fn is_socket(&self) -> bool {
        false
    }
}

/// Sending direction of a link.
pub type LinkWriter = Box<dyn AsyncWrite + Send + Unpin>;
