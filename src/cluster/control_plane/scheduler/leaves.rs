//! Allocator of tree leaves, which puts nodes of the same kind side by side.
//!
//! A search can then skip all nodes of another kind in one step. Each kind gets ranges of leaves; a new range
//! is as long as all the previous ones together. A kind with one node uses one leaf, and a kind with `n`
//! nodes has about `log2(n)` ranges. With nodes of the kinds A and B that join alternately:
//!
//! ```text
//! leaf   0 1 2 3 4 5 6 7 8 9 . .
//! kind   A B A B A A B B A A A A ...
//! ```

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::resource_index::Feature;

/// Names of a node's resources, and its labels.
pub(super) type NodeKind = Vec<Feature>;

/// Free leaves, and the ranges of each kind.
#[derive(Debug, Default)]
pub(super) struct LeafAllocator {
    kinds: FxHashMap<NodeKind, LeafRange>,
    /// Leaves that belong to no kind.
    free: BTreeSet<usize>,
    /// Number of leaves in use or free.
    leaf_count: usize,
}

#[derive(Debug, Default)]
struct LeafRange {
    free: BTreeSet<usize>,
    taken: usize,
}

impl LeafAllocator {
    /// Allocates a leaf for a node of the kind.
    pub(super) fn take(&mut self, kind: &NodeKind) -> usize {
        let range = self.kinds.entry(kind.clone()).or_default();
        if range.free.is_empty() {
            let growth = range.taken.max(1);
            // Leaves that other kinds have released are reused before the tree grows, even where they are
            // scattered: kinds that come and go, such as one label per host name, must not enlarge it
            // forever.
            if self.free.len() >= growth {
                let rest = self.free.iter().nth(growth).copied();
                let rest = rest.map_or_else(BTreeSet::new, |first| self.free.split_off(&first));
                range.free = std::mem::replace(&mut self.free, rest);
            } else {
                range.free.extend(self.leaf_count..self.leaf_count + growth);
                self.leaf_count += growth;
            }
        }
        range.taken += 1;
        // The lowest leaf first, which keeps the nodes of a kind together and the tree small.
        range.free.pop_first().expect("the range was extended above")
    }

    /// Releases the leaf of a node of the kind.
    pub(super) fn free(&mut self, kind: &NodeKind, leaf: usize) {
        let Some(range) = self.kinds.get_mut(kind) else { return };
        range.free.insert(leaf);
        range.taken -= 1;
        // The leaves return to the common pool only with the last node of the kind. Until then, a node that joins
        // again finds a leaf within its kind's ranges.
        if range.taken == 0 {
            self.free.append(&mut range.free);
            self.kinds.remove(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_kind_get_adjacent_leaves() {
        let [one, other] = [vec![Feature(1)], vec![Feature(2)]];
        let mut leaves = LeafAllocator::default();
        let first_kind: Vec<usize> = (0..64).map(|_| (leaves.take(&one), leaves.take(&other)).0).collect();
        let ranges = 1 + first_kind.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(ranges <= 7, "{first_kind:?}");
    }

    #[test]
    fn released_leaves_are_reused_by_other_kinds() {
        let mut leaves = LeafAllocator::default();
        for label in 0..1000 {
            let kind = vec![Feature(label)];
            let leaf = leaves.take(&kind);
            assert_eq!(leaf, 0);
            leaves.free(&kind, leaf);
        }
    }
}
