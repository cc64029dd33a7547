//! One other host: its session, and the link that carries it just now.
//!
//! ```text
//!                 a message to send                      proven
//!   Down ───────────────┬───────────▶ Dialing ───────────────────────▶ Up
//!    ▲                  │              ▲   │ the peer's own dial wins    │ ▲
//!    │                  │ no address   │   ▼                             │ │
//!    │                  └────────────▶ │ Awaiting ──── the peer dials ───┼─┘
//!    │                                 │                                 │
//!    │                              Resting ◀──── a break ───────────────┤
//!    └──── evidence that the peer is gone, no first link for long ───┘
//! ```
//! Messages are given to the session in every state, so their order does not depend on the link. A
//! break is not the end of a peer: the session goes on over the next link. It ends, and with it all
//! that was open, each as what it is (never written, or written and unanswered), on evidence alone.
//! What waits for a first link fails when none could be made for a while: nothing was ever on its
//! way then, and the session stays. The lock is never held while user code runs.

mod batching;
mod io;
mod open_call;
mod receive_path;
mod reconnect;
mod reply_path;
mod reply_slots;
mod room;
mod sending;
mod shutdown;
mod status_query;
mod timer;
mod up;

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

use self::batching::AdaptiveBatching;
pub(super) use self::io::disconnect_reason;
pub(crate) use self::open_call::{OpenCall, Pending};
#[cfg(test)]
pub(super) use self::receive_path::DetachedOrigin;
pub use self::receive_path::ReceivePath;
pub(super) use self::reconnect::{Aftermath, FailureVerdict};
pub(super) use self::reply_slots::ReplySlots;
pub use self::reply_slots::SlotId;
pub(crate) use self::room::Place;
use self::timer::Timer;
pub(crate) use self::up::{ActiveLink, LinkGuard};
use super::error::NotDelivered;
use super::{Host, Shared};
use crate::config::InjectedBug;
use crate::id::{CallId, HostUid, LinkId, TypeHash};
use crate::lock::{Locked, Mutex};
use crate::observe::{PeerSnapshot, log};
use crate::registry::decode;
pub(crate) use crate::session::{DisconnectReason, Retryable, Waiter};
use crate::session::{Session, SessionLimits, WaiterId, WriteCertainty};
use crate::transport::{Certificate, Role};
use crate::wire::Body;

/// One other host.
pub struct Peer {
    identity: HostUid,
    body_bytes_max: usize,
    connect_timeout: Duration,
    host: Weak<Shared>,
    /// The host's runtime for links, and what is cancelled when it closes: the host itself is never held, nor
    /// dropped, under the lock.
    io: Handle,
    closing: CancellationToken,
    state: Mutex<State>,
    /// Rung when a drain may have got further: frames came, bytes were written, a call or the link ended.
    progress: Notify,
    /// Rung when the peer is gone for good.
    ended: Notify,
    /// Whether any call of the peer is cancelled whose handler is not done with: most handlers that
    /// ask find none, and take no lock for it.
    has_cancelled: AtomicBool,
    batching: AdaptiveBatching,
    /// Rung when a deadline came up that is earlier than the one slept for, and when nothing will any more.
    timer: Arc<Notify>,
    /// The messages that the peer's executable declares otherwise, and how; there once it has told.
    schema_mismatches: OnceLock<FxHashMap<TypeHash, String>>,
}

/// What a certificate says that its host is, and the certificate.
pub(super) type Certified = (Role, Certificate);

struct State {
    session: Session<SlotId>,
    answers: ReplySlots,
    link: Link,
    /// Whether the link was told that there is something to write, and has not looked yet.
    writer_notified: bool,
    /// What a session is told for the time where no time matters.
    created_at: Instant,
    address: Option<SocketAddr>,
    /// What the last link's certificate says that the peer is, and the certificate.
    certificate: Option<Certified>,
    /// The last link that was up; named when dialling, so that the peer can tell a crossing from a return.
    last_link: LinkId,
    /// Whether the session has had a link since it was begun: then it is resumed, not begun anew.
    resumable: bool,
    /// When the last link ended, or the peer was made known.
    down_since: tokio::time::Instant,
    /// Since when a link is wanted and not there.
    connecting_since: tokio::time::Instant,
    /// Attempts to connect that have failed since frames last came.
    failed_attempts: u32,
    /// How many of the last of them were refused by a machine on which nobody listens.
    refusals: u32,
    /// Whether the cluster is being asked what has become of the host.
    status_query_running: bool,
    /// How many frames had come when the last link came up.
    received_at_link_up: u64,
    /// How many links there have been.
    links_total: u64,
    /// Why there will be no further link.
    down: Option<DisconnectReason>,
    /// Whether the host has forgotten the peer, which has not come again since.
    forgotten: bool,
    timer: Timer,
    /// Handlers' futures to be woken when the peer cancels their calls.
    cancel_wakers: FxHashMap<CallId, Waker>,
    /// Senders that wait for room.
    waiting: FxHashMap<WaiterId, Waker>,
}

enum Link {
    Down,
    Backoff {
        attempt: LinkId,
        cancel: CancellationToken,
    },
    Dialing {
        attempt: LinkId,
        cancel: CancellationToken,
        /// When the peer was seen to be there: it has proved itself, and may take the link from then on.
        reached: Option<tokio::time::Instant>,
    },
    AwaitingInbound {
        attempt: LinkId,
        abandon: CancellationToken,
    },
    Up(Arc<ActiveLink>),
}

impl Link {
    /// Ends what is under way. To be replaced then.
    fn abandon(&self) {
        match self {
            Self::Up(up) => up.closed.cancel(),
            Self::Dialing { cancel: abandon, .. }
            | Self::Backoff { cancel: abandon, .. }
            | Self::AwaitingInbound { abandon, .. } => {
                abandon.cancel();
            }
            Self::Down => {}
        }
    }
}

impl Peer {
    /// A peer that is heard of now, with a session of that generation.
    pub(super) fn new(host: &Arc<Shared>, identity: HostUid, generation: u32) -> Arc<Self> {
        let limits = SessionLimits {
            outgoing_bytes_max: host.limits.outgoing_bytes_max,
            frame_bytes_max: host.limits.frame_bytes_max,
            window_bytes: host.limits.window_bytes,
            parked_bytes_max: host.limits.send_queue_bytes_max,
            chunk_bytes: host.limits.chunk_bytes,
            injected_bug: host.limits.injected_bug,
            ..SessionLimits::default()
        };
        Arc::new(Self {
            identity,
            body_bytes_max: host.limits.frame_bytes_max,
            connect_timeout: host.limits.connect_timeout,
            host: Arc::downgrade(host),
            io: host.io.clone(),
            closing: host.closed.clone(),
            state: Mutex::new(State {
                session: Session::of_generation(limits, generation),
                answers: ReplySlots::default(),
                link: Link::Down,
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
            timer: Arc::default(),
            schema_mismatches: OnceLock::new(),
        })
    }

    /// Who it is.
    pub(crate) fn identity(&self) -> HostUid {
        self.identity
    }

    /// Whether it came by itself, nobody can say where it is, and it has been away for so long.
    pub(super) fn is_expired_inbound(&self, away: Duration) -> bool {
        let state = self.lock();
        let linked = matches!(state.link, Link::Up(_));
        state.address.is_none() && !linked && state.down_since.elapsed() >= away
    }

    /// Begins anew with a peer that the host has forgotten, in a session of a higher generation. To be called
    /// under the lock of the table of peers; what it gives is to be run without any.
    pub(super) fn forget(&self, generation: u32) -> Aftermath {
        let planted = self.host().and_then(|host| host.limits().injected_bug);
        let generation = if planted == Some(InjectedBug::LostGeneration) { 0 } else { generation };
        let mut events = Vec::new();
        let mut state = self.lock();
        state.link.abandon();
        state.session.detach(WriteCertainty::AtMost);
        state.session.forget_peer(generation, &DisconnectReason::Forgotten, &mut events);
        state.end_link();
        state.last_link = LinkId::NONE;
        state.address = None;
        state.certificate = None;
        state.forgotten = true;
        self.timer.notify_one();
        let mut aftermath = state.resolve(events);
        aftermath.wake_too(self.serve(&mut state));
        aftermath
    }

    /// The same incarnation is there again: the evidence that it was gone, if any, was wrong. To be called
    /// under the lock of the table of peers.
    pub(super) fn comes_again(&self) {
        let mut state = self.lock();
        state.forgotten = false;
        state.down = None;
        state.down_since = tokio::time::Instant::now();
    }

    /// The host whose peer this is, while it runs.
    pub(super) fn host(&self) -> Option<Host> {
        self.host.upgrade().map(|shared| Host { shared })
    }

    pub(super) fn set_address(self: &Arc<Self>, address: SocketAddr) {
        let mut state = self.lock();
        let first = state.address.replace(address).is_none();
        if first && matches!(state.link, Link::AwaitingInbound { .. }) {
            self.start_connect(&mut state, Duration::ZERO);
        }
    }

    /// What the peer is, by the last link's certificate.
    pub(super) fn role(&self) -> Option<Role> {
        self.lock().certificate.as_ref().map(|(role, _)| *role)
    }

    /// Whether the last link's certificate has this name.
    pub(super) fn is_certified(&self, name: &str) -> Option<bool> {
        let certificate = self.lock().certificate.clone();
        certificate.map(|(_, certificate)| certificate.is_for(name))
    }

    /// How large an encoded message may be.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Waits until the peer is known to be gone for good.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) async fn wait_until_down(&self) {
        self.until_rung(&self.ended, |state| state.down.is_some()).await;
    }

    /// Takes the peer's table of types.
    pub(super) fn learn_schemas(&self, host: &Host, body: &Body) {
        match decode(body) {
            Ok(theirs) => {
                let disagreements = self.schema_mismatches.get_or_init(|| host.registry().compare(&theirs));
                if !disagreements.is_empty() {
                    let (peer, count) = (self.identity, disagreements.len());
                    log::warn!(%peer, count, "messages are declared differently there; they are refused");
                }
            }
            Err(failure) => log::warn!(peer = %self.identity, %failure, "cannot read a table of types"),
        }
    }

    /// How the peer's executable declares this message, if otherwise than this one.
    pub(super) fn schema_mismatch(&self, message: TypeHash) -> Option<&str> {
        self.schema_mismatches.get()?.get(&message).map(String::as_str)
    }

    /// Waits for a condition of a drain: it comes about when frames come, bytes are written, calls end, or
    /// the link does. Only a host that ends waits for one, since all waiters are woken each time.
    async fn wait_until(&self, done: impl Fn(&State) -> bool) {
        self.until_rung(&self.progress, done).await;
    }

    async fn until_rung(&self, bell: &Notify, done: impl Fn(&State) -> bool) {
        loop {
            let rung = bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if done(&self.lock()) {
                return;
            }
            rung.await;
        }
    }

    /// The link of that number, if it is the one that is up.
    pub(super) fn link(&self, id: LinkId) -> Option<Arc<ActiveLink>> {
        match &self.lock().link {
            Link::Up(up) if up.id == id => Some(Arc::clone(up)),
            _ => None,
        }
    }

    /// Whether the peer is known to be gone for good.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().down.is_some()
    }

    pub(super) fn snapshot(&self) -> PeerSnapshot {
        let state = self.lock();
        PeerSnapshot {
            identity: self.identity,
            linked: matches!(state.link, Link::Up(_)),
            calls_open: state.session.open_calls(),
            calls_accepted: state.session.inbound_calls(),
            links: state.links_total,
            outgoing_bytes: state.session.outgoing_bytes(),
            unwritten_bytes: state.session.unwritten_bytes(),
            parked_bytes: state.session.parked_bytes(),
            charged_bytes: state.session.charged_bytes(),
            accepted_bytes: state.session.accepted_bytes(),
            owed_bytes: state.session.owed_bytes(),
        }
    }

    #[inline(always)]
    fn lock(&self) -> Locked<'_, State> {
        self.state.lock()
    }

    #[inline(always)]
    fn lock_if_alive(&self) -> Result<Locked<'_, State>, NotDelivered> {
        let state = self.lock();
        match &state.down {
            None => Ok(state),
            Some(DisconnectReason::Shutdown) => Err(NotDelivered::Closing),
            Some(reason) => Err(NotDelivered::Unreachable { host: self.identity, reason: reason.clone() }),
        }
    }
}

/// The clock of all sessions: tokio's, so that paused time holds for them, too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl State {
    /// Whether this is the link that carries the session now: one that was superseded may still be
    /// in the middle of its work.
    fn is_current_link(&self, link: &ActiveLink) -> bool {
        matches!(&self.link, Link::Up(up) if std::ptr::eq(&**up, link))
    }

    /// Tells the link that there is something to write, unless it has been told.
    fn notify_writer(&mut self) {
        if let Link::Up(up) = &self.link
            && !std::mem::replace(&mut self.writer_notified, true)
        {
            up.writable.notify_one();
        }
    }

    /// Whether there is no link, and nothing to be expected of another.
    fn is_over(&self) -> bool {
        matches!(self.link, Link::Down) && !self.resumable
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
