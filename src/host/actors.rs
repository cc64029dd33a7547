//! Table of the remote actors of a host.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard, Weak};

use actix::Addr;
use rustc_hash::FxHashMap;

use crate::id::{ActorId, ActorIncarnation, Target};
use crate::lock::{Guard, Mutex, RwLock};
use crate::registry::{ActorCounts, ErasedMailbox, HostContext, Mailbox, RemoteActor};
use crate::spec::ActorKey;
use crate::wire::CallFailure;

/// Remote actors of a host by id. Ids are never reused.
#[derive(Default)]
pub(crate) struct Actors {
    entries: RwLock<Entries>,
    last: AtomicU64,
    changed: ChangedActors,
}

/// Actors whose counts have changed since the last report.
///
/// Each actor adds itself with its first change, so a report costs nothing for the actors that are idle. A
/// scan of the table would hold its lock, for which spawns wait.
#[derive(Default)]
struct ChangedActors {
    is_tracking: AtomicBool,
    /// At most one entry for each actor; weak, since a mailbox holds an address, which may be an actor's last.
    actors: Mutex<Vec<Weak<dyn ErasedMailbox>>>,
}

#[derive(Default)]
struct Entries {
    live: FxHashMap<ActorId, Arc<dyn ErasedMailbox>>,
    /// Number of entries at which ended actors are removed.
    sweep_at: usize,
}

impl Entries {
    /// Removes actors that have ended without notice: those that were started elsewhere and only
    /// registered here.
    ///
    /// It runs when the table has doubled, so that each entry is checked a few times on average. The
    /// caller drops the returned mailboxes without the lock: each holds an address, which may be an
    /// actor's last.
    #[must_use]
    fn sweep(&mut self) -> Vec<Arc<dyn ErasedMailbox>> {
        let ended: Vec<_> =
            self.live.iter().filter(|(_, mailbox)| !mailbox.is_connected()).map(|(id, _)| *id).collect();
        let ended = ended.iter().filter_map(|id| self.live.remove(id)).collect();
        self.sweep_at = 2 * self.live.len() + 64;
        ended
    }
}

/// Incarnation of every actor that is not managed.
const FIRST_INCARNATION: ActorIncarnation = ActorIncarnation(0);

impl Actors {
    /// Reserves an id that no actor of this host has had.
    pub(crate) fn reserve(&self) -> Target {
        // From 1, since id 0 is the host itself.
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Target { actor: ActorId(id), incarnation: FIRST_INCARNATION }
    }

    /// Makes an actor reachable under a reserved id.
    pub(crate) fn insert<A: RemoteActor>(
        &self,
        target: Target,
        addr: Addr<A>,
        host_context: Arc<dyn HostContext>,
        key: Option<ActorKey>,
    ) {
        let mailbox = Mailbox::new(addr, target.incarnation, host_context, key);
        let mut entries = self.write();
        let is_due = entries.live.len() >= entries.sweep_at;
        let ended = if is_due { entries.sweep() } else { Vec::new() };
        // Dropped below without the lock, as an address may be an actor's last.
        let before = entries.live.insert(target.actor, mailbox);
        drop(entries);
        drop((ended, before));
    }

    /// Removes an actor that has ended, or is no longer reachable; returns its last counts.
    pub(crate) fn remove(&self, target: Target) -> Option<ActorCounts> {
        // The mailbox holds an address, whose drop may run foreign code, so it happens outside of the
        // lock.
        let mut entries = self.write();
        // A later incarnation may have its place.
        let is_present = entries.live.get(&target.actor)?.incarnation() == target.incarnation;
        let mailbox = is_present.then(|| entries.live.remove(&target.actor)).flatten();
        drop(entries);
        mailbox?.take_counts()
    }

    /// Begins to note the actors whose counts change; must precede the first actor.
    pub(crate) fn track_changes(&self) {
        self.changed.is_tracking.store(true, Ordering::Relaxed);
    }

    /// Notes an actor whose counts have changed since the last report.
    pub(super) fn note_changed(&self, actor: Weak<dyn ErasedMailbox>) {
        // Without reports the list would only grow.
        if self.changed.is_tracking.load(Ordering::Relaxed) {
            self.changed.actors.lock().push(actor);
        }
    }

    /// Counts of the actors that have changed since the last call.
    ///
    /// One that has ended is among them only while a sender still holds its mailbox.
    pub(crate) fn take_changed(&self) -> Vec<ActorCounts> {
        let changed = std::mem::take(&mut *self.changed.actors.lock());
        changed.iter().filter_map(|actor| actor.upgrade()?.take_counts()).collect()
    }

    /// Removes all actors.
    pub(crate) fn clear(&self) {
        // Dropped without the lock, since dropping an address may run foreign code.
        let entries = std::mem::take(&mut self.write().live);
        drop(entries);
    }

    /// The actor's mailbox, or the reason why there is none.
    pub(crate) fn find(&self, target: Target) -> Result<Arc<dyn ErasedMailbox>, CallFailure> {
        match self.read().live.get(&target.actor) {
            Some(mailbox) if mailbox.incarnation() == target.incarnation && mailbox.is_connected() => {
                Ok(Arc::clone(mailbox))
            }
            Some(_) => Err(CallFailure::ActorStopped),
            // Ids are assigned in order and never reused, so this actor existed once.
            // The control plane names a managed actor only once it is alive.
            None if target.actor.managed_number().is_some() => Err(CallFailure::ActorStopped),
            None if target.actor.0 <= self.last.load(Ordering::Relaxed) => Err(CallFailure::ActorStopped),
            None => Err(CallFailure::NoSuchActor),
        }
    }

    /// Mailbox of any incarnation of an actor.
    pub(crate) fn any_incarnation(&self, actor: ActorId) -> Option<Arc<dyn ErasedMailbox>> {
        self.read().live.get(&actor).map(Arc::clone)
    }

    /// Number of live actors.
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
