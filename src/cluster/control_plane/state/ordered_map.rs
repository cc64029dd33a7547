//! Hash map whose keys are also kept in order, for paged lists.
//!
//! Decisions look rows up by key in constant time. A list continues after a key, which needs an order. The
//! order costs about 15 bytes a row, and logarithmic time for an insertion or a removal.

use std::collections::BTreeSet;
use std::collections::hash_map;
use std::hash::Hash;
use std::ops::{Index, RangeInclusive};

use rustc_hash::FxHashMap;

/// Hash map with ordered keys.
#[derive(Debug)]
pub(super) struct OrderedMap<K, V> {
    rows: FxHashMap<K, V>,
    keys: BTreeSet<K>,
}

impl<K, V> Default for OrderedMap<K, V> {
    fn default() -> Self {
        Self { rows: FxHashMap::default(), keys: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash, V> OrderedMap<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.rows.get_mut(key)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: K, row: V) {
        // A replaced row keeps its key, so the set is touched only when the number of rows changes.
        if self.rows.insert(key, row).is_none() {
            self.keys.insert(key);
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.rows.remove(key)?;
        self.keys.remove(key);
        Some(row)
    }

    /// All rows, unordered.
    #[cfg(test)]
    pub(super) fn iter(&self) -> hash_map::Iter<'_, K, V> {
        self.rows.iter()
    }

    /// Rows with smaller keys, in descending order.
    pub(super) fn before(&self, key: K) -> impl Iterator<Item = (K, &V)> {
        self.keys.range(..key).rev().map(|key| (*key, &self.rows[key]))
    }

    /// Smaller keys in descending order, without the look-up of each row that [`before`](Self::before) makes.
    pub(super) fn keys_before(&self, key: K) -> impl Iterator<Item = K> {
        self.keys.range(..key).rev().copied()
    }

    /// Keys of a range, in ascending order.
    pub(super) fn within(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = K> {
        self.keys.range(keys).copied()
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> hash_map::Values<'_, K, V> {
        self.rows.values()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.rows.len(), self.keys.len(), "every row has its place in the order");
        self.rows.len()
    }
}

impl<K: Copy + Ord + Hash, V> Index<&K> for OrderedMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        &self.rows[key]
    }
}

impl<'a, K, V> IntoIterator for &'a OrderedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = hash_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_key_and_iterated_in_order() {
        let mut table = OrderedMap::default();
        for key in [5, 1, 9, 3, 9] {
            table.insert(key, 10 * key);
        }
        assert_eq!((table.remove(&3), table.remove(&3), table.len()), (Some(30), None, 3));
        assert_eq!(table.before(9).collect::<Vec<_>>(), [(5, &50), (1, &10)]);
        assert_eq!(table.keys_before(9).collect::<Vec<_>>(), [5, 1]);
        assert_eq!(table.within(1..=5).collect::<Vec<_>>(), [1, 5]);
        assert_eq!((table[&9], table.contains_key(&3)), (90, false));
    }
}
