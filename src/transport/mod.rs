//! How bytes get from one host to another, and nothing about what they say.
//!
//! A [`Transport`] makes [`Link`]s: it connects, or it listens and accepts. [`Tcp`] is for use,
//! [`Memory`] its twin for tests. A link is made on the
//! thread that shakes hands and is then moved to the thread that serves it ([`Link::detach`]), so
//! that a message and its handler can share a thread. [`FrameReader`] turns a link's bytes into frames.
//!
//! The session, its calls and its rules are not known here.

mod framed;
mod large;
mod memory;
mod tcp;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub use framed::{FrameReader, ReadError};
pub use memory::Memory;
pub use tcp::Tcp;

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

    /// Connects to a listener.
    ///
    /// # Errors
    ///
    /// The operating system's, when nobody listens there or the way is barred.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Link>>>;
}

/// A bound address that links arrive at.
pub trait Listener: Send + fmt::Debug {
    /// The address bound, with the true port.
    fn address(&self) -> SocketAddr;

    /// Waits for the next link.
    ///
    /// # Errors
    ///
    /// The operating system's; most concern one connection only, and the next call may succeed.
    ///
    /// # Cancel safety
    ///
    /// No link is lost when the future is dropped.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Link>>>;
}

/// An ordered stream of bytes in both directions.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {
    /// Takes the link off this thread's reactor, so that it can be attached to another's.
    ///
    /// # Errors
    ///
    /// The operating system's, when the link cannot be taken off.
    fn detach(self: Box<Self>) -> io::Result<Box<dyn DetachedLink>>;

    /// Parts the link in its two directions.
    fn into_split(self: Box<Self>) -> (LinkReader, LinkWriter);
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
pub type LinkReader = Box<dyn AsyncRead + Send + Unpin>;

/// The outgoing direction of a link.
pub type LinkWriter = Box<dyn AsyncWrite + Send + Unpin>;
