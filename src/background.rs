//! Tasks of the library's own on a tokio runtime.
//!
//! Tokio generates its task harness, some twenty functions, for each type of future that is spawned, and a second
//! one for the case that the future is large. The futures here are boxed, so those with one type of output share a
//! harness. The cost is one allocation for each task, so it is not for tasks that each message needs.

#[cfg(feature = "sim")]
pub(crate) mod gate;

use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Puts a future that is about to be spawned behind the gate of the present simulated process, which may be paused.
#[cfg(feature = "sim")]
pub(crate) use gate::inherit;

/// Returns the future: without a simulation nothing pauses a process but the system.
#[cfg(not(feature = "sim"))]
pub(crate) fn inherit<F: Future>(future: F) -> F {
    future
}

/// Spawns a future on the runtime of `io`.
pub(crate) fn spawn_on<T: Send + 'static>(
    io: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(inherit(future));
    io.spawn(future)
}

/// Spawns a future on the runtime of this thread.
///
/// # Panics
///
/// Outside a runtime.
#[track_caller]
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    spawn_on(&Handle::current(), future)
}
