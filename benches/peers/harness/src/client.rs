//! Traits that a peer implements.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Result;

use crate::Args;

/// A framework, with its server and its client.
pub trait Peer {
    /// Client's handles to the actors of all servers.
    type Client: Client;

    /// Serves until the process is killed; calls [`ready`] once it listens.
    fn serve(args: Args) -> impl Future<Output = Result<()>>;

    /// Returns when the first call can be made.
    fn connect(args: &Args) -> impl Future<Output = Result<Self::Client>>;
}

/// Actors of the servers, as a program uses them.
///
/// Actor `i` is number `i % ACTORS` of server `i / ACTORS`. It counts the calls and one-way messages that it handles.
/// A provided method is work that the framework has no means for.
pub trait Client: Clone + Send + Sync + 'static {
    /// Type for bytes that a program of this framework uses.
    type Bytes: AsRef<[u8]> + From<Vec<u8>> + Clone + Send + Sync + 'static;

    /// Type for lists of words, apart from `Vec<String>`; `()` without one.
    type WordList: Clone + Send + Sync + 'static;

    /// Processes of the servers that the client has started itself.
    fn servers(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Call: the actor returns `n + 1`.
    fn call(&self, actor: usize, n: u64) -> impl Future<Output = Result<u64>> + Send;

    /// Call: number of messages that the actor has handled before.
    fn count(&self, actor: usize) -> impl Future<Output = Result<u64>> + Send {
        let _ = actor;
        async { unsupported() }
    }

    /// The same call as [`Client::call`], with a timeout of its own.
    fn call_timeout(
        &self,
        actor: usize,
        n: u64,
        limit: Duration,
    ) -> impl Future<Output = Result<u64>> + Send {
        async move { tokio::time::timeout(limit, self.call(actor, n)).await? }
    }

    /// The same call as [`Client::call`], repeated if a link loses it.
    fn call_retry(&self, actor: usize, n: u64) -> impl Future<Output = Result<u64>> + Send {
        let _ = (actor, n);
        async { unsupported() }
    }

    /// Message without a reply.
    fn tell(&self, actor: usize, n: u64) -> impl Future<Output = Result<()>> + Send {
        let _ = (actor, n);
        async { unsupported() }
    }

    /// Call: the actor returns the bytes.
    fn echo(&self, bytes: Self::Bytes) -> impl Future<Output = Result<Self::Bytes>> + Send {
        let _ = bytes;
        async { unsupported() }
    }

    /// The same with `Vec<u8>` and no attribute, where that differs.
    fn echo_plain(&self, bytes: Vec<u8>) -> impl Future<Output = Result<Vec<u8>>> + Send {
        let _ = bytes;
        async { unsupported() }
    }

    /// Call: the actor returns that many bytes.
    fn reply(&self, size: u32) -> impl Future<Output = Result<Self::Bytes>> + Send {
        let _ = size;
        async { unsupported() }
    }

    /// Call: the actor returns the number of words.
    fn words(&self, words: Vec<String>) -> impl Future<Output = Result<u64>> + Send {
        let _ = words;
        async { unsupported() }
    }

    /// Makes a list of the framework's own type.
    ///
    /// # Errors
    ///
    /// The framework has none, or the words do not fit.
    fn make_word_list(words: &[String]) -> Result<Self::WordList> {
        let _ = words;
        unsupported()
    }

    /// Call: the actor returns the number of words.
    fn word_list(&self, words: Self::WordList) -> impl Future<Output = Result<u64>> + Send {
        let _ = words;
        async { unsupported() }
    }

    /// Starts an actor in the server, and calls it once.
    fn spawn(&self) -> impl Future<Output = Result<()>> + Send {
        async { unsupported() }
    }
}

/// Work that a framework has no means for.
#[derive(Debug)]
pub struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the framework has no means for this; leave the load out for this peer")
    }
}

impl std::error::Error for Unsupported {}

/// Result of work that a framework has no means for.
///
/// # Errors
///
/// Always [`Unsupported`].
pub fn unsupported<T>() -> Result<T> {
    Err(Unsupported.into())
}

/// Tells the runner that the server listens at an address.
///
/// A second word is a secret, which the client gets as `ROADSHOW_TOKEN`.
///
/// # Errors
///
/// The runner has closed its end of the pipe.
pub fn ready(address: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "READY {address}")?;
    stdout.flush()
}

/// Returns an address of the loopback interface that was free a moment ago.
///
/// For frameworks that do not say which port they got.
///
/// # Errors
///
/// No port is free.
pub fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
