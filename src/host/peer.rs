//! One other host: its session, and the link that carries it just now.
//!
//! ```text
//!                 a message to send                      proven
//!   Down ───────────────┬───────────▶ Dialing ───────────────────────▶ Up
//!    ▲                  │                │  the peer's own dial wins    │ ▲
//!    │                  │ no address     ▼                              │ │
//!    │                  └──────────▶ Awaiting ──── the peer dials ──────┼─┘
//!    └──── refused, timed out, broken, closed ──────────────────────────┘
//! ```
//! Messages are queued in the session in every state, so their order does not depend on the link.
//! When an attempt fails or a link breaks, everything that was queued or open fails, each as what
//! it is: never written, or written and unanswered. The lock is never held while user code runs.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::{NotDelivered, SendError};
use super::{Host, Shared, connect};
use crate::id::{CallId, Identity, LinkId, Target, TypeHash};
use crate::observe::PeerSnapshot;
use crate::registry::Origin;
use crate::session::{Batch, Event, Failed, LinkLoss, ProvenPeer, Session, SessionLimits};
use crate::transport::{FrameReader, LinkReader, ReadError};
use crate::wire::{Body, CallFailure, Encoded, Refusal};

/// Where the outcome of a call goes.
pub(crate) type Ticket = oneshot::Sender<Result<Body, Failed>>;

/// One other host.
pub struct Peer {
    identity: Identity,
    body_bytes_max: usize,
    host: Weak<Shared>,
    state: Mutex<State>,
    /// Rung when bytes were written, and when a drain may have got further.
    progress: Notify,
    /// Rung when a deadline came up that is earlier than the one slept for.
    timer: Notify,
}

struct State {
    session: Session<Ticket>,
    link: Link,
    address: Option<SocketAddr>,
    /// The last link that was up; named when dialling, so that the peer can tell a crossing from a return.
    last_link: LinkId,
    /// Why there will be no further link.
    gone: Option<LinkLoss>,
    timer: Timer,
}

enum Link {
    Down,
    Dialing { attempt: LinkId, abandon: CancellationToken },
    Awaiting { attempt: LinkId },
    Up(Arc<Up>),
}

/// Whether a task sleeps for this session's deadlines, and until when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timer {
    NotStarted,
    Idle,
    Until(Instant),
}

/// A link that is up.
#[derive(Debug)]
pub(crate) struct Up {
    id: LinkId,
    dialed: bool,
    /// Rung when there is something to write.
    pub(crate) bell: Notify,
    /// Cancelled when the link shall end.
    pub(crate) closed: CancellationToken,
}

/// A call under way; the future of its answer. Dropping it forgets the call.
pub(crate) struct Pending {
    peer: Arc<Peer>,
    call: CallId,
    answer: oneshot::Receiver<Result<Body, Failed>>,
    ended: bool,
}

impl Peer {
    pub(super) fn new(host: &Arc<Shared>, identity: Identity, address: Option<SocketAddr>) -> Arc<Self> {
        let limits = SessionLimits {
            outgoing_bytes_max: host.limits.outgoing_bytes_max,
            frame_bytes_max: host.limits.frame_bytes_max,
        };
        Arc::new(Self {
            identity,
            body_bytes_max: host.limits.frame_bytes_max,
            host: Arc::downgrade(host),
            state: Mutex::new(State {
                session: Session::new(limits),
                link: Link::Down,
                address,
                last_link: LinkId::NONE,
                gone: None,
                timer: Timer::NotStarted,
            }),
            progress: Notify::new(),
            timer: Notify::new(),
        })
    }

    /// Who it is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The host whose peer this is, while it runs.
    pub(super) fn host(&self) -> Option<Host> {
        self.host.upgrade().map(|shared| Host { shared })
    }

    pub(super) fn set_address(&self, address: SocketAddr) {
        self.lock().address = Some(address);
    }

    /// How large an encoded message may be.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Queues a call.
    pub(crate) fn call(
        self: &Arc<Self>,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        body: Encoded<'_>,
    ) -> Result<Pending, NotDelivered> {
        let (ticket, answer) = oneshot::channel();
        let mut state = self.usable()?;
        let call = state
            .session
            .call(now(), target, message, deadline, body, ticket)
            .map_err(|(rejected, _ticket)| NotDelivered::rejected(rejected))?;
        if let Some(deadline) = deadline {
            self.arm_timer(&mut state, deadline);
        }
        self.kick(&mut state);
        Ok(Pending { peer: Arc::clone(self), call, answer, ended: false })
    }

    /// Queues a one-way message.
    pub(crate) fn tell(
        self: &Arc<Self>,
        target: Target,
        message: TypeHash,
        body: Encoded<'_>,
    ) -> Result<(), NotDelivered> {
        let mut state = self.usable()?;
        state.session.tell(target, message, body).map_err(NotDelivered::rejected)?;
        self.kick(&mut state);
        Ok(())
    }

    /// Waits until some bytes have been written, or nothing waits to be.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) async fn room(&self) {
        let progress = self.progress.notified();
        tokio::pin!(progress);
        progress.as_mut().enable();
        // What was refused had no room beside what waits: it may have once some of that has left.
        if self.lock().session.outgoing_bytes() > 0 {
            progress.await;
        }
    }

    /// Whether the peer is known to be gone for good.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().gone.is_some()
    }

    pub(super) fn snapshot(&self) -> PeerSnapshot {
        let state = self.lock();
        PeerSnapshot {
            identity: self.identity,
            linked: matches!(state.link, Link::Up(_)),
            calls_open: state.session.open_calls(),
            calls_accepted: state.session.inbound_calls(),
            outgoing_bytes: state.session.outgoing_bytes(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Result<MutexGuard<'_, State>, NotDelivered> {
        let state = self.lock();
        match &state.gone {
            None => Ok(state),
            Some(LinkLoss::Shutdown) => Err(NotDelivered::Closing),
            Some(reason) => Err(NotDelivered::Unreachable { host: self.identity, reason: reason.clone() }),
        }
    }

    /// Sees to it that what is queued gets written.
    fn kick(self: &Arc<Self>, state: &mut State) {
        match &state.link {
            Link::Up(up) => up.bell.notify_one(),
            Link::Down => self.open(state),
            Link::Dialing { .. } | Link::Awaiting { .. } => {}
        }
    }
}

/// The link's life.
impl Peer {
    fn open(self: &Arc<Self>, state: &mut State) {
        let Some(host) = self.host.upgrade() else { return };
        let attempt = LinkId(super::random_u64());
        match state.address {
            Some(address) => {
                let abandon = host.closing.child_token();
                state.link = Link::Dialing { attempt, abandon: abandon.clone() };
                let dial = connect::Dial { peer: Arc::clone(self), attempt, address, replaces: state.last_link };
                host.io.spawn(dial.run(Arc::clone(&host), abandon));
            }
            None => self.await_peer(state, &host, attempt),
        }
    }

    /// Waits a while for the peer's own dial; what is queued fails after that.
    fn await_peer(self: &Arc<Self>, state: &mut State, host: &Arc<Shared>, attempt: LinkId) {
        state.link = Link::Awaiting { attempt };
        let patience = host.limits.connect_timeout;
        let peer = Arc::downgrade(self);
        host.io.spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(peer) = peer.upgrade() {
                let reason = format!("it listens nowhere that is known here, and did not connect within {patience:?}");
                peer.attempt_failed(attempt, LinkLoss::Unreachable(reason));
            }
        });
    }

    /// The peer refused our dial because its own is under way.
    pub(super) fn crossed(self: &Arc<Self>, host: &Arc<Shared>, dialed: LinkId) {
        let mut state = self.lock();
        if matches!(state.link, Link::Dialing { attempt, .. } if attempt == dialed) {
            self.await_peer(&mut state, host, dialed);
        }
    }

    /// An attempt came to nothing: what was queued for it fails.
    pub(super) fn attempt_failed(&self, failed: LinkId, loss: LinkLoss) {
        let mut events = Vec::new();
        let mut state = self.lock();
        let current = match state.link {
            Link::Dialing { attempt, .. } | Link::Awaiting { attempt } => attempt == failed,
            Link::Down | Link::Up(_) => false,
        };
        if current {
            state.link = Link::Down;
            state.session.detach(loss, &mut events);
        }
        drop(state);
        self.settle(events);
    }

    /// Our dial was welcomed. `None` if the peer's own link has taken its place meanwhile.
    pub(super) fn dialed(&self, proven: &ProvenPeer) -> Option<Arc<Up>> {
        let mut state = self.lock();
        let ours = matches!(state.link, Link::Dialing { attempt, .. } if attempt == proven.link);
        ours.then(|| state.raise(proven, true))
    }

    /// Decides about a proven peer that dialled us.
    ///
    /// Of two hosts that dial each other at once, the dial of the one with the lower id wins. A
    /// link that we dialled and that the peer does not name as lost is such a crossing, too.
    /// Otherwise the peer has come back before we saw its old link break: the new one replaces it.
    pub(super) fn admit(&self, me: Identity, proven: &ProvenPeer) -> Result<Arc<Up>, (Refusal, String)> {
        let mut events = Vec::new();
        let mut state = self.lock();
        if let Some(reason) = &state.gone {
            return Err((Refusal::Closing, reason.to_string()));
        }
        let crossed = match &state.link {
            Link::Dialing { .. } => me.host < self.identity.host,
            Link::Up(up) => up.dialed && proven.replaces != up.id,
            Link::Down | Link::Awaiting { .. } => false,
        };
        if crossed {
            return Err((Refusal::Crossed, "both sides dialled, and the other dial stands".into()));
        }
        match &state.link {
            Link::Dialing { abandon, .. } => abandon.cancel(),
            Link::Up(up) => {
                up.closed.cancel();
                state.session.detach(LinkLoss::Superseded, &mut events);
            }
            Link::Down | Link::Awaiting { .. } => {}
        }
        let up = state.raise(proven, false);
        drop(state);
        self.settle(events);
        Ok(up)
    }

    /// The link has ended.
    pub(super) fn link_lost(&self, lost: &Up, loss: LinkLoss) {
        let mut events = Vec::new();
        let mut state = self.lock();
        if matches!(&state.link, Link::Up(up) if up.id == lost.id) {
            tracing::debug!(peer = %self.identity, link = %lost.id, %loss, "link ended");
            state.link = Link::Down;
            state.session.detach(loss, &mut events);
        }
        drop(state);
        self.settle(events);
    }

    /// There will be no further link: everything fails now and from now on.
    pub(super) fn close(&self, loss: LinkLoss) {
        let mut events = Vec::new();
        let mut state = self.lock();
        match std::mem::replace(&mut state.link, Link::Down) {
            Link::Up(up) => up.closed.cancel(),
            Link::Dialing { abandon, .. } => abandon.cancel(),
            Link::Down | Link::Awaiting { .. } => {}
        }
        state.gone.get_or_insert(loss.clone());
        state.session.detach(loss, &mut events);
        drop(state);
        self.settle(events);
    }

    /// Tells what became of the calls and letters that a lost link had; nothing else can be among them.
    fn settle(&self, events: Vec<Event<Ticket>>) {
        for event in events {
            match event {
                // A caller that no longer waits is no concern of ours.
                Event::Failed { ticket, failure } => drop(ticket.send(Err(failure))),
                Event::DeadLetters { count } => self.count_dead_letters(count),
                _ => {}
            }
        }
        self.progress.notify_waiters();
        self.timer.notify_one();
    }

    fn count_dead_letters(&self, count: u64) {
        if let Some(host) = self.host.upgrade() {
            host.count_dead_letters(count);
        }
    }
}

impl State {
    fn raise(&mut self, proven: &ProvenPeer, dialed: bool) -> Arc<Up> {
        let up = Arc::new(Up { id: proven.link, dialed, bell: Notify::new(), closed: CancellationToken::new() });
        self.link = Link::Up(Arc::clone(&up));
        self.last_link = proven.link;
        self.session.attach(now(), proven.frame_bytes_max);
        up
    }
}

/// What the link's task does under the lock.
impl Peer {
    /// Takes in every frame that has arrived whole; what they ask for is added to `events`.
    pub(super) fn receive(
        &self,
        frames: &mut FrameReader<LinkReader>,
        events: &mut Vec<Event<Ticket>>,
    ) -> Result<(), LinkLoss> {
        let now = now();
        let mut state = self.lock();
        while let Some(frame) = frames.buffered().map_err(|error| loss_of(&error))? {
            let received = state.session.receive(now, frame, events);
            received.map_err(|error| LinkLoss::Protocol(error.to_string()))?;
        }
        Ok(())
    }

    /// Tells who waits for a drain that frames have come in.
    pub(super) fn received(&self) {
        self.progress.notify_waiters();
    }

    /// Takes everything that waits to be written.
    pub(super) fn take_outgoing(&self, batch: &mut Batch) {
        self.lock().session.take_outgoing(batch);
    }

    /// So many bytes more are with the kernel.
    pub(super) fn wrote(&self, bytes: usize) {
        self.lock().session.wrote(bytes);
        self.progress.notify_waiters();
    }
}

/// What a broken or misbehaving direction means for the link.
pub(super) fn loss_of(error: &ReadError) -> LinkLoss {
    match error {
        ReadError::Closed => LinkLoss::Closed,
        ReadError::Io(error) => LinkLoss::Io(error.to_string()),
        ReadError::Wire(error) => LinkLoss::Protocol(error.to_string()),
    }
}

/// Shutting down.
impl Peer {
    /// Takes no further messages; open calls may end.
    pub(super) fn drain(self: &Arc<Self>, reason: &str) {
        let mut state = self.lock();
        state.session.drain(reason);
        if matches!(state.link, Link::Up(_)) {
            self.kick(&mut state);
        }
    }

    /// Waits until no call is open and nothing is unwritten.
    pub(super) async fn drained(&self) {
        self.until(|session| session.is_drained()).await;
    }

    /// Says goodbye, if there is a link, and waits until that is written.
    pub(super) async fn say_goodbye(self: &Arc<Self>, reason: &str) {
        {
            let mut state = self.lock();
            if !matches!(state.link, Link::Up(_)) {
                return;
            }
            state.session.finish(reason);
            self.kick(&mut state);
        }
        self.until(|session| session.outgoing_bytes() == 0).await;
    }

    /// Waits until `done`, or until there is no link that could change anything.
    async fn until(&self, done: impl Fn(&Session<Ticket>) -> bool) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            {
                let state = self.lock();
                if matches!(state.link, Link::Down) || done(&state.session) {
                    return;
                }
            }
            progress.await;
        }
    }
}

/// Deadlines.
impl Peer {
    fn arm_timer(self: &Arc<Self>, state: &mut State, deadline: Instant) {
        match state.timer {
            Timer::NotStarted => {
                let Some(host) = self.host.upgrade() else { return };
                state.timer = Timer::Idle;
                let ended = host.closing.clone();
                host.io.spawn(expire_calls(Arc::clone(self), ended));
            }
            Timer::Until(until) if until <= deadline => return,
            Timer::Idle | Timer::Until(_) => {}
        }
        self.timer.notify_one();
    }

    /// Ends the calls whose deadline has come, and says when to look again.
    fn expire(&self) -> Option<Instant> {
        let mut events = Vec::new();
        let mut state = self.lock();
        state.session.on_timeout(now(), &mut events);
        let next = state.session.poll_timeout();
        state.timer = next.map_or(Timer::Idle, Timer::Until);
        drop(state);
        for event in events {
            if let Event::Failed { ticket, failure } = event {
                drop(ticket.send(Err(failure)));
            }
        }
        next
    }
}

/// One task a peer, from its first call with a deadline on.
async fn expire_calls(peer: Arc<Peer>, ended: CancellationToken) {
    loop {
        let next = peer.expire();
        tokio::select! {
            () = peer.timer.notified() => {}
            () = ended.cancelled() => return,
            () = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

/// The clock of all sessions: tokio's, so that paused time holds for them, too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Origin for Peer {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    fn reply(&self, call: CallId, body: Encoded<'_>) {
        let mut state = self.lock();
        if state.session.reply(call, body) {
            state.ring();
        }
    }

    fn fail(&self, call: CallId, failure: &CallFailure) {
        let mut state = self.lock();
        if state.session.fail(call, failure) {
            state.ring();
        }
    }

    fn dead_letter(&self, why: &CallFailure) {
        tracing::debug!(peer = %self.identity, ?why, "a one-way message was not delivered");
        self.count_dead_letters(1);
    }
}

impl State {
    fn ring(&self) {
        if let Link::Up(up) = &self.link {
            up.bell.notify_one();
        }
    }
}

impl Future for Pending {
    type Output = Result<Body, SendError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.answer).poll(task));
        self.ended = true;
        // The session ends every call; one without a word was dropped with its host.
        let outcome = outcome.unwrap_or(Err(Failed::OutcomeUnknown(LinkLoss::Shutdown)));
        Poll::Ready(outcome.map_err(|failed| SendError::failed(self.peer.identity, failed)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.ended {
            let _ticket = self.peer.lock().session.forget(self.call);
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("peer", &self.peer.identity).field("call", &self.call).finish()
    }
}
