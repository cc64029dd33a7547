//! Exchange of executables between nodes: fetches them from nodes that have them, and serves nodes that lack them.
//!
//! A driver names the node to fetch from. Chunks are requested one after the other and go into the store like those of
//! a driver. So an executable is neither run nor served before its digest has been verified.
//!
//! ```text
//!  driver ──FetchCommand{from}──▶ this agent ──FetchRequest{offset}──▶ agent `from`
//!         ◀──Stat{have}─────────             ◀──Piece, Busy, Failed──
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::Agent;
use crate::cluster::daemon::agent::store::{ExecutableStore, ExecutableStoreError};
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

/// Fetches from other nodes, and nodes that are served.
#[derive(Debug)]
pub(super) struct Exchange {
    served: Mutex<ServedPeers>,
    /// Nodes that executables are fetched from, with the number of fetches from each.
    sources: Mutex<FxHashMap<HostUid, FetchSource>>,
    /// Limit of concurrent fetches, since each holds a chunk in memory.
    fetching: Semaphore,
}

impl Default for Exchange {
    fn default() -> Self {
        let fetching = Semaphore::new(EXECUTABLE_FETCHES_MAX);
        Self { served: Mutex::default(), sources: Mutex::default(), fetching }
    }
}

/// Reason that the next chunk is not in the store.
#[derive(Debug)]
enum NotFetched {
    /// The source is at its limit of served nodes.
    Busy,
    /// The source timed out, does not have the executable, or sent a chunk of another size.
    BySource(String),
    /// The complete executable has another digest.
    Wrong(String),
    /// This node cannot store it.
    Here(String),
}

impl From<ExecutableStoreError> for NotFetched {
    fn from(error: ExecutableStoreError) -> Self {
        match error {
            ExecutableStoreError::WrongDigest { .. } => Self::Wrong(error.to_string()),
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

/// Fetches chunks of an executable for a limited time, and returns the number of bytes in the store.
///
/// A call does not run to the end of a large executable: the driver learns of progress by its replies.
pub(super) async fn fetch(agent: &Agent, wanted: FetchCommand) -> ExecutableReply {
    let FetchCommand { digest, size, from, at } = wanted;
    // An immediate `Busy` instead of a wait: the driver may choose another node, and its call has a deadline.
    let Ok(_permit) = agent.exchange.fetching.try_acquire() else { return ExecutableReply::Busy };
    let Some(_source) = SourceGuard::open(agent, from, at) else {
        let text = format!("host {} is no agent of another node", from.host);
        return ExecutableReply::NotFetched { text };
    };
    let chunk = |offset| request_chunk(agent, from, FetchRequest { digest, offset });
    let filled = fill(&agent.executables, digest, size, chunk).await;
    filled.map_or_else(ExecutableReply::from, ExecutableReply::Stat)
}

/// Agent that executables are fetched from.
#[derive(Debug, Default)]
struct FetchSource {
    fetches: usize,
    /// True if the host was unknown before the first fetch, and is forgotten after the last.
    is_new: bool,
}

/// Reference to another agent as a peer, for the time of a fetch from it.
struct SourceGuard<'a> {
    agent: &'a Agent,
    from: HostUid,
}

impl<'a> SourceGuard<'a> {
    /// Adds the other agent as a peer. A driver chooses it and may lie: a host of another known role is refused.
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
        // Behind the registration above: the source of a concurrent fetch must not be forgotten in between.
        agent.host.add_peer(from, at);
        Some(Self { agent, from })
    }
}

impl Drop for SourceGuard<'_> {
    fn drop(&mut self) {
        let (exchange, from) = (&self.agent.exchange, self.from);
        let mut sources = exchange.sources();
        let Some(source) = sources.get_mut(&from) else { return };
        source.fetches -= 1;
        if source.fetches == 0 {
            let is_new = source.is_new;
            sources.remove(&from);
            // A peer that fetches from this node keeps its link.
            if is_new && !exchange.served().contains(from) {
                self.agent.host.forget(from);
            }
        }
    }
}

/// Requests a chunk from another agent.
async fn request_chunk(agent: &Agent, from: HostUid, request: FetchRequest) -> Result<Payload, NotFetched> {
    let deadline = deadline_in(EXECUTABLE_FETCH_TIMEOUT);
    match call_host(&agent.host, from, FETCH, request, deadline).await {
        Ok(FetchReply::Piece { bytes }) => Ok(bytes),
        Ok(FetchReply::Busy) => Err(NotFetched::Busy),
        Ok(FetchReply::Failed { text }) => Err(NotFetched::BySource(text)),
        Err(error) => Err(NotFetched::BySource(error.to_string())),
    }
}

/// Writes chunks to the store until it is complete or the time is over, and returns the number of bytes there.
async fn fill<F>(
    store: &ExecutableStore,
    digest: Digest,
    size: u64,
    chunk: impl Fn(u64) -> F,
) -> Result<u64, NotFetched>
where
    F: Future<Output = Result<Payload, NotFetched>>,
{
    let until = tokio::time::Instant::now() + EXECUTABLE_FETCH_TURN;
    let mut have = in_store(store, move |store| store.stored_bytes(digest, size)).await?;
    while have < size && tokio::time::Instant::now() < until {
        let bytes = chunk(have).await?;
        // Full chunks only: a source could otherwise send single bytes, each for the price of a call.
        let expected = (size - have).min(EXECUTABLE_CHUNK_BYTES as u64);
        if bytes.len() as u64 != expected {
            let text =
                format!("it sent {} bytes of the executable instead of the next {expected}", bytes.len());
            return Err(NotFetched::BySource(text));
        }
        let offset = have;
        have = match in_store(store, move |store| store.write(digest, size, offset, &bytes)).await {
            // Another writer has completed the file with a wrong digest meanwhile, so the store has started afresh.
            Err(ExecutableStoreError::Gap { have, .. }) => have,
            written => written?,
        };
    }
    Ok(have)
}

/// Runs a store operation on a thread that may block on files.
async fn in_store<T: Send + 'static>(
    store: &ExecutableStore,
    act: impl FnOnce(&ExecutableStore) -> Result<T, ExecutableStoreError> + Send + 'static,
) -> Result<T, ExecutableStoreError> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || act(&store)).await.expect("the store does not panic")
}

/// Serves a chunk to another agent.
pub(super) fn serve(agent: Arc<Agent>, inbound: Inbound) {
    let from = inbound.from();
    let (body, _, mut responder) = inbound.into_parts::<FetchReply>();
    let FetchRequest { digest, offset } = match decode(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    // The slot is taken before the thread, so that a flood of requests does not occupy the blocking threads.
    let key = (from, digest);
    if !agent.exchange.served().begin_read(Instant::now(), key) {
        return responder.reply(FetchReply::Busy);
    }
    // On a thread that may block: it reads a file.
    tokio::task::spawn_blocking(move || {
        let read = agent.executables.read(digest, offset, EXECUTABLE_CHUNK_BYTES);
        let is_last = read.as_ref().map_or(true, |(_, is_last)| *is_last);
        agent.exchange.served().end_read(Instant::now(), key, is_last);
        responder.reply(match read {
            Ok((bytes, _)) => FetchReply::Piece { bytes: bytes.into() },
            Err(error) => FetchReply::Failed { text: error.to_string() },
        });
    });
}

impl Exchange {
    fn served(&self) -> MutexGuard<'_, ServedPeers> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> MutexGuard<'_, FxHashMap<HostUid, FetchSource>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Agents that are served, each with the executable that it fetches: a bounded number, with one chunk at a time each.
///
/// A slot is kept between two chunks. Otherwise more nodes would share the uplink, and all of them would finish late
/// instead of some early, which then serve others.
#[derive(Debug, Default)]
struct ServedPeers(Vec<ServedPeer>);

#[derive(Debug)]
struct ServedPeer {
    key: (HostUid, Digest),
    last_used: Instant,
    /// True while a chunk is being read for it.
    is_reading: bool,
}

impl ServedPeers {
    /// Takes or renews the slot of a peer for its next chunk. Returns false if the peer must ask again later.
    fn begin_read(&mut self, now: Instant, key: (HostUid, Digest)) -> bool {
        if let Some(peer) = self.0.iter_mut().find(|peer| peer.key == key) {
            peer.last_used = now;
            return !std::mem::replace(&mut peer.is_reading, true);
        }
        let is_idle =
            |peer: &ServedPeer| now.saturating_duration_since(peer.last_used) >= EXECUTABLE_PEER_IDLE;
        self.0.retain(|peer| peer.is_reading || !is_idle(peer));
        let has_room = self.0.len() < EXECUTABLE_PEERS_SERVED_MAX;
        if has_room {
            self.0.push(ServedPeer { key, last_used: now, is_reading: true });
        }
        has_room
    }

    /// Records that a chunk was read. The last chunk frees the slot.
    fn end_read(&mut self, now: Instant, key: (HostUid, Digest), is_last: bool) {
        match self.0.iter_mut().find(|peer| peer.key == key) {
            Some(_) if is_last => self.0.retain(|peer| peer.key != key),
            Some(peer) => (peer.last_used, peer.is_reading) = (now, false),
            None => {}
        }
    }

    fn contains(&self, host: HostUid) -> bool {
        self.0.iter().any(|peer| peer.key.0 == host)
    }
}

#[cfg(test)]
mod tests;
