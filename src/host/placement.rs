//! Cluster services that a host depends on: placement, lifecycle notifications, and status queries about
//! other hosts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use thiserror::Error;
use tokio::time::timeout_at;

use super::Host;
use crate::id::{ActorIncarnation, HostUid, Target};
use crate::spec::{
    ActorKey, ActorLocation, ActorSpec, Copies, End, EndReason, HolderPlan, HolderRequest, JobId, NodeId,
    Recipe,
};

/// Selects hosts for new actors and tasks; the cluster implements it.
pub trait Placement: Send + Sync + fmt::Debug {
    /// Selects a host for a new actor of type `class`, subject to the constraints in `spec`.
    fn place_actor(&self, host: &Host, class: &'static str, spec: Option<&ActorSpec>) -> PlacementResult;

    /// Finds the live actor with a name. The default namespace is that of the job.
    fn find_actor(&self, _host: &Host, _namespace: Option<&str>, name: &str) -> LookupFuture {
        let text = format!("no actor is called {name:?}: this cluster has no names");
        Box::pin(std::future::ready(Err(PlacementError::Unknown { text })))
    }

    /// Creates a managed actor, and returns its location once it is alive.
    fn place_managed(
        &self,
        _host: &Host,
        class: &'static str,
        _spec: ActorSpec,
        _recipe: Recipe,
    ) -> PlaceFuture {
        let text = format!("this cluster restarts no actors, so it cannot spawn a {class} with a policy");
        Box::pin(std::future::ready(Err(PlacementError::Infeasible { text })))
    }

    /// Ends a managed actor, whatever its state.
    fn kill(&self, _host: &Host, actor: ActorKey) -> KillFuture {
        let text = format!("this cluster has no actor {actor}");
        Box::pin(std::future::ready(Err(PlacementError::Unknown { text })))
    }

    /// Locates a managed actor, in an incarnation after `gone`. It waits while the actor restarts.
    fn locate(&self, _host: &Host, actor: ActorKey, _gone: Option<ActorIncarnation>) -> LocateFuture {
        let text = format!("this cluster has no actor {actor}");
        Box::pin(std::future::ready(Err(PlacementError::Unknown { text })))
    }

    /// Checks whether the cluster has nodes for the copies of a durable actor's state.
    fn check_holders(&self, _host: &Host, _copies: Copies) -> KillFuture {
        Box::pin(std::future::ready(Err(no_state())))
    }

    /// Requests the next configuration of a state, and adds its holders to this host's peers. `None` keeps the present
    /// one.
    fn propose_holders(&self, _host: &Host, _request: HolderRequest) -> PlanFuture {
        Box::pin(std::future::ready(Err(no_state())))
    }

    /// Makes a proposed configuration the active one.
    fn activate_holders(
        &self,
        _host: &Host,
        _actor: ActorKey,
        _incarnation: ActorIncarnation,
        _number: u64,
    ) -> KillFuture {
        Box::pin(std::future::ready(Err(no_state())))
    }

    /// Reports that an actor with an assignment was not started there.
    fn spawn_failed(&self, _host: &Host, _actor: ActorKey, _why: &str) {}

    /// Reports that nothing waits any more for an actor with an assignment, which may have started there.
    fn spawn_given_up(&self, _host: &Host, _actor: ActorKey) {}

    /// Status of a host that cannot be reached.
    fn host_status(&self, _host: &Host, _of: HostUid) -> HostStatusFuture {
        Box::pin(std::future::ready(HostStatus::Unknown))
    }

    /// Resolves to the end of a node, a job or a managed actor, also if it has ended already.
    fn watch(&self, _host: &Host, _watched: Watched) -> EndFuture {
        let text = "this process belongs to no cluster";
        Box::pin(std::future::ready(End::new(EndReason::Unknown, text)))
    }

    /// Selects a host for a task, none of `avoided` if there is another; `None` if there is none left.
    fn place_task(&self, avoided: &[HostUid]) -> Option<TaskSlot>;

    /// Number of hosts that run tasks.
    fn task_hosts(&self) -> usize;

    /// Future that resolves when the next worker joins; `None` if no ended worker is replaced.
    fn next_worker(&self) -> Option<NextWorker> {
        None
    }
}

fn no_state() -> PlacementError {
    PlacementError::Infeasible { text: "this cluster keeps no state of actors".to_owned() }
}

impl dyn Placement {
    /// Places something. Without a worker, of which `place` returns `None`, it waits for the next one, if ended ones
    /// are replaced. Returns `None` if there is none before the deadline, or in time.
    pub(crate) async fn with_worker<T>(
        &self,
        host: &Host,
        deadline: Option<Instant>,
        place: impl Fn() -> Option<T>,
    ) -> Option<T> {
        loop {
            if let Some(placed) = place() {
                return Some(placed);
            }
            let next_worker = self.next_worker()?;
            // Again: a worker that joined before it does not resolve the future.
            if let Some(placed) = place() {
                return Some(placed);
            }
            let has_joined = match deadline {
                Some(deadline) => timeout_at(deadline.into(), next_worker).await.ok()?,
                None => next_worker.await,
            };
            if !has_joined || host.is_closing() {
                return None;
            }
        }
    }
}

/// Result of a placement request, immediate or pending.
pub enum PlacementResult {
    /// The result itself.
    Now(Result<Assignment, PlacementError>),
    /// Future of the result; dropping it cancels the request.
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

/// Future of a lookup by name: the actor's type and its location.
pub type LookupFuture = Pin<Box<dyn Future<Output = Result<(String, ActorLocation), PlacementError>> + Send>>;

/// Future of the location of a new managed actor.
pub type PlaceFuture = Pin<Box<dyn Future<Output = Result<ActorLocation, PlacementError>> + Send>>;

/// Future of a configuration of a durable actor's state.
pub type PlanFuture = Pin<Box<dyn Future<Output = Result<Option<HolderPlan>, PlacementError>> + Send>>;

/// Future of the end of a managed actor.
pub type KillFuture = Pin<Box<dyn Future<Output = Result<(), PlacementError>> + Send>>;

/// Future of the location of a managed actor, or of its end.
pub type LocateFuture = Pin<Box<dyn Future<Output = Result<Located, PlacementError>> + Send>>;

/// Location of a managed actor, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// Location of an actor that is alive.
    At(ActorLocation),
    /// End of an actor that never returns.
    Gone(End),
}

/// Future that resolves to true when a worker joins, and to false if none does in time.
pub type NextWorker = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Future of a host's status.
pub type HostStatusFuture = Pin<Box<dyn Future<Output = HostStatus> + Send>>;

/// Future of an end.
pub type EndFuture = Pin<Box<dyn Future<Output = End> + Send>>;

/// Status of a host, as far as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostStatus {
    /// Its process has ended.
    Ended(End),
    /// The cluster believes that it runs.
    Alive,
    /// The cluster does not know it, or does not answer.
    Unknown,
}

/// Object of the cluster whose end the control plane knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A node.
    Node(NodeId),
    /// A job.
    Job(JobId),
    /// A managed actor, over all of its incarnations.
    Actor(ActorKey),
}

/// Assignment of an actor to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Host that will run the actor.
    pub host: HostUid,
    /// Cluster-wide id of the actor, if the cluster tracks it.
    pub actor: Option<ActorKey>,
    /// Existing actor that satisfies the request, if any.
    pub alive: Option<Target>,
}

/// Reason why an actor was not placed or not found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// No worker is left.
    #[error("no worker is left in the cluster")]
    NoWorker,
    /// No node of the cluster can ever run the actor.
    #[error("{text}")]
    Infeasible {
        /// Requested resources, and those of the cluster.
        text: String,
    },
    /// The actor's own `spawn` returned an error.
    #[error("{text}")]
    Refused {
        /// Text of the error.
        text: String,
    },
    /// The actor's own `spawn` panicked.
    #[error("{text}")]
    Panicked {
        /// Text and source location of the panic.
        text: String,
    },
    /// The worker has too little memory left for a new actor.
    #[error("{text}")]
    LowMemory {
        /// Memory in use, its limit, the worker, and what to do.
        text: String,
    },
    /// A live actor has the name.
    #[error("{text}")]
    NameTaken {
        /// Actor that has the name.
        text: String,
    },
    /// No live actor has the name, or the requested object does not exist.
    #[error("{text}")]
    Unknown {
        /// Description of the missing object.
        text: String,
    },
    /// The job has ended.
    #[error("{text}")]
    JobEnded {
        /// Description of its end.
        text: String,
    },
    /// The head of the cluster cannot persist new state, for example on a full disk.
    #[error("{text}")]
    NotPersisted {
        /// Reason and remedy.
        text: String,
    },
    /// The head of the cluster did not reply.
    #[error("the cluster's head does not answer: {text}")]
    Head {
        /// Reason.
        text: String,
    },
}

/// Observer of the lifecycles of actors that the cluster tracks.
pub trait LifecycleObserver: Send + Sync + fmt::Debug {
    /// Reports that an actor has started.
    fn actor_started(&self, actor: ActorKey, class: &'static str, at: ActorLocation);

    /// Reports that an actor has stopped, or was not created.
    fn actor_stopped(&self, actor: ActorKey, end: ActorEnd);

    /// Reports the type of an actor that is about to start and that the cluster does not track.
    fn named(&self, _class: &'static str) {}
}

/// End of an actor that the cluster tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorEnd {
    /// Incarnation that has ended.
    pub incarnation: ActorIncarnation,
    /// Reason and explanation.
    pub end: End,
    /// Number of messages that it has handled.
    pub handled: u64,
}

/// Reserved task slot on a host, counted until it is dropped.
#[derive(Debug)]
pub struct TaskSlot {
    /// Host that runs the task.
    pub host: HostUid,
    in_use: Arc<AtomicUsize>,
}

impl TaskSlot {
    /// Takes a slot on `host`, whose slots in use are counted in `in_use`.
    pub fn take(host: HostUid, in_use: Arc<AtomicUsize>) -> Self {
        // Relaxed: the counter only guides the choice of a host, and guards no memory.
        in_use.fetch_add(1, Ordering::Relaxed);
        Self { host, in_use }
    }
}

impl Drop for TaskSlot {
    fn drop(&mut self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}
