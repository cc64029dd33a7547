//! Delivery of the executable to one node: from source to source until the node has it.
//!
//! A source that fails is not asked again. One that serves others is: the node pauses, and another may have the
//! place meanwhile. A copy of the driver's that makes no progress leaves its turn to another node, and ends once the
//! slow node can fetch the rest elsewhere; what it has stays there.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::sources::{Outcome, Source, Sources, Transfer, Turn};
use crate::cluster::backoff::Backoff;
use crate::config::{
    EXECUTABLE_BUSY_DELAY_MAX, EXECUTABLE_BUSY_DELAY_MIN, EXECUTABLE_BUSY_WAIT_MAX, EXECUTABLE_SEND_LOOK,
    EXECUTABLE_SEND_STALL,
};
use crate::id::HostUid;

/// What carries the executable to a node. An error is the node's own.
pub(super) trait Carrier {
    /// Has the node fetch it from another.
    fn fetch(&self, source: Source) -> impl Future<Output = Result<Outcome, String>> + Send;

    /// Sends the node what it lacks, and counts the pieces that it takes. Dropping the future ends that.
    fn send(&self, pieces: &AtomicU64) -> impl Future<Output = Result<(), String>> + Send;
}

/// Sees to it that a node has all of the executable.
pub(super) async fn deliver(
    sources: &Sources,
    node: Source,
    carrier: &(impl Carrier + Sync),
) -> Result<(), String> {
    let (mut tried, mut pauses) = (Vec::new(), Pauses::new());
    loop {
        let mut transfer = sources.take(&tried).await;
        let outcome = match transfer.turn() {
            Turn::Send => send(sources, &mut transfer, &tried, carrier).await?,
            Turn::Fetch(source) => carrier.fetch(source).await?,
        };
        if outcome == Outcome::Done {
            transfer.done(node);
            return Ok(());
        }
        let turn = transfer.turn();
        // The place is free while the node pauses.
        transfer.failed(outcome);
        if let Turn::Fetch(source) = turn
            && !(outcome == Outcome::Busy && pauses.pause().await)
        {
            tried.push(source.agent);
        }
    }
}

/// Sends the executable; gives up when that is slow and the node can fetch it elsewhere.
async fn send(
    sources: &Sources,
    transfer: &mut Transfer,
    tried: &[HostUid],
    carrier: &impl Carrier,
) -> Result<Outcome, String> {
    let pieces = AtomicU64::new(0);
    let mut sending = pin!(carrier.send(&pieces));
    let (mut taken, mut since) = (0, Instant::now());
    loop {
        if let Ok(sent) = timeout(EXECUTABLE_SEND_LOOK, &mut sending).await {
            return sent.map(|()| Outcome::Done);
        }
        let now = pieces.load(Ordering::Relaxed);
        if now > taken {
            (taken, since) = (now, Instant::now());
        }
        let is_slow = since.elapsed() >= EXECUTABLE_SEND_STALL && transfer.leave_turn();
        if is_slow && sources.has_untried(tried) {
            return Ok(Outcome::GivenUp);
        }
    }
}

/// The pauses of a node whose sources serve others.
struct Pauses {
    backoff: Option<Backoff>,
    left: Duration,
}

impl Pauses {
    const fn new() -> Self {
        Self { backoff: None, left: EXECUTABLE_BUSY_WAIT_MAX }
    }

    /// Pauses, unless the node has done so for long enough. Says whether it has paused.
    async fn pause(&mut self) -> bool {
        if self.left.is_zero() {
            return false;
        }
        let begun = Instant::now();
        let fresh = || Backoff::between(EXECUTABLE_BUSY_DELAY_MIN, EXECUTABLE_BUSY_DELAY_MAX);
        self.backoff.get_or_insert_with(fresh).pause().await;
        // A fetch may have lasted longer than the pause before the next: then there is none.
        self.left = self.left.saturating_sub(begun.elapsed().max(EXECUTABLE_BUSY_DELAY_MIN));
        true
    }
}

#[cfg(test)]
mod tests;
