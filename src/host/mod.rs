//! The part of a process that keeps its actors reachable and speaks the protocol.
//!
//! A [`Host`] is a value: a process may have several (a worker has one for actors and one for
//! tasks), and a test may have many. It owns the table of reachable actors, the table of peers,
//! and the tasks that serve links; it dispatches what comes in, and connects on demand, with one
//! link and its pulse for each pair of hosts. What a call to the host itself does (spawning,
//! stopping, tasks) is given to it from above as a [`HostServices`].
//!
//! Invariants: one session a peer, whatever becomes of its links; user code never runs under a
//! peer's lock; an address is dialled only if the cluster introduced it.

mod actors;
pub(crate) mod blocked;
mod config;
mod connect;
pub(crate) mod decode_context;
pub(crate) mod error;
mod executor;
mod heartbeat;
mod link_driver;
mod loopback;
pub(crate) mod peer;
mod peers;
pub(crate) mod placement;
mod receive;
pub(crate) mod unauthenticated;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use actix::Addr;
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{
    CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, GOODBYE_TIMEOUT, HANDSHAKE_FRAME_BYTES_MAX, HEARTBEAT_INTERVAL_MAX,
    Limits, WINDOW_BYTES_MIN,
};
use crate::id::{ActorId, HostId, HostUid, Incarnation, Target, TypeHash};
use crate::observe::{HostSnapshot, log};
use crate::registry::{
    self, Deliver, ErasedMailbox, HostContext, Inbound, MessageBatch, Registry, RemoteActor, ReplyPath, STOP,
    panics,
};

use crate::session::{DisconnectReason, Secret};
use crate::transport::{Role, Transport};
use crate::wire::{CallFailure, Encoded};

pub use config::{HostConfig, HostError, HostServices};
pub use error::{NotDelivered, OutcomeUnknown, SendError};
pub use executor::{Executor, LocalExecutor, Spawning};
pub use peer::Peer;
#[doc(hidden)]
pub use peer::{ReceivePath, SlotId};
pub use placement::{
    Assignment, HostStatusFuture, LifecycleObserver, LookupFuture, Placement, PlacementError,
    PlacementResult, TaskSlot,
};
#[doc(hidden)]
pub use receive::InboundSink;

use actors::Actors;
use loopback::Loopback;
use peers::Peers;
use unauthenticated::RejectionLog;

/// A running host. Clones are the same host.
///
/// It runs until [`Host::shutdown`] or [`Host::abort`]; actors that hold addresses keep it alive.
#[derive(Clone)]
pub struct Host {
    pub(crate) shared: Arc<Shared>,
}

/// What the clones of a host share with its tasks.
pub(crate) struct Shared {
    identity: HostUid,
    secret: Secret,
    limits: Limits,
    transport: Arc<dyn Transport>,
    address: Option<SocketAddr>,
    io: Handle,
    executor: Executor,
    /// The thread that serves the links, if it is always the same.
    thread: Arc<OnceLock<ThreadId>>,
    calls: HostServices,
    registry: Registry,
    actors: Actors,
    peers: Peers,
    placement: OnceLock<Arc<dyn Placement>>,
    lifecycle: OnceLock<Arc<dyn LifecycleObserver>>,
    dead_letters: AtomicU64,
    refusals: RejectionLog,
    /// Whether the host shuts down, and takes up with nobody new.
    draining: AtomicBool,
    /// Cancelled when the host takes no further links.
    closed: CancellationToken,
    /// What the actors here decode their messages in.
    actor_context: Arc<dyn HostContext>,
}

impl Host {
    /// Starts a host.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the executable's types collide, or the address cannot be bound.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing bound.
    pub async fn start(config: HostConfig) -> Result<Self, HostError> {
        panics::install_hook();
        let registry = Registry::collect()?;
        let listener = match config.listen {
            None => None,
            Some(address) => Some(Self::listen(&config, address).await?),
        };
        let heartbeat_every = config.limits.heartbeat_interval.min(HEARTBEAT_INTERVAL_MAX);
        let shared = Arc::new_cyclic(|shared| Shared {
            identity: config.identity,
            secret: config.secret,
            limits: Limits {
                // A frame announces its length in 32 bits, and the handshake's frames must fit.
                frame_bytes_max: config
                    .limits
                    .frame_bytes_max
                    .clamp(HANDSHAKE_FRAME_BYTES_MAX, u32::MAX as usize),
                window_bytes: config.limits.window_bytes.max(WINDOW_BYTES_MIN),
                chunk_bytes: config.limits.chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
                heartbeat_interval: heartbeat_every,
                // A link is not to be given up before the second heartbeat could have come.
                heartbeat_timeout: config
                    .limits
                    .heartbeat_timeout
                    .clamp(2 * heartbeat_every, 2 * HEARTBEAT_INTERVAL_MAX),
                ..config.limits
            },
            transport: config.transport,
            address: listener.as_ref().map(|listener| listener.address()),
            io: config.io,
            thread: config.executor.thread(),
            executor: config.executor,
            calls: config.services,
            registry,
            actors: Actors::default(),
            peers: Peers::default(),
            placement: OnceLock::new(),
            lifecycle: OnceLock::new(),
            dead_letters: AtomicU64::new(0),
            refusals: RejectionLog::default(),
            draining: AtomicBool::new(false),
            closed: CancellationToken::new(),
            actor_context: Arc::new(decode_context::WeakHostContext(Weak::clone(shared))),
        });
        if let Some(listener) = listener {
            let (host, closing) = (Arc::downgrade(&shared), shared.closed.clone());
            shared.io.spawn(connect::accept(host, closing, shared.limits.handshakes_open_max, listener));
        }
        Ok(Self { shared })
    }

    /// Binds on the I/O thread, whose reactor the listener belongs to.
    async fn listen(
        config: &HostConfig,
        address: SocketAddr,
    ) -> Result<Box<dyn crate::transport::Listener>, HostError> {
        let transport = Arc::clone(&config.transport);
        let bound = config.io.spawn(async move { transport.listen(address).await }).await;
        bound
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
            .map_err(|source| HostError::Listen { address, source })
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> HostUid {
        self.shared.identity
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.address
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Notes on good evidence that a host has ended: what is open to it fails now, with `cause`, also what waits
    /// at addresses of one that was forgotten.
    pub fn mark_peer_down(&self, identity: HostUid, cause: &str) {
        if let Some(peer) = self.shared.peers.held(identity) {
            peer.close(DisconnectReason::HostDown(cause.to_owned()));
        }
    }

    /// Gives up the link to a host and dials it anew, on evidence that the host is there and the link is not:
    /// TCP would notice late, after its next retransmission. Nothing is lost, the session goes on.
    pub fn redial(&self, identity: HostUid) {
        if let Ok(peer) = self.peer(identity) {
            peer.redial();
        }
    }

    /// What another host is, by the certificate of the link that it has now or had last; `None` if it had
    /// none, or the link was one without certificates.
    #[must_use]
    pub fn role_of(&self, identity: HostUid) -> Option<Role> {
        self.peer(identity).ok()?.role()
    }

    /// Whether the certificate of the link that another host has now, or had last, has this name; `None` if
    /// there is no certificate.
    #[must_use]
    pub fn is_certified(&self, identity: HostUid, name: &str) -> Option<bool> {
        self.peer(identity).ok()?.is_certified(name)
    }

    /// Says where new actors and tasks go; the first word stands.
    pub fn set_placement(&self, placement: Arc<dyn Placement>) {
        // A host belongs to one cluster for life.
        let _ = self.shared.placement.set(placement);
    }

    /// Where new actors and tasks go, once the cluster has said so.
    #[must_use]
    pub fn placement(&self) -> Option<Arc<dyn Placement>> {
        self.shared.placement.get().cloned()
    }

    /// Says who hears of the lives of actors; the first word stands.
    pub fn set_lifecycle_observer(&self, lives: Arc<dyn LifecycleObserver>) {
        // As for the placement.
        let _ = self.shared.lifecycle.set(lives);
    }

    /// What can be seen of it now.
    #[must_use]
    pub fn snapshot(&self) -> HostSnapshot {
        HostSnapshot {
            identity: self.shared.identity,
            actors: self.shared.actors.len(),
            dead_letters: self.shared.dead_letters.load(Ordering::Relaxed),
            peers: self.shared.peers.all().iter().map(|peer| peer.snapshot()).collect(),
        }
    }

    /// Ends the host: takes nothing new, lets open calls end and queued bytes leave within
    /// [`Limits::drain_timeout`], says goodbye to its peers, and drops its actors.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the host taking nothing new; [`Host::abort`] ends it.
    pub async fn shutdown(&self, reason: &str) {
        self.shared.draining.store(true, Ordering::Relaxed);
        let peers = self.shared.peers.all();
        for peer in &peers {
            peer.drain(reason);
        }
        let farewells = join_all(peers.iter().map(|peer| async {
            peer.drained().await;
            peer.send_goodbye(reason).await;
        }));
        if timeout(self.shared.limits.drain_timeout, farewells).await.is_err() {
            log::warn!("calls were still open when the host shut down; they fail as outcome unknown");
            let goodbyes = join_all(peers.iter().map(|peer| peer.send_goodbye(reason)));
            // Whoever does not take it sees the link end.
            let _ = timeout(GOODBYE_TIMEOUT, goodbyes).await;
        }
        self.abort();
    }

    /// Ends the host at once: open calls fail, links break, actors are dropped.
    pub fn abort(&self) {
        self.shared.closed.cancel();
        for peer in self.shared.peers.all_held() {
            peer.close(DisconnectReason::Shutdown);
        }
        self.shared.actors.clear();
    }
}

/// What the layers above build on.
impl Host {
    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    pub(crate) fn actors(&self) -> &Actors {
        &self.shared.actors
    }

    /// Makes an actor reachable under a reserved id.
    pub(crate) fn register_actor<A: RemoteActor>(&self, target: Target, addr: Addr<A>) {
        self.shared.actors.insert(target, addr, Arc::clone(&self.shared.actor_context));
    }

    /// This host as the origin of a message to itself.
    pub(crate) fn as_reply_path(&self) -> Arc<dyn ReplyPath> {
        Arc::clone(&self.shared) as _
    }

    /// The peer that an address means.
    pub(crate) fn peer(&self, identity: HostUid) -> Result<Arc<Peer>, NotDelivered> {
        match self.shared.peers.get(identity.host) {
            None => Err(NotDelivered::UnknownHost { host: identity }),
            Some(peer) if peer.identity() == identity => Ok(peer),
            Some(_) => Err(NotDelivered::StaleHost { host: identity }),
        }
    }

    /// Hands a message that came in to its actor, or to the host's own services.
    pub(crate) fn deliver(&self, target: Target, message: TypeHash, inbound: Inbound) {
        match self.find(target, message) {
            Ok(Some(to)) => to.deliver(inbound.into()),
            Ok(None) => (self.shared.calls)(self, message, inbound),
            Err(failure) => inbound.fail(&failure),
        }
    }

    /// The actor that takes such a message; `None` for the host's own services.
    fn find(&self, target: Target, message: TypeHash) -> Result<Option<Destination>, CallFailure> {
        if matches!(target.actor, ActorId::HOST | ActorId::TASKS) {
            return Ok(None);
        }
        let mailbox = self.shared.actors.find(target)?;
        let Some(handler) = self.shared.registry.handler(mailbox.kind(), message) else {
            if message == STOP {
                return Ok(Some(Destination { mailbox, deliver: registry::stop }));
            }
            let message = self.shared.registry.name_of(message);
            return Err(CallFailure::NotHandled { actor: mailbox.name().to_owned(), message });
        };
        Ok(Some(Destination { mailbox, deliver: handler.deliver }))
    }

    /// The runtime that runs no handler.
    pub(crate) fn io(&self) -> &Handle {
        &self.shared.io
    }

    /// Who hears of the lives of actors, if anybody.
    pub(crate) fn lives(&self) -> Option<&Arc<dyn LifecycleObserver>> {
        self.shared.lifecycle.get()
    }

    pub(crate) fn count_dead_letter(&self) {
        self.shared.count_dead_letters(1);
    }

    /// Runs a future on the thread that serves this host's links.
    pub(crate) fn execute(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.shared.executor.spawn(future);
    }

    /// Calls one of this host's own services, on the thread that serves its links.
    pub(crate) fn call_self(
        &self,
        service: TypeHash,
        deadline: Option<Instant>,
        body: Encoded<'_>,
    ) -> Loopback {
        let (inbound, answer) =
            Loopback::new(self.shared.identity, self.shared.limits.frame_bytes_max, deadline, body);
        let host = self.clone();
        // Where the executor has ended the call is dropped, and that answers it.
        self.execute(async move {
            decode_context::within(&host, || host.deliver(Target::HOST, service, inbound));
        });
        answer
    }
}

impl Shared {
    fn count_dead_letters(&self, count: u64) {
        self.dead_letters.fetch_add(count, Ordering::Relaxed);
    }
}

/// Where a message goes: the actor, and how one of its type is put into the actor's mailbox.
struct Destination {
    mailbox: Arc<dyn ErasedMailbox>,
    deliver: Deliver,
}

impl Destination {
    fn deliver(&self, run: MessageBatch) {
        (self.deliver)(&*self.mailbox, run);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("identity", &self.shared.identity)
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Host {}

/// An identity for a host that nobody has given one: random, and alive since now.
#[must_use]
pub fn fresh_identity() -> HostUid {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    HostUid { host: HostId(random_u64()), incarnation: Incarnation(micros) }
}

pub(crate) fn random_u64() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}

fn random_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).expect("the operating system gives random numbers");
    nonce
}

/// The moment that is so far from now.
pub(crate) fn deadline_in(timeout: Duration) -> Option<Instant> {
    tokio::time::Instant::now().into_std().checked_add(timeout)
}
