//! The side that asks: from each round's answers to the next question.

use std::hash::Hash;

use hashbrown::HashMap;

use super::{NonZeroUsize, Tally, ranking::by_rank};

/// After the first round: from which count on a key can still matter.
#[derive(Clone, Debug)]
pub struct Threshold<K> {
    k: NonZeroUsize,
    known: Known<K>,
    /// For each part, the most that it may have of a key that it has not told.
    untold: Vec<u64>,
    at_least: u64,
}

impl<K: Eq + Hash> Threshold<K> {
    /// Takes from each part its k best, or all that it has if those are fewer.
    pub fn new<A>(k: NonZeroUsize, answers: impl IntoIterator<Item = A>) -> Self
    where
        A: IntoIterator<Item = (K, Tally)>,
    {
        let mut known = Known::default();
        let answers = answers.into_iter().enumerate();
        let untold: Vec<u64> = answers.map(|(part, best)| known.learn_best(k, part, best)).collect();
        let parts = untold.len().max(1) as u64;
        // With fewer than k keys the sum is 0, and then every part had fewer and told them all.
        let at_least = known.kth_count(k).div_ceil(parts).max(1);
        Self { k, known, untold, at_least }
    }

    /// The question of the second round: which keys with at least this count are behind the k best?
    pub fn at_least(&self) -> u64 {
        self.at_least
    }

    /// Takes the answers of the second round, in the order of the first's, and drops the keys that
    /// cannot be among the k best whatever the parts have not told.
    ///
    /// A part may repeat what it has told.
    ///
    /// # Panics
    ///
    /// If there are not as many answers as in the first round.
    #[must_use]
    pub fn prune<A>(mut self, answers: impl IntoIterator<Item = A>) -> Survivors<K>
    where
        K: Clone + Ord,
        A: IntoIterator<Item = (K, Tally)>,
    {
        let mut answered = 0;
        for (part, answer) in answers.into_iter().enumerate() {
            answer.into_iter().for_each(|(key, tally)| self.known.learn(part, key, tally));
            answered += 1;
        }
        assert_eq!(answered, self.untold.len(), "every part answers both rounds");
        for untold in &mut self.untold {
            *untold = (*untold).min(self.at_least - 1);
        }
        self.known.drop_below(self.known.kth_count(self.k), &self.untold);
        let questions = self.known.questions(&self.untold);
        Survivors { k: self.k, known: self.known, questions }
    }
}

/// After the second round: the keys that can be among the k best.
#[derive(Clone, Debug)]
pub struct Survivors<K> {
    k: NonZeroUsize,
    known: Known<K>,
    questions: Vec<(usize, Vec<K>)>,
}

impl<K: Eq + Hash + Ord> Survivors<K> {
    /// The questions of the third round: the index of a part, and the keys whose tallies it is to
    /// tell.
    ///
    /// A part of which nothing is left to learn is not asked. Often none is.
    pub fn questions(&self) -> impl Iterator<Item = (usize, &[K])> {
        self.questions.iter().map(|(part, keys)| (*part, &keys[..]))
    }

    /// Takes the answers to the questions, in any order: the k best, best first.
    ///
    /// A part says nothing of a key that it does not have.
    ///
    /// # Panics
    ///
    /// If there are not as many answers as questions.
    #[must_use]
    pub fn settle<A>(mut self, answers: impl IntoIterator<Item = A>) -> Vec<(K, Tally)>
    where
        A: IntoIterator<Item = (K, Tally)>,
    {
        let mut answered = 0;
        for answer in answers {
            answer.into_iter().for_each(|(key, tally)| self.known.complete(&key, tally));
            answered += 1;
        }
        assert_eq!(answered, self.questions.len(), "every question has an answer");
        let known = self.known.0.into_iter();
        let mut top: Vec<_> = known.map(|(key, sum)| (key, sum.tally)).collect();
        top.sort_unstable_by(by_rank);
        top.truncate(self.k.get());
        top
    }
}

/// What the parts have told.
#[derive(Clone, Debug)]
struct Known<K>(HashMap<K, Sum>);

/// The tallies of one key, as far as they are told.
#[derive(Clone, Debug)]
struct Sum {
    tally: Tally,
    /// The parts in it, in ascending order.
    told_by: Vec<usize>,
}

impl<K: Eq + Hash> Known<K> {
    /// Takes a part's k best and returns the most that it may have of any other key.
    fn learn_best(
        &mut self,
        k: NonZeroUsize,
        part: usize,
        best: impl IntoIterator<Item = (K, Tally)>,
    ) -> u64 {
        let (mut len, mut lowest) = (0, u64::MAX);
        for (key, tally) in best {
            len += 1;
            lowest = lowest.min(tally.count);
            self.learn(part, key, tally);
        }
        if len < k.get() { 0 } else { lowest }
    }

    fn learn(&mut self, part: usize, key: K, tally: Tally) {
        if tally.count == 0 {
            return;
        }
        let sum = self.0.entry(key).or_insert_with(|| Sum { tally: Tally::NONE, told_by: Vec::new() });
        if let Err(place) = sum.told_by.binary_search(&part) {
            sum.told_by.insert(place, part);
            sum.tally = sum.tally.join(tally);
        }
    }

    /// Adds to a key that is known, and to no other.
    fn complete(&mut self, key: &K, tally: Tally) {
        if let Some(sum) = self.0.get_mut(key) {
            sum.tally = sum.tally.join(tally);
        }
    }

    /// The k-th highest count, or 0 if there are not so many keys.
    fn kth_count(&self, k: NonZeroUsize) -> u64 {
        let mut counts: Vec<u64> = self.0.values().map(|sum| sum.tally.count).collect();
        let Some(index) = counts.len().checked_sub(k.get()) else { return 0 };
        *counts.select_nth_unstable(index).1
    }

    /// Drops the keys that stay below a count with all that may be untold. Those that may only just
    /// reach it stay, since a tie is decided by positions that are not all told.
    fn drop_below(&mut self, count: u64, untold: &[u64]) {
        let all: u128 = untold.iter().copied().map(u128::from).sum();
        self.0.retain(|_, sum| {
            let told: u128 = sum.told_by.iter().map(|&part| u128::from(untold[part])).sum();
            u128::from(sum.tally.count) + (all - told) >= u128::from(count)
        });
    }

    /// The keys of each part that it may have and has not told, in order.
    fn questions(&self, untold: &[u64]) -> Vec<(usize, Vec<K>)>
    where
        K: Clone + Ord,
    {
        let open = untold.iter().enumerate().filter(|&(_, &untold)| untold > 0).map(|(part, _)| part);
        let questions = open.map(|part| {
            let missing = self.0.iter().filter(|(_, sum)| sum.told_by.binary_search(&part).is_err());
            let mut keys: Vec<K> = missing.map(|(key, _)| key.clone()).collect();
            keys.sort_unstable();
            (part, keys)
        });
        questions.filter(|(_, keys)| !keys.is_empty()).collect()
    }
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}
