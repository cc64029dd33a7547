//! Segment tree over the leaves, which finds the next node with enough of every feature.
//!
//! A leaf lists the amounts of one node. An inner row lists, for each feature separately, the largest amount
//! below it:
//!
//! ```text
//!                 row 1                 largest amounts of all nodes
//!           row 2       row 3
//!         4       5   6       7         with 4 leaves, leaf `n` is row `4 + n`
//! ```
//!
//! A search skips a subtree that lacks a single feature. It has to descend where every feature exists, but
//! not all on one node. Rows are sparse: a label of a single node costs one entry a level, and nothing
//! elsewhere in a tree of ten thousand nodes.

use super::resource_index::Feature;

/// Amount of one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) feature: Feature,
    /// Amount that is neither held nor reserved.
    pub(super) free: u64,
    /// Total amount; a feature with a total of 0 is not listed.
    pub(super) total: u64,
}

/// Feature, and the minimum amount of it.
pub(super) type Requirement = (Feature, u64);

/// Segment tree in heap order.
#[derive(Debug)]
pub(super) struct Tree {
    /// Rows in heap order: row 1 is the root, and rows `2n` and `2n + 1` are below row `n`. Leaves come last.
    rows: Vec<Vec<Amount>>,
    leaves: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self { rows: vec![Vec::new(); 2], leaves: 1 }
    }
}

impl Tree {
    /// Amounts of the node at a leaf.
    pub(super) fn leaf(&self, leaf: usize) -> &[Amount] {
        self.rows.get(self.leaves + leaf).map_or(&[], Vec::as_slice)
    }

    /// Largest amount of each feature on any node.
    pub(super) fn largest(&self) -> &[Amount] {
        &self.rows[1]
    }

    /// Sets the amount of a feature at a leaf.
    pub(super) fn set(&mut self, leaf: usize, amount: Amount) {
        while leaf >= self.leaves {
            self.double();
        }
        let feature = amount.feature;
        let mut row = self.leaves + leaf;
        let mut amount = amount;
        // Stops at the first row that does not change: no row above it can change either. `row ^ 1` is the
        // sibling.
        while write_amount(&mut self.rows[row], amount) && row > 1 {
            let [free, total] = largest(&self.rows[row], &self.rows[row ^ 1], feature);
            amount = Amount { feature, free, total };
            row /= 2;
        }
    }

    /// Doubles the number of leaves: the old tree becomes the left half below a new root.
    fn double(&mut self) {
        let mut rows = vec![Vec::new(); self.leaves * 4];
        for (row, amounts) in std::mem::take(&mut self.rows).into_iter().enumerate().skip(1) {
            // Row `level + k` of a level moves to `2 * level + k`, the left half of the level below.
            let level = 1 << row.ilog2();
            rows[row + level] = amounts;
        }
        rows[1] = rows[2].clone();
        self.rows = rows;
        self.leaves *= 2;
    }

    /// First leaf at or after `from` whose node has enough of every requirement.
    ///
    /// `of` selects the free or the total amount. `requires` is sorted by feature.
    pub(super) fn next(
        &self,
        from: usize,
        requires: &[Requirement],
        of: impl Fn(&Amount) -> u64 + Copy,
    ) -> Option<usize> {
        if from >= self.leaves {
            return None;
        }
        let mut row = self.leaves + from;
        loop {
            if has(&self.rows[row], requires, of) {
                if row >= self.leaves {
                    return Some(row - self.leaves);
                }
                row *= 2;
                continue;
            }
            // Leaves every subtree whose right end was reached, then continues with the right sibling.
            while row % 2 == 1 {
                row /= 2;
                if row == 0 {
                    return None;
                }
            }
            row += 1;
        }
    }
}

/// Checks that a row meets all requirements. Both are sorted by feature.
pub(super) fn has(row: &[Amount], requires: &[Requirement], of: impl Fn(&Amount) -> u64) -> bool {
    requires.iter().all(|(feature, minimum)| find(row, *feature).is_some_and(|amount| of(amount) >= *minimum))
}

pub(super) fn find(row: &[Amount], feature: Feature) -> Option<&Amount> {
    row.binary_search_by_key(&feature, |amount| amount.feature).ok().map(|at| &row[at])
}

/// Writes one amount, and reports whether the row has changed.
fn write_amount(row: &mut Vec<Amount>, amount: Amount) -> bool {
    // A feature without a total is removed, which keeps the rows sparse.
    match row.binary_search_by_key(&amount.feature, |amount| amount.feature) {
        Ok(at) if amount.total == 0 => drop(row.remove(at)),
        Ok(at) if row[at] == amount => return false,
        Ok(at) => row[at] = amount,
        Err(_) if amount.total == 0 => return false,
        Err(at) => row.insert(at, amount),
    }
    true
}

fn largest(one: &[Amount], other: &[Amount], feature: Feature) -> [u64; 2] {
    let [one, other] = [one, other].map(|row| find(row, feature).map_or([0, 0], |it| [it.free, it.total]));
    [one[0].max(other[0]), one[1].max(other[1])]
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    fn free(amount: &Amount) -> u64 {
        amount.free
    }

    fn total(amount: &Amount) -> u64 {
        amount.total
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn search_finds_the_same_leaf_as_a_linear_scan(
            sets in proptest::collection::vec((0..40_usize, 1..5_u64, 0..4_u64, 0..4_u64), 0..120),
            requires in proptest::collection::btree_map(1..5_u64, 0..4_u64, 0..4),
            from in 0..50_usize,
        ) {
            let mut tree = Tree::default();
            let mut expected_amounts = vec![[[0; 2]; 5]; 64];
            for (leaf, feature, free, more) in sets {
                let amount = Amount { feature: Feature(feature), free, total: free + more };
                tree.set(leaf, amount);
                expected_amounts[leaf][feature as usize] = [amount.free, amount.total];
            }
            let requires: Vec<Requirement> = requires.into_iter().map(|(feature, n)| (Feature(feature), n)).collect();
            for (which, of) in [(0, free as fn(&Amount) -> u64), (1, total)] {
                let enough = |leaf: &[[u64; 2]; 5]| {
                    requires.iter().all(|(feature, n)| {
                        let [free, total] = leaf[feature.0 as usize];
                        total > 0 && [free, total][which] >= *n
                    })
                };
                // Without requirements any leaf matches, also one that never had a node.
                let found = tree.next(from, &requires, of);
                let expected = (from..expected_amounts.len()).find(|leaf| enough(&expected_amounts[*leaf]));
                if requires.is_empty() {
                    prop_assert_eq!(found, Some(from).filter(|leaf| *leaf < tree.leaves));
                } else {
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn removed_features_leave_no_entries() {
        let mut tree = Tree::default();
        for leaf in 0..9 {
            tree.set(leaf, Amount { feature: Feature(7), free: 1, total: 1 });
        }
        for leaf in 0..9 {
            tree.set(leaf, Amount { feature: Feature(7), free: 0, total: 0 });
        }
        assert!(tree.rows.iter().all(Vec::is_empty));
    }
}
