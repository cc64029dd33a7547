//! Table of the remote actors of a host.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard, Weak};

use actix::Addr;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::HostShared;
use super::watches::{WatchState, Watchers, Watches};
use crate::config::END_TEXT_BYTES_MAX;
use crate::id::{ActorId, ActorIncarnation, Target};
use crate::lock::{Guard, Mutex, RwLock};
use crate::registry::{
    self, ActorCounts, Attachment, ControlMessage, ErasedMailbox, HostContext, Lease, Mailbox, RemoteActor,
};
use crate::spec::{ActorKey, End, EndReason};
use crate::wire::CallFailure;

/// Remote actors of a host by id. Ids are never reused.
#[derive(Default)]
pub(crate) struct Actors {
    entries: RwLock<Entries>,
    last: AtomicU64,
    changed: ChangedActors,
    /// Locked before `entries` where both are.
    watches: Mutex<Watches>,
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

/// End of an actor that ended before it was watched, and too long ago.
fn ended_unseen() -> End {
    End::new(EndReason::Unknown, "it ended earlier, and how is no longer known")
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
        is_run_by_host: bool,
        host_context: Arc<dyn HostContext>,
        key: Option<ActorKey>,
        lease: Option<Arc<Lease>>,
    ) {
        let mailbox = Mailbox::new(addr, target.incarnation, is_run_by_host, host_context, key, lease);
        let mut entries = self.write();
        let is_due = entries.live.len() >= entries.sweep_at;
        let ended = if is_due { entries.sweep() } else { Vec::new() };
        // Dropped below without the lock, as an address may be an actor's last.
        let before = entries.live.insert(target.actor, mailbox);
        drop(entries);
        drop((ended, before));
    }

    /// Removes an actor that has ended, and tells its watchers; returns its last counts.
    ///
    /// Without an end it stopped by itself.
    pub(crate) fn end(&self, target: Target, mut end: Option<Box<End>>) -> Option<ActorCounts> {
        if let Some(end) = &mut end {
            end.cut(END_TEXT_BYTES_MAX);
        }
        let (mailbox, watchers) = self.remove(target, end.clone());
        watchers.notify(end);
        mailbox?.take_counts()
    }

    /// Removes an actor whose thread has ended; returns its last counts.
    ///
    /// The watches fail: the process probably ends as well, and its end is the cause.
    pub(crate) fn end_with_thread(&self, target: Target) -> Option<ActorCounts> {
        let end = End::new(EndReason::Stopped, "it stopped, as its thread ended");
        let (mailbox, watchers) = self.remove(target, Some(Box::new(end)));
        drop(watchers);
        mailbox?.take_counts()
    }

    /// Removes an actor in one step with its watchers: a watch either is among them or finds the end.
    fn remove(&self, target: Target, end: Option<Box<End>>) -> (Option<Arc<dyn ErasedMailbox>>, Watchers) {
        let mut watches = self.watches.lock();
        // The mailbox holds an address, whose drop may run foreign code, so it happens outside of the
        // lock.
        let mut entries = self.write();
        // A later incarnation may have its place.
        let is_present = |mailbox: &Arc<dyn ErasedMailbox>| mailbox.incarnation() == target.incarnation;
        let is_present = entries.live.get(&target.actor).is_some_and(is_present);
        let mailbox = is_present.then(|| entries.live.remove(&target.actor)).flatten();
        drop(entries);
        (mailbox, watches.record(target, end))
    }

    /// Ends a registered actor, as the attachment of the watch `first` reports; without an end it had ended before.
    fn signalled(&self, target: Target, first: u64, end: Option<End>) {
        // An attachment is also dropped when it is released.
        if self.watches.lock().is_begun_by(target, first) {
            self.end(target, Some(Box::new(end.unwrap_or_else(ended_unseen))));
        }
    }

    /// Watches an actor.
    pub(super) fn watch(&self, target: Target, shared: &Weak<HostShared>) -> WatchState {
        let (watcher, end) = oneshot::channel();
        // Declared here, and so dropped without the lock: it may be the last reference, and hold the last address.
        let mailbox;
        let (number, is_first) = {
            let mut watches = self.watches.lock();
            if let Some(ended) = watches.end_of(target) {
                return WatchState::Ended(Some(ended.map_or_else(registry::stopped, |end| *end)));
            }
            mailbox = self.read().live.get(&target.actor).cloned();
            let is_live = mailbox.as_ref().is_some_and(|mailbox| {
                mailbox.incarnation() == target.incarnation
                    && (mailbox.is_run_by_host() || mailbox.is_connected())
            });
            if !is_live {
                return WatchState::Ended(Some(match self.has_existed(target) {
                    true => ended_unseen(),
                    false => End::new(EndReason::Unknown, "its host never had such an actor"),
                }));
            }
            watches.add(target, watcher)
        };
        if let Some(mailbox) = mailbox.filter(|mailbox| is_first && !mailbox.is_run_by_host()) {
            let host = Weak::clone(shared);
            let (attachment, release) = Attachment::new(move |end| {
                if let Some(host) = host.upgrade() {
                    host.actors.signalled(target, number, end);
                }
            });
            self.watches.lock().keep_release(target, number, release);
            mailbox.control(ControlMessage::Attach(attachment));
        }
        WatchState::Waiting { number, end }
    }

    pub(super) fn with_watches<R>(&self, work: impl FnOnce(&mut Watches) -> R) -> R {
        work(&mut self.watches.lock())
    }

    /// Number of watches.
    pub(crate) fn watches(&self) -> usize {
        self.watches.lock().len()
    }

    /// True if the host has had an actor with that id.
    fn has_existed(&self, target: Target) -> bool {
        // Ids are assigned in order and never reused.
        (1..=self.last.load(Ordering::Relaxed)).contains(&target.actor.0)
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
            // The control plane names a managed actor only once it is alive.
            None if target.actor.managed_number().is_some() => Err(CallFailure::ActorStopped),
            // Other ids are assigned in order and never reused, so this actor existed once.
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
