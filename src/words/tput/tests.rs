//! Random partitions compared with the full merge, and the rounds one by one.

use crate::property_tests;
use proptest::prelude::*;

use super::*;

type Counted<K> = Vec<(K, Tally)>;

fn some(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn tally(count: u64, first: u64) -> Tally {
    Tally { count, first }
}

/// Merges all keys of all parts into one ranking, as the reference.
fn full_merge<K: Clone + Ord>(k: NonZeroUsize, parts: &[Counted<K>]) -> Counted<K> {
    let mut total = std::collections::BTreeMap::<K, Tally>::new();
    for (key, tally) in parts.iter().flatten().filter(|(_, tally)| tally.count > 0) {
        total.entry(key.clone()).and_modify(|known| *known = known.join(*tally)).or_insert(*tally);
    }
    let mut all: Vec<_> = total.into_iter().collect();
    // The sort is stable: keys with equal tallies stay in ascending order.
    all.sort_by_key(|(_, tally)| (u64::MAX - tally.count, tally.first));
    all.truncate(k.get());
    all
}

fn ranked<K: Clone + Ord>(parts: &[Counted<K>]) -> Vec<Ranking<K>> {
    parts.iter().map(|part| Ranking::new(part.iter().cloned())).collect()
}

/// Generates 1 to 9 parts of at most `keys` keys each. Counts tie often or are far apart, and some
/// positions are equal.
fn parts(keys: u8) -> impl Strategy<Value = Vec<Counted<u8>>> {
    let count = prop_oneof![4 => 0_u64..4, 2 => 0_u64..30, 1 => 1_000_u64..1_010, 1 => Just(u64::MAX)];
    let part = prop::collection::btree_map(0..keys, (count, 0_u64..12), 0..=usize::from(keys));
    let part = part
        .prop_map(|part| part.into_iter().map(|(key, (count, first))| (key, tally(count, first))).collect());
    prop::collection::vec(part, 1..=9)
}

proptest! {
    #![proptest_config(property_tests::cases(1_000))]

    #[test]
    fn top_k_is_that_of_the_full_merge(parts in parts(14), k in 1_usize..18) {
        prop_assert_eq!(top_k(some(k), &ranked(&parts)), full_merge(some(k), &parts));
    }

    #[test]
    fn parts_that_repeat_a_key_change_nothing(parts in parts(14), k in 1_usize..18) {
        let k = some(k);
        let rankings = ranked(&parts);
        let threshold = Threshold::new(k, rankings.iter().map(|part| part.best(k)));
        let at_least = threshold.at_least();
        let survivors = threshold
            .prune(rankings.iter().map(|part| part.iter().filter(|(_, tally)| tally.count >= at_least)));
        let asked: Vec<_> = survivors.questions().map(|(part, keys)| (part, keys.to_vec())).collect();
        let top = survivors
            .settle(asked.iter().map(|(part, keys)| rankings[*part].of(keys.iter().copied())));
        let top: Vec<_> = top.into_iter().map(|(key, tally)| (*key, tally)).collect();
        prop_assert_eq!(top, full_merge(k, &parts));
    }

    #[test]
    fn no_part_reports_a_key_twice(parts in parts(14), k in 1_usize..18) {
        let k = some(k);
        let rankings = ranked(&parts);
        let mut reported: Vec<Vec<u8>> = vec![Vec::new(); parts.len()];
        let threshold = Threshold::new(k, rankings.iter().map(|part| part.best(k)));
        let at_least = threshold.at_least();
        for (part, reported) in rankings.iter().zip(&mut reported) {
            reported.extend(part.best(k).chain(part.rest(k, at_least)).map(|(key, _)| *key));
        }
        let survivors = threshold.prune(rankings.iter().map(|part| part.rest(k, at_least)));
        for (part, keys) in survivors.questions() {
            reported[part].extend(keys.iter().map(|key| **key));
        }
        for mut reported in reported {
            reported.sort_unstable();
            prop_assert!(reported.is_sorted_by(|key, next| key < next), "{:?}", reported);
        }
    }
}

#[test]
fn key_that_wins_in_no_part_wins() {
    let part = |own, at| vec![(own, tally(3, at)), ("x", tally(2, at + 3))];
    let parts = ranked(&[part("a", 0), part("b", 5), part("c", 10), part("d", 15)]);
    assert_eq!(top_k(some(1), &parts), [("x", tally(8, 3))]);
}

#[test]
fn tie_with_the_kth_goes_to_the_first_position_of_any_part() {
    // The threshold is 4. After two rounds "late" has all its 10 and "early" has 7; the part of its first
    // position reports it in the third round.
    let parts = ranked(&[
        vec![("late", tally(10, 3))],
        vec![("early", tally(7, 20)), ("other", tally(5, 30))],
        vec![("other", tally(4, 50)), ("early", tally(3, 1))],
    ]);
    assert_eq!(top_k(some(1), &parts), [("early", tally(10, 1))]);
    assert_eq!(top_k(some(2), &parts), [("early", tally(10, 1)), ("late", tally(10, 3))]);
}

#[test]
fn key_that_can_just_tie_is_asked_for_and_one_below_is_not() {
    // The first part has at most 3 of an unreported key, and the last part has reported all its keys.
    let parts = ranked(&[
        vec![("won", tally(10, 5)), ("ties", tally(3, 0)), ("below", tally(3, 1))],
        vec![("ties", tally(7, 20)), ("below", tally(6, 21)), ("won", tally(0, 22))],
        vec![],
    ]);
    let k = some(1);
    let threshold = Threshold::new(k, parts.iter().map(|part| part.best(k)));
    assert_eq!(threshold.at_least(), 4);
    let survivors = threshold.prune(parts.iter().map(|part| part.rest(k, 4)));
    let questions: Vec<_> = survivors.questions().map(|(part, keys)| (part, keys.to_vec())).collect();
    assert_eq!(questions, [(0, vec![&"ties"]), (1, vec![&"won"])]);
    assert_eq!(top_k(k, &parts), [("ties", tally(10, 0))]);
}

#[test]
fn even_winners_leave_nothing_to_ask() {
    let part = |at| vec![("the", tally(100, at)), ("and", tally(24, at + 1)), ("it", tally(3, at + 2))];
    let parts = ranked(&[part(0), part(200), part(400), part(600)]);
    let k = some(1);
    let threshold = Threshold::new(k, parts.iter().map(|part| part.best(k)));
    assert_eq!(threshold.at_least(), 100);
    assert!(parts.iter().all(|part| part.rest(k, 100).next().is_none()));
    let survivors = threshold.prune(parts.iter().map(|part| part.rest(k, 100)));
    assert_eq!(survivors.questions().count(), 0);
    assert_eq!(survivors.settle(Vec::<Counted<_>>::new()), [(&"the", tally(400, 0))]);
}

#[test]
fn fewer_keys_than_wanted_are_all_answered_after_one_round() {
    let parts = ranked(&[vec![("a", tally(1, 7))], vec![], vec![("b", tally(1, 2)), ("none", tally(0, 0))]]);
    let k = some(5);
    let threshold = Threshold::new(k, parts.iter().map(|part| part.best(k)));
    let survivors = threshold.prune(parts.iter().map(|part| part.rest(k, 1)));
    assert_eq!(survivors.questions().count(), 0);
    assert_eq!(top_k(k, &parts), [("b", tally(1, 2)), ("a", tally(1, 7))]);
    assert_eq!(top_k::<&str>(k, &[]), []);
    assert_eq!(top_k(k, &[Ranking::<&str>::new([])]), []);
}

#[test]
fn keys_with_the_same_tally_are_ranked_by_key() {
    let parts = ranked(&[vec![(3, tally(1, 0)), (1, tally(1, 0))], vec![(2, tally(1, 0))]]);
    assert_eq!(top_k(some(2), &parts), [(1, tally(1, 0)), (2, tally(1, 0))]);
}
