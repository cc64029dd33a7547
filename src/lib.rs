//! Actix actors and plain functions that run in other processes, on this machine or on many, from one program.
//!
//! By default the cluster is a set of worker processes on this machine. With `ROADSHOW_ADDRESS` it is a cluster
//! of nodes, which the command `roadshow` (feature `cli`) has started on several machines.
//!
//! Start with [`Cluster`], mark an actor with the derive of [`RemoteActor`] or a function with
//! [`macro@task`], and hold actors by [`RemoteAddr`]:
//!
//! ```no_run
//! use std::convert::Infallible;
//! use roadshow::prelude::*;
//!
//! #[derive(RemoteActor)]
//! #[remote(handles(Add))]
//! struct Counter(u64);
//!
//! impl Actor for Counter {
//!     type Context = Context<Self>;
//! }
//!
//! impl Spawn for Counter {
//!     type Args = u64;
//!     type Error = Infallible;
//!     fn spawn(start: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
//!         Ok(Counter(start))
//!     }
//! }
//!
//! #[derive(Message, RemoteMessage, Serialize, Deserialize)]
//! #[rtype(result = "u64")]
//! struct Add(u64);
//!
//! impl Handler<Add> for Counter {
//!     type Result = u64;
//!     fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
//!         self.0 += n;
//!         self.0
//!     }
//! }
//!
//! #[roadshow::main]
//! async fn main() -> Result<(), roadshow::Error> {
//!     let cluster = Cluster::init().await?;
//!     let counter: RemoteAddr<Counter> = cluster.spawn::<Counter>(40).await?;
//!     assert_eq!(counter.send(Add(2)).await?, 42);
//!     Ok(())
//! }
//! ```
//!
//! # Constraints of an actor
//!
//! [`Cluster::spawn`](ClusterRef::spawn) returns a [`SpawnRequest`], which takes a name, [`Resources`], a
//! [`Strategy`], a node or a [`Lifetime`]. [`ClusterRef::actor`] finds a named actor.
//!
//! # Errors
//!
//! Each operation has its own enum: [`ClusterError`] to start or join, [`SpawnError`] and
//! [`PlacementError`] to spawn, [`FindError`] to find, [`SendError`] to send, [`TaskError`] to run.
//! All of them convert into [`Error`] with `?`.
//!
//! # The layers, from the bytes up
//!
//! | module | what it owns |
//! |---|---|
//! | `id`, `config` | identities; every limit with its reason |
//! | `spec` | what an actor may ask for; the keys of nodes, jobs, workers and actors |
//! | `wire` | frames and their bytes |
//! | `session` | handshakes, and what two hosts have open with each other over all their links |
//! | `transport` | sockets, and TLS between machines |
//! | `registry` | from a message's name to its handler |
//! | `host` | the part of a process that speaks the protocol |
//! | `remote` | `RemoteAddr`, `RemoteRecipient`, requests, spawning, watches |
//! | `task` | functions that run elsewhere |
//! | `cluster` | worker processes; the head, agents and drivers of a cluster of nodes |
//! | [`model`] | of that, what people see: nodes, jobs, workers, actors and their states |
//! | [`observe`] | what can be seen of a running host |
//!
//! `wire` and `session` do no input or output and read no clock. `docs/architecture.md` has the invariants,
//! `docs/protocol.md` the frame layouts, `docs/semantics.md` the guarantees, and `docs/operations.md` the
//! operation of a cluster; `docs/README.md` is an index of all pages.
//!
//! # Use under another name
//!
//! If the dependency has another name in `Cargo.toml`, or another crate re-exports this one, each macro takes
//! `crate = path`, as in serde: `#[roadshow::task(crate = rs)]`, `#[roadshow::main(crate = rs)]`, and
//! `#[remote(crate = rs)]` for the derive macros. [`actix`] and [`serde`] are re-exported for programs that do
//! not depend on them. `#[serde(crate = "rs::serde")]` is serde's own attribute. `#[remote(result = u64)]` on a
//! message replaces actix's derive of `Message` and its `#[rtype(..)]`.

extern crate self as roadshow;

#[doc(no_inline)]
pub use {actix, serde};

mod background;
mod cluster;
mod config;
mod durable;
mod error;
mod host;
mod id;
mod lock;
pub mod observe;
#[cfg(test)]
mod property_tests;
mod registry;
mod remote;
mod session;
mod spec;
mod task;
mod transport;
mod wire;
#[cfg(feature = "words")]
#[doc(hidden)]
pub mod words;

pub use cluster::{Cluster, ClusterBuilder, ClusterError, InProcess, WorkerInfo, model, run_if_worker};
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cluster::{admin, daemon};
pub use config::Limits;
pub use durable::{
    CallKey, Decide, Decision, Durable, DurableActor, DurableAddr, DurableRequest, DurableSpawn, DurableState,
};
pub use error::Error;
pub use host::{NotDelivered, OutcomeUnknown, PlacementError, SendError};
pub use registry::{HandledBy, Handles, RemoteActor, RemoteData, RemoteMessage, TaskFn};
pub use remote::{
    ClusterRef, FindError, RemoteAddr, RemoteRecipient, Request, Retry, Spawn, SpawnContext, SpawnError,
    SpawnRequest, Terminated, TrySendError, Watch,
};
pub use roadshow_macros::{Durable, RemoteActor, RemoteData, RemoteMessage, main, task};
pub use spec::{End, EndReason, Lifetime, NodeId, Resources, Restart, RestartPlace, Strategy, Supervision};
pub use task::{RunAll, RunTask, Task, TaskError};
pub use transport::Memory;
pub use wire::{Payload, payload};

/// Causes that the errors of the crate's root have as fields or sources.
pub mod errors {
    pub use crate::cluster::{
        ElfError, ExecutableError, Platform, PlatformMismatch, RequestError, TokenRpcError,
    };
    pub use crate::host::HostError;
    pub use crate::registry::RegistryError;
    pub use crate::session::DisconnectReason;
    pub use crate::transport::{CredentialsError, Role};
}

/// Imports for most programs: `use roadshow::prelude::*;`.
pub mod prelude {
    pub use actix::prelude::{
        Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, Message,
        MessageResult, Response, ResponseActFuture, ResponseFuture, WrapFuture,
    };
    pub use serde::{Deserialize, Serialize};

    pub use crate::{
        Cluster, ClusterRef, EndReason, Handles, Lifetime, Payload, RemoteActor, RemoteAddr, RemoteData,
        RemoteMessage, RemoteRecipient, Resources, Restart, Retry, SendError, Spawn, SpawnContext,
        SpawnError, Strategy, TaskError, Terminated,
    };
}

/// Enters the worker loop in a test executable that was started as a worker.
///
/// Each test executable whose tests start a cluster needs it once. It expands to one test, which does
/// nothing unless the executable runs as a worker.
///
/// ```
/// # mod tests {
/// roadshow::worker_test!();
/// # }
/// ```
#[macro_export]
macro_rules! worker_test {
    () => {
        #[test]
        fn roadshow_worker() {
            $crate::run_if_worker();
        }

        $crate::__private::inventory::submit! {
            $crate::__private::WorkerTest::new(concat!(module_path!(), "::roadshow_worker"))
        }
    };
}

/// Runs a function in each worker process before anything else.
///
/// It is meant for process-wide settings of a program, such as its `tracing` subscriber. It takes a function
/// or a closure without arguments, in any module; several run in the order of their modules and lines.
/// Workers run it before any task or actor, on a separate thread outside of a runtime. The driver does not
/// run it, nor do workers that are threads ([`Cluster::in_process`]). A panic in it becomes the error of the
/// cluster's start.
///
/// If it installs no `tracing` subscriber, the worker has the library's, which `ROADSHOW_LOG` controls.
///
/// # Examples
///
/// ```no_run
/// roadshow::worker_setup!(|| tracing_subscriber::fmt().with_target(false).init());
///
/// #[roadshow::main]
/// async fn main() -> Result<(), roadshow::Error> {
///     // The driver's own subscriber, before or after its cluster starts.
///     tracing_subscriber::fmt().with_writer(std::io::stderr).init();
///     let cluster = roadshow::Cluster::init().await?;
///     Ok(cluster.shutdown().await?)
/// }
/// ```
#[macro_export]
macro_rules! worker_setup {
    ($setup:expr $(,)?) => {
        $crate::__private::inventory::submit! {
            $crate::__private::WorkerSetup::new(module_path!(), line!(), $setup)
        }
    };
}

/// Layers below the public API, for the benches, fuzz targets and simulation of this repository.
///
/// SemVer does not cover them.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "cli")]
    pub use crate::cluster::ControlPlaneBench;

    /// Limits of the message layer and of clusters.
    pub mod config {
        pub use crate::config::*;
    }
    /// States of durable actors, and what travels to their holders.
    pub mod durable {
        pub use crate::cluster::MemoryStates;
        pub use crate::durable::flat::{decode, encode};
        pub use crate::durable::protocol::*;
    }
    /// Part of a process that speaks the protocol.
    pub mod host {
        pub use crate::host::*;
    }
    /// Identities of hosts, actors, calls and links.
    pub mod id {
        pub use crate::id::*;
    }
    /// Actor types, messages and tasks of this executable.
    pub mod registry {
        pub use crate::registry::*;
    }
    /// Requests and spawning.
    pub mod remote {
        pub use crate::remote::*;
    }
    /// State machines of what two hosts have open with each other.
    pub mod session {
        pub use crate::session::*;
    }
    /// Constraints of actors.
    pub mod spec {
        pub use crate::spec::*;
    }
    /// Execution of tasks.
    pub mod task {
        pub use crate::task::*;
    }
    /// Sockets, TLS, and the network in memory.
    pub mod transport {
        pub use crate::transport::*;
    }
    /// Frames and their bytes.
    pub mod wire {
        pub use crate::wire::*;
    }
}

/// Simulation of clusters: a head, agents, workers and drivers in one thread and in virtual time.
///
/// SemVer does not cover it yet.
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim {
    pub use crate::cluster::sim::{
        Journal, Lists, Machine, Pausable, Paused, Plan, SimDriver, World, WorldError, spawn_local,
    };
}

/// Items that the macros' expansions name; not for programs.
#[doc(hidden)]
pub mod __private {
    pub use actix;
    pub use inventory;

    pub use crate::cluster::{WorkerSetup, WorkerTest};
    pub use crate::durable::{OutboxRegistration, durable_handler};
    pub use crate::id::TypeHash;
    pub use crate::lock::held as locks_held;
    pub use crate::registry::{ControlMessage, Delivery, Registration};
    pub use crate::registry::{response, schema};
    pub use crate::remote::SpawnRegistration;

    /// Runs a `main` as a task.
    ///
    /// A wake-up of the future that `block_on` itself polls costs a poll of the operating system's events first.
    pub fn block_on<F: Future<Output: 'static> + 'static>(main: F) -> F::Output {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let system = actix_rt::System::with_tokio_rt(|| runtime);
                let output = system.block_on(async { actix_rt::spawn(main).await });
                crate::observe::trace::flush();
                match output {
                    Ok(output) => output,
                    // The task is never aborted, so the error is a panic of `main`.
                    // Resumed on this thread, so that the process exits as after any panic of `main`.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
            Err(error) => {
                eprintln!(
                    "error: cannot start a runtime: {error}; raise the limit of open files or of memory"
                );
                std::process::exit(1)
            }
        }
    }
}

/// The Rust code of the pages, which `cargo test` compiles and runs as it stands there.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/handbook.md")]
    mod handbook {}
    #[doc = include_str!("../docs/migration.md")]
    mod migration {}
    #[doc = include_str!("../docs/programs.md")]
    mod programs {}
    #[doc = include_str!("../docs/supervision.md")]
    mod supervision {}
    #[doc = include_str!("../docs/durable.md")]
    mod durable {}
}
