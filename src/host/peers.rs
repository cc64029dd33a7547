//! Table of the other hosts: the known ones, and removed ones that may return.
//!
//! A host is removed when it has left the cluster, or when it only ever connected itself and has been
//! away for long. Addresses of its actors still hold its [`Peer`], which starts a session of a higher
//! generation. If the same incarnation returns, both sides know that the earlier session is lost, and the
//! addresses work.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::peer::{DeferredWakeups, Peer};
use super::{Host, HostShared};
use crate::background;
use crate::id::{HostId, HostUid};
use crate::lock::{Locked, Mutex};
use crate::observe::log;
use crate::session::DisconnectReason;
use crate::wire::Refusal;

/// Number of removed peers at which entries without references are purged.
const PURGE_AT: usize = 64;

/// Table of the other hosts.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<PeerTable>);

#[derive(Debug, Default)]
struct PeerTable {
    known: FxHashMap<HostId, Arc<Peer>>,
    /// Removed peers that an address or a handler still holds.
    forgotten: FxHashMap<HostId, Weak<Peer>>,
    purge_at: usize,
    /// Number of removals so far: the generation of the next session.
    generation: u32,
}

/// Replaced peers, which the caller closes and drops without the lock.
type Replaced = Vec<Arc<Peer>>;

impl Peers {
    /// Peer with that host id, in any incarnation.
    pub(super) fn get(&self, host: HostId) -> Option<Arc<Peer>> {
        self.lock().known.get(&host).cloned()
    }

    /// Peer with that identity, known or removed and still referenced.
    pub(super) fn held(&self, identity: HostUid) -> Option<Arc<Peer>> {
        let table = self.lock();
        let known = table.known.get(&identity.host).cloned();
        let held = known.or_else(|| table.forgotten.get(&identity.host)?.upgrade());
        held.filter(|peer| peer.identity() == identity)
    }

    /// All known peers.
    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.lock().known.values().cloned().collect()
    }

    /// All known peers, and the removed ones that are still referenced.
    pub(super) fn all_held(&self) -> Vec<Arc<Peer>> {
        let table = self.lock();
        let forgotten = table.forgotten.values().filter_map(Weak::upgrade);
        table.known.values().cloned().chain(forgotten).collect()
    }

    /// Peer with that identity, added if it is new, has returned or has a later incarnation.
    pub(super) fn of(
        &self,
        host: &Arc<HostShared>,
        identity: HostUid,
    ) -> Result<Arc<Peer>, (Refusal, String)> {
        let (peer, replaced) = self.lock().of(host, identity, false)?;
        close_all(replaced, identity);
        Ok(peer)
    }

    /// [`of`](Self::of) that also replaces a later incarnation.
    fn supersede(&self, host: &Arc<HostShared>, identity: HostUid) -> Result<Arc<Peer>, (Refusal, String)> {
        let (peer, replaced) = self.lock().of(host, identity, true)?;
        close_all(replaced, identity);
        Ok(peer)
    }

    /// Removes the peer with that identity, if it is known and `only_if` returns true.
    pub(super) fn forget(&self, identity: HostUid, only_if: impl FnOnce(&Peer) -> bool) {
        let forgotten = self.lock().forget(identity, only_if);
        if let Some((peer, deferred)) = forgotten {
            deferred.run(&peer);
            log::debug!(peer = %identity, "forgotten");
        }
    }

    fn lock(&self) -> Locked<'_, PeerTable> {
        self.0.lock()
    }
}

impl PeerTable {
    /// Peer with that identity. With `present` the identity is authoritative, even if a later one is
    /// known.
    fn of(
        &mut self,
        host: &Arc<HostShared>,
        identity: HostUid,
        present: bool,
    ) -> Result<(Arc<Peer>, Replaced), (Refusal, String)> {
        if host.closed.is_cancelled() {
            return Err((Refusal::Closing, "the host is shutting down".into()));
        }
        match self.known.get(&identity.host) {
            Some(peer) if peer.identity() == identity => return Ok((Arc::clone(peer), Vec::new())),
            Some(peer) if peer.identity().incarnation > identity.incarnation && present => {
                // If the later one is live after all, it must not resume a session that is dropped here.
                self.generation = self.generation.wrapping_add(1);
            }
            Some(peer) if peer.identity().incarnation > identity.incarnation => {
                let text = format!("a later incarnation of that host is known: {}", peer.identity());
                return Err((Refusal::WrongHost, text));
            }
            // A known peer may still reconnect, since its open calls have to end.
            None if host.draining.is_cancelled() => {
                return Err((Refusal::Closing, "the host is shutting down".into()));
            }
            Some(_) | None => {}
        }
        let mut replaced = Vec::new();
        let forgotten = self.forgotten.remove(&identity.host).and_then(|peer| peer.upgrade());
        let peer = match forgotten {
            Some(peer) if peer.identity() == identity => {
                peer.on_return();
                peer
            }
            other => {
                // Another incarnation, whose addresses must fail from now on.
                replaced.extend(other);
                Peer::new(host, identity, self.generation)
            }
        };
        replaced.extend(self.known.insert(identity.host, Arc::clone(&peer)));
        Ok((peer, replaced))
    }

    fn forget(
        &mut self,
        identity: HostUid,
        only_if: impl FnOnce(&Peer) -> bool,
    ) -> Option<(Arc<Peer>, DeferredWakeups)> {
        self.known.get(&identity.host).filter(|peer| peer.identity() == identity && only_if(peer))?;
        let peer = self.known.remove(&identity.host)?;
        self.generation = self.generation.wrapping_add(1);
        if self.forgotten.len() >= self.purge_at {
            self.forgotten.retain(|_, peer| peer.strong_count() > 0);
            // Doubled, so that the cost of a purge is amortized over the removals.
            self.purge_at = (2 * self.forgotten.len()).max(PURGE_AT);
        }
        self.forgotten.insert(identity.host, Arc::downgrade(&peer));
        // Under this lock, so that a concurrent return happens entirely before or after it.
        let deferred = peer.forget(self.generation);
        Some((peer, deferred))
    }
}

fn close_all(replaced: Replaced, by: HostUid) {
    for replaced in replaced {
        replaced.close(DisconnectReason::HostDown(format!("it restarted as {by}")));
    }
}

impl Host {
    /// Adds another host and its address.
    ///
    /// A later incarnation of a known host replaces the earlier one, whose open calls fail. An earlier
    /// incarnation is outdated, and is ignored.
    pub fn add_peer(&self, identity: HostUid, address: SocketAddr) {
        self.added(self.shared.peers.of(&self.shared, identity), identity, address);
    }

    /// Adds another host in its present incarnation, which the caller has from that host itself, and its
    /// address.
    ///
    /// It replaces any other incarnation, even a later one: the host's clock may have been set back, or
    /// its disk restored.
    pub fn supersede(&self, identity: HostUid, address: SocketAddr) {
        self.added(self.shared.peers.supersede(&self.shared, identity), identity, address);
    }

    fn added(&self, peer: Result<Arc<Peer>, (Refusal, String)>, identity: HostUid, address: SocketAddr) {
        match peer {
            Ok(peer) => peer.set_address(address),
            Err((Refusal::WrongHost, why)) => {
                log::warn!(peer = %identity, why, "ignored an outdated incarnation of a host")
            }
            // This host is closing.
            Err(_) => {}
        }
    }

    /// Removes a host and frees its resources; open calls with it fail as
    /// [`DisconnectReason::Forgotten`].
    ///
    /// The same incarnation may return or be added again. Addresses of its actors work then, and calls
    /// that may have run are not retried.
    pub fn forget(&self, identity: HostUid) {
        self.shared.peers.forget(identity, |_| true);
    }

    /// Starts a task that removes each host that only ever connected itself and has been away for `away`.
    ///
    /// Without it, a host with many short-lived peers would keep state for each of them forever.
    pub fn expire_inbound_peers(&self, away: Duration) {
        let (host, closing) = (Arc::downgrade(&self.shared), self.shared.closed.clone());
        background::spawn_on(
            &self.shared.io,
            closing.run_until_cancelled_owned(async move {
                loop {
                    // A quarter, so that a removal is late by at most that part of the time.
                    tokio::time::sleep(away / 4).await;
                    let Some(shared) = host.upgrade() else { return };
                    for peer in shared.peers.all() {
                        if peer.is_expired_inbound(away) {
                            // Checked again under the table's lock, since the peer may have returned.
                            shared.peers.forget(peer.identity(), |peer| peer.is_expired_inbound(away));
                        }
                    }
                }
            }),
        );
    }
}
