//! Locations of managed actors, as this host knows them.
//!
//! An address of a managed actor outlives the actor's incarnations. All addresses of one actor on a host share a
//! [`Route`], which has its location. On evidence that the location is gone, one request to the control plane looks
//! for the next one, for all messages that wait:
//!
//! ```text
//!             evidence: stopped, host down, ..            found, or announced by the cluster
//!   At(n) ---------------------------------> Searching ---------------------------------> At(n + 1)
//!     |                                          '------- ended for good ---------------> Ended
//!     '--- announced by the cluster: At(n + 1)
//! ```

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::placement::{Located, PlacementError};
use super::{Host, NotDelivered};
use crate::background;
use crate::lock::Mutex;
use crate::observe::log;
use crate::spec::{ActorKey, ActorLocation, End, EndReason};

/// Pause before another request after one that failed, or that found a location which is known not to work.
const SEARCH_DELAY_MIN: Duration = Duration::from_millis(10);
const SEARCH_DELAY_MAX: Duration = Duration::from_millis(500);

/// Number of routes at which those without an address are removed.
const PURGE_AT: usize = 64;

/// Routes of a host to the managed actors that its addresses name.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<RouteTable>);

#[derive(Debug, Default)]
struct RouteTable {
    routes: FxHashMap<ActorKey, Weak<Route>>,
    purge_at: usize,
}

/// Route to a managed actor.
#[derive(Debug)]
pub(crate) struct Route {
    key: ActorKey,
    state: Mutex<RouteState>,
    /// Wakes the messages that wait, in their order. A `watch` wakes them in a random one.
    changed: Arc<Notify>,
}

impl Drop for Route {
    fn drop(&mut self) {
        // A search ends with the last address.
        self.changed.notify_waiters();
    }
}

/// Location of a managed actor, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) enum RouteState {
    At(ActorLocation),
    /// The control plane was asked for the next location.
    Searching,
    /// The actor has ended for good.
    Ended(Arc<End>),
}

/// Evidence about an incarnation of a managed actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// End of the incarnation: its host says so, or its host has ended.
    Ended,
    /// No way to its host, as far as this host knows.
    Unreachable,
}

impl Route {
    fn new(key: ActorKey, hint: ActorLocation) -> Self {
        Self { key, state: Mutex::new(RouteState::At(hint)), changed: Arc::default() }
    }

    /// Waits until `look` returns something of the state.
    pub(crate) async fn wait_for<T>(&self, look: impl Fn(&RouteState) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look: a change between the two would be missed otherwise.
            changed.as_mut().enable();
            let found = look(&self.state.lock());
            if let Some(found) = found {
                return found;
            }
            changed.await;
        }
    }

    /// Present state.
    pub(crate) fn state(&self) -> RouteState {
        self.state.lock().clone()
    }

    /// Present location, without waiting for it.
    pub(crate) fn present(&self) -> Result<ActorLocation, NotDelivered> {
        match &*self.state.lock() {
            RouteState::At(at) => Ok(*at),
            RouteState::Searching => Err(NotDelivered::Restarting),
            RouteState::Ended(end) => Err(NotDelivered::ActorEnded { text: end.text.clone() }),
        }
    }

    /// Changes the state if `next` returns another one. Returns whether it did.
    fn change(&self, next: impl FnOnce(&RouteState) -> Option<RouteState>) -> bool {
        let mut state = self.state.lock();
        let Some(next) = next(&state) else { return false };
        *state = next;
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Records the location of a later incarnation.
    fn moved(&self, at: ActorLocation) {
        self.change(|state| {
            let is_news = match state {
                // After a crash of the head the same number may be used again, in another worker.
                RouteState::At(known) => {
                    known.target.incarnation < at.target.incarnation
                        || known.target == at.target && known.host != at.host
                }
                RouteState::Searching => true,
                RouteState::Ended(_) => false,
            };
            is_news.then_some(RouteState::At(at))
        });
    }

    /// Searches for the next location, unless the evidence is about an earlier one or a search runs.
    pub(crate) fn report(self: &Arc<Self>, host: &Host, at: ActorLocation, evidence: Evidence) {
        let searches = self.change(|state| {
            let is_present = matches!(state, RouteState::At(known) if *known == at);
            is_present.then_some(RouteState::Searching)
        });
        if searches {
            let route = Arc::downgrade(self);
            background::spawn_on(host.io(), search(route, host.clone(), at, evidence));
        }
    }
}

/// Asks the control plane for the location of an actor until the route has one.
async fn search(route: Weak<Route>, host: Host, failed: ActorLocation, evidence: Evidence) {
    let mut delay = SEARCH_DELAY_MIN;
    let gone = (evidence == Evidence::Ended).then_some(failed.target.incarnation);
    loop {
        let Some(key) = route.upgrade().map(|route| route.key) else { return };
        let Some(placement) = host.placement() else {
            let end = Arc::new(End::new(EndReason::Unknown, "this process belongs to no cluster"));
            return route.upgrade().into_iter().for_each(|route| {
                route.change(|_| Some(RouteState::Ended(Arc::clone(&end))));
            });
        };
        let located = tokio::select! {
            biased;
            // First: a closed host fails each request at once.
            () = host.closing() => {
                let error = "this process has left the cluster".to_owned();
                Err(PlacementError::JobEnded { text: error })
            }
            located = placement.locate(&host, key, gone) => located,
            () = is_over(&route) => return,
        };
        let Some(route) = route.upgrade() else { return };
        match located {
            // A location that has failed just now is worth another attempt, but not immediately.
            Ok(Located::At(at)) if at == failed && delay == SEARCH_DELAY_MIN => {}
            Ok(Located::At(at)) => return route.moved(at),
            Ok(Located::Gone(end)) => {
                route.change(|_| Some(RouteState::Ended(Arc::new(end))));
                return;
            }
            Err(error @ PlacementError::JobEnded { .. }) => {
                log::debug!(%key, %error, "the search for an actor ends with its job");
                let end = End::new(EndReason::JobEnded, error.to_string());
                route.change(|_| Some(RouteState::Ended(Arc::new(end))));
                return;
            }
            Err(error) => log::debug!(%key, %error, "cannot locate an actor; the request is repeated"),
        }
        drop(route);
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(SEARCH_DELAY_MAX);
    }
}

/// Waits until a search is over: the cluster announces the location, or the last address is dropped.
async fn is_over(route: &Weak<Route>) {
    loop {
        let Some(searching) = route.upgrade() else { return };
        // It counts from here, and not from its first poll.
        let changed = Arc::clone(&searching.changed).notified_owned();
        if !matches!(searching.state(), RouteState::Searching) {
            return;
        }
        drop(searching);
        changed.await;
    }
}

impl Routes {
    /// Route to an actor, with `hint` as its location if it is new or earlier than the hint.
    pub(super) fn of(&self, key: ActorKey, hint: ActorLocation) -> Arc<Route> {
        let mut table = self.0.lock();
        if let Some(route) = table.routes.get(&key).and_then(Weak::upgrade) {
            drop(table);
            // An address from elsewhere may know a later incarnation.
            if matches!(route.state(), RouteState::At(_)) {
                route.moved(hint);
            }
            return route;
        }
        if table.routes.len() >= table.purge_at.max(PURGE_AT) {
            table.routes.retain(|_, route| route.strong_count() > 0);
            table.purge_at = 2 * table.routes.len();
        }
        let route = Arc::new(Route::new(key, hint));
        table.routes.insert(key, Arc::downgrade(&route));
        route
    }

    /// Records that an actor has moved, for those who know it.
    pub(super) fn moved(&self, key: ActorKey, at: ActorLocation) {
        let route = self.0.lock().routes.get(&key).and_then(Weak::upgrade);
        route.into_iter().for_each(|route| route.moved(at));
    }
}
