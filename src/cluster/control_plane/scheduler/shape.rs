//! Shapes: requirements of actors, interned so that equal ones are stored once.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::tree::Requirement;
use crate::cluster::model::{NodeId, Strategy};

/// Requirements of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Minimum amounts of the node's features, sorted: readiness, labels and resources.
    pub(super) requires: Vec<Requirement>,
    /// Resources among them, which the actor holds.
    pub(super) allocates: Vec<Requirement>,
    pub(super) node: Option<NodeId>,
    pub(super) avoided: Option<NodeId>,
    pub(super) strategy: Strategy,
}

impl Shape {
    /// Checks whether the actor may be on a node.
    pub(super) fn allows(&self, node: NodeId) -> bool {
        self.node.is_none_or(|only| only == node) && self.avoided != Some(node)
    }
}

/// Reference-counted handle of an interned shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::cluster) struct ShapeId(u32);

/// Interned shapes with reference counts.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    ids: FxHashMap<Arc<Shape>, ShapeId>,
    /// Shapes with the number of actors that have them; `None` for a free id.
    slots: Vec<Option<(Arc<Shape>, usize)>>,
    free: Vec<ShapeId>,
}

impl Shapes {
    /// Interns a shape, or adds a reference to an equal one.
    pub(super) fn intern(&mut self, shape: Shape) -> ShapeId {
        if let Some(id) = self.ids.get(&shape).copied() {
            self.add_ref(id);
            return id;
        }
        let shape = Arc::new(shape);
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ShapeId(u32::try_from(self.slots.len() - 1).expect("there are fewer than 2^32 shapes"))
        });
        self.slots[id.0 as usize] = Some((Arc::clone(&shape), 1));
        self.ids.insert(shape, id);
        id
    }

    fn add_ref(&mut self, id: ShapeId) {
        if let Some((_, actors)) = &mut self.slots[id.0 as usize] {
            *actors += 1;
        }
    }

    /// Drops one reference.
    pub(super) fn drop(&mut self, id: ShapeId) {
        let Some((shape, actors)) = &mut self.slots[id.0 as usize] else { return };
        *actors -= 1;
        if *actors == 0 {
            self.ids.remove(shape);
            self.slots[id.0 as usize] = None;
            // Ids are reused, so the table grows with the shapes in use and not with the requests so far.
            self.free.push(id);
        }
    }

    pub(super) fn get(&self, id: ShapeId) -> &Arc<Shape> {
        let (shape, _) = self.slots[id.0 as usize].as_ref().expect("an actor has the shape");
        shape
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}
