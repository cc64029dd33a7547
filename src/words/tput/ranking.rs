//! Answering side: the keys of one part by rank.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::Hash;

use hashbrown::HashSet;

use super::{NonZeroUsize, Tally};

/// Keys of one part with their tallies, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking<K>(Vec<(K, Tally)>);

impl<K: Ord> Ranking<K> {
    /// Ranks distinct keys. A key with a count of 0 is left out.
    pub fn new(tallies: impl IntoIterator<Item = (K, Tally)>) -> Self {
        let tallies = tallies.into_iter().filter(|(_, tally)| tally.count > 0);
        let mut ranked: Vec<_> = tallies.collect();
        ranked.sort_unstable_by(by_rank);
        Self(ranked)
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over all keys, best first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Tally)> {
        self.0.iter().map(|(key, tally)| (key, *tally))
    }

    /// Answers the first round: the k best.
    pub fn best(&self, k: NonZeroUsize) -> impl Iterator<Item = (&K, Tally)> {
        self.iter().take(k.get())
    }

    /// Answers the second round: the keys after the k best with the minimum count.
    pub fn rest(&self, k: NonZeroUsize, at_least: u64) -> impl Iterator<Item = (&K, Tally)> {
        self.iter().skip(k.get()).take_while(move |(_, tally)| tally.count >= at_least)
    }

    /// Answers the third round: the tallies of the wanted keys that this part has.
    pub fn of<'a, Q>(&self, wanted: impl IntoIterator<Item = &'a Q>) -> impl Iterator<Item = (&K, Tally)>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized + 'a,
    {
        let wanted: HashSet<&Q> = wanted.into_iter().collect();
        self.iter().filter(move |(key, _)| wanted.contains((*key).borrow()))
    }
}

/// Order of [`Tally::beats`], and of the keys where two tallies are equal.
pub(super) fn by_rank<K: Ord>((key, tally): &(K, Tally), (other, than): &(K, Tally)) -> Ordering {
    let counts = than.count.cmp(&tally.count);
    counts.then(tally.first.cmp(&than.first)).then_with(|| key.cmp(other))
}
