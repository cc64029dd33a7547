//! In-memory network: the behaviour of [`Tcp`](super::Tcp), with faults determined by a seed.
//!
//! It owns the addresses, the links and the faults. `pipe` is the connection between two ends,
//! `link` is one end. No task and no thread runs here: data arrives when a reader is polled.

mod link;
mod pipe;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::{BoxFuture, Incoming, Link, Listener, Transport};
use crate::config::MEMORY_BACKLOG_MAX;
use crate::id::HostUid;
use link::{MemoryLink, pair};
use pipe::Pipe;
use random::SplitMix64;

/// Ephemeral ports of the network.
const FREE_PORTS: RangeInclusive<u16> = 49_152..=u16::MAX;

/// In-memory network as seen from one of its addresses. Clones share the network.
///
/// The twin of [`Tcp`](super::Tcp): links carry the same bytes, in order and with back-pressure,
/// and pass nothing by reference. Each write of each direction takes a random time out of
/// [`Memory::latency`]. So links overtake each other, but nothing is reordered within one. Time is
/// tokio's: it may be paused, and then no fault costs real time. All users of a network must share
/// one clock.
///
/// A host is identified by its IP address, as a machine is by others: [`Memory::at`]. A dial comes
/// from that address and an ephemeral port. A fault affects the links between two such addresses,
/// in whichever direction they were dialled.
///
/// Not modelled: the loss of single packets, ACKs (a one-way partition does not stop the other
/// direction), and the timeout of a silent connection.
///
/// # Examples
///
/// ```
/// use std::net::Ipv4Addr;
/// use std::time::Duration;
/// use roadshow::{Cluster, InProcess, Memory};
///
/// #[roadshow::task]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// # #[roadshow::main]
/// # async fn main() -> Result<(), roadshow::Error> {
/// let network = Memory::new(7);
/// let workers = InProcess::Memory(network.clone());
/// let cluster = Cluster::builder().workers(1).in_process(workers).start().await?;
/// network.latency(Duration::from_millis(1)..=Duration::from_millis(5));
/// network.cut(Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
/// // The link is restored, and nothing is lost.
/// assert_eq!(cluster.run(square::task(7)).await?, 49);
/// cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Memory {
    network: Arc<Network>,
    source: IpAddr,
}

struct Network {
    state: Mutex<NetworkState>,
    /// Notified when a partition ends, for the dials that wait for it.
    partition_healed: Notify,
}

struct NetworkState {
    rng: SplitMix64,
    latency: RangeInclusive<Duration>,
    listeners: BTreeMap<SocketAddr, mpsc::Sender<MemoryLink>>,
    last_port: u16,
    links: Vec<Weak<Pipe>>,
    /// Partitioned directions: source and destination.
    partitioned: BTreeSet<(IpAddr, IpAddr)>,
    refusing: BTreeSet<SocketAddr>,
}

impl Memory {
    /// Creates a network without latency and faults, as seen from 127.0.0.1.
    ///
    /// Later latencies follow from `seed` and from the order in which links are established.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = NetworkState {
            rng: SplitMix64::new(seed),
            latency: Duration::ZERO..=Duration::ZERO,
            listeners: BTreeMap::new(),
            last_port: *FREE_PORTS.end(),
            links: Vec::new(),
            partitioned: BTreeSet::new(),
            refusing: BTreeSet::new(),
        };
        let network = Network { state: Mutex::new(state), partition_healed: Notify::new() };
        Self { network: Arc::new(network), source: Ipv4Addr::LOCALHOST.into() }
    }

    /// Returns the network as seen from a host at `address`, from which its dials come.
    #[must_use]
    pub fn at(&self, address: impl Into<IpAddr>) -> Self {
        Self { source: address.into(), ..self.clone() }
    }

    /// Sets the latency of data, dials and closes, for all links from now on.
    ///
    /// Timers of tokio have a resolution of a millisecond: an arrival within one is seen at its
    /// end.
    pub fn latency(&self, range: RangeInclusive<Duration>) {
        let mut state = self.network.lock();
        state.links().iter().for_each(|link| link.set_latency(&range));
        state.latency = range;
    }

    /// Resets the links between two addresses, at both ends immediately. Returns their number.
    ///
    /// Data in flight is lost. New links can be established.
    pub fn cut(&self, one: impl Into<IpAddr>, other: impl Into<IpAddr>) -> usize {
        let (one, other) = (one.into(), other.into());
        let links = self.network.lock().links();
        let between = links.iter().filter(|link| {
            let [from, to] = link.ends.map(|end| end.ip());
            (from, to) == (one, other) || (from, to) == (other, one)
        });
        between.inspect(|link| link.cut()).count()
    }

    /// Blocks everything that is sent from one address to the other; the reverse direction stays
    /// open.
    ///
    /// Data waits, as in a network that retransmits. Links do not end. New dials wait in either
    /// direction, since they need a reply.
    pub fn partition(&self, from: impl Into<IpAddr>, to: impl Into<IpAddr>) {
        let direction = (from.into(), to.into());
        self.network.set_partitioned(|partitioned| {
            partitioned.insert(direction);
        });
    }

    /// Ends the partitions between two addresses: blocked data arrives, in order.
    pub fn heal(&self, one: impl Into<IpAddr>, other: impl Into<IpAddr>) {
        let (one, other) = (one.into(), other.into());
        self.network.set_partitioned(|partitioned| {
            partitioned.retain(|&direction| direction != (one, other) && direction != (other, one))
        });
    }

    /// Refuses connections to an address, whether it has a listener or not.
    pub fn refuse(&self, address: SocketAddr) {
        self.network.lock().refusing.insert(address);
    }

    /// Ends all partitions and refusals.
    pub fn heal_all(&self) {
        self.network.lock().refusing.clear();
        self.network.set_partitioned(BTreeSet::clear);
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<MemoryLink> {
        let (here, there) = (self.source, address.ip());
        self.network.deliver_after_latency(here, there).await;
        // A dial takes a round trip, also one that is refused.
        let connected = self.connect_to(address).await;
        self.network.deliver_after_latency(there, here).await;
        connected
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<MemoryLink> {
        let refused = || io::Error::from(ErrorKind::ConnectionRefused);
        let backlog = self.network.lock().backlog(address).ok_or_else(refused)?;
        // A full backlog delays the dialler, as that of a socket does.
        let place = backlog.reserve().await.map_err(|_| refused())?;
        let [dialer, listener] = self.network.lock().connect(self.source, address)?;
        place.send(listener);
        Ok(dialer)
    }
}

impl Transport for Memory {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (backlog, incoming) = mpsc::channel(MEMORY_BACKLOG_MAX);
            let address = self.network.lock().bind(address, backlog)?;
            let network = Arc::clone(&self.network);
            Ok(Box::new(MemoryListener { network, address, incoming }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: SocketAddr, _to: HostUid) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move { Ok(Box::new(self.dial(address).await?) as Box<dyn Link>) })
    }

    fn refusal_means_host_down(&self, address: SocketAddr) -> bool {
        address.ip().is_loopback()
    }
}

impl Network {
    /// Waits for the latency of one direction, and for the end of a partition of it.
    async fn deliver_after_latency(&self, from: IpAddr, to: IpAddr) {
        let latency = self.lock().next_random();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        loop {
            // Registered before the check: a partition that ends between the two would be missed
            // otherwise.
            let mut healed = pin!(self.partition_healed.notified());
            healed.as_mut().enable();
            if !self.lock().partitioned.contains(&(from, to)) {
                return;
            }
            healed.await;
        }
    }

    /// Changes the partitions, for present and future links.
    fn set_partitioned(&self, change: impl FnOnce(&mut BTreeSet<(IpAddr, IpAddr)>)) {
        let mut state = self.lock();
        change(&mut state.partitioned);
        for link in state.links() {
            link.set_blocked(state.is_blocked(link.ends));
        }
        // Unlocked first, since the woken dials take the lock again.
        drop(state);
        self.partition_healed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, NetworkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NetworkState {
    fn bind(&mut self, mut address: SocketAddr, backlog: mpsc::Sender<MemoryLink>) -> io::Result<SocketAddr> {
        if address.port() == 0 {
            address.set_port(self.free_port(address.ip())?);
        }
        if self.listeners.contains_key(&address) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.listeners.insert(address, backlog);
        Ok(address)
    }

    /// Returns the next ephemeral port without a listener.
    fn free_port(&mut self, ip: IpAddr) -> io::Result<u16> {
        for _ in FREE_PORTS {
            // Ports are reused as late as possible, so a late dial does not reach a new listener by
            // accident.
            self.last_port = self.last_port.checked_add(1).unwrap_or(*FREE_PORTS.start());
            if !self.listeners.contains_key(&SocketAddr::new(ip, self.last_port)) {
                return Ok(self.last_port);
            }
        }
        Err(ErrorKind::AddrInUse.into())
    }

    fn backlog(&self, address: SocketAddr) -> Option<mpsc::Sender<MemoryLink>> {
        self.listeners.get(&address).filter(|_| !self.refusing.contains(&address)).cloned()
    }

    /// Establishes a link. Returns its ends.
    fn connect(&mut self, source: IpAddr, address: SocketAddr) -> io::Result<[MemoryLink; 2]> {
        let ends = [SocketAddr::new(source, self.free_port(source)?), address];
        let blocked = self.is_blocked(ends);
        let pipe = Arc::new(Pipe::new(ends, &self.latency, &mut self.rng, blocked));
        // Without the sweep the list would grow for the whole run of a simulation.
        self.links.retain(|link| link.strong_count() > 0);
        self.links.push(Arc::downgrade(&pipe));
        Ok(pair(&pipe))
    }

    fn is_blocked(&self, [one, other]: [SocketAddr; 2]) -> [bool; 2] {
        [(one.ip(), other.ip()), (other.ip(), one.ip())]
            .map(|direction| self.partitioned.contains(&direction))
    }

    fn links(&self) -> Vec<Arc<Pipe>> {
        self.links.iter().filter_map(Weak::upgrade).collect()
    }

    fn next_random(&mut self) -> Duration {
        self.rng.duration(&self.latency)
    }
}

struct MemoryListener {
    network: Arc<Network>,
    address: SocketAddr,
    incoming: mpsc::Receiver<MemoryLink>,
}

impl Listener for MemoryListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async move {
            let link = self.incoming.recv().await.ok_or(ErrorKind::ConnectionAborted)?;
            let opening = Box::pin(async move { Ok(Box::new(link) as Box<dyn Link>) });
            Ok(Incoming { source: None, opening })
        })
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.network.lock().listeners.remove(&self.address);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("source", &self.source).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryListener").field("address", &self.address).finish_non_exhaustive()
    }
}
