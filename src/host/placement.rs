//! The little that a host must know of its cluster: where new work may go, who hears what
//! became of it, and who knows what became of others.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

use super::Host;
use crate::id::{HostUid, Target};
use crate::spec::{ActorKey, ActorLocation, ActorSpec};

/// Picks hosts for new actors and tasks; the cluster implements it.
pub trait Placement: Send + Sync + fmt::Debug {
    /// A host for one more actor of that type, which may have wishes.
    fn place_actor(&self, host: &Host, class: &'static str, wishes: Option<&ActorSpec>) -> PlacementResult;

    /// The living actor of that name. The namespace is that of the job if none is given.
    fn find_actor(&self, _host: &Host, _namespace: Option<&str>, name: &str) -> LookupFuture {
        let text = format!("no actor is called {name:?}: this cluster has no names");
        Box::pin(std::future::ready(Err(PlacementError::Unknown { text })))
    }

    /// Hears that an actor which was given a place has not come to life there.
    fn spawn_failed(&self, _host: &Host, _actor: ActorKey, _why: &str) {}

    /// How a host has ended that cannot be reached, if the cluster knows that it has.
    fn host_exit_cause(&self, _host: &Host, _of: HostUid) -> HostStatusFuture {
        Box::pin(std::future::ready(None))
    }

    /// A host for one more task; `None` if there is none left.
    fn place_task(&self) -> Option<TaskSlot>;

    /// How many hosts run tasks.
    fn task_hosts(&self) -> usize;
}

/// An answer that is there, or will be.
pub enum PlacementResult {
    /// It is there.
    Now(Result<Assignment, PlacementError>),
    /// It has to be waited for; dropping it withdraws the question.
    Later(Pin<Box<dyn Future<Output = Result<Assignment, PlacementError>> + Send>>),
}

impl fmt::Debug for PlacementResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(placed) => f.debug_tuple("Now").field(placed).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// A living actor: the name of its type, and where it is.
pub type LookupFuture = Pin<Box<dyn Future<Output = Result<(String, ActorLocation), PlacementError>> + Send>>;

/// How a host has ended, if that is known.
pub type HostStatusFuture = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// Where an actor may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The host.
    pub host: HostUid,
    /// What the cluster calls the actor, if it keeps account of it.
    pub actor: Option<ActorKey>,
    /// The actor, if there is one already that will do.
    pub alive: Option<Target>,
}

/// Why there is no place for an actor, or no such actor.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// No worker is left.
    #[error("no worker is left in the cluster")]
    NoWorker,
    /// No node of the cluster can ever take it.
    #[error("{text}")]
    Infeasible {
        /// What was asked for, and what the cluster has.
        text: String,
    },
    /// A living actor has the name.
    #[error("{text}")]
    NameTaken {
        /// Who.
        text: String,
    },
    /// No living actor has the name, or what was named is not there.
    #[error("{text}")]
    Unknown {
        /// What is not there.
        text: String,
    },
    /// The job is over.
    #[error("{text}")]
    JobEnded {
        /// How it ended.
        text: String,
    },
    /// The head of the cluster cannot keep anything new: its disk is full, for one.
    #[error("{text}")]
    NotPersisted {
        /// Why, and what helps.
        text: String,
    },
    /// The head of the cluster did not answer.
    #[error("the cluster's head does not answer: {text}")]
    Head {
        /// Why.
        text: String,
    },
}

/// Hears of the lives of actors that the cluster keeps account of, and of its tasks.
pub trait LifecycleObserver: Send + Sync + fmt::Debug {
    /// One has come to life.
    fn actor_started(&self, actor: ActorKey, class: &'static str, at: ActorLocation);

    /// One has ended.
    fn actor_stopped(&self, actor: ActorKey, cause: &str);

    /// One of a type is about to begin that the cluster keeps no account of.
    fn named(&self, _class: &'static str) {}

    /// So many tasks of a function are queued, run, have ended with a result, and without one.
    fn tasks(&self, _function: String, _counts: [u64; 4]) {}

    /// Waits a moment until all of it was told.
    fn flush(&self) {}
}

/// A task's place on a host, counted while it is held.
#[derive(Debug)]
pub struct TaskSlot {
    /// The host.
    pub host: HostUid,
    in_use: Arc<AtomicUsize>,
}

impl TaskSlot {
    /// Takes a place on `host`, whose places taken are counted in `taken`.
    pub fn take(host: HostUid, taken: Arc<AtomicUsize>) -> Self {
        taken.fetch_add(1, Ordering::Relaxed);
        Self { host, in_use: taken }
    }
}

impl Drop for TaskSlot {
    fn drop(&mut self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}
