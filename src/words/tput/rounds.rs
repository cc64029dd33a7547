//! Asking side: computes the next question from the answers of a round.

use std::hash::Hash;

use hashbrown::HashMap;

use super::{NonZeroUsize, Tally, ranking::by_rank};

/// State after the first round: the minimum count of a key that can still be an answer.
#[derive(Clone, Debug)]
pub struct Threshold<K> {
    k: NonZeroUsize,
    known: Known<K>,
    /// For each part, the maximum count of a key that it has not reported.
    unreported: Vec<u64>,
    at_least: u64,
}

impl<K: Eq + Hash> Threshold<K> {
    /// Takes the k best keys of each part, or all its keys if it has fewer.
    pub fn new<A>(k: NonZeroUsize, answers: impl IntoIterator<Item = A>) -> Self
    where
        A: IntoIterator<Item = (K, Tally)>,
    {
        let mut known = Known::default();
        let answers = answers.into_iter().enumerate();
        let unreported: Vec<u64> = answers.map(|(part, best)| known.learn_best(k, part, best)).collect();
        let parts = unreported.len().max(1) as u64;
        // With fewer than k keys the sum is 0. Then every part had fewer than k and reported all of them.
        let at_least = known.kth_count(k).div_ceil(parts).max(1);
        Self { k, known, unreported, at_least }
    }

    /// Returns the question of the second round: the minimum count of keys after the k best.
    pub fn at_least(&self) -> u64 {
        self.at_least
    }

    /// Takes the answers of the second round, in the order of the first, and drops the keys that cannot be
    /// among the k best.
    ///
    /// A part may repeat keys that it has reported.
    ///
    /// # Panics
    ///
    /// If the number of answers differs from the first round.
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
        // A missing answer would look like an empty part, and the result would be wrong without an error.
        assert_eq!(answered, self.unreported.len(), "every part answers both rounds");
        // After the second round a part has reported every key with at least this count.
        for unreported in &mut self.unreported {
            *unreported = (*unreported).min(self.at_least - 1);
        }
        self.known.drop_below(self.known.kth_count(self.k), &self.unreported);
        let questions = self.known.questions(&self.unreported);
        Survivors { k: self.k, known: self.known, questions }
    }
}

/// State after the second round: the keys that can be among the k best.
#[derive(Clone, Debug)]
pub struct Survivors<K> {
    k: NonZeroUsize,
    known: Known<K>,
    questions: Vec<(usize, Vec<K>)>,
}

impl<K: Eq + Hash + Ord> Survivors<K> {
    /// Returns the questions of the third round: the index of a part, and the keys whose tallies it has to
    /// report.
    ///
    /// A part with nothing left to report is not asked. Often that is every part.
    pub fn questions(&self) -> impl Iterator<Item = (usize, &[K])> {
        self.questions.iter().map(|(part, keys)| (*part, &keys[..]))
    }

    /// Takes the answers to the questions, in any order, and returns the k best keys, best first.
    ///
    /// A part leaves out the keys that it does not have.
    ///
    /// # Panics
    ///
    /// If the number of answers differs from the number of questions.
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

/// Tallies reported by the parts.
#[derive(Clone, Debug)]
struct Known<K>(HashMap<K, Sum>);

/// Sum of the reported tallies of one key.
#[derive(Clone, Debug)]
struct Sum {
    tally: Tally,
    /// Parts included in `tally`, in ascending order.
    reported_by: Vec<usize>,
}

impl<K: Eq + Hash> Known<K> {
    /// Adds a part's k best keys and returns the maximum count of any other key of that part.
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
        let sum = self.0.entry(key).or_insert_with(|| Sum { tally: Tally::NONE, reported_by: Vec::new() });
        // A part may repeat a key. Counting it twice would make the sum exceed the true count, and the
        // threshold with it.
        if let Err(place) = sum.reported_by.binary_search(&part) {
            sum.reported_by.insert(place, part);
            sum.tally = sum.tally.join(tally);
        }
    }

    /// Adds to the sum of a known key; other keys are ignored.
    fn complete(&mut self, key: &K, tally: Tally) {
        if let Some(sum) = self.0.get_mut(key) {
            sum.tally = sum.tally.join(tally);
        }
    }

    /// Returns the k-th highest count, or 0 if there are fewer keys.
    fn kth_count(&self, k: NonZeroUsize) -> u64 {
        let mut counts: Vec<u64> = self.0.values().map(|sum| sum.tally.count).collect();
        let Some(index) = counts.len().checked_sub(k.get()) else { return 0 };
        *counts.select_nth_unstable(index).1
    }

    /// Drops the keys that stay below `count` even with the maximum of all unreported tallies. A key that
    /// can just reach it stays: positions decide a tie, and not all of them are reported.
    fn drop_below(&mut self, count: u64, unreported: &[u64]) {
        // `u128`, since the sum of several `u64::MAX` overflows.
        let all: u128 = unreported.iter().copied().map(u128::from).sum();
        self.0.retain(|_, sum| {
            let reported: u128 = sum.reported_by.iter().map(|&part| u128::from(unreported[part])).sum();
            u128::from(sum.tally.count) + (all - reported) >= u128::from(count)
        });
    }

    /// Returns for each part the keys that it may have and has not reported, in order.
    fn questions(&self, unreported: &[u64]) -> Vec<(usize, Vec<K>)>
    where
        K: Clone + Ord,
    {
        let open =
            unreported.iter().enumerate().filter(|&(_, &unreported)| unreported > 0).map(|(part, _)| part);
        let questions = open.map(|part| {
            let missing = self.0.iter().filter(|(_, sum)| sum.reported_by.binary_search(&part).is_err());
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
