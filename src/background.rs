//! Tasks of the library's own on a tokio runtime.
//!
//! Tokio generates its task harness, some twenty functions, for each type of future that is spawned, and a second
//! one for the case that the future is large. The futures here are boxed, so those with one type of output share a
//! harness. The cost is one allocation for each task, so it is not for tasks that each message needs.

use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Spawns a future on the runtime of `io`.
pub(crate) fn spawn_on<T: Send + 'static>(
    io: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
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
