//! Thread that drives a host's links.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};

use actix_rt::ArbiterHandle;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::transport::BoxFuture;

/// Executor of the tasks that drive a host's links.
///
/// A link on the arbiter of its actors saves each message a wake-up of another thread.
#[derive(Clone, Debug)]
pub enum Executor {
    /// Thread of an actix arbiter.
    Arbiter(ArbiterHandle),
    /// Tokio runtime, for a program without an actix system.
    Runtime(Handle),
    /// Thread with a tokio `LocalSet`, while the [`Spawning`] created with it runs there.
    Local(LocalExecutor),
}

/// Handle to a thread with a `LocalSet` that does not depend on its arbiter.
///
/// User code on that thread may stop the arbiter: `Arbiter::current().stop()` is a public function.
#[derive(Clone)]
pub struct LocalExecutor(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

/// Receiving half of a [`LocalExecutor`], which spawns the futures on its own thread.
#[derive(Debug)]
pub struct Spawning(mpsc::UnboundedReceiver<BoxFuture<'static, ()>>);

impl Spawning {
    /// Spawns received futures until all handles are dropped.
    ///
    /// # Panics
    ///
    /// Outside a `LocalSet`.
    ///
    /// # Cancel safety
    ///
    /// Futures that were received and not spawned are dropped with this one.
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
    /// Creates an executor for the thread that will run the second part.
    #[must_use]
    pub fn local() -> (Self, Spawning) {
        #[expect(
            clippy::disallowed_methods,
            reason = "like an arbiter's own queue, it holds one future for each link or task queue, which are bounded"
        )]
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self::Local(LocalExecutor(sender)), Spawning(receiver))
    }

    /// Arbiter of this thread, or `runtime` if there is none.
    #[must_use]
    pub fn here_or(runtime: &Handle) -> Self {
        actix_rt::Arbiter::try_current().map_or_else(|| Self::Runtime(runtime.clone()), Self::Arbiter)
    }

    /// Id of the thread, set once it has run; never set for a runtime, whose threads alternate.
    pub(super) fn thread(&self) -> Arc<OnceLock<ThreadId>> {
        let id = Arc::<OnceLock<_>>::default();
        // Tasks of a runtime move between threads, so it has no single id.
        if !matches!(self, Self::Runtime(_)) {
            let reported = Arc::clone(&id);
            self.spawn(async move {
                reported.get_or_init(|| thread::current().id());
            });
        }
        id
    }

    /// Runs a future on the thread, or drops it if the thread has ended.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        // Each runtime would generate its code for each type of future.
        let future: BoxFuture<'static, ()> = Box::pin(crate::background::inherit(future));
        match self {
            Self::Arbiter(arbiter) => {
                arbiter.spawn(future);
            }
            Self::Runtime(runtime) => {
                runtime.spawn(future);
            }
            Self::Local(LocalExecutor(thread)) => {
                // A thread that has ended drops the future.
                let _ = thread.send(future);
            }
        }
    }
}
