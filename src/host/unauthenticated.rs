//! Connections that have proved nothing yet: places for them, and a log of those that were refused.

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

/// Connections that have proved nothing yet, oldest first. Dropping it closes all of them.
///
/// Places go by source, so that one machine cannot shut the others out. A source has half of them, and its
/// newcomers take the places of its own connections only once those have had time for a handshake: a flood
/// costs an accept each, and few handshakes. Where all places are taken, the source that has most of them
/// loses its oldest. This machine's own address has no share: as many processes may dial as there are cores.
#[derive(Debug, Default)]
pub(crate) struct UnauthenticatedConnections(VecDeque<Stranger>);

#[derive(Debug)]
struct Stranger {
    source: Option<IpAddr>,
    since: Instant,
    task: AbortHandle,
}

/// Age at which a connection gives way to another one of its source. A handshake takes a few round trips.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);

/// A source has too many connections that have proved nothing.
#[derive(Debug, thiserror::Error)]
#[error("{source_ip} has {open} connections that have proved nothing")]
pub(crate) struct Crowded {
    source_ip: IpAddr,
    open: usize,
}

impl UnauthenticatedConnections {
    /// Lets a connection from `source` in, if that is known, and attends to it on this runtime.
    pub(crate) fn spawn(
        &mut self,
        source: Option<IpAddr>,
        open_max: usize,
        to: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Crowded> {
        let source = source.map(network_of);
        self.make_room(source, open_max.max(1))?;
        self.0.push_back(Stranger { source, since: Instant::now(), task: tokio::spawn(to).abort_handle() });
        Ok(())
    }

    fn make_room(&mut self, source: Option<IpAddr>, open_max: usize) -> Result<(), Crowded> {
        let share = open_max.div_ceil(2);
        if self.0.len() < share {
            return Ok(());
        }
        self.0.retain(|stranger| !stranger.task.is_finished());
        if let Some(source_ip) = source.filter(|source| !source.is_loopback()) {
            let open = self.0.iter().filter(|stranger| stranger.source == source).count();
            let oldest = self.0.iter().position(|stranger| stranger.source == source);
            if let Some(oldest) = oldest.filter(|_| open >= share) {
                if self.0[oldest].since.elapsed() < GIVES_WAY_AFTER {
                    return Err(Crowded { source_ip, open });
                }
                self.close(oldest);
            }
        }
        while self.0.len() >= open_max {
            self.close(self.oldest_of_most());
        }
        Ok(())
    }

    /// The oldest connection of the source that has most; of the one that came first, if several have.
    fn oldest_of_most(&self) -> usize {
        let mut counts = FxHashMap::<_, usize>::default();
        self.0.iter().for_each(|stranger| *counts.entry(stranger.source).or_default() += 1);
        let most = counts.values().max();
        self.0.iter().position(|stranger| counts.get(&stranger.source) == most).unwrap_or(0)
    }

    fn close(&mut self, at: usize) {
        if let Some(stranger) = self.0.remove(at) {
            stranger.task.abort();
        }
    }
}

/// The network that a machine can have addresses of: IPv6 gives each a /64.
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        other => other,
    }
}

impl Drop for UnauthenticatedConnections {
    fn drop(&mut self) {
        self.0.iter().for_each(|stranger| stranger.task.abort());
    }
}

/// Shortest time between two log lines about refusals: a flood of connections must not fill the log.
const REJECTION_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The connections that were refused and not told of yet.
#[derive(Debug, Default)]
pub(crate) struct RejectionLog(Mutex<(u64, Option<Instant>)>);

impl RejectionLog {
    /// Counts one, and tells of it and of those before it, but not too often.
    pub(crate) fn record(&self, error: &dyn Display) {
        if let Some(connections) = self.count() {
            log::warn!(connections, %error, "refused; the error is the last one's");
        }
    }

    /// Counts one; gives how many are to be told of, if they are by now.
    fn count(&self) -> Option<u64> {
        let mut guard = self.0.lock();
        let (untold, told) = &mut *guard;
        *untold += 1;
        if told.is_some_and(|told| told.elapsed() < REJECTION_LOG_INTERVAL) {
            return None;
        }
        *told = Some(Instant::now());
        Some(std::mem::take(untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn source(of: u8) -> Option<IpAddr> {
        Some(IpAddr::from([198, 51, 100, of]))
    }

    /// Lets one in that never ends by itself; gives what ends when it is closed.
    fn attend(
        strangers: &mut UnauthenticatedConnections,
        from: Option<IpAddr>,
        open_max: usize,
    ) -> Result<tokio::sync::oneshot::Receiver<()>, Crowded> {
        let (open, closed) = tokio::sync::oneshot::channel();
        let lingers = async move {
            let _open = open;
            std::future::pending().await
        };
        strangers.spawn(from, open_max, lingers).map(|()| closed)
    }

    async fn is_open(closed: &mut tokio::sync::oneshot::Receiver<()>) -> bool {
        tokio::task::yield_now().await;
        matches!(closed.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty))
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_one_source_closes_no_connection_of_another() {
        let mut strangers = UnauthenticatedConnections::default();
        let mut honest = attend(&mut strangers, source(1), 8).unwrap();
        let mut refused = 0;
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_micros(100)).await;
            refused += usize::from(attend(&mut strangers, Some(FLOOD), 8).is_err());
        }
        // A second of it: the first four, and one when the oldest of those was old enough.
        assert!((9990..=9996).contains(&refused), "{refused}");
        assert!(is_open(&mut honest).await);
        let mut others: Vec<_> = (2..6).map(|of| attend(&mut strangers, source(of), 8).unwrap()).collect();
        for other in &mut others {
            assert!(is_open(other).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_source_with_most_connections_loses_its_oldest_and_a_proven_one_takes_no_place() {
        let mut strangers = UnauthenticatedConnections::default();
        let mut own: Vec<_> = (0..3).map(|_| attend(&mut strangers, source(1), 4).ok()).collect();
        assert!(own.pop().unwrap().is_none(), "a source has half of the places");
        let local = Some(IpAddr::from([127, 0, 0, 1]));
        let mut locals: Vec<_> = (0..6).map(|_| attend(&mut strangers, local, 4).unwrap()).collect();
        let mut open = Vec::new();
        for one in &mut locals {
            open.push(is_open(one).await);
        }
        // The first that came when all places were taken cost the source that had two its oldest, as many.
        assert_eq!(open.iter().filter(|open| **open).count(), 3, "{open:?}");
        assert!(open[4] && open[5]);
        for (which, one) in own.iter_mut().flatten().enumerate() {
            assert_eq!(is_open(one).await, which == 1);
        }
        assert_eq!(strangers.0.len(), 4);
    }

    #[test]
    fn a_machine_with_many_addresses_of_one_network_is_one_source() {
        let [one, other, far] = ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"];
        let [one, other, far] = [one, other, far].map(|it| network_of(it.parse().unwrap()));
        assert!(one == other && one != far);
        assert_eq!(network_of("::ffff:192.0.2.1".parse().unwrap()), FLOOD);
    }
}
