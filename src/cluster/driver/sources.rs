//! Sources of the executable for each node: the driver, or a node that has it.
//!
//! Each node that has the executable is a source for others, so it spreads as a tree, and the driver sends a few
//! copies whatever the number of nodes. A node is told one source at a time. One that fails is not named again to
//! the same node, and after failures at several nodes to none; a node with which several have failed is sent the
//! executable by the driver. Nodes that wait for a source are served in the order in which they came. A node that is
//! slow to take the driver's copy leaves its turn to another.

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

/// A node that has the executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) agent: HostUid,
    pub(super) address: SocketAddr,
}

/// Source of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The driver sends it.
    Send,
    /// The node fetches it from another.
    Fetch(Source),
}

/// Result of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The node has the executable.
    Done,
    /// The source serves others: it has not failed, and may be asked again.
    Busy,
    /// The source did not answer, was too slow, or does not have it.
    Failed,
    /// What came has another digest.
    Wrong,
    /// The node itself failed.
    GivenUp,
}

/// How the nodes got the executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Nodes that had it before.
    pub(super) had: u64,
    /// Nodes that the driver has sent it to.
    pub(super) sent: u64,
    /// Nodes that have fetched it from a node.
    pub(super) fetched: u64,
    /// Bytes that the driver has sent, also in transfers that failed.
    pub(super) sent_bytes: u64,
}

/// Sources that are known, and transfers under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(Arc<Mutex<Plan>>);

impl Sources {
    /// Takes note of a node that has the executable.
    pub(super) fn add(&self, source: Source) {
        self.change(|plan| plan.add(source));
    }

    /// The same, and counts it as one that has it from before.
    pub(super) fn stored_bytes(&self, source: Source) {
        self.change(|plan| {
            plan.tally.had += 1;
            plan.add(source);
        });
    }

    /// Forgets a node that is lost.
    pub(super) fn forget(&self, agent: HostUid) {
        self.change(|plan| plan.forget(agent));
    }

    /// Takes note of bytes that the driver has sent.
    pub(super) fn sent_bytes(&self, count: usize) {
        self.0.lock().tally.sent_bytes += count as u64;
    }

    pub(super) fn tally(&self) -> Tally {
        self.0.lock().tally
    }

    /// Waits for a source for a node that has tried some already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes nothing.
    pub(super) async fn take(&self, tried: &[HostUid]) -> Transfer {
        let (tell, told) = oneshot::channel();
        self.change(|plan| plan.waiting.push_back(Waiting { tried: tried.to_vec(), tell }));
        told.await.expect("the plan keeps a node that waits until it has a source")
    }

    /// Whether a node that has tried some sources may fetch from another.
    pub(super) fn has_untried(&self, tried: &[HostUid]) -> bool {
        tried.len() < EXECUTABLE_SOURCES_TRIED_MAX
            && self.0.lock().holders.iter().any(|holder| !tried.contains(&holder.source.agent))
    }

    /// Changes the plan, and gives out what is free then.
    fn change(&self, change: impl FnOnce(&mut Plan)) {
        let mut plan = self.0.lock();
        change(&mut plan);
        let unwanted = plan.give_out(self);
        drop(plan);
        // Their ends change the plan again.
        drop(unwanted);
    }
}

/// A transfer that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Transfer {
    sources: Sources,
    turn: Turn,
    outcome: Outcome,
    /// The node, once it has the executable.
    to: Option<Source>,
    /// Whether the driver sends to a slow node, and to another in its turn.
    is_slow: bool,
}

impl Transfer {
    pub(super) fn turn(&self) -> Turn {
        self.turn
    }

    /// Lets the driver send to another node, too, since this one is slow. At most
    /// [`EXECUTABLES_SENT_SLOWLY_MAX`] nodes are: says whether it is one of them.
    pub(super) fn leave_turn(&mut self) -> bool {
        if self.turn == Turn::Send && !self.is_slow {
            let is_slow = &mut self.is_slow;
            self.sources.change(|plan| *is_slow = plan.leave_turn());
        }
        self.is_slow
    }

    /// The node has the executable.
    pub(super) fn done(mut self, node: Source) {
        (self.outcome, self.to) = (Outcome::Done, Some(node));
    }

    /// The node has to look for another source.
    pub(super) fn failed(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.sources.change(|plan| {
            // In one step: otherwise a node that waits for this one would be sent a copy.
            self.to.into_iter().for_each(|node| plan.add(node));
            plan.ended(self.turn, self.outcome, self.is_slow);
        });
    }
}

#[derive(Debug, Default)]
struct Plan {
    holders: Vec<Holder>,
    /// Fetches that the holders have room for.
    free: usize,
    /// Transfers by the driver that are under way, but for those to slow nodes.
    sending: usize,
    /// Transfers by the driver to slow nodes.
    sending_slowly: usize,
    waiting: VecDeque<Waiting>,
    tally: Tally,
}

/// A node that has the executable, and how it serves others.
#[derive(Debug)]
struct Holder {
    source: Source,
    /// Nodes that fetch from it now.
    serving: usize,
    failures: usize,
}

impl Holder {
    fn free(&self) -> usize {
        EXECUTABLE_FETCHES_PER_NODE - self.serving
    }
}

/// A node that waits for a source.
#[derive(Debug)]
struct Waiting {
    tried: Vec<HostUid>,
    tell: oneshot::Sender<Transfer>,
}

impl Plan {
    fn add(&mut self, source: Source) {
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

    /// Assigns sources to the nodes that wait, in their order. Returns the transfers that no future waits for.
    fn give_out(&mut self, sources: &Sources) -> Vec<Transfer> {
        // A transfer that is dropped comes here again: once for each of them, it would recurse.
        self.waiting.retain(|waiting| !waiting.tell.is_closed());
        let (mut unwanted, mut at) = (Vec::new(), 0);
        while let Some(waiting) = self.waiting.get(at) {
            let Some(turn) = Self::turn(&self.holders, self.free, self.sending, &waiting.tried) else {
                at += 1;
                continue;
            };
            self.begin(turn);
            if let Some(waiting) = self.waiting.remove(at) {
                let (sources, outcome) = (sources.clone(), Outcome::GivenUp);
                let transfer = Transfer { sources, turn, outcome, to: None, is_slow: false };
                unwanted.extend(waiting.tell.send(transfer).err());
            }
        }
        unwanted
    }

    /// The source for a node that has tried some already; `None` while it has to wait for one.
    fn turn(holders: &[Holder], free: usize, sending: usize, tried: &[HostUid]) -> Option<Turn> {
        // Thousands may wait: most of them are done with here.
        if tried.is_empty() && !holders.is_empty() && free == 0 {
            return None;
        }
        let mut untried = holders.iter().filter(|holder| !tried.contains(&holder.source.agent)).peekable();
        if tried.len() < EXECUTABLE_SOURCES_TRIED_MAX && untried.peek().is_some() {
            let holder = untried.min_by_key(|holder| holder.serving)?;
            return (holder.free() > 0).then_some(Turn::Fetch(holder.source));
        }
        (sending < EXECUTABLES_SENT_AT_ONCE).then_some(Turn::Send)
    }

    fn begin(&mut self, turn: Turn) {
        match turn {
            Turn::Send => self.sending += 1,
            Turn::Fetch(source) => {
                if let Some(holder) = self.holders.iter_mut().find(|holder| holder.source == source) {
                    holder.serving += 1;
                    self.free -= 1;
                }
            }
        }
    }

    /// A transfer by the driver leaves its turn to another, if not too many have.
    fn leave_turn(&mut self) -> bool {
        let may_leave = self.sending_slowly < EXECUTABLES_SENT_SLOWLY_MAX;
        if may_leave {
            self.sending -= 1;
            self.sending_slowly += 1;
        }
        may_leave
    }

    fn ended(&mut self, turn: Turn, outcome: Outcome, is_slow: bool) {
        let is_done = u64::from(outcome == Outcome::Done);
        let Turn::Fetch(source) = turn else {
            let sending = if is_slow { &mut self.sending_slowly } else { &mut self.sending };
            *sending -= 1;
            self.tally.sent += is_done;
            return;
        };
        self.tally.fetched += is_done;
        // It may have been forgotten meanwhile, and have come again.
        let holder = self.holders.iter_mut().find(|holder| holder.source == source && holder.serving > 0);
        let Some(holder) = holder else { return };
        holder.serving -= 1;
        self.free += 1;
        match outcome {
            Outcome::Failed => holder.failures += 1,
            Outcome::Wrong => holder.failures = EXECUTABLE_SOURCE_FAILURES_MAX,
            Outcome::Done | Outcome::Busy | Outcome::GivenUp => {}
        }
        if holder.failures >= EXECUTABLE_SOURCE_FAILURES_MAX {
            self.forget(source.agent);
        }
    }
}

#[cfg(test)]
mod tests;
