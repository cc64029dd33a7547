//! Sources of the executable for each node: the driver, or a node that has it.
//!
//! ```text
//!   driver --+--> node 1 --+--> node 3 ...      every node that has the executable serves others, so it spreads as a
//!            |             '--> node 4 ...      tree; the driver sends a fixed number of copies
//!            '--> node 2 --+--> node 5 ...
//!                          '--> node 6 ...
//! ```
//!
//! A node is assigned one source at a time, in the order of the requests. A source that fails for a node is not
//! assigned to it again, and after failures of several nodes to none. A node for which several sources have failed
//! gets a copy of the driver's. A node that accepts the driver's copy slowly frees its slot for another node.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::{
    EXECUTABLE_FETCHES_PER_NODE, EXECUTABLE_SOURCE_FAILURES_MAX, EXECUTABLE_SOURCES_TRIED_MAX,
    EXECUTABLES_SENT_AT_ONCE, EXECUTABLES_SENT_SLOWLY_MAX,
};
use crate::id::HostUid;
use crate::lock::Mutex;

/// Node that has the executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeSource {
    pub(super) agent: HostUid,
    pub(super) address: SocketAddr,
}

/// Source of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferSource {
    /// The driver sends it.
    Driver,
    /// The node fetches it from another.
    Node(NodeSource),
}

/// Result of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferOutcome {
    /// The node has the executable.
    Done,
    /// The source serves other nodes. It has not failed, and may be asked again.
    Busy,
    /// The source did not answer, was too slow, or does not have it.
    Failed,
    /// The received bytes have another digest.
    Wrong,
    /// The transfer was cancelled, or the receiving node itself failed.
    Cancelled,
}

/// Counts of the ways in which nodes got the executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TransferTally {
    /// Nodes that had it before the job.
    pub(super) had: u64,
    /// Nodes that the driver sent it to.
    pub(super) sent: u64,
    /// Nodes that fetched it from another node.
    pub(super) fetched: u64,
    /// Bytes that the driver sent, also in transfers that failed.
    pub(super) sent_bytes: u64,
}

/// Known sources, and transfers in progress. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(Arc<Mutex<TransferPlan>>);

impl Sources {
    /// Adds a node that has the executable.
    pub(super) fn add(&self, source: NodeSource) {
        self.change(|plan| plan.add(source));
    }

    /// Adds a node that had the executable before the job.
    pub(super) fn add_existing(&self, source: NodeSource) {
        self.change(|plan| {
            plan.tally.had += 1;
            plan.add(source);
        });
    }

    /// Removes a node that is lost.
    pub(super) fn forget(&self, agent: HostUid) {
        self.change(|plan| plan.forget(agent));
    }

    /// Counts bytes that the driver sent.
    pub(super) fn sent_bytes(&self, count: usize) {
        self.0.lock().tally.sent_bytes += count as u64;
    }

    pub(super) fn tally(&self) -> TransferTally {
        self.0.lock().tally
    }

    /// Waits for a source for a node that has tried `tried` already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future assigns nothing.
    pub(super) async fn take(&self, tried: &[HostUid]) -> Transfer {
        let (sender, assigned) = oneshot::channel();
        self.change(|plan| plan.waiting.push_back(WaitingNode { tried: tried.to_vec(), sender }));
        assigned.await.expect("the plan keeps a node that waits until it has a source")
    }

    /// Reports that a node which has tried `tried` may fetch from another node.
    pub(super) fn has_untried(&self, tried: &[HostUid]) -> bool {
        tried.len() < EXECUTABLE_SOURCES_TRIED_MAX
            && self.0.lock().holders.iter().any(|holder| !tried.contains(&holder.source.agent))
    }

    /// Changes the plan, and assigns what has become free.
    fn change(&self, change: impl FnOnce(&mut TransferPlan)) {
        let mut plan = self.0.lock();
        change(&mut plan);
        let cancelled = plan.assign(self);
        drop(plan);
        // After the lock is released: dropping a transfer changes the plan again.
        drop(cancelled);
    }
}

/// Transfer in progress; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Transfer {
    sources: Sources,
    source: TransferSource,
    outcome: TransferOutcome,
    /// Receiving node, once it has the executable.
    to: Option<NodeSource>,
    /// The transfer is the driver's to a slow node, and has freed its slot.
    is_slow: bool,
}

impl Transfer {
    pub(super) fn source(&self) -> TransferSource {
        self.source
    }

    /// Frees the slot of a slow transfer of the driver's for another node. At most [`EXECUTABLES_SENT_SLOWLY_MAX`]
    /// transfers may have done so; returns whether this one has.
    pub(super) fn free_slot(&mut self) -> bool {
        if self.source == TransferSource::Driver && !self.is_slow {
            let is_slow = &mut self.is_slow;
            self.sources.change(|plan| *is_slow = plan.free_slot());
        }
        self.is_slow
    }

    /// Ends the transfer: the node has the executable, and becomes a source.
    pub(super) fn done(mut self, node: NodeSource) {
        (self.outcome, self.to) = (TransferOutcome::Done, Some(node));
    }

    /// Ends the transfer without success: the node needs another source.
    pub(super) fn failed(mut self, outcome: TransferOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.sources.change(|plan| {
            // In one step with the end of the transfer. Otherwise the slot that it frees might make the driver send a
            // copy to a node that can fetch from the new source.
            self.to.into_iter().for_each(|node| plan.add(node));
            plan.ended(self.source, self.outcome, self.is_slow);
        });
    }
}

/// Assignment of sources to nodes.
#[derive(Debug, Default)]
struct TransferPlan {
    holders: Vec<Holder>,
    /// Fetches that all holders together have room for; saves a scan of the holders.
    free: usize,
    /// Transfers of the driver's in progress, without those to slow nodes.
    sending: usize,
    /// Transfers of the driver's to slow nodes.
    sending_slowly: usize,
    waiting: VecDeque<WaitingNode>,
    tally: TransferTally,
}

/// Node that has the executable, with its load.
#[derive(Debug)]
struct Holder {
    source: NodeSource,
    /// Nodes that fetch from it now.
    serving: usize,
    failures: usize,
}

impl Holder {
    fn free(&self) -> usize {
        EXECUTABLE_FETCHES_PER_NODE - self.serving
    }
}

/// Node that waits for a source.
#[derive(Debug)]
struct WaitingNode {
    tried: Vec<HostUid>,
    sender: oneshot::Sender<Transfer>,
}

impl TransferPlan {
    fn add(&mut self, source: NodeSource) {
        if self.holders.iter().all(|holder| holder.source.agent != source.agent) {
            self.holders.push(Holder { source, serving: 0, failures: 0 });
            self.free += EXECUTABLE_FETCHES_PER_NODE;
        }
    }

    fn forget(&mut self, agent: HostUid) {
        if let Some(at) = self.holders.iter().position(|holder| holder.source.agent == agent) {
            self.free -= self.holders.swap_remove(at).free();
        }
    }

    /// Assigns sources to the waiting nodes, in their order. Returns the transfers whose futures were dropped.
    fn assign(&mut self, sources: &Sources) -> Vec<Transfer> {
        // Dropped futures are removed first: each would get a transfer whose drop calls this again, recursively.
        self.waiting.retain(|waiting| !waiting.sender.is_closed());
        let (mut cancelled, mut at) = (Vec::new(), 0);
        while let Some(waiting) = self.waiting.get(at) {
            let Some(source) = Self::source_for(&self.holders, self.free, self.sending, &waiting.tried)
            else {
                at += 1;
                continue;
            };
            self.begin(source);
            if let Some(waiting) = self.waiting.remove(at) {
                let (sources, outcome) = (sources.clone(), TransferOutcome::Cancelled);
                let transfer = Transfer { sources, source, outcome, to: None, is_slow: false };
                cancelled.extend(waiting.sender.send(transfer).err());
            }
        }
        cancelled
    }

    /// Source for a node that has tried `tried`; `None` while it has to wait.
    fn source_for(
        holders: &[Holder],
        free: usize,
        sending: usize,
        tried: &[HostUid],
    ) -> Option<TransferSource> {
        // Thousands of nodes may wait, and this runs for each of them whenever anything changes. Most are decided
        // here, without a scan of the holders.
        if tried.is_empty() && !holders.is_empty() && free == 0 {
            return None;
        }
        let mut untried = holders.iter().filter(|holder| !tried.contains(&holder.source.agent)).peekable();
        if tried.len() < EXECUTABLE_SOURCES_TRIED_MAX && untried.peek().is_some() {
            // The least loaded holder, so that the load spreads.
            let holder = untried.min_by_key(|holder| holder.serving)?;
            return (holder.free() > 0).then_some(TransferSource::Node(holder.source));
        }
        (sending < EXECUTABLES_SENT_AT_ONCE).then_some(TransferSource::Driver)
    }

    fn begin(&mut self, source: TransferSource) {
        match source {
            TransferSource::Driver => self.sending += 1,
            TransferSource::Node(source) => {
                if let Some(holder) = self.holders.iter_mut().find(|holder| holder.source == source) {
                    holder.serving += 1;
                    self.free -= 1;
                }
            }
        }
    }

    /// Moves a transfer of the driver's to the slow ones, unless their limit is reached.
    fn free_slot(&mut self) -> bool {
        let may_leave = self.sending_slowly < EXECUTABLES_SENT_SLOWLY_MAX;
        if may_leave {
            self.sending -= 1;
            self.sending_slowly += 1;
        }
        may_leave
    }

    fn ended(&mut self, source: TransferSource, outcome: TransferOutcome, is_slow: bool) {
        let is_done = u64::from(outcome == TransferOutcome::Done);
        let TransferSource::Node(source) = source else {
            let sending = if is_slow { &mut self.sending_slowly } else { &mut self.sending };
            *sending -= 1;
            self.tally.sent += is_done;
            return;
        };
        self.tally.fetched += is_done;
        // The source may have been removed, and added again without load, since the transfer began.
        let holder = self.holders.iter_mut().find(|holder| holder.source == source && holder.serving > 0);
        let Some(holder) = holder else { return };
        holder.serving -= 1;
        self.free += 1;
        match outcome {
            TransferOutcome::Failed => holder.failures += 1,
            TransferOutcome::Wrong => holder.failures = EXECUTABLE_SOURCE_FAILURES_MAX,
            TransferOutcome::Done | TransferOutcome::Busy | TransferOutcome::Cancelled => {}
        }
        if holder.failures >= EXECUTABLE_SOURCE_FAILURES_MAX {
            self.forget(source.agent);
        }
    }
}

#[cfg(test)]
mod tests;
