//! The thread that serves a host's links.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};

use actix_rt::ArbiterHandle;
use tokio::runtime::Handle;

/// Where a host's links are read and written.
///
/// A link on the arbiter of the actors it serves saves each message a wake-up between threads.
#[derive(Clone, Debug)]
pub enum Executor {
    /// The thread of an actix arbiter.
    Arbiter(ArbiterHandle),
    /// A tokio runtime, for a program that runs no actix system.
    Runtime(Handle),
}

impl Executor {
    /// The arbiter of this thread if it has one, else `runtime`.
    #[must_use]
    pub fn here_or(runtime: &Handle) -> Self {
        actix_rt::Arbiter::try_current().map_or_else(|| Self::Runtime(runtime.clone()), Self::Arbiter)
    }

    /// The thread of an arbiter, once it has told.
    pub(super) fn thread(&self) -> Arc<OnceLock<ThreadId>> {
        let known = Arc::<OnceLock<_>>::default();
        if let Self::Arbiter(arbiter) = self {
            let told = Arc::clone(&known);
            arbiter.spawn_fn(move || {
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
        }
    }
}
