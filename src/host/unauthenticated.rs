//! Unauthenticated connections: limits on their number, and a rate-limited log of rejections.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::lock::Mutex;
use crate::observe::log;

/// Unauthenticated connections, oldest first. Dropping it closes all of them.
///
/// Limits apply by source, so that one machine cannot lock out the others:
///
/// - A source gets half of the slots. A further connection replaces the oldest of that source if it is at
///   least [`GIVES_WAY_AFTER`] old, and is rejected otherwise. A flood then costs an accept for each
///   connection, and few handshakes.
/// - If all slots are taken, the source with the most connections loses its oldest.
/// - Loopback has no limit by source, since as many processes may dial as there are cores.
#[derive(Debug, Default)]
pub(crate) struct UnauthenticatedConnections(VecDeque<UnauthenticatedConnection>);

#[derive(Debug)]
struct UnauthenticatedConnection {
    source: Option<IpAddr>,
    since: Instant,
    task: AbortHandle,
}

/// Age at which a connection may be replaced by another of its source. A handshake takes a few round
/// trips.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);

/// A source has reached its limit of unauthenticated connections.
#[derive(Debug, thiserror::Error)]
#[error("{source_ip} has {open} unauthenticated connections, which is its limit")]
pub(crate) struct OverLimit {
    source_ip: IpAddr,
    open: usize,
}

impl UnauthenticatedConnections {
    /// Admits a connection from `source`, if that is known, and runs its handshake on this runtime.
    pub(crate) fn spawn(
        &mut self,
        source: Option<IpAddr>,
        open_max: usize,
        to: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), OverLimit> {
        let source = source.map(network_of);
        // With a limit of zero no connection could ever be accepted.
        self.free_slot(source, open_max.max(1))?;
        self.0.push_back(UnauthenticatedConnection {
            source,
            since: Instant::now(),
            task: crate::background::spawn(to).abort_handle(),
        });
        Ok(())
    }

    fn free_slot(&mut self, source: Option<IpAddr>, open_max: usize) -> Result<(), OverLimit> {
        let share = open_max.div_ceil(2);
        // No limit applies below half of the slots, which skips the scans.
        if self.0.len() < share {
            return Ok(());
        }
        // Finished handshakes keep their entries until a slot is needed.
        self.0.retain(|connection| !connection.task.is_finished());
        if let Some(source_ip) = source.filter(|source| !source.is_loopback()) {
            let open = self.0.iter().filter(|connection| connection.source == source).count();
            let oldest = self.0.iter().position(|connection| connection.source == source);
            if let Some(oldest) = oldest.filter(|_| open >= share) {
                if self.0[oldest].since.elapsed() < GIVES_WAY_AFTER {
                    return Err(OverLimit { source_ip, open });
                }
                self.close(oldest);
            }
        }
        while self.0.len() >= open_max {
            self.close(self.oldest_of_most());
        }
        Ok(())
    }

    /// Index of the oldest connection of the source with the most; of equal sources, that of the oldest.
    fn oldest_of_most(&self) -> usize {
        let mut counts = FxHashMap::<_, usize>::default();
        self.0.iter().for_each(|connection| *counts.entry(connection.source).or_default() += 1);
        let most = counts.values().max();
        self.0.iter().position(|connection| counts.get(&connection.source) == most).unwrap_or(0)
    }

    fn close(&mut self, at: usize) {
        if let Some(connection) = self.0.remove(at) {
            connection.task.abort();
        }
    }
}

/// Network that a single machine can have addresses of: a /64 for IPv6, the address itself for IPv4.
fn network_of(source: IpAddr) -> IpAddr {
    // An IPv4 address that is mapped into IPv6 counts as the IPv4 address.
    match source.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        other => other,
    }
}

impl Drop for UnauthenticatedConnections {
    fn drop(&mut self) {
        self.0.iter().for_each(|connection| connection.task.abort());
    }
}

/// Minimum interval between two log lines about rejections, so that a flood does not fill the log.
const REJECTION_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Rejected connections that are not logged yet, and the time of the last log line.
#[derive(Debug, Default)]
pub(crate) struct RejectionLog(Mutex<(u64, Option<Instant>)>);

impl RejectionLog {
    /// Counts a rejection, and logs all of them if the last line is old enough.
    pub(crate) fn record(&self, error: &dyn Display) {
        if let Some(connections) = self.count() {
            log::warn!(connections, %error, "rejected connections; the error is that of the last one");
        }
    }

    /// Counts a rejection; returns the number of unlogged ones if a line is due.
    fn count(&self) -> Option<u64> {
        let mut guard = self.0.lock();
        let (unlogged, logged_at) = &mut *guard;
        *unlogged += 1;
        if logged_at.is_some_and(|at| at.elapsed() < REJECTION_LOG_INTERVAL) {
            return None;
        }
        *logged_at = Some(Instant::now());
        Some(std::mem::take(unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn source(of: u8) -> Option<IpAddr> {
        Some(IpAddr::from([198, 51, 100, of]))
    }

    /// Admits a connection that never ends by itself; the returned receiver resolves when it is closed.
    fn admit(
        connections: &mut UnauthenticatedConnections,
        from: Option<IpAddr>,
        open_max: usize,
    ) -> Result<tokio::sync::oneshot::Receiver<()>, OverLimit> {
        let (open, closed) = tokio::sync::oneshot::channel();
        let lingers = async move {
            let _open = open;
            std::future::pending().await
        };
        connections.spawn(from, open_max, lingers).map(|()| closed)
    }

    async fn is_open(closed: &mut tokio::sync::oneshot::Receiver<()>) -> bool {
        tokio::task::yield_now().await;
        matches!(closed.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty))
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_one_source_closes_no_connection_of_another() {
        let mut connections = UnauthenticatedConnections::default();
        let mut legitimate = admit(&mut connections, source(1), 8).unwrap();
        let mut rejected = 0;
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_micros(100)).await;
            rejected += usize::from(admit(&mut connections, Some(FLOOD), 8).is_err());
        }
        // In a second of the flood: the first four, and one each time the oldest of those is old enough.
        assert!((9990..=9996).contains(&rejected), "{rejected}");
        assert!(is_open(&mut legitimate).await);
        let mut others: Vec<_> = (2..6).map(|of| admit(&mut connections, source(of), 8).unwrap()).collect();
        for other in &mut others {
            assert!(is_open(other).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_source_with_most_connections_loses_its_oldest_and_finished_ones_take_no_slot() {
        let mut connections = UnauthenticatedConnections::default();
        let mut own: Vec<_> = (0..3).map(|_| admit(&mut connections, source(1), 4).ok()).collect();
        assert!(own.pop().unwrap().is_none(), "a source has half of the slots");
        let local = Some(IpAddr::from([127, 0, 0, 1]));
        let mut locals: Vec<_> = (0..6).map(|_| admit(&mut connections, local, 4).unwrap()).collect();
        let mut open = Vec::new();
        for one in &mut locals {
            open.push(is_open(one).await);
        }
        // With all slots taken, the first local one costs the other source its oldest, since it had as
        // many.
        assert_eq!(open.iter().filter(|open| **open).count(), 3, "{open:?}");
        assert!(open[4] && open[5]);
        for (which, one) in own.iter_mut().flatten().enumerate() {
            assert_eq!(is_open(one).await, which == 1);
        }
        assert_eq!(connections.0.len(), 4);
    }

    #[test]
    fn a_machine_with_many_addresses_of_one_network_is_one_source() {
        let [one, other, far] = ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"];
        let [one, other, far] = [one, other, far].map(|it| network_of(it.parse().unwrap()));
        assert!(one == other && one != far);
        assert_eq!(network_of("::ffff:192.0.2.1".parse().unwrap()), FLOOD);
    }
}
