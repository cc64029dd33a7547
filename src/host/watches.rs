//! Watches of a host's actors, and the ends of the last actors that ended.
//!
//! ```text
//!   an actor that the host runs:   ActorRunner --Actors::end--------------------------.
//!                                                                                      v
//!   an actor that was registered:  Attachment in its context --Actors::signalled--> watchers, ring of ends
//! ```
//! An actor without a watch has no entry. The ends of registered actors are seen only while they are watched.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::oneshot;

use super::Host;
use crate::config::{ENDED_ACTORS_MAX, LINKS_MAX};
use crate::id::Target;
use crate::registry;
use crate::spec::{ActorLocation, End};

/// Watches of the actors of a host.
#[derive(Default)]
pub(super) struct Watches {
    watched: FxHashMap<Target, WatchedActor>,
    /// Last ends, oldest first; `None` stands for an actor that stopped by itself, as most do.
    ended: VecDeque<(Target, Option<Box<End>>)>,
    /// Number of watches so far.
    count: u64,
    /// Actors of this host, each with an actor that it ends with.
    links: FxHashSet<(Target, ActorLocation)>,
}

/// Watchers of one actor.
struct WatchedActor {
    watchers: FxHashMap<u64, oneshot::Sender<End>>,
    /// Number of the watch that began this entry.
    first: u64,
    /// Dropped with the entry, which releases the attachment in the context of a registered actor.
    _release: Option<oneshot::Sender<()>>,
}

/// Watchers that left the table. They are told, and dropped, without the lock: both wake tasks.
#[must_use = "the watchers are told"]
pub(super) struct Watchers(Option<WatchedActor>);

impl Watchers {
    /// Tells them the end; `None` stands for an actor that stopped by itself.
    pub(super) fn notify(self, end: Option<Box<End>>) {
        let Some(actor) = self.0 else { return };
        let end = end.map_or_else(registry::stopped, |end| *end);
        for watcher in actor.watchers.into_values() {
            // It may have gone meanwhile.
            drop(watcher.send(end.clone()));
        }
    }
}

impl Watches {
    /// End of an actor, if it is among the last ones.
    pub(super) fn end_of(&self, target: Target) -> Option<Option<Box<End>>> {
        self.ended.iter().rev().find(|(ended, _)| *ended == target).map(|(_, end)| end.clone())
    }

    /// Adds a watcher; returns its number, and true if it is the first of its actor.
    pub(super) fn add(&mut self, target: Target, watcher: oneshot::Sender<End>) -> (u64, bool) {
        self.count += 1;
        let number = self.count;
        let actor = self.watched.entry(target).or_insert_with(|| WatchedActor {
            watchers: FxHashMap::default(),
            first: number,
            _release: None,
        });
        actor.watchers.insert(number, watcher);
        (number, actor.first == number)
    }

    /// Keeps the release of the attachment that reports the end to the watch `first` and the later ones.
    pub(super) fn keep_release(&mut self, target: Target, first: u64, release: oneshot::Sender<()>) {
        if let Some(actor) = self.watched.get_mut(&target).filter(|actor| actor.first == first) {
            actor._release = Some(release);
        }
    }

    /// Removes a watcher, and the entry of its actor with the last one.
    ///
    /// The caller drops them without the lock: that wakes the actor's task.
    fn remove(
        &mut self,
        target: Target,
        number: u64,
    ) -> (Option<oneshot::Sender<End>>, Option<WatchedActor>) {
        let Some(actor) = self.watched.get_mut(&target) else { return (None, None) };
        let watcher = actor.watchers.remove(&number);
        let is_unwatched = actor.watchers.is_empty();
        (watcher, is_unwatched.then(|| self.watched.remove(&target)).flatten())
    }

    /// Records the end of an actor; returns those who wait for it.
    pub(super) fn record(&mut self, target: Target, end: Option<Box<End>>) -> Watchers {
        if self.ended.len() >= ENDED_ACTORS_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((target, end));
        Watchers(self.watched.remove(&target))
    }

    /// True if the entry of the actor was begun by this watch, and has not ended.
    pub(super) fn is_begun_by(&self, target: Target, first: u64) -> bool {
        self.watched.get(&target).is_some_and(|actor| actor.first == first)
    }

    /// Number of watchers.
    pub(super) fn len(&self) -> usize {
        self.watched.values().map(|actor| actor.watchers.len()).sum()
    }
}

/// Entry of a link, until it is dropped.
pub(crate) struct LinkEntry {
    host: Host,
    link: (Target, ActorLocation),
}

/// Reason why a link was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotLinked {
    /// There is one already.
    Exists,
    /// The host has [`LINKS_MAX`] links.
    TooMany,
}

impl LinkEntry {
    /// Enters a link of an actor of this host with another one.
    pub(super) fn new(host: &Host, target: Target, other: ActorLocation) -> Result<Self, NotLinked> {
        let link = (target, other);
        host.actors().with_watches(|watches| match watches.links.contains(&link) {
            true => Err(NotLinked::Exists),
            false if watches.links.len() >= LINKS_MAX => Err(NotLinked::TooMany),
            false => {
                watches.links.insert(link);
                Ok(())
            }
        })?;
        Ok(Self { host: host.clone(), link })
    }
}

impl Drop for LinkEntry {
    fn drop(&mut self) {
        self.host.actors().with_watches(|watches| watches.links.remove(&self.link));
    }
}

/// Watch of one actor of this host; resolves to its end. Dropping it ends the watch.
///
/// It fails if the thread of the actor has ended, or its host. The watcher then looks for the end of the
/// host, and watches again if there is none.
pub(crate) struct ActorWatch {
    host: Host,
    target: Target,
    state: WatchState,
}

pub(super) enum WatchState {
    Ended(Option<End>),
    Waiting { number: u64, end: oneshot::Receiver<End> },
}

impl ActorWatch {
    pub(super) fn new(host: Host, target: Target, state: WatchState) -> Self {
        Self { host, target, state }
    }
}

impl Future for ActorWatch {
    type Output = Option<End>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<End>> {
        match &mut self.state {
            WatchState::Ended(end) => Poll::Ready(end.take()),
            WatchState::Waiting { end, .. } => Pin::new(end).poll(task).map(Result::ok),
        }
    }
}

impl Drop for ActorWatch {
    fn drop(&mut self) {
        if let WatchState::Waiting { number, .. } = self.state {
            drop(self.host.actors().with_watches(|watches| watches.remove(self.target, number)));
        }
    }
}
