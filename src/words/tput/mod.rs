//! TPUT: the exact k best keys of counts held in parts, without sending all counts.
//!
//! Pei Cao and Zhe Wang, "Efficient Top-K Query Calculation in Distributed Networks", PODC 2004,
//! <http://crypto.stanford.edu/~cao/topk.html>. The three phases of a uniform threshold, with m parts:
//!
//! | round | question to a part | result |
//! |---|---|---|
//! | 1 | its k best keys ([`Ranking::best`]) | the k-th highest sum so far, τ₁ ([`Threshold`]) |
//! | 2 | its other keys with a count of at least ⌈τ₁/m⌉ ([`Ranking::rest`]) | τ₂, and the keys that can reach it ([`Survivors`]) |
//! | 3 | its tallies of survivors that it has not reported ([`Ranking::of`]) | the answer |
//!
//! [`Ranking`] is a part; [`Threshold`] and [`Survivors`] are the asking side. The caller transports
//! questions and answers: [`top_k`] passes them by reference, and the actors and tasks of
//! [`words`](super) send them to other processes.
//!
//! Invariants, with the true k-th count t (both sums miss counts, so τ₁ ≤ τ₂ ≤ t):
//! - A key that no part reports in two rounds is no answer, not even by a tie. It has at most
//!   ⌈τ₁/m⌉ - 1 in each part, which is less than τ₁/m, and so less than τ₁ over all.
//! - A key is dropped only if its upper bound is less than τ₂. A key that ties with the k-th has an
//!   upper bound of at least t, and stays.
//! - Every part that has a survivor reports its tally before the end. So count and first position are
//!   those over all parts, and ties are decided as in a full merge.
//! - No part reports a key twice: the rounds never send more tallies than a full merge.
//!
//! The last invariant is also the worst case. The gain comes from uneven counts, as those of words
//! are. Where all keys are about equally frequent, the threshold is low and most tallies are sent.
//!
//! # Examples
//!
//! ```
//! use std::num::NonZeroUsize;
//! use roadshow::words::Tally;
//! use roadshow::words::tput::{Ranking, top_k};
//!
//! let tally = |count, first| Tally { count, first };
//! let monday = Ranking::new([("tea", tally(9, 2)), ("milk", tally(5, 0)), ("salt", tally(1, 7))]);
//! let tuesday = Ranking::new([("bread", tally(8, 20)), ("milk", tally(6, 21))]);
//! let best = top_k(NonZeroUsize::MIN, &[monday, tuesday]);
//! assert_eq!(best, [("milk", tally(11, 0))]);
//! ```

mod ranking;
mod rounds;

use std::hash::Hash;
use std::num::NonZeroUsize;

use super::count::Tally;

pub use ranking::Ranking;
pub use rounds::{Survivors, Threshold};

/// Returns the k best keys over all parts, best first; fewer if there are fewer keys.
///
/// Keys are ranked by count; among equals by the first position over all parts, then by key.
pub fn top_k<K>(k: NonZeroUsize, parts: &[Ranking<K>]) -> Vec<(K, Tally)>
where
    K: Clone + Eq + Hash + Ord,
{
    let threshold = Threshold::new(k, parts.iter().map(|part| part.best(k)));
    let at_least = threshold.at_least();
    let survivors = threshold.prune(parts.iter().map(|part| part.rest(k, at_least)));
    let asked: Vec<_> = survivors.questions().map(|(part, keys)| (part, keys.to_vec())).collect();
    let top = survivors.settle(asked.iter().map(|(part, keys)| parts[*part].of(keys.iter().copied())));
    top.into_iter().map(|(key, tally)| (key.clone(), tally)).collect()
}

#[cfg(test)]
mod tests;
