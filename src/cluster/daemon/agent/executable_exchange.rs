//! Executables between nodes: fetched from a node that has them, and served to nodes that lack them.
//!
//! A driver names the node to fetch from. Pieces are asked for one after the other and go into the store as those
//! of a driver do, so an executable is neither run nor served before all of it has its digest.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::Agent;
use crate::cluster::daemon::agent::store::Store;
use crate::cluster::daemon::agent::store::StoreError;
use crate::cluster::executable::Digest;
use crate::cluster::protocol::{ExecutableReply, FETCH, FetchCommand, FetchReply, FetchRequest};
use crate::config::{
    EXECUTABLE_CHUNK_BYTES, EXECUTABLE_FETCH_TIMEOUT, EXECUTABLE_FETCH_TURN, EXECUTABLE_FETCHES_MAX,
    EXECUTABLE_PEER_IDLE, EXECUTABLE_PEERS_SERVED_MAX,
};
use crate::host::{NotDelivered, deadline_in};
use crate::id::{HostId, HostUid};
use crate::registry::{Inbound, decode};
use crate::remote::call_host;
use crate::transport::Role;
use crate::wire::Payload;

/// What this node fetches from others, and which others it serves.
#[derive(Debug)]
pub(super) struct Exchange {
    places: Mutex<Places>,
    /// Nodes that executables are fetched from, and how many from each.
    sources: Mutex<FxHashMap<HostUid, Source>>,
    /// Each fetch has a piece in memory.
    fetching: Semaphore,
}

impl Default for Exchange {
    fn default() -> Self {
        let fetching = Semaphore::new(EXECUTABLE_FETCHES_MAX);
        Self { places: Mutex::default(), sources: Mutex::default(), fetching }
    }
}

/// Why the next piece is not in the store.
#[derive(Debug)]
enum NotFetched {
    /// The source serves others.
    Busy,
    /// The source did not answer in time, does not have it, or sent something else.
    BySource(String),
    /// All of it came and has another digest.
    Wrong(String),
    /// This node cannot keep it.
    Here(String),
}

impl From<StoreError> for NotFetched {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::WrongDigest { .. } => Self::Wrong(error.to_string()),
            error => Self::Here(error.to_string()),
        }
    }
}

impl From<NotFetched> for ExecutableReply {
    fn from(why: NotFetched) -> Self {
        match why {
            NotFetched::Busy => Self::Busy,
            NotFetched::BySource(text) => Self::NotFetched { text },
            NotFetched::Wrong(text) => Self::Wrong { text },
            NotFetched::Here(text) => Self::Failed { text },
        }
    }
}

/// Fetches pieces of an executable for a while; says how much of it is there then.
pub(super) async fn fetch(agent: &Agent, wanted: FetchCommand) -> ExecutableReply {
    let FetchCommand { digest, size, from, at } = wanted;
    let Ok(_place) = agent.exchange.fetching.try_acquire() else { return ExecutableReply::Busy };
    let Some(_link) = Link::open(agent, from, at) else {
        let text = format!("host {} is no agent of another node", from.host);
        return ExecutableReply::NotFetched { text };
    };
    let piece = |offset| piece(agent, from, FetchRequest { digest, offset });
    let filled = fill(&agent.executables, digest, size, piece).await;
    filled.map_or_else(ExecutableReply::from, ExecutableReply::Stat)
}

/// Another agent from which something is fetched.
#[derive(Debug, Default)]
struct Source {
    fetches: usize,
    /// The host was not known before: it is forgotten again.
    is_new: bool,
}

/// The way to another agent, while something is fetched from it.
struct Link<'a> {
    agent: &'a Agent,
    from: HostUid,
}

impl<'a> Link<'a> {
    /// Makes the other agent known. A driver names it and may lie: a host that has shown another role is refused.
    fn open(agent: &'a Agent, from: HostUid, at: SocketAddr) -> Option<Self> {
        let is_own = from.host == agent.host.identity().host || agent.workers.route_to(from.host).is_some();
        let known = agent.host.peer(from);
        let is_other = matches!(known, Err(NotDelivered::StaleHost { .. }))
            || agent.host.role_of(from).is_some_and(|role| role != Role::Agent);
        if from.host == HostId::HEAD || is_own || is_other {
            return None;
        }
        let mut sources = agent.exchange.sources();
        let source = sources.entry(from).or_default();
        source.fetches += 1;
        source.is_new |= known.is_err();
        drop(sources);
        agent.host.add_peer(from, at);
        Some(Self { agent, from })
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        let (exchange, from) = (&self.agent.exchange, self.from);
        let mut sources = exchange.sources();
        let Some(source) = sources.get_mut(&from) else { return };
        source.fetches -= 1;
        if source.fetches == 0 {
            let is_new = source.is_new;
            sources.remove(&from);
            // What the other fetches from here would be broken off.
            if is_new && !exchange.places().serves(from) {
                self.agent.host.forget(from);
            }
        }
    }
}

/// Asks another agent for a piece.
async fn piece(agent: &Agent, from: HostUid, request: FetchRequest) -> Result<Payload, NotFetched> {
    let deadline = deadline_in(EXECUTABLE_FETCH_TIMEOUT);
    match call_host(&agent.host, from, FETCH, request, deadline).await {
        Ok(FetchReply::Piece { bytes }) => Ok(bytes),
        Ok(FetchReply::Busy) => Err(NotFetched::Busy),
        Ok(FetchReply::Failed { text }) => Err(NotFetched::BySource(text)),
        Err(error) => Err(NotFetched::BySource(error.to_string())),
    }
}

/// Puts pieces into the store until it has all, or the time for it is over; gives the number of bytes there.
async fn fill<F>(
    store: &Store,
    digest: Digest,
    size: u64,
    piece: impl Fn(u64) -> F,
) -> Result<u64, NotFetched>
where
    F: Future<Output = Result<Payload, NotFetched>>,
{
    let until = tokio::time::Instant::now() + EXECUTABLE_FETCH_TURN;
    let mut have = in_store(store, move |store| store.stored_bytes(digest, size)).await?;
    while have < size && tokio::time::Instant::now() < until {
        let bytes = piece(have).await?;
        let expected = (size - have).min(EXECUTABLE_CHUNK_BYTES as u64);
        if bytes.len() as u64 != expected {
            let text = format!("it sent {} bytes of the executable where {expected} are next", bytes.len());
            return Err(NotFetched::BySource(text));
        }
        let offset = have;
        have = match in_store(store, move |store| store.write(digest, size, offset, &bytes)).await {
            // What came before had another digest, for a driver that sent it meanwhile.
            Err(StoreError::Gap { have, .. }) => have,
            put => put?,
        };
    }
    Ok(have)
}

/// Does something with the store where files may be read and written.
async fn in_store<T: Send + 'static>(
    store: &Store,
    act: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || act(&store)).await.expect("the store does not panic")
}

/// Serves a piece to another agent.
pub(super) fn serve(agent: Arc<Agent>, inbound: Inbound) {
    let from = inbound.from();
    let (body, _, mut responder) = inbound.into_parts::<FetchReply>();
    let FetchRequest { digest, offset } = match decode(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    let place = (from, digest);
    if !agent.exchange.places().take(Instant::now(), place) {
        return responder.answer(FetchReply::Busy);
    }
    // A file is read there.
    tokio::task::spawn_blocking(move || {
        let read = agent.executables.read(digest, offset, EXECUTABLE_CHUNK_BYTES);
        let is_last = read.as_ref().map_or(true, |(_, is_last)| *is_last);
        agent.exchange.places().served(Instant::now(), place, is_last);
        responder.answer(match read {
            Ok((bytes, _)) => FetchReply::Piece { bytes: bytes.into() },
            Err(error) => FetchReply::Failed { text: error.to_string() },
        });
    });
}

impl Exchange {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> MutexGuard<'_, FxHashMap<HostUid, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agents that are served, each with what it fetches: a bounded number, and one piece at a time for each.
#[derive(Debug, Default)]
struct Places(Vec<Place>);

#[derive(Debug)]
struct Place {
    of: (HostUid, Digest),
    used: Instant,
    /// Whether a piece is being read for it.
    is_reading: bool,
}

impl Places {
    /// Takes a place for the next piece, if there is one.
    fn take(&mut self, now: Instant, of: (HostUid, Digest)) -> bool {
        if let Some(place) = self.0.iter_mut().find(|place| place.of == of) {
            place.used = now;
            return !std::mem::replace(&mut place.is_reading, true);
        }
        let is_idle = |place: &Place| now.saturating_duration_since(place.used) >= EXECUTABLE_PEER_IDLE;
        self.0.retain(|place| place.is_reading || !is_idle(place));
        let has_room = self.0.len() < EXECUTABLE_PEERS_SERVED_MAX;
        if has_room {
            self.0.push(Place { of, used: now, is_reading: true });
        }
        has_room
    }

    /// A piece was read. Behind the last one the place is free.
    fn served(&mut self, now: Instant, of: (HostUid, Digest), is_last: bool) {
        match self.0.iter_mut().find(|place| place.of == of) {
            Some(_) if is_last => self.0.retain(|place| place.of != of),
            Some(place) => (place.used, place.is_reading) = (now, false),
            None => {}
        }
    }

    fn serves(&self, peer: HostUid) -> bool {
        self.0.iter().any(|place| place.of.0 == peer)
    }
}

#[cfg(test)]
mod tests;
