//! The actors of this host that can be reached from afar.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use actix::Addr;
use rustc_hash::FxHashMap;

use crate::id::{ActorId, ActorIncarnation, Target, TypeHash};
use crate::registry::{Mailbox, Reachable, RemoteActor, Surroundings};
use crate::wire::CallFailure;

/// One reachable actor.
pub(crate) struct ActorEntry {
    /// Its type.
    pub(crate) kind: TypeHash,
    /// The type's name.
    pub(crate) name: &'static str,
    /// The way to it.
    pub(crate) mailbox: Arc<dyn Reachable>,
    incarnation: ActorIncarnation,
}

impl fmt::Debug for ActorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All of them. Ids are never given twice.
#[derive(Debug, Default)]
pub(crate) struct Actors {
    entries: RwLock<Entries>,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Entries {
    live: FxHashMap<ActorId, Arc<ActorEntry>>,
    /// How many there are when it is time to look for those that ended unseen.
    sweep_at: usize,
}

impl Entries {
    /// Forgets actors that ended unseen: those that were started elsewhere and only served here.
    ///
    /// It waits for as many new ones as were left over, so an entry is looked at a few times at most.
    fn sweep(&mut self) {
        self.live.retain(|_, entry| entry.mailbox.is_connected());
        self.sweep_at = 2 * self.live.len() + 64;
    }
}

/// Every actor here is in its first life: a restart, which would begin another, is not built yet.
const FIRST_LIFE: ActorIncarnation = ActorIncarnation(0);

impl Actors {
    /// An id that no actor of this host has had.
    pub(crate) fn reserve(&self) -> Target {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Target { actor: ActorId(id), incarnation: FIRST_LIFE }
    }

    /// Makes an actor reachable under a reserved id.
    pub(crate) fn insert<A: RemoteActor>(
        &self,
        target: Target,
        addr: Addr<A>,
        surroundings: Arc<dyn Surroundings>,
    ) {
        let entry = ActorEntry {
            kind: A::HASH,
            name: A::NAME,
            mailbox: Mailbox::new(addr, surroundings),
            incarnation: target.incarnation,
        };
        let mut entries = self.write();
        if entries.live.len() >= entries.sweep_at {
            entries.sweep();
        }
        entries.live.insert(target.actor, Arc::new(entry));
    }

    /// The actor has ended, or shall no longer be reached.
    pub(crate) fn remove(&self, target: Target) {
        // The entry holds an address, whose drop may run more than this lock should see.
        let _entry = self.write().live.remove(&target.actor);
    }

    /// Forgets all actors.
    pub(crate) fn clear(&self) {
        let entries = std::mem::take(&mut self.write().live);
        drop(entries);
    }

    /// The actor, or why there is none.
    pub(crate) fn find(&self, target: Target) -> Result<Arc<ActorEntry>, CallFailure> {
        match self.read().live.get(&target.actor) {
            Some(entry) if entry.incarnation == target.incarnation && entry.mailbox.is_connected() => {
                Ok(Arc::clone(entry))
            }
            Some(_) => Err(CallFailure::ActorStopped),
            None if target.actor.0 <= self.last.load(Ordering::Relaxed) => Err(CallFailure::ActorStopped),
            None => Err(CallFailure::NoSuchActor),
        }
    }

    /// How many live.
    pub(crate) fn len(&self) -> usize {
        self.read().live.values().filter(|entry| entry.mailbox.is_connected()).count()
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}
