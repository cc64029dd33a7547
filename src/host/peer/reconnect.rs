//! Lifecycle of a peer's links: connect, accept, lose, reconnect, and the end of the session.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{ActiveLink, Certified, LinkGuard, LinkState, Peer, PeerState, SlotId};
use crate::background;
use crate::config::{CROSSED_TIMEOUT, RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN, REFUSED_CONNECTS_MAX};
use crate::host::heartbeat::LinkMonitor;
use crate::host::{Host, connect, random_u64};
use crate::id::LinkId;
use crate::observe::log;
use crate::session::{DisconnectReason, Event, ProvenPeer, SessionError, WriteCertainty};
use crate::wire::{self, Refusal, Resume};

/// Factor by which the accepting side delays its dial, so that the dialling side reconnects first.
const ACCEPTOR_DELAY: u32 = 4;

/// Conclusion about the peer from a failed attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum FailureVerdict {
    /// No conclusion: the network may be partitioned, or the peer busy.
    None,
    /// Another host listens there, or the peer rejects the link and will not change its mind.
    ///
    /// Nothing of that was proved, so it fails a first link but ends no session.
    Rejected,
    /// No process listens there: on this machine the port of a live process does not refuse.
    HostDown,
    /// The authenticated peer reports that the session is over.
    SessionEnded,
}

impl Peer {
    /// Starts to connect, after a delay.
    pub(super) fn start_connect(self: &Arc<Self>, state: &mut PeerState, delay: Duration) {
        let attempt = LinkId(random_u64());
        let Some(address) = state.address else { return self.wait_for_inbound(state, attempt) };
        // A child token, so that a closing host cancels the attempt.
        let cancel = self.closing.child_token();
        let dial = connect::Dial { peer: Arc::clone(self), attempt, address, delay };
        state.link = match delay {
            Duration::ZERO => LinkState::Dialing { attempt, cancel: cancel.clone(), reached: None },
            _ => LinkState::Backoff { attempt, cancel: cancel.clone() },
        };
        background::spawn_on(&self.io, dial.run(Weak::clone(&self.host), cancel));
    }

    /// Turns the back-off of an attempt into a dial, and returns the content of its hello.
    ///
    /// `None` if the attempt is no longer current.
    pub(in crate::host) fn begin_dial(&self, attempted: LinkId) -> Option<(LinkId, Resume)> {
        let mut state = self.lock();
        match &state.link {
            LinkState::Backoff { attempt, cancel } if *attempt == attempted => {
                state.link = LinkState::Dialing { attempt: attempted, cancel: cancel.clone(), reached: None };
            }
            LinkState::Dialing { attempt, .. } if *attempt == attempted => {}
            _ => return None,
        }
        Some((state.last_link, state.session.resume()))
    }

    /// Records that the peer is authenticated; returns false if the dial is no longer current.
    ///
    /// This side proves its identity next, so the peer may accept the link from now on.
    pub(in crate::host) fn reached(&self, dialed: LinkId) -> bool {
        match &mut self.lock().link {
            LinkState::Dialing { attempt, reached, .. } if *attempt == dialed => {
                *reached = Some(tokio::time::Instant::now());
                true
            }
            _ => false,
        }
    }

    /// Waits for the peer's own dial.
    ///
    /// After a timeout the attempt counts as failed. There is no timeout for a session to resume with a
    /// peer whose address is unknown, since only the peer can connect.
    fn wait_for_inbound(self: &Arc<Self>, state: &mut PeerState, attempt: LinkId) {
        let cancel = self.closing.child_token();
        state.link = LinkState::AwaitingInbound { attempt, cancel: cancel.clone() };
        let (patience, reason) = match state.address {
            None if state.resumable => return,
            None => (self.connect_timeout, "its address is unknown here, and it did not connect within"),
            Some(_) => (CROSSED_TIMEOUT, "it dialled at the same time, and its dial did not arrive within"),
        };
        // Weak: the timer must not keep a peer that the host has dropped.
        let peer = Arc::downgrade(self);
        background::spawn_on(
            &self.io,
            cancel.run_until_cancelled_owned(async move {
                tokio::time::sleep(patience).await;
                if let Some(peer) = peer.upgrade() {
                    let reason = format!("{reason} {patience:?}");
                    peer.on_connect_failed(
                        attempt,
                        DisconnectReason::Unreachable(reason),
                        FailureVerdict::None,
                    );
                }
            }),
        );
    }

    /// Waits for the peer's own dial, on whose behalf it refused this one.
    pub(in crate::host) fn on_simultaneous_open(self: &Arc<Self>, dialed: LinkId) {
        let mut state = self.lock();
        if matches!(state.link, LinkState::Dialing { attempt, .. } if attempt == dialed) {
            self.wait_for_inbound(&mut state, dialed);
        }
    }

    /// Decides about the next attempt after a failed one. `state.connecting_since` bounds a first link.
    ///
    /// | session | verdict | further condition | next step |
    /// |---|---|---|---|
    /// | resumable | `None`, `Rejected` | | retry after a delay |
    /// | resumable | `HostDown` | fewer than [`REFUSED_CONNECTS_MAX`] in a row | retry after a delay |
    /// | resumable | `HostDown` | otherwise | end the session |
    /// | resumable | `SessionEnded` | | end the session |
    /// | no link yet | `None` | within the connect timeout | retry after a delay |
    /// | no link yet | `None` | otherwise | fail the queued messages |
    /// | no link yet | any other | | fail the queued messages |
    ///
    /// Each retry, and a failed first link, also starts a status query: the cluster may know that the
    /// host has exited.
    pub(in crate::host) fn on_connect_failed(
        self: &Arc<Self>,
        failed: LinkId,
        loss: DisconnectReason,
        verdict: FailureVerdict,
    ) {
        let mut events = Vec::new();
        let mut state = self.lock();
        // A cancelled attempt may still report its failure, and must not change the state.
        let current = match &state.link {
            LinkState::Dialing { attempt, .. } | LinkState::AwaitingInbound { attempt, .. } => {
                *attempt == failed
            }
            LinkState::Down | LinkState::Backoff { .. } | LinkState::Up(_) => false,
        };
        if current {
            state.refusals = if verdict == FailureVerdict::HostDown { state.refusals + 1 } else { 0 };
            let retry = match (state.resumable, verdict) {
                (_, FailureVerdict::SessionEnded) => false,
                (true, _) => state.refusals < REFUSED_CONNECTS_MAX,
                (false, _) => {
                    verdict == FailureVerdict::None && state.connecting_since.elapsed() < self.connect_timeout
                }
            };
            if retry {
                state.failed_attempts += 1;
                let delay = self.delay(state.failed_attempts);
                self.start_connect(&mut state, delay);
                self.query_status(&mut state);
            } else if state.resumable {
                state.end_session(&loss, &mut events);
            } else {
                state.link = LinkState::Down;
                // The next sender learns from the result whether another attempt is of use.
                state.session.fail_queued(&loss, &mut events);
                self.query_status(&mut state);
            }
        }
        self.deliver_outcomes(state, events);
        if current {
            // Logged without the lock, since a log subscriber is foreign code.
            log::debug!(peer = %self.identity, %loss, ?verdict, "an attempt to connect failed");
        }
    }

    /// Delay after that number of consecutive failed attempts.
    ///
    /// It doubles with each attempt, and is reduced by up to a quarter. The reduction differs from peer
    /// to peer, so that many hosts do not reconnect simultaneously.
    fn delay(&self, attempts: u32) -> Duration {
        let doubled = RECONNECT_DELAY_MIN * (1 << attempts.saturating_sub(1).min(16));
        let delay = doubled.min(RECONNECT_DELAY_MAX);
        // Fibonacci hashing: the golden ratio spreads consecutive inputs evenly over ten bits.
        let spread = (self.identity.host.0 ^ u64::from(attempts)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        delay - delay * (spread as u32) / 4096
    }

    /// Brings up the link of a welcomed dial; `None` if the dial is no longer current.
    pub(in crate::host) fn on_connected(
        self: &Arc<Self>,
        proven: &ProvenPeer,
        certificate: Option<Certified>,
    ) -> Option<LinkGuard> {
        let host = self.host()?;
        let mut events = Vec::new();
        let mut state = self.lock();
        // The peer's own dial may have been accepted while this one was welcomed.
        if !matches!(state.link, LinkState::Dialing { attempt, .. } if attempt == proven.link) {
            return None;
        }
        state.certificate = certificate;
        let attached = self.bring_up(&host, &mut state, proven, true, &mut events);
        self.deliver_outcomes(state, events);
        match attached {
            Ok(up) => Some(self.guard(up)),
            Err(error) => {
                log::warn!(peer = %self.identity, %error, "cannot resume the session; the link is closed");
                None
            }
        }
    }

    /// Decides about an authenticated peer that dialled this host; returns the session position for the
    /// welcome.
    ///
    /// | state here | condition | decision |
    /// |---|---|---|
    /// | peer is down | | refuse: `Closing` |
    /// | peer was just removed | | refuse: `Stale` |
    /// | `Dialing` | peer authenticated within [`CROSSED_TIMEOUT`], and own id is lower | refuse: `SimultaneousOpen` |
    /// | `Dialing` | otherwise | accept, cancel the own dial |
    /// | `Up`, dialled here | not named as lost, and the peer still has the session | refuse: `SimultaneousOpen` |
    /// | `Up` | otherwise | accept, replace the old link |
    /// | any other | | accept |
    /// | accepted | the session is ahead of the peer's position | refuse: `Stale` |
    ///
    /// Of two simultaneous dials that of the lower id wins, but only after it has authenticated its peer:
    /// a dial that hangs must not block the other. The peer cannot have accepted a cancelled dial, since
    /// this side had not proved its identity on it. In `Up` the peer lost the old link before this side
    /// noticed.
    pub(in crate::host) fn accept_link(
        self: &Arc<Self>,
        proven: &ProvenPeer,
        certificate: Option<Certified>,
    ) -> Result<(LinkGuard, Resume), (Refusal, String)> {
        let Some(host) = self.host() else {
            return Err((Refusal::Closing, "the host has ended".into()));
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
            LinkState::Dialing { reached, .. } => {
                let stands = reached.is_some_and(|reached| reached.elapsed() < CROSSED_TIMEOUT);
                stands && host.identity().host < self.identity.host
            }
            LinkState::Up(up) => {
                up.dialed && proven.replaces != up.id && !state.session.is_forgotten_by(proven.resume)
            }
            LinkState::Down | LinkState::Backoff { .. } | LinkState::AwaitingInbound { .. } => false,
        };
        if crossed {
            return Err((Refusal::SimultaneousOpen, "both sides dialled, and the other dial stands".into()));
        }
        if state.session.is_stale(proven.resume) {
            return Err((Refusal::Stale, "the session has progressed since; dial again".into()));
        }
        state.link.cancel();
        // Another task drives the old link. It may have written more than it has reported.
        if let LinkState::Up(_) = &state.link {
            state.session.detach(WriteCertainty::AtMost);
        }
        state.certificate = certificate;
        let attached = self.bring_up(&host, &mut state, proven, false, &mut events);
        let resume = state.session.resume();
        self.deliver_outcomes(state, events);
        match attached {
            Ok(up) => Ok((self.guard(up), resume)),
            Err(error) => Err((Refusal::Malformed, error.to_string())),
        }
    }

    fn guard(self: &Arc<Self>, up: Arc<ActiveLink>) -> LinkGuard {
        log::debug!(link = %up.id, peer = %self.identity, dialed = up.dialed, "link is up");
        LinkGuard { peer: Arc::clone(self), up }
    }

    /// Attaches the session to a link.
    fn bring_up(
        self: &Arc<Self>,
        host: &Host,
        state: &mut PeerState,
        proven: &ProvenPeer,
        dialed: bool,
        events: &mut Vec<Event<SlotId>>,
    ) -> Result<Arc<ActiveLink>, SessionError> {
        let registry = host.registry();
        // Equal digests mean equal declarations, so the table need not be sent.
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
            // Messages that were queued for credit were never sent, and go over another link.
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
        state.link = LinkState::Up(Arc::clone(&up));
        state.last_link = proven.link;
        state.links_total += 1;
        state.resumable = true;
        state.refusals = 0;
        state.received_at_link_up = state.session.resume().received;
        self.watch(host, &up, state);
        Ok(up)
    }

    /// Starts the I/O tasks that cut the link after silence, or when the certificate expires.
    fn watch(self: &Arc<Self>, host: &Host, up: &Arc<ActiveLink>, state: &PeerState) {
        let monitor = LinkMonitor::new(&host.shared, self, up);
        // Only the dialling side opens a heartbeat connection, so that a link has a single one.
        if let (true, Some(address)) = (up.dialed, state.address) {
            background::spawn_on(&host.shared.io, monitor.clone().send_heartbeats(address));
        }
        let expires = state.certificate.as_ref().and_then(|(_, certificate)| certificate.expires());
        background::spawn_on(&host.shared.io, monitor.watch(expires));
    }

    /// Handles the end of a link: the session waits for the next one, unless the reason ends it.
    fn link_lost(self: &Arc<Self>, lost: &ActiveLink, loss: DisconnectReason) {
        // Ends the link's heartbeat tasks.
        lost.closed.cancel();
        let mut events = Vec::new();
        let mut state = self.lock();
        let carried = state.is_current_link(lost);
        if carried {
            // The link's own task reports the end, after its last report of written bytes.
            state.session.detach(WriteCertainty::Exact);
            match loss {
                // The peer has left or violated the protocol, or this host ends. No later link could
                // resume the session.
                DisconnectReason::PeerClosed { .. }
                | DisconnectReason::Protocol(_)
                | DisconnectReason::Shutdown => {
                    state.end_session(&loss, &mut events);
                }
                // The peer has acknowledged all frames up to this side's goodbye: nothing is left to resend.
                _ if state.session.is_closed() => state.end_session(&loss, &mut events),
                _ => self.schedule_reconnect(&mut state, lost.dialed),
            }
        }
        self.deliver_outcomes(state, events);
        if carried {
            log::debug!(peer = %self.identity, link = %lost.id, %loss, "link ended");
        }
    }

    /// Ends a link for a reason that its own task cannot detect.
    pub(in crate::host) fn force_disconnect(self: &Arc<Self>, link: LinkId, loss: &DisconnectReason) {
        let mut state = self.lock();
        let up = match &state.link {
            LinkState::Up(up) if up.id == link => Arc::clone(up),
            _ => return,
        };
        // Another task than the link's calls this, so its last write may be unreported.
        up.closed.cancel();
        state.session.detach(WriteCertainty::AtMost);
        self.schedule_reconnect(&mut state, up.dialed);
        // A dial into a partitioned network fails only after its timeout, so the query starts now.
        self.query_status(&mut state);
        self.serve_and_unlock(state);
        self.progress.notify_waiters();
        log::debug!(peer = %self.identity, %link, %loss, "link cut");
    }

    /// Cancels the link or the attempt, and dials immediately. The session continues.
    pub(in crate::host) fn redial(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.down.is_some() || state.address.is_none() {
            return;
        }
        state.link.cancel();
        if matches!(state.link, LinkState::Up(_)) {
            state.session.detach(WriteCertainty::AtMost);
            state.down_since = tokio::time::Instant::now();
        }
        state.failed_attempts = 0;
        self.start_connect(&mut state, Duration::ZERO);
        self.serve_and_unlock(state);
        self.progress.notify_waiters();
    }

    /// Decides who dials after a lost link.
    ///
    /// The side that dialled dials again, even if only the other has messages. The accepting side dials
    /// if it has messages and an address, with a longer delay.
    fn schedule_reconnect(self: &Arc<Self>, state: &mut PeerState, dialed: bool) {
        state.link = LinkState::Down;
        state.down_since = tokio::time::Instant::now();
        // A link that breaks without having received a frame counts as a failed attempt. Otherwise two
        // hosts whose links come up and break immediately would reconnect without any delay.
        let progressed = state.session.resume().received > state.received_at_link_up;
        state.failed_attempts = if progressed { 0 } else { state.failed_attempts + 1 };
        if dialed {
            let delay = if progressed { Duration::ZERO } else { self.delay(state.failed_attempts) };
            self.start_connect(state, delay);
        } else if state.needs_link() || state.address.is_none() {
            self.start_connect(state, self.delay(state.failed_attempts) * ACCEPTOR_DELAY);
        }
    }

    /// Closes the peer for good: everything open fails, and so do later messages.
    pub(in crate::host) fn close(&self, loss: DisconnectReason) {
        let mut events = Vec::new();
        let mut state = self.lock();
        state.link.cancel();
        // The first reason is the cause, and later ones are consequences of it.
        state.down.get_or_insert(loss.clone());
        state.session.detach(WriteCertainty::AtMost);
        state.session.close(&loss, &mut events);
        state.end_link();
        self.timer.notify_one();
        self.deliver_outcomes(state, events);
        self.ended.notify_waiters();
    }
}

impl PeerState {
    /// Ends the session: everything open or queued fails. A later message begins another.
    fn end_session(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<SlotId>>) {
        self.end_link();
        self.session.reset(loss, events);
    }

    /// Clears the link and the state of its reconnects.
    pub(super) fn end_link(&mut self) {
        self.link = LinkState::Down;
        self.down_since = tokio::time::Instant::now();
        self.resumable = false;
        self.failed_attempts = 0;
        self.refusals = 0;
    }

    /// True if a link is needed: for queued or unacknowledged bytes, or for open calls of either side.
    fn needs_link(&self) -> bool {
        let session = &self.session;
        session.open_calls() > 0
            // Replies to the peer's open calls need a link as well.
            || session.inbound_calls() > 0
            || session.outgoing_bytes() > 0
            || session.send_queue_bytes() > 0
    }
}

impl LinkGuard {
    /// Reports the end of the link and its reason.
    pub(in crate::host) fn end(self, loss: DisconnectReason) {
        self.peer.link_lost(&self.up, loss);
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        // Also runs after `end`, when the link is no longer current and this has no effect.
        self.peer.link_lost(&self.up, DisconnectReason::Shutdown);
    }
}
