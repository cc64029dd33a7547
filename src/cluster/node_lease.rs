//! Lease of a node, as its agent holds it: the exclusive actors of its workers run under it.
//!
//! The head acknowledges a heartbeat after it has counted the lease from its receipt. The agent counts from the moment
//! at which it sent that heartbeat, so its lease ends first. The clocks of the two need not agree: the head waits for
//! a tenth longer than the agent, of which half is the grace of running handlers, and half covers their drift.
//!
//! ```text
//!   agent  --heartbeat--.                  .--> lease valid ........| grace |
//!   head                 '--received--ack--'    node reachable ......................| next incarnation
//! ```

use std::pin::pin;
use std::time::Duration;

use tokio::sync::Notify;

use crate::cluster::model::LeaseRenewal;
use crate::host::{ActorEnd, Host};
use crate::lock::Mutex;
use crate::registry::LeaseClock;
use crate::remote::{StartOutcome, start_incarnation};
use crate::spec::{ActorLocation, LeaseGrant, LeaseTime, Recipe};

/// Pause before a worker whose lease had run out is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Lease of this node.
#[derive(Debug)]
pub(in crate::cluster) struct NodeLease {
    clock: LeaseClock,
    held: Mutex<Option<HeldLease>>,
    /// Wakes the starts that wait, in their order. A `watch` wakes them in a random one.
    renewed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct HeldLease {
    /// Start of the lease by the clock of the head.
    since: u64,
    /// Time at which the last acknowledged heartbeat was sent.
    sent: LeaseTime,
    grant: LeaseGrant,
}

impl NodeLease {
    pub(in crate::cluster) fn new(clock: LeaseClock) -> Self {
        Self { clock, held: Mutex::default(), renewed: Notify::new() }
    }

    /// Present time, for a heartbeat that is about to be sent.
    pub(in crate::cluster) fn now(&self) -> LeaseTime {
        (self.clock)()
    }

    /// Records that the head has acknowledged the heartbeat that was sent at `sent`; returns the grant for workers.
    ///
    /// If the earlier lease has run out, the head may have given its actors to others: the next one has a new number.
    pub(in crate::cluster) fn renewed(&self, sent: LeaseTime, renewal: LeaseRenewal) -> LeaseGrant {
        let (now, until) = (self.now(), sent.after(renewal.length));
        let mut present = self.held.lock();
        let held = match *present {
            // Acknowledgements may overtake each other.
            Some(held) if sent < held.sent => held,
            Some(HeldLease { grant, .. }) if now < grant.until => {
                let grant = LeaseGrant { until, grace: renewal.grace, ..grant };
                HeldLease { since: renewal.since, sent, grant }
            }
            before => {
                let number = before.map_or(1, |before| before.grant.number + 1);
                let grant = LeaseGrant { number, until, grace: renewal.grace };
                HeldLease { since: renewal.since, sent, grant }
            }
        };
        *present = Some(held);
        drop(present);
        self.renewed.notify_waiters();
        held.grant
    }

    /// Grant for an incarnation that the head has placed on this node under the lease that began at `since`; `None` if
    /// that lease is over.
    ///
    /// The command may arrive before the acknowledgement by which the agent learns of the lease, and long after its
    /// end, when the head has placed the next incarnation elsewhere. While the lease is over and not renewed, it waits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    async fn for_start(&self, since: u64) -> Option<LeaseGrant> {
        let received = self.now();
        loop {
            let mut renewed = pin!(self.renewed.notified());
            // Before the look: a renewal between the two would be missed otherwise.
            renewed.as_mut().enable();
            let held = *self.held.lock();
            if let Some(held) = held.filter(|held| held.since == since && self.now() < held.grant.until) {
                return Some(held.grant);
            }
            if let Some(held) = held.filter(|held| held.sent > received) {
                return Some(held.grant).filter(|_| held.since == since);
            }
            renewed.await;
        }
    }

    /// Creates an incarnation of a managed actor in a worker; returns its end if the worker reports none.
    ///
    /// An exclusive one is created under the lease that began at `since`. If that is over, nothing is created, and no
    /// end is reported: the head repeats the command under the next lease, or has placed the next incarnation elsewhere.
    /// `prepare` is called before an exclusive actor exists.
    pub(in crate::cluster) async fn start_incarnation(
        &self,
        host: &Host,
        at: ActorLocation,
        recipe: Recipe,
        since: Option<u64>,
        prepare: impl Fn(),
    ) -> Option<ActorEnd> {
        loop {
            let mut grant = None;
            if let Some(since) = since {
                grant = Some(self.for_start(since).await?);
                prepare();
            }
            match start_incarnation(host, at, recipe.clone(), grant).await {
                StartOutcome::Answered => return None,
                StartOutcome::NotSent(end) => return Some(end),
                // It is over, or the renewal has not reached the worker yet.
                StartOutcome::LeaseExpired => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    fn lease() -> NodeLease {
        NodeLease::new(|| LeaseTime(NOW.get()))
    }

    impl NodeLease {
        /// Sends a heartbeat at one time, of which the acknowledgement arrives at another.
        fn beat(&self, since: u64, sent: u64, acked: u64) -> (u64, u64) {
            NOW.set(acked);
            let renewal =
                LeaseRenewal { since, length: Duration::from_nanos(10), grace: Duration::from_nanos(1) };
            let grant = self.renewed(LeaseTime(sent), renewal);
            (grant.number, grant.until.0)
        }
    }

    #[test]
    fn lease_counts_from_the_sending_and_a_gap_ends_it() {
        let lease = lease();
        assert_eq!(lease.beat(1, 100, 103), (1, 110));
        assert_eq!(lease.beat(1, 105, 109), (1, 115));
        // An earlier heartbeat, acknowledged later.
        assert_eq!(lease.beat(1, 104, 110), (1, 115));
        // The acknowledgement is in time for its own lease, but the earlier one has run out.
        assert_eq!(lease.beat(1, 108, 115), (2, 118));
        // Another head continues the lease.
        assert_eq!(lease.beat(7, 110, 116), (2, 120));
    }

    #[test]
    fn command_waits_for_the_lease_that_it_names() {
        let lease = lease();
        assert!(lease.for_start(1).now_or_never().is_none());
        lease.beat(1, 100, 103);
        NOW.set(110);
        assert!(lease.for_start(1).now_or_never().is_none());
        NOW.set(103);
        assert_eq!(lease.for_start(1).now_or_never().unwrap().unwrap().until.0, 110);
        let waiting = lease.for_start(2);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        lease.beat(1, 102, 104);
        assert!(waiting.as_mut().now_or_never().is_none());
        // Sent after the command arrived.
        lease.beat(1, 105, 106);
        assert_eq!(waiting.now_or_never(), Some(None));
    }
}
