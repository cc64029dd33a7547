//! The little that a host must know of its cluster: where new work may go.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::id::Identity;

/// Picks hosts for new actors and tasks; the cluster implements it.
pub trait Placement: Send + Sync + fmt::Debug {
    /// A host for one more actor; `None` if there is none left.
    fn place_actor(&self) -> Option<Identity>;

    /// A host for one more task; `None` if there is none left.
    fn place_task(&self) -> Option<Seat>;

    /// How many hosts run tasks.
    fn task_hosts(&self) -> usize;
}

/// A task's place on a host, counted while it is held.
#[derive(Debug)]
pub struct Seat {
    /// The host.
    pub host: Identity,
    taken: Arc<AtomicUsize>,
}

impl Seat {
    /// Takes a place on `host`, whose places taken are counted in `taken`.
    pub fn take(host: Identity, taken: Arc<AtomicUsize>) -> Self {
        taken.fetch_add(1, Ordering::Relaxed);
        Self { host, taken }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
