//! The life of a peer's link: how it comes up, and what becomes of what was queued when it does not.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Lease, Link, Peer, State, Ticket, Up, now};
use crate::host::{Shared, connect, random_u64};
use crate::id::{Identity, LinkId};
use crate::session::{Event, LinkLoss, ProvenPeer, Written};
use crate::wire::Refusal;

impl Peer {
    pub(super) fn open(self: &Arc<Self>, state: &mut State) {
        let Some(host) = self.host.upgrade() else { return };
        let attempt = LinkId(random_u64());
        match state.address {
            Some(address) => {
                let abandon = host.closing.child_token();
                state.link = Link::Dialing { attempt, abandon: abandon.clone() };
                let dial =
                    connect::Dial { peer: Arc::clone(self), attempt, address, replaces: state.last_link };
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
                let reason =
                    format!("it listens nowhere that is known here, and did not connect within {patience:?}");
                peer.attempt_failed(attempt, LinkLoss::Unreachable(reason));
            }
        });
    }

    /// The peer refused our dial because its own is under way.
    pub(in crate::host) fn crossed(self: &Arc<Self>, host: &Arc<Shared>, dialed: LinkId) {
        let mut state = self.lock();
        if matches!(state.link, Link::Dialing { attempt, .. } if attempt == dialed) {
            self.await_peer(&mut state, host, dialed);
        }
    }

    /// An attempt came to nothing: what was queued for it fails.
    pub(in crate::host) fn attempt_failed(&self, failed: LinkId, loss: LinkLoss) {
        let mut events = Vec::new();
        let mut state = self.lock();
        let current = match state.link {
            Link::Dialing { attempt, .. } | Link::Awaiting { attempt } => attempt == failed,
            Link::Down | Link::Up(_) => false,
        };
        if current {
            state.link = Link::Down;
            state.session.detach(loss, Written::Told, &mut events);
        }
        drop(state);
        self.settle(events);
    }

    /// Our dial was welcomed. `None` if the peer's own link has taken its place meanwhile.
    pub(in crate::host) fn dialed(self: &Arc<Self>, proven: &ProvenPeer) -> Option<Lease> {
        let mut events = Vec::new();
        let mut state = self.lock();
        if !matches!(state.link, Link::Dialing { attempt, .. } if attempt == proven.link) {
            return None;
        }
        let up = state.raise(proven, true, &mut events);
        drop(state);
        self.settle(events);
        Some(Lease { peer: Arc::clone(self), up })
    }

    /// Decides about a proven peer that dialled us.
    ///
    /// Of two hosts that dial each other at once, the dial of the one with the lower id wins. A
    /// link that we dialled and that the peer does not name as lost is such a crossing, too.
    /// Otherwise the peer has come back before we saw its old link break: the new one replaces it.
    pub(in crate::host) fn admit(
        self: &Arc<Self>,
        me: Identity,
        proven: &ProvenPeer,
    ) -> Result<Lease, (Refusal, String)> {
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
                state.session.detach(LinkLoss::Superseded, Written::Unsure, &mut events);
            }
            Link::Down | Link::Awaiting { .. } => {}
        }
        let up = state.raise(proven, false, &mut events);
        drop(state);
        self.settle(events);
        Ok(Lease { peer: Arc::clone(self), up })
    }

    /// The link has ended.
    fn link_lost(&self, lost: &Up, loss: LinkLoss) {
        let mut events = Vec::new();
        let mut state = self.lock();
        if matches!(&state.link, Link::Up(up) if up.id == lost.id) {
            tracing::debug!(peer = %self.identity, link = %lost.id, %loss, "link ended");
            state.link = Link::Down;
            state.session.detach(loss, Written::Told, &mut events);
        }
        drop(state);
        self.settle(events);
    }

    /// There will be no further link: everything fails now and from now on.
    pub(in crate::host) fn close(&self, loss: LinkLoss) {
        let mut events = Vec::new();
        let mut state = self.lock();
        match std::mem::replace(&mut state.link, Link::Down) {
            Link::Up(up) => up.closed.cancel(),
            Link::Dialing { abandon, .. } => abandon.cancel(),
            Link::Down | Link::Awaiting { .. } => {}
        }
        state.gone.get_or_insert(loss.clone());
        state.session.detach(loss, Written::Unsure, &mut events);
        drop(state);
        self.settle(events);
    }

    /// Tells what became of calls and letters that end without a reply; nothing else can be among them.
    pub(super) fn settle(&self, events: Vec<Event<Ticket>>) {
        for event in events {
            match event {
                // A caller that no longer waits is no concern of ours.
                Event::Failed { ticket, failure } => drop(ticket.send(Err(failure))),
                Event::DeadLetters { count } => self.count_dead_letters(count),
                _ => {}
            }
        }
        self.progress.notify_waiters();
    }

    pub(super) fn count_dead_letters(&self, count: u64) {
        if let Some(host) = self.host.upgrade() {
            host.count_dead_letters(count);
        }
    }
}

impl State {
    /// Takes up the link. What was queued and is too large for the peer fails at once.
    fn raise(&mut self, proven: &ProvenPeer, dialed: bool, events: &mut Vec<Event<Ticket>>) -> Arc<Up> {
        let up =
            Arc::new(Up { id: proven.link, dialed, bell: Notify::new(), closed: CancellationToken::new() });
        tracing::debug!(link = %proven.link, peer = %proven.identity, dialed, "link is up");
        self.link = Link::Up(Arc::clone(&up));
        self.last_link = proven.link;
        self.session.attach(now(), proven.frame_bytes_max);
        self.session.on_timeout(now(), events);
        up
    }
}

impl Lease {
    /// The link has ended, for this reason.
    pub(in crate::host) fn end(self, loss: LinkLoss) {
        self.peer.link_lost(&self.up, loss);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.peer.link_lost(&self.up, LinkLoss::Shutdown);
    }
}
