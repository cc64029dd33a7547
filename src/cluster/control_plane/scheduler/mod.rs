//! Which node takes an actor.
//!
//! Owns what each node has and how much of it is taken, and finds a node that has what an actor wants, at
//! a cost that grows with the logarithm of the number of nodes. Knows nothing of workers, names and
//! leases: whoever calls says which nodes take work, and where a job's executable is.

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
use leaves::{Kind, LeafAllocator};
use resource_index::{Feature, Features};
use shape::{Shape, Shapes};
use tree::{Amount, Requirement, Tree};

/// Whether a node takes actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Schedulability {
    /// It does.
    Schedulable,
    /// Not yet: it is to come back.
    Rejoining,
    /// Not any more.
    Unschedulable,
}

/// The nodes as places for actors.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Scheduler {
    features: Features,
    shapes: Shapes,
    tree: Tree,
    slots: LeafAllocator,
    nodes: FxHashMap<NodeId, NodeEntry>,
    /// The node at each place of the tree; what is left at a place without one is never found.
    node_at_leaf: Vec<NodeId>,
    scratch: Vec<Requirement>,
}

/// What one node has.
#[derive(Debug)]
struct NodeEntry {
    leaf: usize,
    kind: Kind,
    work: Schedulability,
    /// What it has altogether; of each label one.
    capacity: Vec<Requirement>,
    /// What its actors hold, which may be more than it has once it says that it has less.
    allocated: FxHashMap<Feature, u64>,
    /// The resources that are kept for the actor that the node is reserved for.
    reserved: Vec<Feature>,
}

impl NodeEntry {
    fn free(&self, feature: Feature, total: u64) -> u64 {
        total.saturating_sub(self.allocated.get(&feature).copied().unwrap_or_default())
    }
}

impl Scheduler {
    /// Takes up a node that is not there.
    pub(in crate::cluster) fn add(&mut self, node: NodeId, resources: &Resources, labels: &Labels) {
        let has = self.features_of(resources, labels);
        let kind: Kind = has.iter().map(|(feature, _)| *feature).collect();
        let place = self.slots.take(&kind);
        if self.node_at_leaf.len() <= place {
            self.node_at_leaf.resize(place + 1, node);
        }
        self.node_at_leaf[place] = node;
        let (held, reserved) = (FxHashMap::default(), Vec::new());
        self.nodes.insert(
            node,
            NodeEntry {
                leaf: place,
                kind,
                work: Schedulability::Unschedulable,
                capacity: has,
                allocated: held,
                reserved,
            },
        );
    }

    /// A node that is there says anew what it has.
    pub(in crate::cluster) fn change(&mut self, node: NodeId, resources: &Resources, labels: &Labels) {
        let has = self.features_of(resources, labels);
        let Some(room) = self.nodes.get_mut(&node) else { return };
        let before = std::mem::replace(&mut room.capacity, has);
        before.into_iter().for_each(|(feature, _)| self.set_free(node, feature));
        self.set_all_free(node);
    }

    /// Forgets a node, and what was held of it.
    pub(in crate::cluster) fn remove(&mut self, node: NodeId) {
        let Some(room) = self.nodes.remove(&node) else { return };
        let features: Vec<Feature> = self.tree.leaf(room.leaf).iter().map(|amount| amount.feature).collect();
        for feature in features {
            self.tree.set(room.leaf, Amount { feature, free: 0, total: 0 });
        }
        self.slots.free(&room.kind, room.leaf);
    }

    /// Says whether a node takes actors. A new one does not.
    pub(in crate::cluster) fn set_schedulability(&mut self, node: NodeId, work: Schedulability) {
        let [free, total] = match work {
            Schedulability::Schedulable => [1, 1],
            Schedulability::Rejoining => [0, 1],
            Schedulability::Unschedulable => [0, 0],
        };
        let Some(room) = self.nodes.get_mut(&node) else { return };
        room.work = work;
        self.tree.set(room.leaf, Amount { feature: Feature::SCHEDULABLE, free, total });
        self.set_all_free(node);
    }

    /// Says whether a job can have workers on a node.
    pub(in crate::cluster) fn set_provisioned(&mut self, node: NodeId, job: JobId, equipped: bool) {
        let [free, total] = [u64::from(equipped); 2];
        if let Some(room) = self.nodes.get(&node) {
            self.tree.set(room.leaf, Amount { feature: Feature::of_job(job), free, total });
        }
    }

    /// Keeps what an actor wants, until [`drop_shape`](Self::drop_shape).
    pub(in crate::cluster) fn shape_of(&mut self, spec: &ActorSpec) -> ShapeId {
        let all = self.features_of(&spec.resources, &spec.labels);
        let mut takes: Vec<Requirement> = Vec::new();
        for (name, quantity) in spec.resources.0.iter().filter(|(_, quantity)| quantity.0 > 0) {
            takes.push((self.features.resource(name), quantity.0));
        }
        takes.sort_unstable();
        let wants = [(Feature::SCHEDULABLE, 1)].into_iter().chain(all).collect();
        self.shapes.intern(Shape {
            requires: wants,
            allocates: takes,
            node: spec.node,
            strategy: spec.strategy,
        })
    }

    /// An actor with that shape is no more.
    pub(in crate::cluster) fn drop_shape(&mut self, shape: ShapeId) {
        self.shapes.drop(shape);
    }

    /// The one node that an actor may live on.
    pub(in crate::cluster) fn only_node(&self, shape: ShapeId) -> Option<NodeId> {
        self.shapes.get(shape).node
    }

    /// Whether an actor takes anything of its node.
    pub(in crate::cluster) fn requires_resources(&self, shape: ShapeId) -> bool {
        !self.shapes.get(shape).allocates.is_empty()
    }

    /// What an actor takes of its node.
    pub(in crate::cluster) fn taken(&self, shape: ShapeId) -> Resources {
        self.features.resources(self.shapes.get(shape).allocates.iter().copied())
    }

    /// Writes what an actor wants into a spec.
    pub(in crate::cluster) fn describe(&self, shape: ShapeId, spec: &mut ActorSpec) {
        let shape = self.shapes.get(shape);
        spec.resources = self.features.resources(shape.allocates.iter().copied());
        spec.labels = self.features.labels(shape.requires.iter().map(|(feature, _)| *feature));
        spec.node = shape.node;
        spec.strategy = shape.strategy;
    }

    /// How many different shapes are kept.
    #[cfg(test)]
    pub(in crate::cluster) fn shapes(&self) -> usize {
        self.shapes.len()
    }

    /// What nobody holds of a node.
    pub(in crate::cluster) fn available(&self, node: NodeId) -> Resources {
        let Some(room) = self.nodes.get(&node) else { return Resources::none() };
        let free = room.capacity.iter().map(|(feature, total)| (*feature, room.free(*feature, *total)));
        self.features.resources(free)
    }

    /// Takes what an actor wants of a node, even where it has less.
    pub(in crate::cluster) fn allocate(&mut self, node: NodeId, shape: ShapeId) {
        let shape = self.shapes.get(shape).clone();
        let Some(room) = self.nodes.get_mut(&node) else { return };
        for (feature, amount) in &shape.allocates {
            let held = room.allocated.entry(*feature).or_default();
            *held = held.saturating_add(*amount);
        }
        shape.allocates.iter().for_each(|(feature, _)| self.set_free(node, *feature));
    }

    /// Gives it back.
    pub(in crate::cluster) fn release(&mut self, node: NodeId, shape: ShapeId) {
        let shape = self.shapes.get(shape).clone();
        let Some(room) = self.nodes.get_mut(&node) else { return };
        for (feature, amount) in &shape.allocates {
            let held = room.allocated.entry(*feature).or_default();
            *held = held.saturating_sub(*amount);
        }
        shape.allocates.iter().for_each(|(feature, _)| self.set_free(node, *feature));
    }

    /// Whether a node has room for an actor of that queue.
    pub(in crate::cluster) fn fits(&self, node: NodeId, (job, shape): Queue) -> bool {
        let Some(room) = self.nodes.get(&node) else { return false };
        let leaf = self.tree.leaf(room.leaf);
        let shape = self.shapes.get(shape);
        shape.node.is_none_or(|only| only == node)
            && tree::has(leaf, &[(Feature::of_job(job), 1)], |amount| amount.free)
            && tree::has(leaf, &shape.requires, |amount| amount.free)
    }

    /// A node that has room for an actor of that queue. `turn` is where the job's next turn begins.
    pub(in crate::cluster) fn select_node(&mut self, queue: Queue, turn: &mut usize) -> Option<NodeId> {
        let (job, shape) = queue;
        let shape = self.shapes.get(shape);
        if let Some(only) = shape.node {
            return self.fits(only, queue).then_some(only);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&shape.requires);
        self.scratch.push((Feature::of_job(job), 1));
        let search = |from| self.tree.next(from, &self.scratch, |amount| amount.free);
        let place = match shape.strategy {
            Strategy::Pack => search(0)?,
            Strategy::Spread => {
                let place = search(*turn).or_else(|| search(0))?;
                *turn = place + 1;
                place
            }
        };
        Some(self.node_at_leaf[place])
    }

    /// Whether some node would have room, if it were empty.
    pub(in crate::cluster) fn is_feasible(&self, shape: ShapeId) -> bool {
        let shape = self.shapes.get(shape);
        match shape.node {
            Some(only) => self.nodes.get(&only).is_some_and(|room| {
                tree::has(self.tree.leaf(room.leaf), &shape.requires, |amount| amount.total)
            }),
            None => self.tree.next(0, &shape.requires, |amount| amount.total).is_some(),
        }
    }

    /// Resources that are any, and labels, by number and in order.
    fn features_of(&mut self, resources: &Resources, labels: &Labels) -> Vec<Requirement> {
        let mut all = Vec::with_capacity(resources.0.len() + labels.len());
        for (name, quantity) in resources.0.iter().filter(|(_, quantity)| quantity.0 > 0) {
            all.push((self.features.resource(name), quantity.0));
        }
        for (name, value) in labels {
            all.push((self.features.label(name, value), 1));
        }
        all.sort_unstable();
        all
    }

    fn set_all_free(&mut self, node: NodeId) {
        let Some(room) = self.nodes.get(&node) else { return };
        let features: Vec<Feature> = room.capacity.iter().map(|(feature, _)| *feature).collect();
        features.into_iter().for_each(|feature| self.set_free(node, feature));
    }

    /// Brings the tree up to date with what is held of a node, and reserved. What takes no actors is as good
    /// as empty.
    fn set_free(&mut self, node: NodeId, feature: Feature) {
        let Some(room) = self.nodes.get(&node) else { return };
        let at = room.capacity.binary_search_by_key(&feature, |(feature, _)| *feature);
        let total = at
            .ok()
            .filter(|_| room.work != Schedulability::Unschedulable)
            .map_or(0, |at| room.capacity[at].1);
        let free = if room.reserved.contains(&feature) { 0 } else { room.free(feature, total) };
        self.tree.set(room.leaf, Amount { feature, free, total });
    }
}

#[cfg(test)]
mod tests;
