//! Nodes that are reserved: what is free of them is kept for one actor.
//!
//! A reservation makes the tree see nothing free of the resources that the actor takes, so that nothing else
//! that wants them is placed there. What wants other resources, or none, is placed as before.

#[cfg(test)]
use std::collections::BTreeMap;

use super::resource_index::Feature;
use super::shape::ShapeId;
use super::tree::{self, Requirement};
use super::{NodeEntry, Queue, Schedulability, Scheduler};
use crate::cluster::model::NodeId;

impl Scheduler {
    /// Keeps what is free of a node, of the resources that an actor takes, from all others.
    pub(in crate::cluster) fn reserve(&mut self, node: NodeId, shape: ShapeId) {
        let takes = self.kept_for(shape);
        let Some(room) = self.nodes.get_mut(&node) else { return };
        room.reserved.clone_from(&takes);
        takes.into_iter().for_each(|feature| self.set_free(node, feature));
    }

    /// Ends the reservation of a node.
    pub(in crate::cluster) fn unreserve(&mut self, node: NodeId) {
        let Some(room) = self.nodes.get_mut(&node) else { return };
        let features = std::mem::take(&mut room.reserved);
        features.into_iter().for_each(|feature| self.set_free(node, feature));
    }

    fn kept_for(&self, shape: ShapeId) -> Vec<Feature> {
        self.shapes.get(shape).allocates.iter().map(|(feature, _)| *feature).collect()
    }

    /// Asserts that what is kept of nodes is kept for these actors.
    #[cfg(test)]
    pub(in crate::cluster) fn check_reserved(&self, reservations: impl Iterator<Item = (NodeId, ShapeId)>) {
        let kept = self.nodes.iter().filter(|(_, room)| !room.reserved.is_empty());
        let kept: BTreeMap<NodeId, Vec<Feature>> =
            kept.map(|(id, room)| (*id, room.reserved.clone())).collect();
        assert_eq!(kept, reservations.map(|(node, shape)| (node, self.kept_for(shape))).collect());
    }

    /// Whether a node has room for the queue that it is reserved for.
    pub(in crate::cluster) fn fits_reserved(&self, node: NodeId, queue: Queue) -> bool {
        let Some(room) = self.nodes.get(&node).filter(|room| self.could_hold(room, node, queue)) else {
            return false;
        };
        self.shapes.get(queue.1).allocates.iter().all(|take| lack(room, take) == 0)
    }

    /// Whether an empty node would have room for a queue, now that it takes actors of that job.
    pub(in crate::cluster) fn is_possible_on(&self, node: NodeId, queue: Queue) -> bool {
        self.nodes.get(&node).is_some_and(|room| self.could_hold(room, node, queue))
    }

    /// A node to be reserved for a queue, of those that are not: the one that lacks least; after one that was
    /// reserved in vain the next one, so that all have their turn.
    pub(in crate::cluster) fn reservable(&self, queue: Queue, tried: Option<NodeId>) -> Option<NodeId> {
        let shape = self.shapes.get(queue.1);
        let may = |node: NodeId| {
            let room = self.nodes.get(&node)?;
            (room.reserved.is_empty() && self.could_hold(room, node, queue)).then_some(room)
        };
        if let Some(only) = shape.node {
            return may(only).map(|_| only);
        }
        let wants: Vec<Requirement> =
            shape.requires.iter().copied().chain([(Feature::of_job(queue.0), 1)]).collect();
        let next = |from: usize| self.tree.next(from, &wants, |amount| amount.total);
        let nodes = |from: usize| {
            let places = std::iter::successors(next(from), |place| next(place + 1));
            places.map(|place| self.node_at_leaf[place])
        };
        let behind = tried.and_then(|tried| self.nodes.get(&tried)).map(|room| room.leaf + 1);
        if let Some(node) = behind.and_then(|behind| nodes(behind).find(|node| may(*node).is_some())) {
            return Some(node);
        }
        if behind.is_some() {
            return nodes(0).find(|node| may(*node).is_some());
        }
        let lacking = nodes(0).filter_map(|node| {
            let room = may(node)?;
            let lacks = shape.allocates.iter().map(|take| lack(room, take) as f64 / take.1 as f64);
            Some((lacks.fold(0.0, f64::max), node))
        });
        lacking.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, node)| node)
    }

    fn could_hold(&self, room: &NodeEntry, node: NodeId, (job, shape): Queue) -> bool {
        let shape = self.shapes.get(shape);
        let leaf = self.tree.leaf(room.leaf);
        room.work == Schedulability::Schedulable
            && shape.node.is_none_or(|only| only == node)
            && tree::has(leaf, &[(Feature::of_job(job), 1)], |amount| amount.total)
            && tree::has(leaf, &shape.requires, |amount| amount.total)
    }
}

/// How much of what an actor takes is held by others.
fn lack(room: &NodeEntry, (feature, wanted): &Requirement) -> u64 {
    let at = room.capacity.binary_search_by_key(feature, |(feature, _)| *feature);
    let total = at.map_or(0, |at| room.capacity[at].1);
    wanted.saturating_sub(room.free(*feature, total))
}
