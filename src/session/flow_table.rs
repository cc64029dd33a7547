//! Table of flows by actor: a hash map with a one-entry cache in front.
//!
//! Messages to one actor arrive in runs, and only the first of a run is hashed.

use rustc_hash::FxHashMap;

use crate::id::Target;

#[derive(Debug)]
pub(super) struct FlowTable<F> {
    last: Option<(Target, F)>,
    /// Target of the previous cache miss.
    ///
    /// Two consecutive misses for one target move its flow into the cache. Alternating targets
    /// would move a flow with each message otherwise.
    last_miss: Option<Target>,
    map: FxHashMap<Target, F>,
}

impl<F> Default for FlowTable<F> {
    fn default() -> Self {
        Self { last: None, last_miss: None, map: FxHashMap::default() }
    }
}

impl<F> FlowTable<F> {
    pub(super) fn len(&self) -> usize {
        usize::from(self.last.is_some()) + self.map.len()
    }

    pub(super) fn contains(&self, target: Target) -> bool {
        self.get(target).is_some()
    }

    #[inline]
    pub(super) fn get(&self, target: Target) -> Option<&F> {
        match &self.last {
            Some((last, flow)) if *last == target => Some(flow),
            _ => self.map.get(&target),
        }
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, target: Target) -> Option<&mut F> {
        if self.is_last(target) {
            return self.last.as_mut().map(|(_, flow)| flow);
        }
        self.get_slow(target)
    }

    #[inline(never)]
    // Not inlined, so that the cache hit stays a comparison and a few loads at its callers.
    fn get_slow(&mut self, target: Target) -> Option<&mut F> {
        if self.last_miss.replace(target) != Some(target) {
            return self.map.get_mut(&target);
        }
        let flow = self.map.remove(&target)?;
        self.put_last(target, flow);
        self.last.as_mut().map(|(_, flow)| flow)
    }

    /// Returns the flow, creating it if necessary.
    #[inline(always)]
    pub(super) fn get_or_insert(&mut self, target: Target) -> &mut F
    where
        F: Default,
    {
        if self.is_last(target) {
            return &mut self.last.get_or_insert_with(|| (target, F::default())).1;
        }
        self.get_or_insert_slow(target)
    }

    #[inline(never)]
    fn get_or_insert_slow(&mut self, target: Target) -> &mut F
    where
        F: Default,
    {
        if self.last_miss.replace(target) != Some(target) {
            return self.map.entry(target).or_default();
        }
        let flow = self.map.remove(&target).unwrap_or_default();
        self.put_last(target, flow);
        &mut self.last.get_or_insert_with(|| (target, F::default())).1
    }

    #[inline]
    fn is_last(&self, target: Target) -> bool {
        matches!(&self.last, Some((last, _)) if *last == target)
    }

    fn put_last(&mut self, target: Target, flow: F) {
        // The previous entry goes back to the map: each flow is in exactly one of the two places.
        if let Some((target, flow)) = self.last.replace((target, flow)) {
            self.map.insert(target, flow);
        }
    }

    pub(super) fn remove(&mut self, target: Target) -> Option<F> {
        match self.last.take_if(|(last, _)| *last == target) {
            Some((_, flow)) => Some(flow),
            None => self.map.remove(&target),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Target, &F)> {
        let last = self.last.iter().map(|(target, flow)| (*target, flow));
        last.chain(self.map.iter().map(|(target, flow)| (*target, flow)))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &F> {
        self.iter().map(|(_, flow)| flow)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.last.iter_mut().map(|(_, flow)| flow).chain(self.map.values_mut())
    }

    /// Removes and returns all flows for which `which` holds.
    pub(super) fn take_if(&mut self, which: impl Fn(&F) -> bool) -> Vec<(Target, F)> {
        let last = self.last.take_if(|(_, flow)| which(flow));
        last.into_iter().chain(self.map.extract_if(|_, flow| which(flow))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;
    use crate::id::{ActorId, ActorIncarnation};

    proptest! {
        #![proptest_config(property_tests::cases(64))]

        #[test]
        fn table_behaves_like_a_map(steps in proptest::collection::vec((0_u8..5, 0_u64..6), 0..60)) {
            let (mut table, mut model) = (FlowTable::<u64>::default(), BTreeMap::new());
            for (at, (what, actor)) in (0..).zip(steps) {
                let target = Target { actor: ActorId(actor), incarnation: ActorIncarnation(0) };
                match what {
                    0 => prop_assert_eq!(table.remove(target), model.remove(&target)),
                    1 => {
                        let mut taken = table.take_if(|flow| flow % 3 == actor % 3);
                        taken.sort_unstable();
                        let (gone, kept): (BTreeMap<_, _>, _) =
                            model.into_iter().partition(|(_, flow)| flow % 3 == actor % 3);
                        model = kept;
                        prop_assert_eq!(taken, gone.into_iter().collect::<Vec<_>>());
                    }
                    2 => prop_assert_eq!(table.get_mut(target), model.get_mut(&target)),
                    _ => {
                        *table.get_or_insert(target) += at;
                        *model.entry(target).or_default() += at;
                    }
                }
                prop_assert_eq!((table.len(), table.contains(target)), (model.len(), model.contains_key(&target)));
                let mut all: Vec<_> = table.iter().map(|(target, flow)| (target, *flow)).collect();
                all.sort_unstable();
                prop_assert_eq!(all, model.iter().map(|(target, flow)| (*target, *flow)).collect::<Vec<_>>());
            }
        }
    }
}
