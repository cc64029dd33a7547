//! Grants of the lease under which the exclusive actors of a worker run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time in nanoseconds on a clock that all processes of a machine share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LeaseTime(pub(crate) u64);

impl LeaseTime {
    /// Time that never comes.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// Adds a duration.
    #[cfg(any(feature = "cli", feature = "sim"))]
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time since an earlier moment; zero if it is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Lease of a node, as its agent passes it on to workers.
///
/// In a local cluster it is endless: an incarnation ends before the driver hears of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseGrant {
    /// Number of the lease. A lease that has run out is never renewed: the next one has a higher number.
    pub(crate) number: u64,
    /// End of the lease, unless it is renewed.
    pub(crate) until: LeaseTime,
    /// Time after its end in which a running handler may return before its process is killed.
    pub(crate) grace: Duration,
}

impl LeaseGrant {
    /// Lease that does not end.
    pub(crate) const ENDLESS: Self = Self { number: 1, until: LeaseTime::NEVER, grace: Duration::ZERO };
}
