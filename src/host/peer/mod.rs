//! Session with one other host, and the state of the link that carries it.
//!
//! ```text
//!             a message is queued              handshake done
//!   Down ───────────────────────────▶ Dialing ───────────────▶ Up
//!    ▲ │                               ▲  │ │                   ▲ │
//!    │ │                 delay is over │  │ │ peer's dial wins  │ │ link lost
//!    │ │ no address                    │  │ ▼                   │ │
//!    │ └───────────────────────────────┼──┼▶ AwaitingInbound ───┘ │
//!    │                          failed │  │            peer dials │
//!    │                                 │  ▼                       │
//!    │                                Backoff ◀───────────────────┘
//!    └──── the session ends, or there is no first link within the connect timeout
//! ```
//! The peer's own dial leads from every state to `Up`, unless [`accept_link`](Peer::accept_link) refuses
//! it.
//!
//! Invariants:
//!
//! - Messages go to the session in every state, so their order does not depend on the link.
//! - A lost link does not end the session, which resumes on the next link. Only evidence that the peer is
//!   down ends it. Each open message then fails as not written, or as written with unknown outcome.
//! - Messages that wait for a first link fail after the connect timeout. None of them was sent, so the
//!   session remains.
//! - User code never runs under the lock, except that a caller's waker is cloned there.

mod active_link;
mod batching;
mod io;
mod open_call;
mod outcomes;
mod queue_position;
mod receive_path;
mod reconnect;
mod reply_path;
mod reply_slots;
mod sending;
mod shutdown;
mod status_query;
mod timer;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use self::active_link::{ActiveLink, LinkGuard};
use self::batching::AdaptiveBatching;
pub(super) use self::io::disconnect_reason;
pub(crate) use self::open_call::{CallHandle, ReplyFuture};
pub(super) use self::outcomes::DeferredWakeups;
pub(crate) use self::queue_position::QueuePosition;
#[cfg(test)]
pub(super) use self::receive_path::DetachedReplyPath;
pub use self::receive_path::ReceivePath;
pub(super) use self::reconnect::FailureVerdict;
pub(super) use self::reply_slots::ReplySlots;
pub use self::reply_slots::SlotId;
use self::timer::Timer;
use super::error::NotDelivered;
use super::traffic::TrafficCounters;
use super::{Host, HostShared};
use crate::config::InjectedBug;
use crate::id::{CallId, HostUid, LinkId, TypeHash};
use crate::lock::{Locked, Mutex};
use crate::observe::{PeerSnapshot, log};
use crate::registry::decode;
pub(crate) use crate::session::{DisconnectReason, Retryable, Waiter};
use crate::session::{Session, SessionLimits, WaiterId, WriteCertainty};
use crate::transport::{Certificate, Role};
use crate::wire::Body;

/// Another host, as seen from this one.
pub struct Peer {
    identity: HostUid,
    body_bytes_max: usize,
    connect_timeout: Duration,
    host: Weak<HostShared>,
    /// The host's I/O runtime: dials, timers, status queries.
    ///
    /// A handle to the host itself would let the last reference drop under the lock.
    io: Handle,
    /// Cancelled when the host closes.
    closing: CancellationToken,
    state: Mutex<PeerState>,
    /// Notified when a drain may have progressed: frames arrived, bytes were written, or a call or the
    /// link ended.
    progress: Notify,
    /// Notified when the peer is down for good.
    ended: Notify,
    /// Set while a cancelled call of the peer has a handler.
    ///
    /// Handlers poll it often and find it clear, which spares them the lock.
    has_cancelled: AtomicBool,
    batching: AdaptiveBatching,
    /// Counters of the host.
    traffic: Arc<TrafficCounters>,
    /// Notified on a deadline earlier than the current sleep, and when the timer task has to end.
    timer: Arc<Notify>,
    /// Messages that the peer's executable declares differently, with a text; set once its table has
    /// arrived.
    schema_mismatches: OnceLock<FxHashMap<TypeHash, String>>,
}

/// Role of a peer by its certificate, and the certificate.
pub(super) type Certified = (Role, Certificate);

struct PeerState {
    session: Session<SlotId>,
    reply_slots: ReplySlots,
    link: LinkState,
    /// The writer was notified, and has not taken the outgoing frames yet.
    writer_notified: bool,
    /// Stands in for the current time in calls without a deadline, which spares them a read of the clock.
    created_at: Instant,
    address: Option<SocketAddr>,
    /// Role and certificate of the last link.
    certificate: Option<Certified>,
    /// Last link that was up. A dial names it, so that the peer can tell a reconnect from a simultaneous
    /// open.
    last_link: LinkId,
    /// The session has had a link, so that the next link resumes it.
    resumable: bool,
    /// Time when the last link ended, or when the peer was added.
    down_since: tokio::time::Instant,
    /// Time since when a link is wanted and missing.
    connecting_since: tokio::time::Instant,
    /// Failed attempts to connect since the last received frame.
    failed_attempts: u32,
    /// Consecutive attempts that found no listening process on a reachable machine.
    refusals: u32,
    /// A query for the host's exit cause is running.
    status_query_running: bool,
    /// Number of frames received when the last link came up.
    received_at_link_up: u64,
    /// Number of links so far.
    links_total: u64,
    /// Calls and one-way messages since the last write, which adds them to the counters of the host.
    messages_uncounted: u64,
    /// Reason why there will be no further link.
    down: Option<DisconnectReason>,
    /// The host has removed the peer, which has not returned since.
    forgotten: bool,
    timer: Timer,
    /// Wakers of handlers' futures, woken when the peer cancels their calls.
    cancel_wakers: FxHashMap<CallId, Waker>,
    /// Wakers of senders that wait for capacity.
    waiting: FxHashMap<WaiterId, Waker>,
}

enum LinkState {
    Down,
    Backoff {
        attempt: LinkId,
        cancel: CancellationToken,
    },
    Dialing {
        attempt: LinkId,
        cancel: CancellationToken,
        /// Time when the peer was authenticated; from then on it may accept the link.
        reached: Option<tokio::time::Instant>,
    },
    AwaitingInbound {
        attempt: LinkId,
        cancel: CancellationToken,
    },
    Up(Arc<ActiveLink>),
}

impl LinkState {
    /// Cancels the task behind this state. The caller replaces the state.
    fn cancel(&self) {
        match self {
            Self::Up(up) => up.closed.cancel(),
            Self::Dialing { cancel, .. }
            | Self::Backoff { cancel, .. }
            | Self::AwaitingInbound { cancel, .. } => {
                cancel.cancel();
            }
            Self::Down => {}
        }
    }
}

impl Peer {
    /// Creates a peer with a session of the given generation.
    pub(super) fn new(host: &Arc<HostShared>, identity: HostUid, generation: u32) -> Arc<Self> {
        let limits = SessionLimits {
            outgoing_bytes_max: host.limits.outgoing_bytes_max,
            frame_bytes_max: host.limits.frame_bytes_max,
            window_bytes: host.limits.window_bytes,
            send_queue_bytes_max: host.limits.send_queue_bytes_max,
            chunk_bytes: host.limits.chunk_bytes,
            injected_bug: host.limits.injected_bug,
            ..SessionLimits::default()
        };
        Arc::new(Self {
            identity,
            body_bytes_max: host.limits.frame_bytes_max,
            connect_timeout: host.limits.connect_timeout,
            // Weak: the host owns its peers.
            host: Arc::downgrade(host),
            io: host.io.clone(),
            closing: host.closed.clone(),
            state: Mutex::new(PeerState {
                session: Session::of_generation(limits, generation),
                reply_slots: ReplySlots::default(),
                link: LinkState::Down,
                writer_notified: false,
                created_at: now(),
                address: None,
                certificate: None,
                last_link: LinkId::NONE,
                resumable: false,
                down_since: tokio::time::Instant::now(),
                connecting_since: tokio::time::Instant::now(),
                failed_attempts: 0,
                refusals: 0,
                status_query_running: false,
                received_at_link_up: 0,
                links_total: 0,
                messages_uncounted: 0,
                down: None,
                forgotten: false,
                timer: Timer::NotStarted,
                cancel_wakers: FxHashMap::default(),
                waiting: FxHashMap::default(),
            }),
            progress: Notify::new(),
            ended: Notify::new(),
            has_cancelled: AtomicBool::new(false),
            batching: AdaptiveBatching::default(),
            traffic: Arc::clone(&host.traffic),
            timer: Arc::default(),
            schema_mismatches: OnceLock::new(),
        })
    }

    /// The host id and incarnation.
    pub(crate) fn identity(&self) -> HostUid {
        self.identity
    }

    /// True for a peer that only ever connected itself and has been disconnected for `away`.
    pub(super) fn is_expired_inbound(&self, away: Duration) -> bool {
        let state = self.lock();
        let linked = matches!(state.link, LinkState::Up(_));
        state.address.is_none() && !linked && state.down_since.elapsed() >= away
    }

    /// Restarts with an empty session of a higher generation, after the host has removed the peer.
    ///
    /// Called under the lock of the peer table. The caller runs the returned work without any lock.
    pub(super) fn forget(&self, generation: u32) -> DeferredWakeups {
        let injected = self.host().and_then(|host| host.limits().injected_bug);
        // Injected by the simulation, which must then find a call that is handled twice.
        let generation = if injected == Some(InjectedBug::LostGeneration) { 0 } else { generation };
        let mut events = Vec::new();
        let mut state = self.lock();
        state.link.cancel();
        // The writer's task may have written frames that it has not reported yet, so their calls fail
        // as outcome unknown.
        state.session.detach(WriteCertainty::AtMost);
        state.session.forget_peer(generation, &DisconnectReason::Forgotten, &mut events);
        state.end_link();
        state.last_link = LinkId::NONE;
        state.address = None;
        state.certificate = None;
        state.forgotten = true;
        self.timer.notify_one();
        let mut deferred = state.resolve(events);
        deferred.add_wakers(self.serve(&mut state));
        deferred
    }

    /// Restores a removed peer whose incarnation has returned; a verdict that it was down was wrong.
    ///
    /// Called under the lock of the peer table.
    pub(super) fn on_return(&self) {
        let mut state = self.lock();
        state.forgotten = false;
        state.down = None;
        state.down_since = tokio::time::Instant::now();
    }

    /// The host that owns this peer, while it runs.
    pub(super) fn host(&self) -> Option<Host> {
        self.host.upgrade().map(|shared| Host { shared })
    }

    pub(super) fn set_address(self: &Arc<Self>, address: SocketAddr) {
        let mut state = self.lock();
        let first = state.address.replace(address).is_none();
        // A wait for the peer's dial is pointless once this host can dial.
        if first && matches!(state.link, LinkState::AwaitingInbound { .. }) {
            self.start_connect(&mut state, Duration::ZERO);
        }
    }

    /// Role of the peer by the last link's certificate.
    pub(super) fn role(&self) -> Option<Role> {
        self.lock().certificate.as_ref().map(|(role, _)| *role)
    }

    /// True if the last link's certificate contains the name; `None` without a certificate.
    pub(super) fn is_certified(&self, name: &str) -> Option<bool> {
        let certificate = self.lock().certificate.clone();
        certificate.map(|(_, certificate)| certificate.is_for(name))
    }

    /// Maximum bytes of an encoded message.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Waits until the peer is down for good.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) async fn wait_until_down(&self) {
        self.until_notified(&self.ended, |state| state.down.is_some()).await;
    }

    /// Stores the peer's table of types, and compares it with this executable's.
    pub(super) fn learn_schemas(&self, host: &Host, body: &Body) {
        match decode(body) {
            Ok(theirs) => {
                // Set once: an incarnation of the peer always sends the same table.
                let mismatches = self.schema_mismatches.get_or_init(|| host.registry().compare(&theirs));
                if !mismatches.is_empty() {
                    let (peer, count) = (self.identity, mismatches.len());
                    log::warn!(%peer, count, "the peer declares messages differently; build both from the same source to send them");
                }
            }
            Err(failure) => {
                log::warn!(peer = %self.identity, %failure, "cannot decode the peer's table of types")
            }
        }
    }

    /// The difference between the two executables' declarations of a message, if any.
    pub(super) fn schema_mismatch(&self, message: TypeHash) -> Option<&str> {
        self.schema_mismatches.get()?.get(&message).map(String::as_str)
    }

    /// Waits for a condition of a drain.
    ///
    /// It is checked when frames arrive, bytes are written, calls end or the link ends. Each notification
    /// wakes all waiters, which is acceptable because only a host that shuts down waits here.
    async fn wait_until(&self, done: impl Fn(&PeerState) -> bool) {
        self.until_notified(&self.progress, done).await;
    }

    async fn until_notified(&self, notify: &Notify, done: impl Fn(&PeerState) -> bool) {
        loop {
            let notified = notify.notified();
            tokio::pin!(notified);
            // Registered before the check: a notification between the check and the wait would be lost.
            notified.as_mut().enable();
            if done(&self.lock()) {
                return;
            }
            notified.await;
        }
    }

    /// The link with that id, if it is up.
    pub(super) fn link(&self, id: LinkId) -> Option<Arc<ActiveLink>> {
        match &self.lock().link {
            LinkState::Up(up) if up.id == id => Some(Arc::clone(up)),
            _ => None,
        }
    }

    /// True once the peer is down for good.
    pub(crate) fn is_down(&self) -> bool {
        self.lock().down.is_some()
    }

    pub(super) fn snapshot(&self) -> PeerSnapshot {
        let state = self.lock();
        PeerSnapshot {
            identity: self.identity,
            linked: matches!(state.link, LinkState::Up(_)),
            calls_open: state.session.open_calls(),
            calls_accepted: state.session.inbound_calls(),
            links: state.links_total,
            outgoing_bytes: state.session.outgoing_bytes(),
            unwritten_bytes: state.session.unwritten_bytes(),
            send_queue_bytes: state.session.send_queue_bytes(),
            charged_bytes: state.session.charged_bytes(),
            accepted_bytes: state.session.accepted_bytes(),
            owed_bytes: state.session.owed_bytes(),
        }
    }

    #[inline(always)]
    fn lock(&self) -> Locked<'_, PeerState> {
        self.state.lock()
    }

    #[inline(always)]
    fn lock_if_alive(&self) -> Result<Locked<'_, PeerState>, NotDelivered> {
        let state = self.lock();
        match &state.down {
            None => Ok(state),
            Some(DisconnectReason::Shutdown) => Err(NotDelivered::Closing),
            Some(reason) => Err(NotDelivered::Unreachable { host: self.identity, reason: reason.clone() }),
        }
    }
}

/// Clock of all sessions: tokio's, so that paused time applies to them.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl PeerState {
    /// True if this link carries the session.
    ///
    /// The task of a superseded link may still run, and must not touch the session of its successor.
    fn is_current_link(&self, link: &ActiveLink) -> bool {
        matches!(&self.link, LinkState::Up(up) if std::ptr::eq(&**up, link))
    }

    /// Notifies the writer of outgoing frames, unless a notification is pending.
    fn notify_writer(&mut self) {
        if let LinkState::Up(up) = &self.link
            // The flag saves a wake-up for each message until the writer has taken the queue.
            && !std::mem::replace(&mut self.writer_notified, true)
        {
            up.writable.notify_one();
        }
    }

    /// True without a link and without a session to resume.
    fn is_over(&self) -> bool {
        matches!(self.link, LinkState::Down) && !self.resumable
    }

    fn notify_writer_if_pending(&mut self) {
        if self.session.has_outgoing() {
            self.notify_writer();
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("identity", &self.identity).finish_non_exhaustive()
    }
}
