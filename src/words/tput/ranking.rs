//! The side that answers: one part's keys by rank.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::Hash;

use hashbrown::HashSet;

use super::{NonZeroUsize, Tally};

/// The keys of one part with their tallies, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking<K>(Vec<(K, Tally)>);

impl<K: Ord> Ranking<K> {
    /// Ranks keys that are all different. One with a count of 0 is left out.
    pub fn new(tallies: impl IntoIterator<Item = (K, Tally)>) -> Self {
        let tallies = tallies.into_iter().filter(|(_, tally)| tally.count > 0);
        let mut ranked: Vec<_> = tallies.collect();
        ranked.sort_unstable_by(by_rank);
        Self(ranked)
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All keys, best first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Tally)> {
        self.0.iter().map(|(key, tally)| (key, *tally))
    }

    /// The answer of the first round: the k best.
    pub fn best(&self, k: NonZeroUsize) -> impl Iterator<Item = (&K, Tally)> {
        self.iter().take(k.get())
    }

    /// The answer of the second round: those behind the k best that have such a count.
    pub fn rest(&self, k: NonZeroUsize, at_least: u64) -> impl Iterator<Item = (&K, Tally)> {
        self.iter().skip(k.get()).take_while(move |(_, tally)| tally.count >= at_least)
    }

    /// The answer of the third round: the tallies of those of the wanted keys that are here.
    pub fn of<'a, Q>(&self, wanted: impl IntoIterator<Item = &'a Q>) -> impl Iterator<Item = (&K, Tally)>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized + 'a,
    {
        let wanted: HashSet<&Q> = wanted.into_iter().collect();
        self.iter().filter(move |(key, _)| wanted.contains((*key).borrow()))
    }
}

/// The order of [`Tally::beats`], and the keys' where two tallies are the same.
pub(super) fn by_rank<K: Ord>((key, tally): &(K, Tally), (other, than): &(K, Tally)) -> Ordering {
    let counts = than.count.cmp(&tally.count);
    counts.then(tally.first.cmp(&than.first)).then_with(|| key.cmp(other))
}
