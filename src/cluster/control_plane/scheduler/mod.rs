//! Scheduler: selects the node of an actor.
//!
//! Owns each node's capacity and allocations. A placement costs time logarithmic in the number of nodes. The
//! scheduler knows nothing of workers, names and leases: its caller says which nodes accept work and where a
//! job's executable is.

mod explain;
mod leaves;
mod pending;
mod reserve;
mod resource_index;
mod shape;
mod tree;

pub(in crate::cluster) use pending::{PendingQueues, Queue};
pub(in crate::cluster) use shape::ShapeId;

use rustc_hash::FxHashMap;

use crate::cluster::model::{ActorSpec, JobId, Labels, NodeId, Resources, Strategy};
use leaves::{LeafAllocator, NodeKind};
use resource_index::{Feature, Features};
use shape::{Shape, Shapes};
use tree::{Amount, Requirement, Tree};

/// Readiness of a node for actors, as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Schedulability {
    /// Accepts actors.
    Schedulable,
    /// Accepts none until its agent rejoins; counts for feasibility.
    Rejoining,
    /// Accepts none until its agent is heard again; counts for feasibility.
    Unreachable,
    /// Accepts none, and does not count for feasibility.
    Unschedulable,
}

/// Capacity and allocations of all nodes, indexed for placement.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Scheduler {
    features: Features,
    shapes: Shapes,
    tree: Tree,
    leaves: LeafAllocator,
    nodes: FxHashMap<NodeId, NodeEntry>,
    /// Node at each leaf of the tree. Entries of free leaves are stale; no search returns a free leaf.
    node_at_leaf: Vec<NodeId>,
    scratch: Vec<Requirement>,
}

/// Capacity and allocations of one node.
#[derive(Debug)]
struct NodeEntry {
    leaf: usize,
    kind: NodeKind,
    schedulability: Schedulability,
    /// Total amount of each feature, sorted by feature; 1 for a label.
    capacity: Vec<Requirement>,
    /// Amounts that actors hold; more than the capacity if the node has rejoined with less.
    allocated: FxHashMap<Feature, u64>,
    /// Resources withheld for the actor that the node is reserved for.
    reserved: Vec<Feature>,
}

impl NodeEntry {
    fn free(&self, feature: Feature, total: u64) -> u64 {
        total.saturating_sub(self.allocated.get(&feature).copied().unwrap_or_default())
    }
}

impl Scheduler {
    /// Adds a new node, which is not schedulable yet.
    pub(in crate::cluster) fn add(&mut self, node: NodeId, resources: &Resources, labels: &Labels) {
        let capacity = self.features_of(resources, labels);
        let kind: NodeKind = capacity.iter().map(|(feature, _)| *feature).collect();
        let leaf = self.leaves.take(&kind);
        if self.node_at_leaf.len() <= leaf {
            self.node_at_leaf.resize(leaf + 1, node);
        }
        self.node_at_leaf[leaf] = node;
        let (allocated, reserved) = (FxHashMap::default(), Vec::new());
        self.nodes.insert(
            node,
            NodeEntry {
                leaf,
                kind,
                schedulability: Schedulability::Unschedulable,
                capacity,
                allocated,
                reserved,
            },
        );
    }

    /// Replaces the capacity and labels of a node; allocations stay.
    pub(in crate::cluster) fn change(&mut self, node: NodeId, resources: &Resources, labels: &Labels) {
        let capacity = self.features_of(resources, labels);
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let previous = std::mem::replace(&mut entry.capacity, capacity);
        // Features that the node no longer has are written too: their total is 0 now, which removes them from
        // the tree. The leaf stays, though its kind may have changed: kinds only speed up searches.
        previous.into_iter().for_each(|(feature, _)| self.set_free(node, feature));
        self.set_all_free(node);
    }

    /// Removes a node and its allocations.
    pub(in crate::cluster) fn remove(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.remove(&node) else { return };
        // The leaf also lists the jobs that were provisioned on the node, so the features come from the tree.
        let features: Vec<Feature> = self.tree.leaf(entry.leaf).iter().map(|amount| amount.feature).collect();
        for feature in features {
            self.tree.set(entry.leaf, Amount { feature, free: 0, total: 0 });
        }
        self.leaves.free(&entry.kind, entry.leaf);
    }

    /// Sets whether a node accepts actors.
    pub(in crate::cluster) fn set_schedulability(&mut self, node: NodeId, schedulability: Schedulability) {
        // A rejoining or unreachable node has a total of 1 and 0 free: no search for room returns it, but requests
        // that only this node could serve stay pending. They must not fail as infeasible before the node is back,
        // or is dead.
        let [free, total] = match schedulability {
            Schedulability::Schedulable => [1, 1],
            Schedulability::Rejoining | Schedulability::Unreachable => [0, 1],
            Schedulability::Unschedulable => [0, 0],
        };
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        entry.schedulability = schedulability;
        self.tree.set(entry.leaf, Amount { feature: Feature::SCHEDULABLE, free, total });
        self.set_all_free(node);
    }

    /// Sets whether a job can have workers on a node.
    pub(in crate::cluster) fn set_provisioned(&mut self, node: NodeId, job: JobId, provisioned: bool) {
        let [free, total] = [u64::from(provisioned); 2];
        if let Some(entry) = self.nodes.get(&node) {
            self.tree.set(entry.leaf, Amount { feature: Feature::of_job(job), free, total });
        }
    }

    /// Interns the requirements of an actor; [`drop_shape`](Self::drop_shape) releases them.
    pub(in crate::cluster) fn shape_of(&mut self, spec: &ActorSpec) -> ShapeId {
        let features = self.features_of(&spec.resources, &spec.labels);
        let mut allocates: Vec<Requirement> = Vec::new();
        // A request for 0 of a resource requires nothing, not even that the resource exists.
        for (name, quantity) in spec.resources.0.iter().filter(|(_, quantity)| quantity.0 > 0) {
            allocates.push((self.features.resource(name), quantity.0));
        }
        allocates.sort_unstable();
        let requires = [(Feature::SCHEDULABLE, 1)].into_iter().chain(features).collect();
        let ActorSpec { node, avoided, strategy, .. } = *spec;
        self.shapes.intern(Shape { requires, allocates, node, avoided, strategy })
    }

    /// Drops one reference to a shape.
    pub(in crate::cluster) fn drop_shape(&mut self, shape: ShapeId) {
        self.shapes.drop(shape);
    }

    /// Node that the shape is pinned to, if any.
    pub(in crate::cluster) fn only_node(&self, shape: ShapeId) -> Option<NodeId> {
        self.shapes.get(shape).node
    }

    /// Checks whether actors of the shape hold resources.
    pub(in crate::cluster) fn requires_resources(&self, shape: ShapeId) -> bool {
        !self.shapes.get(shape).allocates.is_empty()
    }

    /// Resources that actors of the shape hold.
    pub(in crate::cluster) fn taken(&self, shape: ShapeId) -> Resources {
        self.features.resources(self.shapes.get(shape).allocates.iter().copied())
    }

    /// Writes the requirements of a shape into a spec.
    pub(in crate::cluster) fn describe(&self, shape: ShapeId, spec: &mut ActorSpec) {
        let shape = self.shapes.get(shape);
        spec.resources = self.features.resources(shape.allocates.iter().copied());
        spec.labels = self.features.labels(shape.requires.iter().map(|(feature, _)| *feature));
        spec.node = shape.node;
        spec.avoided = shape.avoided;
        spec.strategy = shape.strategy;
    }

    /// Number of distinct shapes.
    #[cfg(test)]
    pub(in crate::cluster) fn shapes(&self) -> usize {
        self.shapes.len()
    }

    /// Resources of a node that no actor holds.
    pub(in crate::cluster) fn available(&self, node: NodeId) -> Resources {
        let Some(entry) = self.nodes.get(&node) else { return Resources::none() };
        let free = entry.capacity.iter().map(|(feature, total)| (*feature, entry.free(*feature, *total)));
        self.features.resources(free)
    }

    /// Allocates resources of a node to an actor, beyond the capacity if need be.
    pub(in crate::cluster) fn allocate(&mut self, node: NodeId, shape: ShapeId) {
        // No check against the capacity: an actor that a rejoining node reports runs there already, even if
        // the node has less than before.
        let shape = self.shapes.get(shape).clone();
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        for (feature, amount) in &shape.allocates {
            let allocated = entry.allocated.entry(*feature).or_default();
            *allocated = allocated.saturating_add(*amount);
        }
        shape.allocates.iter().for_each(|(feature, _)| self.set_free(node, *feature));
    }

    /// Releases the resources of an actor.
    pub(in crate::cluster) fn release(&mut self, node: NodeId, shape: ShapeId) {
        let shape = self.shapes.get(shape).clone();
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        for (feature, amount) in &shape.allocates {
            let allocated = entry.allocated.entry(*feature).or_default();
            *allocated = allocated.saturating_sub(*amount);
        }
        shape.allocates.iter().for_each(|(feature, _)| self.set_free(node, *feature));
    }

    /// Checks whether a node has room for an actor of the queue.
    pub(in crate::cluster) fn fits(&self, node: NodeId, (job, shape): Queue) -> bool {
        let Some(entry) = self.nodes.get(&node) else { return false };
        let leaf = self.tree.leaf(entry.leaf);
        let shape = self.shapes.get(shape);
        shape.allows(node)
            && tree::has(leaf, &[(Feature::of_job(job), 1)], |amount| amount.free)
            && tree::has(leaf, &shape.requires, |amount| amount.free)
    }

    /// Selects a node with room for an actor of the queue. `cursor` is the job's round-robin cursor, a leaf.
    pub(in crate::cluster) fn select_node(&mut self, queue: Queue, cursor: &mut usize) -> Option<NodeId> {
        let (job, shape) = queue;
        let shape = self.shapes.get(shape);
        if let Some(only) = shape.node {
            return self.fits(only, queue).then_some(only);
        }
        // The buffer is reused, which saves an allocation for each placement. Features of jobs sort behind
        // all others, so the requirements stay sorted.
        self.scratch.clear();
        self.scratch.extend_from_slice(&shape.requires);
        self.scratch.push((Feature::of_job(job), 1));
        let search = |from| self.next_allowed(from, shape, &self.scratch, |amount| amount.free);
        let leaf = match shape.strategy {
            Strategy::Pack => search(0)?,
            // Round robin over the leaves: from behind the last choice to the end, then from the start.
            Strategy::Spread => {
                let leaf = search(*cursor).or_else(|| search(0))?;
                *cursor = leaf + 1;
                leaf
            }
        };
        Some(self.node_at_leaf[leaf])
    }

    /// Checks whether some node could host the actor if it were empty.
    pub(in crate::cluster) fn is_feasible(&self, shape: ShapeId) -> bool {
        let shape = self.shapes.get(shape);
        match shape.node {
            Some(only) => self.nodes.get(&only).filter(|_| shape.allows(only)).is_some_and(|entry| {
                tree::has(self.tree.leaf(entry.leaf), &shape.requires, |amount| amount.total)
            }),
            None => self.next_allowed(0, shape, &shape.requires, |amount| amount.total).is_some(),
        }
    }

    /// First leaf from `from` that meets the requirements, and is not that of the node which the shape avoids.
    fn next_allowed(
        &self,
        from: usize,
        shape: &Shape,
        requires: &[Requirement],
        of: impl Fn(&Amount) -> u64 + Copy,
    ) -> Option<usize> {
        let leaf = self.tree.next(from, requires, of)?;
        match shape.avoided == Some(self.node_at_leaf[leaf]) {
            true => self.tree.next(leaf + 1, requires, of),
            false => Some(leaf),
        }
    }

    /// Positive resources and labels as sorted requirements.
    fn features_of(&mut self, resources: &Resources, labels: &Labels) -> Vec<Requirement> {
        let mut features = Vec::with_capacity(resources.0.len() + labels.len());
        for (name, quantity) in resources.0.iter().filter(|(_, quantity)| quantity.0 > 0) {
            features.push((self.features.resource(name), quantity.0));
        }
        for (name, value) in labels {
            features.push((self.features.label(name, value), 1));
        }
        // The rows of the tree are sorted, and equal specs must yield equal shapes.
        features.sort_unstable();
        features
    }

    fn set_all_free(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.get(&node) else { return };
        let features: Vec<Feature> = entry.capacity.iter().map(|(feature, _)| *feature).collect();
        features.into_iter().for_each(|feature| self.set_free(node, feature));
    }

    /// Writes the free and total amount of one feature to the tree.
    fn set_free(&mut self, node: NodeId, feature: Feature) {
        let Some(entry) = self.nodes.get(&node) else { return };
        // An unschedulable node gets a total of 0, so that it does not count for feasibility either.
        let at = entry.capacity.binary_search_by_key(&feature, |(feature, _)| *feature);
        let total = at
            .ok()
            .filter(|_| entry.schedulability != Schedulability::Unschedulable)
            .map_or(0, |at| entry.capacity[at].1);
        let free = if entry.reserved.contains(&feature) { 0 } else { entry.free(feature, total) };
        self.tree.set(entry.leaf, Amount { feature, free, total });
    }
}

#[cfg(test)]
mod tests;
