//! The actors of this host that can be reached from afar.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use actix::Addr;
use rustc_hash::FxHashMap;

use crate::id::{ActorId, ActorIncarnation, Target, TypeHash};
use crate::registry::{Control, RemoteActor};
use crate::wire::CallFailure;

/// One reachable actor.
pub(crate) struct ActorEntry {
    /// Its type.
    pub(crate) kind: TypeHash,
    /// The type's name.
    pub(crate) name: &'static str,
    /// Its `Addr<A>`.
    pub(crate) addr: Box<dyn Any + Send + Sync>,
    incarnation: ActorIncarnation,
    control: fn(&(dyn Any + Send + Sync), Control),
}

impl ActorEntry {
    /// Tells the actor to stop, behind the messages that it has already.
    pub(crate) fn control(&self, control: Control) {
        (self.control)(&*self.addr, control);
    }
}

impl fmt::Debug for ActorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All of them. Ids are never given twice.
#[derive(Debug, Default)]
pub(crate) struct Actors {
    entries: RwLock<FxHashMap<ActorId, Arc<ActorEntry>>>,
    last: AtomicU64,
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
    pub(crate) fn insert<A: RemoteActor>(&self, target: Target, addr: Addr<A>) {
        let entry = ActorEntry {
            kind: A::HASH,
            name: A::NAME,
            addr: Box::new(addr),
            incarnation: target.incarnation,
            control: |addr, control| {
                if let Some(addr) = addr.downcast_ref::<Addr<A>>() {
                    addr.do_send(control);
                }
            },
        };
        self.write().insert(target.actor, Arc::new(entry));
    }

    /// The actor has ended, or shall no longer be reached.
    pub(crate) fn remove(&self, target: Target) {
        // The entry holds an address, whose drop may run more than this lock should see.
        let _entry = self.write().remove(&target.actor);
    }

    /// Forgets all actors.
    pub(crate) fn clear(&self) {
        let entries = std::mem::take(&mut *self.write());
        drop(entries);
    }

    /// The actor, or why there is none.
    pub(crate) fn find(&self, target: Target) -> Result<Arc<ActorEntry>, CallFailure> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        match entries.get(&target.actor) {
            Some(entry) if entry.incarnation == target.incarnation => Ok(Arc::clone(entry)),
            Some(_) => Err(CallFailure::ActorStopped),
            None if target.actor.0 <= self.last.load(Ordering::Relaxed) => Err(CallFailure::ActorStopped),
            None => Err(CallFailure::NoSuchActor),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, FxHashMap<ActorId, Arc<ActorEntry>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}
