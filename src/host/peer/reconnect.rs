//! The life of a peer's links: how they come up, what a break leads to, and what ends the session.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use super::{ActiveLink, Certified, Link, LinkGuard, Peer, SlotId, State};
use crate::config::{CROSSED_TIMEOUT, RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN, REFUSED_CONNECTS_MAX};
use crate::host::heartbeat::LinkMonitor;
use crate::host::{Host, connect, random_u64};
use crate::id::LinkId;
use crate::lock::Locked;
use crate::observe::log;
use crate::session::{DisconnectReason, Event, ProvenPeer, SessionError, WriteCertainty};
use crate::wire::{self, Refusal, Resume};

/// How much longer than the side that dialled the other waits before it dials, so that they do not
/// cross.
const ACCEPTOR_DELAY: u32 = 4;

/// What a failed attempt to connect says about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum FailureVerdict {
    /// Nothing: the way may be barred, or the peer be busy.
    None,
    /// That whoever listens there is another, or does not want the link, and will not. Nothing that
    /// was proved: it ends the hope for a first link, and no session.
    Rejected,
    /// That nobody is there: on this machine no port refuses whose process lives.
    HostDown,
    /// That the session is over: the peer has proved itself, and says that it is.
    SessionEnded,
}

impl Peer {
    /// Begins to connect, after a while.
    pub(super) fn start_connect(self: &Arc<Self>, state: &mut State, delay: Duration) {
        let attempt = LinkId(random_u64());
        let Some(address) = state.address else { return self.wait_for_inbound(state, attempt) };
        let abandon = self.closing.child_token();
        let dial = connect::Dial { peer: Arc::clone(self), attempt, address, delay };
        state.link = match delay {
            Duration::ZERO => Link::Dialing { attempt, cancel: abandon.clone(), reached: None },
            _ => Link::Backoff { attempt, cancel: abandon.clone() },
        };
        self.io.spawn(dial.run(Weak::clone(&self.host), abandon));
    }

    /// The rest before an attempt is over. Tells what the dial is to say, if it is wanted still.
    pub(in crate::host) fn begin_dial(&self, begun: LinkId) -> Option<(LinkId, Resume)> {
        let mut state = self.lock();
        match &state.link {
            Link::Backoff { attempt, cancel: abandon } if *attempt == begun => {
                state.link = Link::Dialing { attempt: begun, cancel: abandon.clone(), reached: None };
            }
            Link::Dialing { attempt, .. } if *attempt == begun => {}
            _ => return None,
        }
        Some((state.last_link, state.session.resume()))
    }

    /// The peer has proved itself to a dial of this host, and is about to be told who dials: from now on it may
    /// take the link. Says whether the dial is wanted still.
    pub(in crate::host) fn reached(&self, dialed: LinkId) -> bool {
        match &mut self.lock().link {
            Link::Dialing { attempt, reached, .. } if *attempt == dialed => {
                *reached = Some(tokio::time::Instant::now());
                true
            }
            _ => false,
        }
    }

    /// Waits for the peer's own dial: for a while, and then what is queued fails, or this host dials again;
    /// or as long as it takes if there is a session to resume that only the peer can.
    fn wait_for_inbound(self: &Arc<Self>, state: &mut State, attempt: LinkId) {
        let abandon = self.closing.child_token();
        state.link = Link::AwaitingInbound { attempt, abandon: abandon.clone() };
        let (patience, reason) = match state.address {
            None if state.resumable => return,
            None => {
                (self.connect_timeout, "it listens nowhere that is known here, and did not connect within")
            }
            Some(_) => (CROSSED_TIMEOUT, "it dialled itself at the same time, and did not connect within"),
        };
        let peer = Arc::downgrade(self);
        self.io.spawn(abandon.run_until_cancelled_owned(async move {
            tokio::time::sleep(patience).await;
            if let Some(peer) = peer.upgrade() {
                let reason = format!("{reason} {patience:?}");
                peer.on_connect_failed(attempt, DisconnectReason::Unreachable(reason), FailureVerdict::None);
            }
        }));
    }

    /// The peer refused our dial because its own is under way.
    pub(in crate::host) fn on_simultaneous_open(self: &Arc<Self>, dialed: LinkId) {
        let mut state = self.lock();
        if matches!(state.link, Link::Dialing { attempt, .. } if attempt == dialed) {
            self.wait_for_inbound(&mut state, dialed);
        }
    }

    /// An attempt came to nothing. A session that has begun is tried again; without evidence its
    /// calls go on waiting. A first link is tried for as long as one attempt may take.
    pub(in crate::host) fn on_connect_failed(
        self: &Arc<Self>,
        failed: LinkId,
        loss: DisconnectReason,
        evidence: FailureVerdict,
    ) {
        let mut events = Vec::new();
        let mut state = self.lock();
        let current = match &state.link {
            Link::Dialing { attempt, .. } | Link::AwaitingInbound { attempt, .. } => *attempt == failed,
            Link::Down | Link::Backoff { .. } | Link::Up(_) => false,
        };
        if current {
            state.refusals = if evidence == FailureVerdict::HostDown { state.refusals + 1 } else { 0 };
            let patient = match (state.resumable, evidence) {
                (_, FailureVerdict::SessionEnded) => false,
                (true, _) => state.refusals < REFUSED_CONNECTS_MAX,
                (false, _) => {
                    evidence == FailureVerdict::None
                        && state.connecting_since.elapsed() < self.connect_timeout
                }
            };
            if patient {
                state.failed_attempts += 1;
                let delay = self.delay(state.failed_attempts);
                self.start_connect(&mut state, delay);
                self.query_status(&mut state);
            } else if state.resumable {
                state.end_session(&loss, &mut events);
            } else {
                state.link = Link::Down;
                state.session.fail_queued(&loss, &mut events);
                // Whoever sends to it once more is to know whether there is a use.
                self.query_status(&mut state);
            }
        }
        self.deliver_outcomes(state, events);
        if current {
            log::debug!(peer = %self.identity, %loss, ?evidence, "an attempt to connect failed");
        }
    }

    /// How long to wait before so many attempts in a row are followed by another: it doubles, and
    /// differs a little from peer to peer, so that many do not come at once.
    fn delay(&self, attempts: u32) -> Duration {
        let doubled = RECONNECT_DELAY_MIN * (1 << attempts.saturating_sub(1).min(16));
        let delay = doubled.min(RECONNECT_DELAY_MAX);
        let spread = (self.identity.host.0 ^ u64::from(attempts)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        delay - delay * (spread as u32) / 4096
    }

    /// Our dial was welcomed. `None` if it is not wanted any more.
    pub(in crate::host) fn on_connected(
        self: &Arc<Self>,
        proven: &ProvenPeer,
        certificate: Option<Certified>,
    ) -> Option<LinkGuard> {
        let host = self.host()?;
        let mut events = Vec::new();
        let mut state = self.lock();
        if !matches!(state.link, Link::Dialing { attempt, .. } if attempt == proven.link) {
            return None;
        }
        state.certificate = certificate;
        let raised = self.bring_up(&host, &mut state, proven, true, &mut events);
        self.deliver_outcomes(state, events);
        match raised {
            Ok(up) => Some(self.lease(up)),
            Err(error) => {
                log::warn!(peer = %self.identity, %error, "a session could not be resumed");
                None
            }
        }
    }

    /// Decides about a proven peer that dialled us; tells where the session is, for the welcome.
    ///
    /// Of two hosts that dial each other at once, the dial of the one with the lower id wins, if it has
    /// reached the other: one that has not may hang for long, and is given up. The other side cannot have
    /// taken it, since this one has not said who it is. A link that we dialled and that the peer does not
    /// name as lost is such a crossing, too, unless the peer has forgotten it.
    /// Otherwise the peer has come back before we saw its old link break: the new one replaces it.
    pub(in crate::host) fn accept_link(
        self: &Arc<Self>,
        proven: &ProvenPeer,
        certificate: Option<Certified>,
    ) -> Result<(LinkGuard, Resume), (Refusal, String)> {
        let Some(host) = self.host() else {
            return Err((Refusal::Closing, "the host is gone".into()));
        };
        let mut events = Vec::new();
        let mut state = self.lock();
        if let Some(reason) = &state.down {
            return Err((Refusal::Closing, reason.to_string()));
        }
        if state.forgotten {
            return Err((Refusal::Stale, "the host was just forgotten; dial again".into()));
        }
        let crossed = match &state.link {
            Link::Dialing { reached, .. } => {
                let stands = reached.is_some_and(|reached| reached.elapsed() < CROSSED_TIMEOUT);
                stands && host.identity().host < self.identity.host
            }
            Link::Up(up) => {
                up.dialed && proven.replaces != up.id && !state.session.is_forgotten_by(proven.resume)
            }
            Link::Down | Link::Backoff { .. } | Link::AwaitingInbound { .. } => false,
        };
        if crossed {
            return Err((Refusal::SimultaneousOpen, "both sides dialled, and the other dial stands".into()));
        }
        if state.session.is_stale(proven.resume) {
            return Err((Refusal::Stale, "the session is further than that already".into()));
        }
        state.link.abandon();
        if let Link::Up(_) = &state.link {
            state.session.detach(WriteCertainty::AtMost);
        }
        state.certificate = certificate;
        let raised = self.bring_up(&host, &mut state, proven, false, &mut events);
        let resume = state.session.resume();
        self.deliver_outcomes(state, events);
        match raised {
            Ok(up) => Ok((self.lease(up), resume)),
            Err(error) => Err((Refusal::Malformed, error.to_string())),
        }
    }

    fn lease(self: &Arc<Self>, up: Arc<ActiveLink>) -> LinkGuard {
        log::debug!(link = %up.id, peer = %self.identity, dialed = up.dialed, "link is up");
        LinkGuard { peer: Arc::clone(self), up }
    }

    /// Takes up the link, and with it the session where it was.
    fn bring_up(
        self: &Arc<Self>,
        host: &Host,
        state: &mut State,
        proven: &ProvenPeer,
        dialed: bool,
        events: &mut Vec<Event<SlotId>>,
    ) -> Result<Arc<ActiveLink>, SessionError> {
        let registry = host.registry();
        let attached = if registry.digest() == proven.terms.schema {
            state.session.attach(&proven.terms, proven.resume, None, events)
        } else {
            wire::encode(registry.table(), usize::MAX, |table| {
                state.session.attach(&proven.terms, proven.resume, Some(table), events)
            })
            .expect("a table of texts always serializes")
        };
        if let Err(error) = attached {
            state.end_link();
            // What was parked since was never under way, and goes over another link.
            if state.needs_link() {
                state.failed_attempts = 1;
                state.connecting_since = tokio::time::Instant::now();
                let delay = self.delay(state.failed_attempts) * if dialed { 1 } else { ACCEPTOR_DELAY };
                self.start_connect(state, delay);
            }
            return Err(error);
        }
        state.writer_notified = false;
        let up = Arc::new(ActiveLink::new(proven.link, dialed, host.shared.closed.child_token()));
        state.link = Link::Up(Arc::clone(&up));
        state.last_link = proven.link;
        state.links_total += 1;
        state.resumable = true;
        state.refusals = 0;
        state.received_at_link_up = state.session.resume().received;
        self.watch(host, &up, state);
        Ok(up)
    }

    /// Has the I/O thread see to it that a link is not kept on which nothing comes any more, or whose
    /// certificate has ended.
    fn watch(self: &Arc<Self>, host: &Host, up: &Arc<ActiveLink>, state: &State) {
        let watched = LinkMonitor::new(&host.shared, self, up);
        if let (true, Some(address)) = (up.dialed, state.address) {
            host.shared.io.spawn(watched.clone().send_heartbeats(address));
        }
        let expires = state.certificate.as_ref().and_then(|(_, certificate)| certificate.expires());
        host.shared.io.spawn(watched.watch(expires));
    }

    /// The link has ended: the session waits for the next one, unless the reason ends it.
    fn link_lost(self: &Arc<Self>, lost: &ActiveLink, loss: DisconnectReason) {
        lost.closed.cancel();
        let mut events = Vec::new();
        let mut state = self.lock();
        let carried = state.is_current_link(lost);
        if carried {
            state.session.detach(WriteCertainty::Exact);
            match loss {
                DisconnectReason::PeerClosed { .. }
                | DisconnectReason::Protocol(_)
                | DisconnectReason::Shutdown => {
                    state.end_session(&loss, &mut events);
                }
                _ if state.session.is_closed() => state.end_session(&loss, &mut events),
                _ => self.schedule_reconnect(&mut state, lost.dialed),
            }
        }
        self.deliver_outcomes(state, events);
        if carried {
            log::debug!(peer = %self.identity, link = %lost.id, %loss, "link ended");
        }
    }

    /// Ends a link that is up, for a reason that its own task cannot see.
    pub(in crate::host) fn force_disconnect(self: &Arc<Self>, link: LinkId, loss: &DisconnectReason) {
        let mut state = self.lock();
        let up = match &state.link {
            Link::Up(up) if up.id == link => Arc::clone(up),
            _ => return,
        };
        up.closed.cancel();
        state.session.detach(WriteCertainty::AtMost);
        self.schedule_reconnect(&mut state, up.dialed);
        // The next attempt may take long to come to nothing.
        self.query_status(&mut state);
        self.serve_and_unlock(state);
        self.progress.notify_waiters();
        log::debug!(peer = %self.identity, %link, %loss, "link cut");
    }

    /// Gives up the link, or the attempt at one, and dials anew. The session goes on where it was.
    pub(in crate::host) fn redial(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.down.is_some() || state.address.is_none() {
            return;
        }
        state.link.abandon();
        if matches!(state.link, Link::Up(_)) {
            state.session.detach(WriteCertainty::AtMost);
            state.down_since = tokio::time::Instant::now();
        }
        state.failed_attempts = 0;
        self.start_connect(&mut state, Duration::ZERO);
        self.serve_and_unlock(state);
        self.progress.notify_waiters();
    }

    /// After a break: the side that dialled dials again, also if only the other has something to
    /// say; the other does if it has something to say and can.
    fn schedule_reconnect(self: &Arc<Self>, state: &mut State, dialed: bool) {
        state.link = Link::Down;
        state.down_since = tokio::time::Instant::now();
        let progressed = state.session.resume().received > state.received_at_link_up;
        state.failed_attempts = if progressed { 0 } else { state.failed_attempts + 1 };
        if dialed {
            let delay = if progressed { Duration::ZERO } else { self.delay(state.failed_attempts) };
            self.start_connect(state, delay);
        } else if state.needs_link() || state.address.is_none() {
            self.start_connect(state, self.delay(state.failed_attempts) * ACCEPTOR_DELAY);
        }
    }

    /// There will be no further link: everything fails now and from now on.
    pub(in crate::host) fn close(&self, loss: DisconnectReason) {
        let mut events = Vec::new();
        let mut state = self.lock();
        state.link.abandon();
        state.down.get_or_insert(loss.clone());
        state.session.detach(WriteCertainty::AtMost);
        state.session.close(&loss, &mut events);
        state.end_link();
        self.timer.notify_one();
        self.deliver_outcomes(state, events);
        self.ended.notify_waiters();
    }

    /// Tells what became of calls and letters that end without a reply; nothing else can be among them.
    ///
    /// Under the lock with which they left the session: behind it their slots may be others' already.
    pub(super) fn deliver_outcomes(&self, mut state: Locked<'_, State>, events: Vec<Event<SlotId>>) {
        let mut aftermath = state.resolve(events);
        aftermath.wake_too(self.serve(&mut state));
        drop(state);
        aftermath.run(self);
    }

    pub(super) fn count_dead_letters(&self, count: u64) {
        if let Some(host) = self.host.upgrade() {
            host.count_dead_letters(count);
        }
    }
}

/// What is left to do once the lock is free: it runs code that is not the library's.
#[derive(Default)]
#[must_use = "callers wait for it"]
pub(in crate::host) struct Aftermath {
    wake: Vec<Waker>,
    dead_letters: u64,
}

impl Aftermath {
    pub(super) fn wake_too(&mut self, wakers: Vec<Waker>) {
        self.wake.extend(wakers);
    }

    pub(in crate::host) fn run(self, peer: &Peer) {
        self.wake.into_iter().for_each(Waker::wake);
        if self.dead_letters > 0 {
            peer.count_dead_letters(self.dead_letters);
        }
        peer.progress.notify_waiters();
    }
}

impl State {
    /// Gives calls their ends; who waits for them is to be woken without the lock.
    pub(super) fn resolve(&mut self, events: Vec<Event<SlotId>>) -> Aftermath {
        let mut aftermath = Aftermath::default();
        for event in events {
            if let Some(Event::DeadLetters { count }) = self.answers.take_event(event, &mut aftermath.wake) {
                aftermath.dead_letters += count;
            }
        }
        aftermath
    }

    /// Ends the session: everything that is open or queued fails. A later message begins another.
    fn end_session(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<SlotId>>) {
        self.end_link();
        self.session.reset(loss, events);
    }

    /// There is no link, and none to be resumed.
    pub(super) fn end_link(&mut self) {
        self.link = Link::Down;
        self.down_since = tokio::time::Instant::now();
        self.resumable = false;
        self.failed_attempts = 0;
        self.refusals = 0;
    }

    /// Whether there is anything to do for which a link is needed: what waits here, and calls of the peer
    /// that are to be answered.
    fn needs_link(&self) -> bool {
        let session = &self.session;
        session.open_calls() > 0
            || session.inbound_calls() > 0
            || session.outgoing_bytes() > 0
            || session.parked_bytes() > 0
    }
}

impl LinkGuard {
    /// The link has ended, for this reason.
    pub(in crate::host) fn end(self, loss: DisconnectReason) {
        self.peer.link_lost(&self.up, loss);
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.peer.link_lost(&self.up, DisconnectReason::Shutdown);
    }
}
