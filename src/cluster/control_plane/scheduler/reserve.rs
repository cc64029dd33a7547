//! Reservations of nodes: their free resources are withheld for one actor.
//!
//! A reservation sets the free amounts of the resources that the actor needs to 0 in the tree. No other actor
//! that needs them is placed there then. Actors that need other resources, or none, are placed as before.

#[cfg(test)]
use std::collections::BTreeMap;

use super::resource_index::Feature;
use super::shape::ShapeId;
use super::tree::{self, Requirement};
use super::{NodeEntry, Queue, Schedulability, Scheduler};
use crate::cluster::model::NodeId;

impl Scheduler {
    /// Withholds a node's free resources of the given shape.
    pub(in crate::cluster) fn reserve(&mut self, node: NodeId, shape: ShapeId) {
        let features = self.withheld_for(shape);
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        entry.reserved.clone_from(&features);
        features.into_iter().for_each(|feature| self.set_free(node, feature));
    }

    /// Ends the reservation of a node.
    pub(in crate::cluster) fn unreserve(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let features = std::mem::take(&mut entry.reserved);
        features.into_iter().for_each(|feature| self.set_free(node, feature));
    }

    /// Features that a reservation for the shape withholds.
    fn withheld_for(&self, shape: ShapeId) -> Vec<Feature> {
        self.shapes.get(shape).allocates.iter().map(|(feature, _)| *feature).collect()
    }

    /// Asserts that exactly these reservations withhold resources.
    #[cfg(test)]
    pub(in crate::cluster) fn check_reserved(&self, reservations: impl Iterator<Item = (NodeId, ShapeId)>) {
        let withheld = self.nodes.iter().filter(|(_, entry)| !entry.reserved.is_empty());
        let withheld: BTreeMap<NodeId, Vec<Feature>> =
            withheld.map(|(id, entry)| (*id, entry.reserved.clone())).collect();
        assert_eq!(withheld, reservations.map(|(node, shape)| (node, self.withheld_for(shape))).collect());
    }

    /// Checks whether a node has room for the queue that it is reserved for.
    pub(in crate::cluster) fn fits_reserved(&self, node: NodeId, queue: Queue) -> bool {
        let Some(entry) = self.nodes.get(&node).filter(|entry| self.is_eligible(entry, node, queue)) else {
            return false;
        };
        // The tree shows nothing free on a reserved node; the real amounts are computed from the entry.
        self.shapes.get(queue.1).allocates.iter().all(|requirement| shortfall(entry, requirement) == 0)
    }

    /// Checks whether the node, if empty, has room for the queue and workers of its job.
    pub(in crate::cluster) fn is_possible_on(&self, node: NodeId, queue: Queue) -> bool {
        self.nodes.get(&node).is_some_and(|entry| self.is_eligible(entry, node, queue))
    }

    /// Selects the node to reserve for a queue, among those without a reservation.
    ///
    /// Without `tried` the node that lacks least, relative to the request. After `tried`, whose reservation
    /// expired unused, the next eligible node, so that all have their turn.
    pub(in crate::cluster) fn reservable(&self, queue: Queue, tried: Option<NodeId>) -> Option<NodeId> {
        let shape = self.shapes.get(queue.1);
        let eligible = |node: NodeId| {
            let entry = self.nodes.get(&node)?;
            (entry.reserved.is_empty() && self.is_eligible(entry, node, queue)).then_some(entry)
        };
        if let Some(only) = shape.node {
            return eligible(only).map(|_| only);
        }
        let requires: Vec<Requirement> =
            shape.requires.iter().copied().chain([(Feature::of_job(queue.0), 1)]).collect();
        let next = |from: usize| self.tree.next(from, &requires, |amount| amount.total);
        let nodes = |from: usize| {
            let leaves = std::iter::successors(next(from), |leaf| next(leaf + 1));
            leaves.map(|leaf| self.node_at_leaf[leaf])
        };
        let after_tried = tried.and_then(|tried| self.nodes.get(&tried)).map(|entry| entry.leaf + 1);
        if let Some(node) = after_tried.and_then(|from| nodes(from).find(|node| eligible(*node).is_some())) {
            return Some(node);
        }
        if after_tried.is_some() {
            return nodes(0).find(|node| eligible(*node).is_some());
        }
        // The largest relative shortfall of any resource decides: room appears on a node only when the
        // scarcest resource does.
        let candidates = nodes(0).filter_map(|node| {
            let entry = eligible(node)?;
            let shortfalls = shape
                .allocates
                .iter()
                .map(|requirement| shortfall(entry, requirement) as f64 / requirement.1 as f64);
            Some((shortfalls.fold(0.0, f64::max), node))
        });
        candidates.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, node)| node)
    }

    fn is_eligible(&self, entry: &NodeEntry, node: NodeId, (job, shape): Queue) -> bool {
        let shape = self.shapes.get(shape);
        let leaf = self.tree.leaf(entry.leaf);
        entry.schedulability == Schedulability::Schedulable
            && shape.allows(node)
            && tree::has(leaf, &[(Feature::of_job(job), 1)], |amount| amount.total)
            && tree::has(leaf, &shape.requires, |amount| amount.total)
    }
}

/// Amount that is missing on the node.
fn shortfall(entry: &NodeEntry, (feature, amount): &Requirement) -> u64 {
    let at = entry.capacity.binary_search_by_key(feature, |(feature, _)| *feature);
    let total = at.map_or(0, |at| entry.capacity[at].1);
    amount.saturating_sub(entry.free(*feature, total))
}
