//! Leases of nodes and drivers, which expire without heartbeats.
//!
//! Owns the expiry times. The consequences of an expiry are up to `state`. A renewal costs one hash look-up:
//! it leaves the ordered expiries stale, and the first of them is corrected when it seems to be due.

use std::collections::BTreeSet;
use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Milliseconds since 1970, of a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::cluster) struct Millis(pub(in crate::cluster) u64);

impl Millis {
    /// Adds a number of milliseconds.
    pub(in crate::cluster) fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since an earlier time; 0 if it is later.
    pub(in crate::cluster) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Leases of one kind, all of the same length.
#[derive(Debug)]
pub(in crate::cluster) struct Leases<K> {
    length_ms: u64,
    until: FxHashMap<K, Millis>,
    /// Each lease at least once, with a lower bound of its expiry. Renewals and ends leave stale entries.
    expiries: BTreeSet<(Millis, K)>,
}

impl<K: Copy + Ord + Hash> Leases<K> {
    pub(in crate::cluster) fn new(length_ms: u64) -> Self {
        Self { length_ms, until: FxHashMap::default(), expiries: BTreeSet::new() }
    }

    /// Grants a lease that starts now.
    pub(in crate::cluster) fn grant(&mut self, now: Millis, key: K) {
        let until = now.after(self.length_ms);
        // A lease that is granted again has an entry that may be early, but never late.
        if self.until.insert(key, until).is_none() {
            self.expiries.insert((until, key));
        }
    }

    /// Renews a lease, if it exists.
    pub(in crate::cluster) fn renew(&mut self, now: Millis, key: K) {
        if let Some(until) = self.until.get_mut(&key) {
            *until = now.after(self.length_ms);
        }
    }

    /// Ends a lease without expiry.
    pub(in crate::cluster) fn end(&mut self, key: K) {
        self.until.remove(&key);
    }

    /// End of a lease, unless it is renewed.
    pub(in crate::cluster) fn until(&self, key: K) -> Option<Millis> {
        self.until.get(&key).copied()
    }

    /// Checks whether a lease exists.
    #[cfg(test)]
    pub(in crate::cluster) fn has(&self, key: K) -> bool {
        self.until.contains_key(&key)
    }

    /// Earliest time at which a lease can expire; a lower bound.
    pub(in crate::cluster) fn next(&self) -> Option<Millis> {
        self.expiries.first().map(|(until, _)| *until)
    }

    /// Removes and returns the expired lease with the earliest expiry.
    pub(in crate::cluster) fn pop_expired(&mut self, now: Millis) -> Option<K> {
        while self.next().is_some_and(|until| until <= now) {
            let (seemed, key) = self.expiries.pop_first()?;
            match self.until.get(&key) {
                // Heartbeats are by far the most frequent events, so `renew` does not move the entry in
                // the ordered set. An entry that has been renewed is put back at its real time here; an ended
                // one is dropped.
                Some(until) if *until > seemed => drop(self.expiries.insert((*until, key))),
                Some(_) => {
                    self.until.remove(&key);
                    return Some(key);
                }
                None => {}
            }
        }
        None
    }

    /// Extends every lease to at least this time.
    pub(in crate::cluster) fn extend_to(&mut self, until: Millis) {
        self.until.values_mut().for_each(|end| *end = until.max(*end));
    }

    /// Extends every lease by a gap in which the head could not receive heartbeats.
    pub(in crate::cluster) fn extend(&mut self, by_ms: u64) {
        self.until.values_mut().for_each(|until| *until = until.after(by_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ended(leases: &mut Leases<u8>, now: u64, expected: &[u8]) {
        let ended: Vec<u8> = std::iter::from_fn(|| leases.pop_expired(Millis(now))).collect();
        assert_eq!(ended, expected);
    }

    #[test]
    fn lease_expires_unless_renewed_in_time() {
        let mut leases = Leases::new(10);
        leases.grant(Millis(0), 1);
        leases.grant(Millis(5), 2);
        assert_eq!(leases.next(), Some(Millis(10)));
        ended(&mut leases, 9, &[]);
        leases.renew(Millis(9), 1);
        ended(&mut leases, 10, &[]);
        ended(&mut leases, 15, &[2]);
        ended(&mut leases, 18, &[]);
        ended(&mut leases, 19, &[1]);
        assert_eq!(leases.next(), None);
    }

    #[test]
    fn ended_lease_does_not_expire_and_can_be_granted_again() {
        let mut leases = Leases::new(10);
        leases.grant(Millis(0), 1);
        leases.end(1);
        leases.renew(Millis(5), 1);
        leases.grant(Millis(6), 1);
        ended(&mut leases, 15, &[]);
        ended(&mut leases, 16, &[1]);
        ended(&mut leases, 100, &[]);
    }

    #[test]
    fn extension_covers_a_gap_without_heartbeats() {
        let mut leases = Leases::new(10);
        leases.grant(Millis(0), 1);
        leases.extend(50);
        ended(&mut leases, 59, &[]);
        ended(&mut leases, 60, &[1]);
    }
}
