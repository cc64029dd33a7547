//! The thread that serves a host's links.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};

use actix_rt::ArbiterHandle;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::transport::BoxFuture;

/// Where a host's links are read and written.
///
/// A link on the arbiter of the actors it serves saves each message a wake-up between threads.
#[derive(Clone, Debug)]
pub enum Executor {
    /// The thread of an actix arbiter.
    Arbiter(ArbiterHandle),
    /// A tokio runtime, for a program that runs no actix system.
    Runtime(Handle),
    /// A thread with a tokio `LocalSet`, for as long as the [`Spawning`] made with it runs there.
    Local(LocalExecutor),
}

/// The way to a thread with a `LocalSet` that does not depend on its arbiter.
///
/// User code on that thread may stop the arbiter: `Arbiter::current().stop()` is a public function.
#[derive(Clone)]
pub struct LocalExecutor(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

/// Spawns on its own thread what a [`LocalExecutor`] is given.
#[derive(Debug)]
pub struct Spawning(mpsc::UnboundedReceiver<BoxFuture<'static, ()>>);

impl Spawning {
    /// Spawns what comes, until no executor is left that could give more.
    ///
    /// # Panics
    ///
    /// Outside a `LocalSet`.
    ///
    /// # Cancel safety
    ///
    /// What was given and not spawned is dropped with the future.
    pub async fn run(mut self) {
        while let Some(future) = self.0.recv().await {
            drop(tokio::task::spawn_local(future));
        }
    }
}

impl fmt::Debug for LocalExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalExecutor")
    }
}

impl Executor {
    /// An executor for the thread that will run the second part.
    #[must_use]
    pub fn local() -> (Self, Spawning) {
        #[expect(
            clippy::disallowed_methods,
            reason = "as an arbiter's own queue: it holds one future a link or queue of tasks, which are bounded"
        )]
        let (give, take) = mpsc::unbounded_channel();
        (Self::Local(LocalExecutor(give)), Spawning(take))
    }

    /// The arbiter of this thread if it has one, else `runtime`.
    #[must_use]
    pub fn here_or(runtime: &Handle) -> Self {
        actix_rt::Arbiter::try_current().map_or_else(|| Self::Runtime(runtime.clone()), Self::Arbiter)
    }

    /// The thread that serves links, once it has told; never, where a runtime's threads take turns.
    pub(super) fn thread(&self) -> Arc<OnceLock<ThreadId>> {
        let known = Arc::<OnceLock<_>>::default();
        if !matches!(self, Self::Runtime(_)) {
            let told = Arc::clone(&known);
            self.spawn(async move {
                told.get_or_init(|| thread::current().id());
            });
        }
        known
    }

    /// Runs a future there, or drops it if the thread has ended.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Arbiter(arbiter) => {
                arbiter.spawn(future);
            }
            Self::Runtime(runtime) => {
                runtime.spawn(future);
            }
            Self::Local(LocalExecutor(thread)) => {
                // Where the thread has ended the future is dropped.
                let _ = thread.send(Box::pin(future));
            }
        }
    }
}
