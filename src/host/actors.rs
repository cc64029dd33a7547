//! The actors of this host that can be reached from afar.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};

use actix::Addr;
use rustc_hash::FxHashMap;

use crate::id::{ActorId, ActorIncarnation, Target};
use crate::lock::{Guard, RwLock};
use crate::registry::{ErasedMailbox, HostContext, Mailbox, RemoteActor};
use crate::wire::CallFailure;

/// All of them. Ids are never given twice.
#[derive(Default)]
pub(crate) struct Actors {
    entries: RwLock<Entries>,
    last: AtomicU64,
}

#[derive(Default)]
struct Entries {
    live: FxHashMap<ActorId, Arc<dyn ErasedMailbox>>,
    /// How many there are when it is time to look for those that ended unseen.
    sweep_at: usize,
}

impl Entries {
    /// Forgets actors that ended unseen: those that were started elsewhere and only served here.
    ///
    /// It waits for as many new ones as were left over, so an entry is looked at a few times at most. What it
    /// gives is to be dropped without the lock: an address is dropped with it, and may be an actor's last.
    #[must_use]
    fn sweep(&mut self) -> Vec<Arc<dyn ErasedMailbox>> {
        let ended: Vec<_> =
            self.live.iter().filter(|(_, mailbox)| !mailbox.is_connected()).map(|(id, _)| *id).collect();
        let ended = ended.iter().filter_map(|id| self.live.remove(id)).collect();
        self.sweep_at = 2 * self.live.len() + 64;
        ended
    }
}

/// Every actor here is in its first life: a restart, which would begin another, is not built yet.
const FIRST_INCARNATION: ActorIncarnation = ActorIncarnation(0);

impl Actors {
    /// An id that no actor of this host has had.
    pub(crate) fn reserve(&self) -> Target {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Target { actor: ActorId(id), incarnation: FIRST_INCARNATION }
    }

    /// Makes an actor reachable under a reserved id.
    pub(crate) fn insert<A: RemoteActor>(
        &self,
        target: Target,
        addr: Addr<A>,
        surroundings: Arc<dyn HostContext>,
    ) {
        let mailbox = Mailbox::new(addr, target.incarnation, surroundings);
        let mut entries = self.write();
        let is_time = entries.live.len() >= entries.sweep_at;
        let ended = if is_time { entries.sweep() } else { Vec::new() };
        let before = entries.live.insert(target.actor, mailbox);
        drop(entries);
        drop((ended, before));
    }

    /// The actor has ended, or shall no longer be reached.
    pub(crate) fn remove(&self, target: Target) {
        // The mailbox holds an address, whose drop may run more than this lock should see.
        let mailbox = self.write().live.remove(&target.actor);
        drop(mailbox);
    }

    /// Forgets all actors.
    pub(crate) fn clear(&self) {
        let entries = std::mem::take(&mut self.write().live);
        drop(entries);
    }

    /// The actor, or why there is none.
    pub(crate) fn find(&self, target: Target) -> Result<Arc<dyn ErasedMailbox>, CallFailure> {
        match self.read().live.get(&target.actor) {
            Some(mailbox) if mailbox.incarnation() == target.incarnation && mailbox.is_connected() => {
                Ok(Arc::clone(mailbox))
            }
            Some(_) => Err(CallFailure::ActorStopped),
            None if target.actor.0 <= self.last.load(Ordering::Relaxed) => Err(CallFailure::ActorStopped),
            None => Err(CallFailure::NoSuchActor),
        }
    }

    /// How many live.
    pub(crate) fn len(&self) -> usize {
        self.read().live.values().filter(|mailbox| mailbox.is_connected()).count()
    }

    fn read(&self) -> Guard<RwLockReadGuard<'_, Entries>> {
        self.entries.read()
    }

    fn write(&self) -> Guard<RwLockWriteGuard<'_, Entries>> {
        self.entries.write()
    }
}
