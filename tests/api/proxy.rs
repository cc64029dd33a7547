//! A way between two hosts that breaks, stands still, and is slow, when a test wants it.

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

/// How much of each direction of a connection it takes at once.
const BUFFER_BYTES: u32 = 16 << 10;

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// As by a host that crashes: both ends are told of an error.
    Reset,
    /// As by a host that closes: both ends come to the end of what they read.
    Finish,
}

/// From the side that dials, or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forth,
    Back,
}

/// Listens in front of a host, and passes on what comes; it ends when it is dropped.
///
/// It has one bound for each direction of all its connections: bytes beyond it wait here.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Way,
    /// Listens, unless it refuses.
    serving: RefCell<Option<AbortHandle>>,
    /// Is bound all the time, so that the port stays taken.
    _port: TcpSocket,
}

#[derive(Clone)]
struct Way {
    to: SocketAddr,
    weather: watch::Sender<Weather>,
    passed: Arc<[AtomicU64; 2]>,
    turned_away: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct Weather {
    /// How often the connections were cut, and how they were the last time.
    cuts: usize,
    cut: Cut,
    /// Whether new connections are closed at once. The port stays: a refusal would say that the host
    /// is gone.
    down: bool,
    /// How many bytes may have passed in each direction.
    bounds: [u64; 2],
}

impl Proxy {
    /// In front of a host.
    pub(crate) fn before(site: &TestHost) -> Self {
        let port = bound(LOOPBACK);
        let address = port.local_addr().unwrap();
        let weather = Weather { cuts: 0, cut: Cut::Finish, down: false, bounds: [u64::MAX; 2] };
        let way = Way {
            to: site.address(),
            weather: watch::Sender::new(weather),
            passed: Arc::default(),
            turned_away: Arc::default(),
        };
        let serving = RefCell::new(Some(way.open(address)));
        Self { address, way, serving, _port: port }
    }

    /// Two hosts of which the one dials the other through a proxy, and the other listens for nobody
    /// that it knows.
    pub(crate) async fn between(limits: Limits) -> (Pair, Self) {
        let plan = || Plan { limits: limits.clone(), ..Plan::default() };
        let (here, there) = (plan().start().await, plan().start().await);
        let proxy = Self::before(&there);
        proxy.introduce(&there, &here);
        (Pair { here, there }, proxy)
    }

    /// Lets a host dial the one behind, by way of the proxy.
    pub(crate) fn introduce(&self, behind: &TestHost, to: &TestHost) {
        to.host.add_peer(behind.identity(), self.address);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self, cut: Cut) {
        self.way
            .weather
            .send_modify(|weather| *weather = Weather { cuts: weather.cuts + 1, cut, ..*weather });
    }

    /// Cuts all connections, and closes new ones at once until it is healed.
    pub(crate) fn go_down(&self, cut: Cut) {
        self.way.weather.send_modify(|weather| weather.down = true);
        self.cut(cut);
    }

    /// Drops all connections, and refuses new ones until it is healed.
    pub(crate) fn refuse(&self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    /// Holds what goes in that direction, ends of connections too.
    pub(crate) fn hold(&self, direction: Direction) {
        self.let_through(direction, 0);
    }

    /// Lets so many bytes more through of what it holds, from those on that have passed by now.
    pub(crate) fn let_through(&self, direction: Direction, bytes: u64) {
        let bound = self.passed(direction) + bytes;
        self.way.weather.send_modify(|weather| weather.bounds[direction as usize] = bound);
    }

    /// Takes new connections, and holds nothing any more.
    pub(crate) fn heal(&self) {
        self.way.weather.send_modify(|weather| {
            weather.down = false;
            weather.bounds = [u64::MAX; 2];
        });
        self.serving.borrow_mut().get_or_insert_with(|| self.way.open(self.address));
    }

    /// How many bytes have gone through.
    pub(crate) fn passed(&self, direction: Direction) -> u64 {
        self.way.passed[direction as usize].load(Ordering::SeqCst)
    }

    /// How many connections were closed at once.
    pub(crate) fn turned_away(&self) -> usize {
        self.way.turned_away.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

/// One for which the kernel takes little, so that hosts soon notice when bytes are held.
fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER_BYTES).unwrap();
    socket
}

/// One that is bound, and refuses connections until it listens.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = socket();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl Way {
    fn open(&self, address: SocketAddr) -> AbortHandle {
        let listener = bound(address).listen(1024).unwrap();
        actix_rt::spawn(self.clone().serve(listener)).abort_handle()
    }

    async fn serve(self, listener: TcpListener) {
        // Dropped with this task, it takes the connections along.
        let mut carried = JoinSet::new();
        loop {
            let (near, _) = listener.accept().await.unwrap();
            while carried.try_join_next().is_some() {}
            if self.weather.borrow().down {
                self.turned_away.fetch_add(1, Ordering::SeqCst);
            } else {
                carried.spawn(self.clone().carry(near, self.weather.subscribe()));
            }
        }
    }

    async fn carry(self, mut near: TcpStream, mut weather: watch::Receiver<Weather>) {
        let cuts = weather.borrow_and_update().cuts;
        let Ok(mut far) = socket().connect(self.to).await else { return };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let cut = {
            let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
            let forth = self.pass(Direction::Forth, near_read, far_write);
            let back = self.pass(Direction::Back, far_read, near_write);
            tokio::select! {
                biased;
                weather = weather.wait_for(|weather| weather.cuts > cuts) => weather.unwrap().cut,
                ((), ()) = join(forth, back) => return,
            }
        };
        for stream in [&mut near, &mut far] {
            // A stream that has broken already cannot be cut.
            let _ = match cut {
                Cut::Reset => stream.set_zero_linger(),
                Cut::Finish => stream.shutdown().await,
            };
        }
    }

    /// Passes bytes on, as far as they may, and the end of them.
    async fn pass(
        &self,
        direction: Direction,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut weather = self.weather.subscribe();
        let passed = &self.passed[direction as usize];
        let mut buffer = vec![0; BUFFER_BYTES as usize];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let mut rest = &buffer[..count];
            loop {
                let bound = |weather: &Weather| weather.bounds[direction as usize];
                let open = |weather: &Weather| bound(weather) > passed.load(Ordering::SeqCst);
                let bound = bound(&weather.wait_for(open).await.unwrap());
                let allowed = bound - passed.load(Ordering::SeqCst);
                let (part, later) = rest.split_at(rest.len().min(allowed.try_into().unwrap_or(usize::MAX)));
                if count == 0 || to.write_all(part).await.is_err() {
                    // An end that has broken hears of no other.
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

/// How many links the first host has had to the second.
pub(crate) fn links(from: &TestHost, to: &TestHost) -> u64 {
    let peers = from.host.snapshot().peers;
    peers.iter().find(|peer| peer.identity == to.identity()).map_or(0, |peer| peer.links)
}
