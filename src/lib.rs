//! Actix actors and plain functions that run in other processes, on this machine or on many, from one program.
//!
//! The cluster is a set of worker processes of this machine, or, where `ROADSHOW_ADDRESS` names one, the
//! machines that the command `roadshow` (feature `cli`) has put together.
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
//! # What an actor may ask for
//!
//! [`Cluster::spawn`](ClusterRef::spawn) gives a [`SpawnRequest`], which takes a name, [`Resources`], a
//! [`Strategy`], a node or a [`Lifetime`]; [`ClusterRef::actor`] finds a named actor.
//!
//! # Errors
//!
//! Each operation has an enum of its own: [`ClusterError`] to start or join, [`SpawnError`] and
//! [`PlacementError`] to spawn, [`FindError`] to find, [`SendError`] to send, [`TaskError`] to run.
//! [`Error`] takes all of these with `?`.
//!
//! # The layers, from the bytes up
//!
//! | module | what it owns |
//! |---|---|
//! | [`id`], [`config`] | identities; every limit with its reason |
//! | [`spec`] | what an actor may ask for; the keys of nodes, jobs, workers and actors |
//! | [`wire`] | frames and their bytes |
//! | [`session`] | handshakes, and what two hosts have open with each other over all their links |
//! | [`transport`] | sockets, and TLS between machines |
//! | [`registry`] | from a message's name to its handler |
//! | [`host`] | the part of a process that speaks the protocol |
//! | [`remote`] | [`RemoteAddr`], [`RemoteRecipient`], requests, spawning |
//! | [`task`](mod@task) | functions that run elsewhere |
//! | `cluster` | worker processes; the head, agents and drivers of a cluster of nodes |
//! | [`model`] | of that, what people see: nodes, jobs, workers, actors and their states |
//! | [`observe`] | what can be seen of a running host |
//! | [`words`] | the application that all this grew from: the most frequent word of a book |
//!
//! `wire` and `session` do no input or output and read no clock; `docs/architecture.md` has the
//! invariants, `docs/protocol.md` every byte, `docs/semantics.md` what is promised and what is not,
//! `docs/operations.md` how a cluster is run, and `docs/README.md` is an index of all pages.

//!
//! # Under another name
//!
//! Where the dependency has another name in `Cargo.toml`, or another crate re-exports this one, each macro is
//! told by `crate = path`, as serde's are: `#[roadshow::task(crate = rs)]`, `#[roadshow::main(crate = rs)]`, and
//! `#[remote(crate = rs)]` on what derives. [`actix`] and [`serde`] are re-exported for programs that do not
//! depend on them: `#[serde(crate = "rs::serde")]` is serde's own attribute, and `#[remote(result = u64)]` on a
//! message stands for actix's derive of `Message` and its `#[rtype(..)]`.

extern crate self as roadshow;

#[doc(no_inline)]
pub use {actix, serde};

mod cluster;
pub mod config;
mod error;
pub mod host;
pub mod id;
mod lock;
pub mod observe;
pub mod registry;
pub mod remote;
pub mod session;
pub mod spec;
pub mod task;
pub mod transport;
pub mod wire;
pub mod words;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cluster::ControlPlaneBench;
pub use cluster::{
    Cluster, ClusterBuilder, ClusterError, ElfError, ExecutableError, InProcess, Platform, PlatformMismatch,
    TokenRpcError, WorkerInfo, model, run_if_worker,
};
#[cfg(feature = "cli")]
pub use cluster::{admin, daemon};
pub use config::Limits;
pub use error::Error;
pub use host::{NotDelivered, OutcomeUnknown, PlacementError, SendError};
pub use registry::{HandledBy, Handles, RemoteActor, RemoteData, RemoteMessage, TaskFn};
pub use remote::{
    ClusterRef, FindError, RemoteAddr, RemoteRecipient, Request, Retry, Spawn, SpawnContext, SpawnError,
    SpawnRequest, TrySendError,
};
pub use roadshow_macros::{RemoteActor, RemoteData, RemoteMessage, main, task};
pub use spec::{Lifetime, NodeId, Resources, Strategy};
pub use task::{RunAll, RunTask, Task, TaskError};
pub use wire::{Payload, payload};

/// What most programs need: `use roadshow::prelude::*;`.
pub mod prelude {
    pub use actix::prelude::{
        Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, Message,
        MessageResult, Response, ResponseActFuture, ResponseFuture, WrapFuture,
    };
    pub use serde::{Deserialize, Serialize};

    pub use crate::{
        Cluster, ClusterRef, Handles, Lifetime, Payload, RemoteActor, RemoteAddr, RemoteData, RemoteMessage,
        RemoteRecipient, Resources, Retry, SendError, Spawn, SpawnContext, SpawnError, Strategy, TaskError,
    };
}

/// Takes over a test executable that was started as a worker.
///
/// Put it once into each test executable whose tests start a cluster. It expands to one test, which
/// does nothing unless the executable runs as a worker.
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
/// This is the place for what a program sets up for a whole process, such as where its events go. Put it
/// into any module; several run in the order of their modules and lines. It takes a function or a closure
/// without arguments. Workers run it before any task or actor, on a thread of its own, outside of a runtime;
/// the driver does not run it, nor do workers that are threads ([`Cluster::in_process`]). A panic in it is
/// the error that the cluster's start returns.
///
/// A worker in which it installs no subscriber of `tracing` has the library's, which `ROADSHOW_LOG`
/// controls.
///
/// # Examples
///
/// ```no_run
/// roadshow::worker_setup!(|| tracing_subscriber::fmt().with_target(false).init());
///
/// #[roadshow::main]
/// async fn main() -> Result<(), roadshow::Error> {
///     // The driver's own, before or after its cluster starts.
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

/// What the macros' expansions name. Not for programs.
#[doc(hidden)]
pub mod __private {
    pub use actix;
    pub use inventory;

    pub use crate::cluster::{WorkerSetup, WorkerTest};
    pub use crate::id::TypeHash;
    pub use crate::lock::held as locks_held;
    pub use crate::registry::{ControlMessage, Delivery, Registration};
    pub use crate::registry::{response, schema};
    pub use crate::remote::SpawnRegistration;

    /// Runs a `main`: as a task, since whatever wakes the future that `block_on` itself polls costs a
    /// look at the operating system's events before it is polled.
    pub fn block_on<F: Future<Output: 'static> + 'static>(main: F) -> F::Output {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let system = actix_rt::System::with_tokio_rt(|| runtime);
                match system.block_on(async { actix_rt::spawn(main).await }) {
                    Ok(output) => output,
                    // Nobody aborts it.
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
}
