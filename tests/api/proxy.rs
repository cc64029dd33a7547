//! TCP proxy between two hosts that cuts, stops or throttles connections for a test.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::future::join;
use roadshow::Limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::hosts::{LOOPBACK, Pair, Plan, TestHost};

/// Buffer of each direction of a connection, in bytes.
const BUFFER_BYTES: u32 = 16 << 10;

/// Kind of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Resets the connection, as a crash does: both ends receive an error.
    Reset,
    /// Closes the connection: both ends read the end of the stream.
    Finish,
}

/// Direction of bytes: `Forth` from the dialling side, `Back` to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forth,
    Back,
}

/// Proxy that listens in front of a host and forwards connections; it ends on drop.
///
/// Each direction has one limit for all connections; bytes over the limit wait in the proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    forwarder: Forwarder,
    /// Listening task, unless the proxy refuses connections.
    serving: RefCell<Option<AbortHandle>>,
    /// Bound but not listening, so that the port stays reserved while connections are refused.
    _port: TcpSocket,
}

#[derive(Clone)]
struct Forwarder {
    to: SocketAddr,
    conditions: watch::Sender<Conditions>,
    passed: Arc<[AtomicU64; 2]>,
    rejected: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct Conditions {
    /// Number of cuts, and the kind of the last one.
    cuts: usize,
    cut: Cut,
    /// Set if new connections are closed immediately. The port still listens: a refused connection would
    /// mean that the host has ended.
    down: bool,
    /// Limit of the bytes forwarded in each direction.
    bounds: [u64; 2],
}

impl Proxy {
    /// Starts a proxy in front of a host.
    pub(crate) fn before(site: &TestHost) -> Self {
        let port = bound(LOOPBACK);
        let address = port.local_addr().unwrap();
        let conditions = Conditions { cuts: 0, cut: Cut::Finish, down: false, bounds: [u64::MAX; 2] };
        let forwarder = Forwarder {
            to: site.address(),
            conditions: watch::Sender::new(conditions),
            passed: Arc::default(),
            rejected: Arc::default(),
        };
        let serving = RefCell::new(Some(forwarder.open(address)));
        Self { address, forwarder, serving, _port: port }
    }

    /// Starts two hosts: one dials the other through a proxy, and the other has no address of the first.
    pub(crate) async fn between(limits: Limits) -> (Pair, Self) {
        let plan = || Plan { limits: limits.clone(), ..Plan::default() };
        let (here, there) = (plan().start().await, plan().start().await);
        let proxy = Self::before(&there);
        proxy.introduce(&there, &here);
        (Pair { here, there }, proxy)
    }

    /// Gives a host the proxy's address for the host behind it.
    pub(crate) fn introduce(&self, behind: &TestHost, to: &TestHost) {
        to.host.add_peer(behind.identity(), self.address);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self, cut: Cut) {
        self.forwarder.conditions.send_modify(|conditions| {
            // A counter instead of a flag: a connection that is opened after the cut must not see it.
            *conditions = Conditions { cuts: conditions.cuts + 1, cut, ..*conditions }
        });
    }

    /// Cuts all connections, and closes new ones immediately until [`heal`](Self::heal).
    pub(crate) fn go_down(&self, cut: Cut) {
        self.forwarder.conditions.send_modify(|conditions| conditions.down = true);
        self.cut(cut);
    }

    /// Drops all connections, and refuses new ones until [`heal`](Self::heal).
    pub(crate) fn refuse(&self) {
        // The listener closes with its task, and the kernel then refuses connections.
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    /// Stops forwarding in one direction, including the ends of connections.
    pub(crate) fn hold(&self, direction: Direction) {
        self.let_through(direction, 0);
    }

    /// Allows `bytes` more bytes than those forwarded by now.
    pub(crate) fn let_through(&self, direction: Direction, bytes: u64) {
        let bound = self.passed(direction) + bytes;
        self.forwarder.conditions.send_modify(|conditions| conditions.bounds[direction as usize] = bound);
    }

    /// Accepts new connections and removes all limits.
    pub(crate) fn heal(&self) {
        self.forwarder.conditions.send_modify(|conditions| {
            conditions.down = false;
            conditions.bounds = [u64::MAX; 2];
        });
        // A proxy that was not refusing keeps its listener and its connections.
        self.serving.borrow_mut().get_or_insert_with(|| self.forwarder.open(self.address));
    }

    /// Returns the number of bytes forwarded.
    pub(crate) fn passed(&self, direction: Direction) -> u64 {
        self.forwarder.passed[direction as usize].load(Ordering::SeqCst)
    }

    /// Returns the number of connections closed immediately.
    pub(crate) fn rejected(&self) -> usize {
        self.forwarder.rejected.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

/// Creates a socket with a small kernel buffer, so that hosts soon notice stopped bytes.
fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER_BYTES).unwrap();
    socket
}

/// Creates a bound socket, which refuses connections until it listens.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = socket();
    // The listener binds the port again next to the socket that reserves it.
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl Forwarder {
    fn open(&self, address: SocketAddr) -> AbortHandle {
        let listener = bound(address).listen(1024).unwrap();
        actix_rt::spawn(self.clone().serve(listener)).abort_handle()
    }

    async fn serve(self, listener: TcpListener) {
        // Dropping the set with this task drops the connections as well.
        let mut connections = JoinSet::new();
        loop {
            let (inner, _) = listener.accept().await.unwrap();
            // Ended connections would stay in the set otherwise.
            while connections.try_join_next().is_some() {}
            if self.conditions.borrow().down {
                self.rejected.fetch_add(1, Ordering::SeqCst);
            } else {
                connections.spawn(self.clone().carry(inner, self.conditions.subscribe()));
            }
        }
    }

    async fn carry(self, mut inner: TcpStream, mut conditions: watch::Receiver<Conditions>) {
        // Read before the dial, so that a cut during the dial counts.
        let cuts = conditions.borrow_and_update().cuts;
        let Ok(mut far) = socket().connect(self.to).await else { return };
        for stream in [&inner, &far] {
            // Nagle's algorithm would delay small frames.
            stream.set_nodelay(true).unwrap();
        }
        let cut = {
            let ((inner_read, inner_write), (far_read, far_write)) = (inner.split(), far.split());
            let forth = self.pass(Direction::Forth, inner_read, far_write);
            let back = self.pass(Direction::Back, far_read, inner_write);
            tokio::select! {
                // A cut comes before the end of the forwarding, or an end could hide it.
                biased;
                conditions = conditions.wait_for(|conditions| conditions.cuts > cuts) => conditions.unwrap().cut,
                ((), ()) = join(forth, back) => return,
            }
        };
        for stream in [&mut inner, &mut far] {
            // An error means that the stream is broken already.
            let _ = match cut {
                // Without lingering, the drop of the stream sends a reset.
                Cut::Reset => stream.set_zero_linger(),
                Cut::Finish => stream.shutdown().await,
            };
        }
    }

    /// Forwards bytes up to the limit, and then the end of the stream.
    async fn pass(
        &self,
        direction: Direction,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut conditions = self.conditions.subscribe();
        let passed = &self.passed[direction as usize];
        let mut buffer = vec![0; BUFFER_BYTES as usize];
        loop {
            // An error ends the stream like its end.
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let mut rest = &buffer[..count];
            loop {
                let bound = |conditions: &Conditions| conditions.bounds[direction as usize];
                let open = |conditions: &Conditions| bound(conditions) > passed.load(Ordering::SeqCst);
                let bound = bound(&conditions.wait_for(open).await.unwrap());
                let allowed = bound - passed.load(Ordering::SeqCst);
                let (part, later) = rest.split_at(rest.len().min(allowed.try_into().unwrap_or(usize::MAX)));
                // The end of a stream waits for the limit, too: a stopped network would not deliver it.
                if count == 0 || to.write_all(part).await.is_err() {
                    // An error means that the other end is broken already.
                    let _ = to.shutdown().await;
                    return;
                }
                passed.fetch_add(part.len() as u64, Ordering::SeqCst);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
}

/// Returns the number of links that a host has had to another.
pub(crate) fn links(from: &TestHost, to: &TestHost) -> u64 {
    let peers = from.host.snapshot().peers;
    peers.iter().find(|peer| peer.identity == to.identity()).map_or(0, |peer| peer.links)
}
