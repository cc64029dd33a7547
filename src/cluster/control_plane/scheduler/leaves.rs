//! Which place of the tree a node has: nodes that are alike lie side by side.
//!
//! A search can then pass over all nodes of another kind at once. Nodes of a kind get places in
//! stretches, each as long as all before it, so that a kind of one node costs one place, and one of many
//! has few stretches.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::resource_index::Feature;

/// What nodes of a kind have in common: the names of their resources, and their labels.
pub(super) type Kind = Vec<Feature>;

#[derive(Debug, Default)]
pub(super) struct LeafAllocator {
    kinds: FxHashMap<Kind, LeafRange>,
    /// Places that are of no kind.
    free: BTreeSet<usize>,
    /// How many places there are.
    len: usize,
}

#[derive(Debug, Default)]
struct LeafRange {
    free: BTreeSet<usize>,
    taken: usize,
}

impl LeafAllocator {
    /// A place for one more node of that kind.
    pub(super) fn take(&mut self, kind: &Kind) -> usize {
        let places = self.kinds.entry(kind.clone()).or_default();
        if places.free.is_empty() {
            let more = places.taken.max(1);
            if self.free.len() >= more {
                let rest = self.free.iter().nth(more).copied();
                let rest = rest.map_or_else(BTreeSet::new, |first| self.free.split_off(&first));
                places.free = std::mem::replace(&mut self.free, rest);
            } else {
                places.free.extend(self.len..self.len + more);
                self.len += more;
            }
        }
        places.taken += 1;
        places.free.pop_first().expect("there are more places now")
    }

    /// A node of that kind has left its place.
    pub(super) fn free(&mut self, kind: &Kind, place: usize) {
        let Some(places) = self.kinds.get_mut(kind) else { return };
        places.free.insert(place);
        places.taken -= 1;
        if places.taken == 0 {
            self.free.append(&mut places.free);
            self.kinds.remove(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_kind_lie_side_by_side() {
        let [one, other] = [vec![Feature(1)], vec![Feature(2)]];
        let mut slots = LeafAllocator::default();
        let ones: Vec<usize> = (0..64).map(|_| (slots.take(&one), slots.take(&other)).0).collect();
        let stretches = 1 + ones.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(stretches <= 7, "{ones:?}");
    }

    #[test]
    fn places_are_used_again_whatever_kind_they_were_of() {
        let mut slots = LeafAllocator::default();
        for label in 0..1000 {
            let kind = vec![Feature(label)];
            let place = slots.take(&kind);
            assert_eq!(place, 0);
            slots.free(&kind, place);
        }
    }
}
