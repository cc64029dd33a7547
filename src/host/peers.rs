//! Table of the other hosts: the known ones, and those that were forgotten and may come again.
//!
//! A host is forgotten when it has left the cluster, or when it came by itself and is away for long. Addresses
//! of its actors keep its [`Peer`], which begins a session of a higher generation then: should the same
//! incarnation come again, both sides know that nothing of before is remembered, and the addresses work.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::peer::{Aftermath, Peer};
use super::{Host, Shared};
use crate::id::{HostId, HostUid};
use crate::lock::{Locked, Mutex};
use crate::observe::log;
use crate::session::DisconnectReason;
use crate::wire::Refusal;

/// Forgotten peers among which those are looked for that nobody holds any more.
const SWEEP_AT: usize = 64;

/// The other hosts.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    known: FxHashMap<HostId, Arc<Peer>>,
    /// Those that were forgotten, as long as an address or a handler holds them.
    forgotten: FxHashMap<HostId, Weak<Peer>>,
    sweep_at: usize,
    /// How often a peer was forgotten: the generation of the next session.
    generation: u32,
}

/// What a table gives to be dropped, or done, where no lock is held.
type Replaced = Vec<Arc<Peer>>;

impl Peers {
    /// The peer of that host, whatever its incarnation.
    pub(super) fn get(&self, host: HostId) -> Option<Arc<Peer>> {
        self.lock().known.get(&host).cloned()
    }

    /// The peer of that identity, also one that was forgotten, if an address holds it.
    pub(super) fn held(&self, identity: HostUid) -> Option<Arc<Peer>> {
        let table = self.lock();
        let known = table.known.get(&identity.host).cloned();
        let held = known.or_else(|| table.forgotten.get(&identity.host)?.upgrade());
        held.filter(|peer| peer.identity() == identity)
    }

    /// All that are known.
    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.lock().known.values().cloned().collect()
    }

    /// All that are known, and those of the others that an address holds.
    pub(super) fn all_held(&self) -> Vec<Arc<Peer>> {
        let table = self.lock();
        let forgotten = table.forgotten.values().filter_map(Weak::upgrade);
        table.known.values().cloned().chain(forgotten).collect()
    }

    /// The peer of that identity, made known if it is new, comes again or is of a later incarnation.
    pub(super) fn of(&self, host: &Arc<Shared>, identity: HostUid) -> Result<Arc<Peer>, (Refusal, String)> {
        let (peer, replaced) = self.lock().of(host, identity, false)?;
        close_all(replaced, identity);
        Ok(peer)
    }

    /// As [`of`](Self::of), and in the place of a later incarnation, too.
    fn supersede(&self, host: &Arc<Shared>, identity: HostUid) -> Result<Arc<Peer>, (Refusal, String)> {
        let (peer, replaced) = self.lock().of(host, identity, true)?;
        close_all(replaced, identity);
        Ok(peer)
    }

    /// Forgets a peer of that identity if it is known, and `only_if` says so of it.
    pub(super) fn forget(&self, identity: HostUid, only_if: impl FnOnce(&Peer) -> bool) {
        let forgotten = self.lock().forget(identity, only_if);
        if let Some((peer, aftermath)) = forgotten {
            aftermath.run(&peer);
            log::debug!(peer = %identity, "forgotten");
        }
    }

    fn lock(&self) -> Locked<'_, Table> {
        self.0.lock()
    }
}

impl Table {
    /// The peer of that identity. `present` says that it is the incarnation that the host has now, though a
    /// later one may be known.
    fn of(
        &mut self,
        host: &Arc<Shared>,
        identity: HostUid,
        present: bool,
    ) -> Result<(Arc<Peer>, Replaced), (Refusal, String)> {
        if host.closed.is_cancelled() {
            return Err((Refusal::Closing, "the host is shutting down".into()));
        }
        match self.known.get(&identity.host) {
            Some(peer) if peer.identity() == identity => return Ok((Arc::clone(peer), Vec::new())),
            Some(peer) if peer.identity().incarnation > identity.incarnation && present => {
                // Should that be there after all, it is not to resume what is dropped here.
                self.generation = self.generation.wrapping_add(1);
            }
            Some(peer) if peer.identity().incarnation > identity.incarnation => {
                let text = format!("a later life of that host is known: {}", peer.identity());
                return Err((Refusal::WrongHost, text));
            }
            None if host.draining.load(Ordering::Relaxed) => {
                return Err((Refusal::Closing, "the host is shutting down".into()));
            }
            Some(_) | None => {}
        }
        let mut replaced = Vec::new();
        let forgotten = self.forgotten.remove(&identity.host).and_then(|peer| peer.upgrade());
        let peer = match forgotten {
            Some(peer) if peer.identity() == identity => {
                peer.comes_again();
                peer
            }
            other => {
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
    ) -> Option<(Arc<Peer>, Aftermath)> {
        self.known.get(&identity.host).filter(|peer| peer.identity() == identity && only_if(peer))?;
        let peer = self.known.remove(&identity.host)?;
        self.generation = self.generation.wrapping_add(1);
        if self.forgotten.len() >= self.sweep_at {
            self.forgotten.retain(|_, peer| peer.strong_count() > 0);
            self.sweep_at = (2 * self.forgotten.len()).max(SWEEP_AT);
        }
        self.forgotten.insert(identity.host, Arc::downgrade(&peer));
        // Under this lock, so that one that comes again meanwhile does so before or after it.
        let aftermath = peer.forget(self.generation);
        Some((peer, aftermath))
    }
}

fn close_all(replaced: Replaced, by: HostUid) {
    for replaced in replaced {
        replaced.close(DisconnectReason::HostDown(format!("it restarted as {by}")));
    }
}

impl Host {
    /// Makes another host known, and where to dial it.
    ///
    /// A later incarnation of a known host takes the earlier one's place: what was open to that fails. An
    /// earlier one is late, and is not taken.
    pub fn add_peer(&self, identity: HostUid, address: SocketAddr) {
        self.made_known(self.shared.peers.of(&self.shared, identity), identity, address);
    }

    /// Makes another host known in the incarnation that it has now, and where to dial it, by the word of who has
    /// it from that host itself.
    ///
    /// It takes the place of any other incarnation, of a later one as well: the host's clock may have been set
    /// back, or its disk restored.
    pub fn supersede(&self, identity: HostUid, address: SocketAddr) {
        self.made_known(self.shared.peers.supersede(&self.shared, identity), identity, address);
    }

    fn made_known(&self, peer: Result<Arc<Peer>, (Refusal, String)>, identity: HostUid, address: SocketAddr) {
        match peer {
            Ok(peer) => peer.set_address(address),
            Err((Refusal::WrongHost, why)) => {
                log::warn!(peer = %identity, why, "a host was not made known")
            }
            // This one is closing.
            Err(_) => {}
        }
    }

    /// Forgets a host, which takes no room any more: what is open between the two ends as
    /// [`DisconnectReason::Forgotten`].
    ///
    /// The same incarnation may come again, or be introduced again. Addresses of its actors work then, and
    /// calls that may have been handled before are not made again.
    pub fn forget(&self, identity: HostUid) {
        self.shared.peers.forget(identity, |_| true);
    }

    /// Forgets, from now on, each host that came by itself, cannot be dialled, and has been away for so long.
    ///
    /// Without it a host that many come to, and leave without a word, keeps something of each for ever.
    pub fn expire_inbound_peers(&self, away: Duration) {
        let (host, closing) = (Arc::downgrade(&self.shared), self.shared.closed.clone());
        self.shared.io.spawn(closing.run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(away / 4).await;
                let Some(shared) = host.upgrade() else { return };
                for peer in shared.peers.all() {
                    if peer.is_expired_inbound(away) {
                        shared.peers.forget(peer.identity(), |peer| peer.is_expired_inbound(away));
                    }
                }
            }
        }));
    }
}
