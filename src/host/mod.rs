//! The part of a process that makes its actors reachable and speaks the protocol.
//!
//! A [`Host`] is a value. A process may have several (a worker has one for actors and one for tasks), and
//! a test may have many. It owns the table of reachable actors, the table of peers, and the tasks that
//! drive links. It dispatches received messages and connects on demand, with one link and its heartbeat
//! connection for each pair of hosts. The layers above supply the host's own services (spawning,
//! stopping, tasks) as a [`HostServices`].
//!
//! Invariants: a peer has one session, whatever happens to its links; user code never runs under a peer's
//! lock, except that a caller's waker is cloned there; the host dials only addresses that the cluster has
//! added.

mod actors;
pub(crate) mod blocked;
mod busy_poll;
mod coalescing;
mod config;
mod connect;
mod deadline;
pub(crate) mod decode_context;
pub(crate) mod entropy;
pub(crate) mod error;
mod executor;
mod heartbeat;
mod leases;
mod link_driver;
mod loopback;
mod memory;
pub(crate) mod peer;
mod peers;
pub(crate) mod placement;
mod receive;
pub(crate) mod routes;
mod traffic;
pub(crate) mod unauthenticated;
mod watches;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use actix::Addr;
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::background;
use crate::config::{
    BUSY_POLL_MAX, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, GOODBYE_TIMEOUT, HANDSHAKE_FRAME_BYTES_MAX,
    HEARTBEAT_INTERVAL_MAX, Limits, WINDOW_BYTES_MIN,
};
use crate::id::{ActorId, HostId, HostUid, Incarnation, Target, TypeHash};
use crate::observe::{HostSnapshot, Traffic, log};
use crate::registry::{
    self, Deliver, ErasedMailbox, HandlerStats, HostContext, Inbound, Lease, MessageBatch, Registry,
    RemoteActor, ReplyPath, STOP, panics,
};

pub(crate) use crate::session::DisconnectReason;
use crate::session::Secret;
use crate::spec::{ActorKey, ActorLocation, LeaseGrant};
use crate::transport::{Role, Transport};
use crate::wire::{Body, CallFailure, MessageBody};

pub use config::{HostConfig, HostError, HostServices};
pub use error::{NotDelivered, OutcomeUnknown, SendError};
pub use executor::{Executor, LocalExecutor, Spawning};
pub use memory::{MemoryReader, MemoryUse};
pub use peer::Peer;
#[doc(hidden)]
pub use peer::{ReceivePath, SlotId};
pub use placement::{
    ActorEnd, Assignment, EndFuture, HostStatus, HostStatusFuture, KillFuture, LifecycleObserver,
    LocateFuture, Located, LookupFuture, NextWorker, PlaceFuture, Placement, PlacementError, PlacementResult,
    PlanFuture, TaskSlot, Watched,
};
#[doc(hidden)]
pub use receive::InboundSink;

pub(crate) use deadline::Deadline;
pub(crate) use entropy::random_u64;
pub(crate) use leases::{Leases, machine_time};

use actors::Actors;
pub(crate) use loopback::Loopback;
use memory::MemoryGuard;
use peers::Peers;
use routes::{Route, Routes};
use traffic::TrafficCounters;
use unauthenticated::RejectionLog;
pub(crate) use watches::{ActorWatch, LinkEntry, NotLinked};

/// A running host. Clones are the same host.
///
/// It runs until [`Host::shutdown`] or [`Host::abort`]; actors that hold addresses keep it alive.
#[derive(Clone)]
pub struct Host {
    pub(crate) shared: Arc<HostShared>,
}

/// State that the clones of a host share with its tasks.
pub(crate) struct HostShared {
    identity: HostUid,
    secret: Secret,
    limits: Limits,
    transport: Arc<dyn Transport>,
    address: Option<SocketAddr>,
    io: Handle,
    executor: Executor,
    /// Thread that drives the links, if there is a single one.
    thread: Arc<OnceLock<ThreadId>>,
    services: HostServices,
    registry: Registry,
    actors: Actors,
    peers: Peers,
    /// Locations of managed actors.
    routes: Routes,
    placement: OnceLock<Arc<dyn Placement>>,
    lifecycle: OnceLock<Arc<dyn LifecycleObserver>>,
    leases: OnceLock<Arc<Leases>>,
    dead_letters: AtomicU64,
    /// Shared with the peers, whose links add to it.
    traffic: Arc<TrafficCounters>,
    rejections: RejectionLog,
    memory: MemoryGuard,
    /// Set once the host shuts down; it accepts no new peers then.
    draining: CancellationToken,
    /// Cancelled when the host accepts no further links.
    closed: CancellationToken,
    /// Context in which the actors of this host decode their messages.
    actor_context: Arc<dyn HostContext>,
}

impl Host {
    /// Starts a host.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the executable's types collide, or if the address cannot be bound.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing bound.
    pub async fn start(config: HostConfig) -> Result<Self, HostError> {
        // Before any actor runs: the calls of an actor that panics take its text from the hook.
        panics::install_hook();
        let registry = Registry::collect()?;
        let listener = match config.listen {
            None => None,
            Some(address) => Some(Self::listen(&config, address).await?),
        };
        let heartbeat_interval = config.limits.heartbeat_interval.min(HEARTBEAT_INTERVAL_MAX);
        // Cyclic, since the context of the actors refers back to the host. The reference is weak: the
        // host owns the actors.
        let shared = Arc::new_cyclic(|shared| HostShared {
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
                heartbeat_interval,
                // Shorter than two intervals, the timeout would expire before the second heartbeat.
                heartbeat_timeout: config
                    .limits
                    .heartbeat_timeout
                    .clamp(2 * heartbeat_interval, 2 * HEARTBEAT_INTERVAL_MAX),
                busy_poll: config.limits.busy_poll.min(BUSY_POLL_MAX),
                ..config.limits
            },
            transport: config.transport,
            address: listener.as_ref().map(|listener| listener.address()),
            io: config.io,
            thread: config.executor.thread(),
            executor: config.executor,
            services: config.services,
            registry,
            actors: Actors::default(),
            peers: Peers::default(),
            routes: Routes::default(),
            placement: OnceLock::new(),
            lifecycle: OnceLock::new(),
            leases: OnceLock::new(),
            dead_letters: AtomicU64::new(0),
            traffic: Arc::default(),
            rejections: RejectionLog::default(),
            memory: MemoryGuard::new(config.identity, config.limits.memory_percent_max, Instant::now()),
            draining: CancellationToken::new(),
            closed: CancellationToken::new(),
            actor_context: Arc::new(decode_context::WeakHostContext(Weak::clone(shared))),
        });
        if let Some(listener) = listener {
            // A strong reference in the accept loop would keep a dropped host alive.
            let (host, closing) = (Arc::downgrade(&shared), shared.closed.clone());
            background::spawn_on(
                &shared.io,
                connect::accept(host, closing, shared.limits.handshakes_open_max, listener),
            );
        }
        Ok(Self { shared })
    }

    /// Binds the listener on the I/O thread, whose reactor it belongs to.
    async fn listen(
        config: &HostConfig,
        address: SocketAddr,
    ) -> Result<Box<dyn crate::transport::Listener>, HostError> {
        let transport = Arc::clone(&config.transport);
        let bound = background::spawn_on(&config.io, async move { transport.listen(address).await }).await;
        bound
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
            .map_err(|source| HostError::Listen { address, source })
    }

    /// Id and incarnation of the host.
    #[must_use]
    pub fn identity(&self) -> HostUid {
        self.shared.identity
    }

    /// Address of the listener, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.address
    }

    /// Limits of the host, as adjusted at the start.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Marks a host as down on reliable evidence, for the reason `cause`.
    ///
    /// Everything open with it fails now, including messages at addresses of a removed peer.
    pub fn mark_peer_down(&self, identity: HostUid, cause: &str) {
        if let Some(peer) = self.shared.peers.held(identity) {
            peer.close(DisconnectReason::HostDown(cause.to_owned()));
        }
    }

    /// Drops the link to a host and dials immediately, on evidence that the host is up and the link is
    /// dead.
    ///
    /// TCP would notice only after its next retransmission. Nothing is lost, since the session resumes.
    pub fn redial(&self, identity: HostUid) {
        if let Ok(peer) = self.peer(identity) {
            peer.redial();
        }
    }

    /// Role of another host by the certificate of its current or last link; `None` without a certificate.
    #[must_use]
    pub fn role_of(&self, identity: HostUid) -> Option<Role> {
        self.peer(identity).ok()?.role()
    }

    /// True if the certificate of another host's current or last link contains the name; `None` without
    /// one.
    #[must_use]
    pub fn is_certified(&self, identity: HostUid, name: &str) -> Option<bool> {
        self.peer(identity).ok()?.is_certified(name)
    }

    /// Sets the placement of new actors and tasks; a later call has no effect.
    pub fn set_placement(&self, placement: Arc<dyn Placement>) {
        // A host belongs to a single cluster for its lifetime.
        let _ = self.shared.placement.set(placement);
    }

    /// Placement of new actors and tasks, once it is set.
    #[must_use]
    pub fn placement(&self) -> Option<Arc<dyn Placement>> {
        self.shared.placement.get().cloned()
    }

    /// Sets the observer of actors' lifecycles; a later call has no effect.
    pub fn set_lifecycle_observer(&self, observer: Arc<dyn LifecycleObserver>) {
        // A host belongs to a single cluster for its lifetime.
        let _ = self.shared.lifecycle.set(observer);
    }

    /// Sets the function that reads the memory in use; a later call has no effect.
    ///
    /// A host with one refuses new actors and tasks beyond [`Limits::memory_percent_max`].
    pub fn set_memory_reader(&self, reader: MemoryReader) {
        self.shared.memory.set_reader(reader);
    }

    /// Sets the leases of the host's process; a later call has no effect.
    pub(crate) fn set_leases(&self, leases: Arc<Leases>) {
        let _ = self.shared.leases.set(leases);
    }

    /// Records that an incarnation of an exclusive actor is about to be created; false if it was, or a later one.
    pub(crate) fn admit_exclusive(&self, target: Target) -> bool {
        self.shared.leases.get().is_some_and(|leases| leases.admit(target))
    }

    /// Lease of a grant; `None` if it is over, or earlier than the present one.
    pub(crate) fn lease(&self, grant: LeaseGrant) -> Option<Arc<Lease>> {
        self.shared.leases.get()?.renew(grant).filter(|lease| !lease.is_over())
    }

    /// Snapshot of the host's counters and peers.
    #[must_use]
    pub fn snapshot(&self) -> HostSnapshot {
        HostSnapshot {
            identity: self.shared.identity,
            actors: self.shared.actors.len(),
            watches: self.shared.actors.watches(),
            dead_letters: self.shared.dead_letters.load(Ordering::Relaxed),
            traffic: self.shared.traffic.totals(),
            peers: self.shared.peers.all().iter().map(|peer| peer.snapshot()).collect(),
        }
    }

    /// Bytes and messages on all links so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.shared.traffic.totals()
    }

    /// Shuts the host down gracefully.
    ///
    /// It accepts nothing new, lets open calls end and queued bytes be written within
    /// [`Limits::drain_timeout`], sends goodbyes, and drops its actors.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a host that accepts nothing new; [`Host::abort`] ends it.
    pub async fn shutdown(&self, reason: &str) {
        // Before the list of peers is taken: a peer that is added later would not be drained.
        self.shared.draining.cancel();
        let peers = self.shared.peers.all();
        for peer in &peers {
            peer.drain(reason);
        }
        // All peers are draining before the first wait, so that none gets new messages meanwhile.
        let goodbyes = join_all(peers.iter().map(|peer| async {
            peer.drained().await;
            peer.send_goodbye(reason).await;
        }));
        if timeout(self.shared.limits.drain_timeout, goodbyes).await.is_err() {
            log::warn!("calls were still open at the end of the shutdown; they fail as outcome unknown");
            let goodbyes = join_all(peers.iter().map(|peer| peer.send_goodbye(reason)));
            // A peer that does not receive the goodbye sees the link end.
            let _ = timeout(GOODBYE_TIMEOUT, goodbyes).await;
        }
        self.abort();
    }

    /// Ends the host immediately: open calls fail, links break, actors are dropped.
    pub fn abort(&self) {
        self.shared.draining.cancel();
        self.shared.closed.cancel();
        // Removed peers are included, since messages may wait at addresses that still hold them.
        for peer in self.shared.peers.all_held() {
            peer.close(DisconnectReason::Shutdown);
        }
        // After the peers are closed: messages that dropped actors send fail instead of being queued.
        self.shared.actors.clear();
    }
}

/// Interface for the layers above.
impl Host {
    /// Checks whether there is memory for a new actor or task.
    pub(crate) fn admit_work(&self, now: Instant) -> Result<(), CallFailure> {
        self.shared.memory.admit(now)
    }

    /// True once the host shuts down.
    pub(crate) fn is_closing(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    /// Resolves once the host shuts down. What stays open for long must end then, or the shutdown waits for it.
    pub(crate) async fn closing(&self) {
        self.shared.draining.cancelled().await;
    }

    /// Watches an actor of this host.
    pub(crate) fn watch_actor(&self, target: Target) -> ActorWatch {
        let state = self.shared.actors.watch(target, &Arc::downgrade(&self.shared));
        ActorWatch::new(self.clone(), target, state)
    }

    /// Enters a link of an actor of this host with another one.
    pub(crate) fn enter_link(&self, target: Target, other: ActorLocation) -> Result<LinkEntry, NotLinked> {
        LinkEntry::new(self, target, other)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    pub(crate) fn actors(&self) -> &Actors {
        &self.shared.actors
    }

    /// Makes an actor reachable under a reserved id.
    ///
    /// `key` is its id in the cluster, if that tracks it. For an actor that this host runs, [`Actors::end`] must
    /// follow.
    pub(crate) fn register_actor<A: RemoteActor>(
        &self,
        target: Target,
        addr: Addr<A>,
        is_run_by_host: bool,
        key: Option<ActorKey>,
        lease: Option<Arc<Lease>>,
    ) {
        let context = Arc::clone(&self.shared.actor_context);
        self.shared.actors.insert(target, addr, is_run_by_host, context, key, lease);
    }

    /// Route to a managed actor, whose location an address names; `None` for any other actor.
    pub(crate) fn route(&self, hint: ActorLocation) -> Option<Arc<Route>> {
        let key = ActorKey(hint.target.actor.managed_number()?);
        Some(self.shared.routes.of(key, hint))
    }

    /// Records that a managed actor is alive at another location.
    pub(crate) fn actor_moved(&self, at: ActorLocation) {
        if let Some(number) = at.target.actor.managed_number() {
            self.shared.routes.moved(ActorKey(number), at);
        }
    }

    /// This host as the reply path of messages to itself.
    pub(crate) fn as_reply_path(&self) -> Arc<dyn ReplyPath> {
        Arc::clone(&self.shared) as _
    }

    /// The peer that an address refers to.
    pub(crate) fn peer(&self, identity: HostUid) -> Result<Arc<Peer>, NotDelivered> {
        match self.shared.peers.get(identity.host) {
            None => Err(NotDelivered::UnknownHost { host: identity }),
            Some(peer) if peer.identity() == identity => Ok(peer),
            Some(_) => Err(NotDelivered::StaleHost { host: identity }),
        }
    }

    /// Delivers a received message to its actor, or to the host's own services.
    pub(crate) fn deliver(&self, target: Target, message: TypeHash, inbound: Inbound) {
        match self.find(target, message) {
            Ok(Some(to)) => to.deliver(inbound.into()),
            Ok(None) => (self.shared.services)(self, message, inbound),
            // The reply path sends the failure, or counts a one-way message as a dead letter.
            Err(failure) => inbound.fail(&failure),
        }
    }

    /// Destination of a message; `None` for the host's own services.
    fn find(&self, target: Target, message: TypeHash) -> Result<Option<Destination>, CallFailure> {
        if matches!(target.actor, ActorId::HOST | ActorId::TASKS) {
            return Ok(None);
        }
        let mailbox = self.shared.actors.find(target)?;
        let Some(handler) = self.shared.registry.handler(mailbox.kind(), message) else {
            // No actor lists the stop, which every type handles.
            if message == STOP {
                let stats = HandlerStats::other();
                return Ok(Some(Destination { mailbox, deliver: registry::stop, stats }));
            }
            let message = self.shared.registry.name_of(message);
            return Err(CallFailure::NotHandled { actor: mailbox.name().to_owned(), message });
        };
        Ok(Some(Destination { mailbox, deliver: handler.deliver, stats: handler.stats }))
    }

    /// I/O runtime, which runs no handlers.
    pub(crate) fn io(&self) -> &Handle {
        &self.shared.io
    }

    /// Observer of actors' lifecycles, if set.
    pub(crate) fn lifecycle_observer(&self) -> Option<&Arc<dyn LifecycleObserver>> {
        self.shared.lifecycle.get()
    }

    pub(crate) fn count_dead_letter(&self) {
        self.shared.count_dead_letters(1);
    }

    /// Runs a future on the thread that drives this host's links.
    pub(crate) fn execute(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.shared.executor.spawn(future);
    }

    /// Calls an actor of this host by an encoded message, as another host does.
    pub(crate) fn call_own_actor(
        &self,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        body: MessageBody<'_>,
    ) -> Loopback {
        let (inbound, reply) =
            Loopback::new(self.shared.identity, self.shared.limits.frame_bytes_max, deadline, body);
        self.deliver(target, message, inbound);
        reply
    }

    /// Sends an actor of this host an encoded one-way message; an error if it has ended.
    pub(crate) fn tell_own_actor(
        &self,
        target: Target,
        message: TypeHash,
        body: MessageBody<'_>,
    ) -> Result<(), CallFailure> {
        let Some(to) = self.find(target, message)? else { return Err(CallFailure::NoSuchActor) };
        let trace = body.trace.map(|trace| Box::new(*trace));
        let body = Body { trace, ..loopback::owned(body.encoded) };
        to.deliver(Inbound::new(self.as_reply_path(), None, None, body, None).into());
        Ok(())
    }

    /// Calls one of this host's own services, on the thread that drives its links.
    pub(crate) fn call_self(
        &self,
        service: TypeHash,
        deadline: Option<Instant>,
        body: MessageBody<'_>,
    ) -> Loopback {
        let (inbound, reply) =
            Loopback::new(self.shared.identity, self.shared.limits.frame_bytes_max, deadline, body);
        let host = self.clone();
        // If the executor has ended, the call is dropped, which sends its failure.
        self.execute(async move {
            // The arguments may contain addresses, which bind to this host.
            decode_context::within(&host, || host.deliver(Target::HOST, service, inbound));
        });
        reply
    }
}

impl HostShared {
    fn count_dead_letters(&self, count: u64) {
        self.dead_letters.fetch_add(count, Ordering::Relaxed);
    }
}

/// Destination of a message: the actor, and the function that queues its type of message there.
struct Destination {
    mailbox: Arc<dyn ErasedMailbox>,
    deliver: Deliver,
    stats: &'static HandlerStats,
}

impl Destination {
    fn deliver(&self, messages: MessageBatch) {
        (self.deliver)(&*self.mailbox, messages, self.stats);
    }
}

impl Drop for HostShared {
    fn drop(&mut self) {
        // Ends the tasks that hold only weak references to the host.
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

/// Creates an identity for a host without an assigned one: a random id, and the current time as
/// incarnation.
#[must_use]
pub fn fresh_identity() -> HostUid {
    // Microseconds keep the incarnations of quick restarts in order.
    let micros = u64::try_from(entropy::unix_time().as_micros()).unwrap_or(u64::MAX);
    HostUid { host: HostId(random_u64()), incarnation: Incarnation(micros) }
}

fn random_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).expect("the operating system gives random numbers");
    nonce
}

/// The instant after `timeout`; `None` if it is too far away to represent.
pub(crate) fn deadline_in(timeout: Duration) -> Option<Instant> {
    tokio::time::Instant::now().into_std().checked_add(timeout)
}
