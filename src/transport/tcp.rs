//! TCP with `TCP_NODELAY` on both sides: a small frame never waits for an ACK of the kernel.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};

use super::{BoxFuture, DetachedLink, Incoming, Link, LinkRead, LinkReader, LinkWriter, Listener, Transport};
use crate::id::HostUid;

/// Transport over plain TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            Ok(Box::new(TcpLinkListener { socket, address }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: SocketAddr, _to: HostUid) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move { open(TcpStream::connect(address).await?) })
    }

    /// Returns `true` for loopback: a process of this machine that listens never refuses.
    fn refusal_means_host_down(&self, address: SocketAddr) -> bool {
        address.ip().is_loopback()
    }
}

/// Creates a plain link from a connection.
pub(super) fn open(stream: TcpStream) -> io::Result<Box<dyn Link>> {
    stream.set_nodelay(true)?;
    // Between machines the default of the system applies: an operator may have chosen it on
    // purpose.
    if is_loopback(&stream) {
        use_reno_on_loopback(&stream);
    }
    Ok(Box::new(TcpLink(stream)))
}

/// Makes a connection break once it has bytes that the peer's kernel has not acknowledged for some time.
///
/// Without it TCP retransmits at intervals that double, for many minutes. If the system does not support it, the
/// default stays.
pub(super) fn limit_unacked_time(stream: &TcpStream, timeout: Duration) {
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(
        stream,
        u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
    );
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, timeout);
}

/// Returns whether the connection uses the loopback interface.
fn is_loopback(stream: &TcpStream) -> bool {
    stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// Selects the Reno congestion control for a connection on loopback, where congestion cannot occur.
///
/// The default of some systems (BBR) measures and paces such connections as well, which halves the
/// rate of large messages after many small ones. If Linux does not permit Reno, the default stays.
fn use_reno_on_loopback(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_congestion(stream, "reno");
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

#[derive(Debug)]
struct TcpLinkListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener for TcpLinkListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async move {
            let (stream, from) = self.socket.accept().await?;
            Ok(Incoming { source: Some(from.ip()), opening: Box::pin(async move { open(stream) }) })
        })
    }
}

#[derive(Debug)]
struct TcpLink(TcpStream);

impl Link for TcpLink {
    fn detach(self: Box<Self>) -> io::Result<Box<dyn DetachedLink>> {
        Ok(Box::new(DetachedTcpLink(self.0.into_std()?)))
    }

    fn into_split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let (reader, writer) = self.0.into_split();
        (Box::new(reader), Box::new(writer))
    }
}

impl LinkRead for OwnedReadHalf {
    /// On loopback the sending core queues the data at the receiving socket, and Linux records that
    /// core. It does the same for the ACKs of the peer's kernel, which may run on the core of the
    /// original sender: this one.
    #[cfg(target_os = "linux")]
    fn shares_core(&self) -> bool {
        let stream = self.as_ref();
        let sender = rustix::net::sockopt::socket_incoming_cpu(stream);
        // The option exists on Linux only. It names the core that processed the last packet of this
        // socket.
        sender.is_ok_and(|core| core as usize == rustix::thread::sched_getcpu()) && is_loopback(stream)
    }

    fn is_socket(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct DetachedTcpLink(std::net::TcpStream);

impl DetachedLink for DetachedTcpLink {
    fn attach(self: Box<Self>) -> io::Result<Box<dyn Link>> {
        Ok(Box::new(TcpLink(TcpStream::from_std(self.0)?)))
    }
}

impl AsyncRead for TcpLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TcpLink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::sockopt;
    use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn a_loopback_link_uses_reno() {
        let (near, _far) = pair().await;
        let socket = near.as_fd().try_clone_to_owned().unwrap();
        let _link = open(near).unwrap();
        assert_eq!(sockopt::tcp_congestion(&socket).unwrap(), "reno");
    }

    #[tokio::test]
    async fn time_without_acks_is_limited_in_milliseconds() {
        let (near, _far) = pair().await;
        assert_eq!(sockopt::tcp_user_timeout(&near).unwrap(), 0);
        limit_unacked_time(&near, Duration::from_millis(1500));
        assert_eq!(sockopt::tcp_user_timeout(&near).unwrap(), 1500);
    }

    #[tokio::test]
    async fn a_sender_on_this_core_is_distinguished_from_others() {
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).unwrap();
        let (near, mut far) = pair().await;
        let (mut reader, _writer) = Box::new(TcpLink(near)).into_split();
        far.write_all(b"1").await.unwrap();
        reader.read_exact(&mut [0]).await.unwrap();
        assert!(reader.shares_core());
        if let Ok(other) = other_core(&here) {
            let sent = std::thread::spawn(move || {
                sched_setaffinity(None, &other).unwrap();
                far.try_write(b"2").unwrap();
                far
            });
            let _far = sent.join().unwrap();
            reader.read_exact(&mut [0]).await.unwrap();
            assert!(!reader.shares_core());
        }
    }

    /// Returns another core that this process may use.
    fn other_core(here: &CpuSet) -> io::Result<CpuSet> {
        let all = rustix::thread::sched_getaffinity(Some(rustix::process::getpid()))?;
        let mut other = CpuSet::new();
        let core = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core) && !here.is_set(*core));
        other.set(core.ok_or(io::ErrorKind::NotFound)?);
        Ok(other)
    }
}
