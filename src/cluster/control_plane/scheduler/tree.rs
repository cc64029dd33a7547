//! A segment tree over the nodes' places, which finds the next one that has enough of everything.
//!
//! Each leaf lists what one node has, each inner row the largest amounts below it, of every feature by
//! itself. A search passes over whatever lacks a single feature; where several are each there, but
//! nowhere together, it has to look further down. Rows list only what is there, so that a label of one
//! node costs a tree of ten thousand no more than one entry a level.

use super::resource_index::Feature;

/// How much of a feature there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) feature: Feature,
    /// What is not taken.
    pub(super) free: u64,
    /// All of it; what has none is not listed.
    pub(super) total: u64,
}

/// How much of a feature is wanted.
pub(super) type Requirement = (Feature, u64);

#[derive(Debug)]
pub(super) struct Tree {
    /// As in a binary heap: the root is row 1, and below row `n` are `2n` and `2n + 1`. Leaves come last.
    rows: Vec<Vec<Amount>>,
    leaves: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self { rows: vec![Vec::new(); 2], leaves: 1 }
    }
}

impl Tree {
    /// What the node at a place has.
    pub(super) fn leaf(&self, place: usize) -> &[Amount] {
        self.rows.get(self.leaves + place).map_or(&[], Vec::as_slice)
    }

    /// The largest amounts of all.
    pub(super) fn largest(&self) -> &[Amount] {
        &self.rows[1]
    }

    /// Says how much of a feature a node has from now on.
    pub(super) fn set(&mut self, place: usize, amount: Amount) {
        while place >= self.leaves {
            self.double();
        }
        let feature = amount.feature;
        let mut row = self.leaves + place;
        let mut amount = amount;
        while put(&mut self.rows[row], amount) && row > 1 {
            let [free, total] = largest(&self.rows[row], &self.rows[row ^ 1], feature);
            amount = Amount { feature, free, total };
            row /= 2;
        }
    }

    /// Twice as many leaves: every level moves down by one, below a new root.
    fn double(&mut self) {
        let mut rows = vec![Vec::new(); self.leaves * 4];
        for (row, amounts) in std::mem::take(&mut self.rows).into_iter().enumerate().skip(1) {
            let level = 1 << row.ilog2();
            rows[row + level] = amounts;
        }
        rows[1] = rows[2].clone();
        self.rows = rows;
        self.leaves *= 2;
    }

    /// The first place from `from` on whose node has as much free, or altogether, as is wanted.
    ///
    /// `wants` is in the order of features.
    pub(super) fn next(
        &self,
        from: usize,
        wants: &[Requirement],
        of: impl Fn(&Amount) -> u64 + Copy,
    ) -> Option<usize> {
        if from >= self.leaves {
            return None;
        }
        let mut row = self.leaves + from;
        loop {
            if has(&self.rows[row], wants, of) {
                if row >= self.leaves {
                    return Some(row - self.leaves);
                }
                row *= 2;
                continue;
            }
            // To the right, past all that is done.
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

/// Whether a row has all that is wanted. Both are in the order of features.
pub(super) fn has(row: &[Amount], wants: &[Requirement], of: impl Fn(&Amount) -> u64) -> bool {
    wants.iter().all(|(feature, wanted)| find(row, *feature).is_some_and(|amount| of(amount) >= *wanted))
}

pub(super) fn find(row: &[Amount], feature: Feature) -> Option<&Amount> {
    row.binary_search_by_key(&feature, |amount| amount.feature).ok().map(|at| &row[at])
}

/// Writes one amount; whether that changed anything.
fn put(row: &mut Vec<Amount>, amount: Amount) -> bool {
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
    use proptest::prelude::*;

    use super::*;

    fn free(amount: &Amount) -> u64 {
        amount.free
    }

    fn total(amount: &Amount) -> u64 {
        amount.total
    }

    proptest! {
        #[test]
        fn it_finds_what_a_walk_over_all_places_finds(
            sets in proptest::collection::vec((0..40_usize, 1..5_u64, 0..4_u64, 0..4_u64), 0..120),
            wants in proptest::collection::btree_map(1..5_u64, 0..4_u64, 0..4),
            from in 0..50_usize,
        ) {
            let mut tree = Tree::default();
            let mut walk = vec![[[0; 2]; 5]; 64];
            for (place, feature, free, more) in sets {
                let amount = Amount { feature: Feature(feature), free, total: free + more };
                tree.set(place, amount);
                walk[place][feature as usize] = [amount.free, amount.total];
            }
            let wants: Vec<Requirement> = wants.into_iter().map(|(feature, n)| (Feature(feature), n)).collect();
            for (which, of) in [(0, free as fn(&Amount) -> u64), (1, total)] {
                let enough = |place: &[[u64; 2]; 5]| {
                    wants.iter().all(|(feature, n)| {
                        let [free, total] = place[feature.0 as usize];
                        total > 0 && [free, total][which] >= *n
                    })
                };
                // Without a want any place will do, also one that no node was ever at.
                let found = tree.next(from, &wants, of);
                let expected = (from..walk.len()).find(|place| enough(&walk[*place]));
                if wants.is_empty() {
                    prop_assert_eq!(found, Some(from).filter(|place| *place < tree.leaves));
                } else {
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn what_is_gone_leaves_no_entry() {
        let mut tree = Tree::default();
        for place in 0..9 {
            tree.set(place, Amount { feature: Feature(7), free: 1, total: 1 });
        }
        for place in 0..9 {
            tree.set(place, Amount { feature: Feature(7), free: 0, total: 0 });
        }
        assert!(tree.rows.iter().all(Vec::is_empty));
    }
}
