//! Delivery of the executable to one node: from source to source, until the node has all of it.
//!
//! ```text
//!            .-----------------------------------------------------------.
//!            v                                                           |
//!   wait for a source --> fetch from a node --> done | failed, wrong: exclude the source
//!                    |                               | busy: pause, the source stays a candidate
//!                    '--> copy of the driver's --> done | slow: another source has it by now
//! ```
//!
//! A copy of the driver's that makes no progress frees its slot for another node. It ends once another
//! node has the executable, and the slow node queues to fetch the rest from it; the part that the node has stays there.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::sources::{NodeSource, Sources, Transfer, TransferOutcome, TransferSource};
use crate::cluster::backoff::Backoff;
use crate::config::{
    EXECUTABLE_BUSY_DELAY_MAX, EXECUTABLE_BUSY_DELAY_MIN, EXECUTABLE_BUSY_WAIT_MAX, EXECUTABLE_SEND_LOOK,
    EXECUTABLE_SEND_STALL,
};
use crate::id::HostUid;

/// Transport of the executable to one node. An error is a failure of the node itself.
pub(super) trait Carrier {
    /// Has the node fetch the executable from another node.
    fn fetch(&self, source: NodeSource) -> impl Future<Output = Result<TransferOutcome, String>> + Send;

    /// Sends the node the part that it lacks, and counts the pieces that it accepts. Dropping the future stops it.
    fn send(&self, pieces: &AtomicU64) -> impl Future<Output = Result<(), String>> + Send;
}

/// Delivers all of the executable to a node.
pub(super) async fn deliver(
    sources: &Sources,
    node: NodeSource,
    carrier: &(impl Carrier + Sync),
) -> Result<(), String> {
    let (mut tried, mut pauses) = (Vec::new(), Pauses::new());
    loop {
        let mut transfer = sources.take(&tried).await;
        let outcome = match transfer.source() {
            TransferSource::Driver => send(sources, &mut transfer, &tried, carrier).await?,
            TransferSource::Node(source) => carrier.fetch(source).await?,
        };
        if outcome == TransferOutcome::Done {
            transfer.done(node);
            return Ok(());
        }
        let from = transfer.source();
        // Freed before the pause: another node may use the slot meanwhile.
        transfer.failed(outcome);
        if let TransferSource::Node(source) = from
            && !(outcome == TransferOutcome::Busy && pauses.pause().await)
        {
            tried.push(source.agent);
        }
    }
}

/// Sends the executable; gives up if that is slow and the node can fetch it from another source.
async fn send(
    sources: &Sources,
    transfer: &mut Transfer,
    tried: &[HostUid],
    carrier: &impl Carrier,
) -> Result<TransferOutcome, String> {
    let pieces = AtomicU64::new(0);
    let mut sending = pin!(carrier.send(&pieces));
    // A slow transfer is kept until there is another source: its node may be the only one that gets the executable.
    let (mut taken, mut since) = (0, Instant::now());
    loop {
        if let Ok(sent) = timeout(EXECUTABLE_SEND_LOOK, &mut sending).await {
            return sent.map(|()| TransferOutcome::Done);
        }
        let now = pieces.load(Ordering::Relaxed);
        if now > taken {
            (taken, since) = (now, Instant::now());
        }
        let is_slow = since.elapsed() >= EXECUTABLE_SEND_STALL && transfer.free_slot();
        if is_slow && sources.has_untried(tried) {
            return Ok(TransferOutcome::Cancelled);
        }
    }
}

/// Pauses of a node whose sources are busy.
struct Pauses {
    backoff: Option<Backoff>,
    left: Duration,
}

impl Pauses {
    const fn new() -> Self {
        Self { backoff: None, left: EXECUTABLE_BUSY_WAIT_MAX }
    }

    /// Pauses, unless the budget for pauses is used up. Returns whether it has paused.
    async fn pause(&mut self) -> bool {
        if self.left.is_zero() {
            return false;
        }
        let begun = Instant::now();
        let fresh = || Backoff::between(EXECUTABLE_BUSY_DELAY_MIN, EXECUTABLE_BUSY_DELAY_MAX);
        self.backoff.get_or_insert_with(fresh).pause().await;
        // The back-off counts from the start of the last attempt: after a long fetch the pause is zero. It is charged
        // with the least delay nevertheless, or a node could try for ever.
        self.left = self.left.saturating_sub(begun.elapsed().max(EXECUTABLE_BUSY_DELAY_MIN));
        true
    }
}

#[cfg(test)]
mod tests;
