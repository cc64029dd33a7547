//! How bytes get from one host to another, and nothing about what they say.
//!
//! A [`Transport`] makes [`Link`]s: it connects, or it listens and accepts. [`Tcp`] is for a local
//! cluster, [`Memory`] its twin for tests; [`Routed`] is for a cluster of several machines, whose nodes
//! have one port each and links under TLS. A link is made on the
//! thread that shakes hands and is then moved to the thread that serves it ([`Link::detach`]), so
//! that a message and its handler can share a thread. [`FrameReader`] turns a link's bytes into frames.
//!
//! The session, its calls and its rules are not known here.

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

/// A future on the heap, for the methods of these traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to reach other hosts.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Listens on `address`; port 0 takes a free one.
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
    /// The operating system's, when nobody listens there or the way is barred. Of kind `InvalidData` where
    /// whoever listens is not that host, or does not take this one's word for who it is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    fn connect(&self, address: SocketAddr, to: HostUid) -> BoxFuture<'_, io::Result<Box<dyn Link>>>;

    /// Whether a connection that was refused there shows that the host itself has ended.
    fn refusal_means_host_down(&self, address: SocketAddr) -> bool;
}

/// A bound address that links arrive at.
pub trait Listener: Send + fmt::Debug {
    /// The address bound, with the true port.
    fn address(&self) -> SocketAddr;

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// The operating system's; most concern one connection only, and the next call may succeed.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost when the future is dropped.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>>;
}

/// A connection that has come in and is to become a link.
///
/// That may need an answer of the peer, so the loop that accepts does not wait for it, and it has to have a
/// deadline.
pub struct Incoming {
    /// The peer's address, by which connections that prove nothing share their places.
    pub source: Option<IpAddr>,
    /// Becomes the link.
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
        f.debug_struct("Arrival").field("source", &self.source).finish_non_exhaustive()
    }
}

/// An ordered stream of bytes in both directions.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {
    /// Takes the link off this thread's reactor, so that it can be attached to another's.
    ///
    /// # Errors
    ///
    /// The operating system's, when the link cannot be taken off.
    fn detach(self: Box<Self>) -> io::Result<Box<dyn DetachedLink>>;

    /// Parts the link in its two directions. The writer is to be flushed behind what shall leave.
    fn into_split(self: Box<Self>) -> (LinkReader, LinkWriter);

    /// The certificate that the other side has proved to be its own; `None` for a link without any.
    fn certificate(&self) -> Option<&Certificate> {
        None
    }
}

/// A link between two threads.
pub trait DetachedLink: Send + fmt::Debug {
    /// Attaches the link to the reactor of the runtime that runs this thread.
    ///
    /// # Errors
    ///
    /// The operating system's, when the link cannot be registered.
    fn attach(self: Box<Self>) -> io::Result<Box<dyn Link>>;
}

/// The incoming direction of a link.
pub type LinkReader = Box<dyn LinkRead>;

/// Bytes that come in over a link.
pub trait LinkRead: AsyncRead + Send + Unpin {
    /// Whether what came last was sent on the core that this thread runs on now.
    ///
    /// `true` may be wrong of the other side's process, where its kernel sent it. `false` where that
    /// cannot be told.
    fn shares_core(&self) -> bool {
        false
    }
}

/// The outgoing direction of a link.
pub type LinkWriter = Box<dyn AsyncWrite + Send + Unpin>;
