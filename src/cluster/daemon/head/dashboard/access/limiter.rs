//! Limit of failed log-ins, for each address and in all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::config::{DASHBOARD_LOGIN_PERIOD, DASHBOARD_LOGINS_FAILED_ALL_MAX, DASHBOARD_LOGINS_FAILED_MAX};

/// Counts of failed log-ins in the current period.
///
/// The number of addresses is bounded by the limit of all failures.
#[derive(Debug, Default)]
pub(super) struct LoginLimiter {
    since: Option<Instant>,
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

impl LoginLimiter {
    /// Returns true if further log-ins from an address are refused.
    pub(super) fn is_exhausted(&mut self, now: Instant, from: IpAddr) -> bool {
        self.advance(now);
        let here = self.by_address.get(&source(from)).copied().unwrap_or(0);
        here >= DASHBOARD_LOGINS_FAILED_MAX || self.all >= DASHBOARD_LOGINS_FAILED_ALL_MAX
    }

    /// Counts a failed log-in.
    pub(super) fn failed(&mut self, now: Instant, from: IpAddr) {
        self.advance(now);
        self.all += 1;
        *self.by_address.entry(source(from)).or_default() += 1;
    }

    fn advance(&mut self, now: Instant) {
        let is_over = self.since.is_none_or(|since| now.duration_since(since) >= DASHBOARD_LOGIN_PERIOD);
        if is_over {
            *self = Self { since: Some(now), ..Self::default() };
        }
    }
}

/// Address that failures are counted for: of IPv6 the network, since a host may use any address in it.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_from_many_addresses_exhaust_the_limit_of_all() {
        let (mut limiter, now) = (LoginLimiter::default(), Instant::now());
        for number in 0..DASHBOARD_LOGINS_FAILED_ALL_MAX {
            let from = IpAddr::from(number.to_be_bytes());
            assert!(!limiter.is_exhausted(now, from));
            limiter.failed(now, from);
        }
        assert!(limiter.is_exhausted(now, IpAddr::from([10, 0, 0, 1])));
        assert!(!limiter.is_exhausted(now + DASHBOARD_LOGIN_PERIOD, IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit() {
        let (mut limiter, now) = (LoginLimiter::default(), Instant::now());
        for number in 0..DASHBOARD_LOGINS_FAILED_MAX {
            limiter.failed(now, format!("2001:db8::{number}").parse().unwrap());
        }
        assert!(limiter.is_exhausted(now, "2001:db8::ffff".parse().unwrap()));
        assert!(!limiter.is_exhausted(now, "2001:db8:0:1::1".parse().unwrap()));
    }
}
