//! The receiving side: a host that runs tasks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::host::{Host, scope};
use crate::id::TypeHash;
use crate::registry::Inbound;
use crate::wire::CallFailure;

/// What a host of tasks does when it is called itself: it runs them.
pub struct TaskService {
    pool: Handle,
    /// For each pooled task, how many may run side by side.
    permits: Mutex<FxHashMap<TypeHash, Arc<Semaphore>>>,
}

impl TaskService {
    /// A service whose pooled tasks run on the blocking threads of `pool`.
    #[must_use]
    pub fn new(pool: Handle) -> Self {
        Self { pool, permits: Mutex::default() }
    }

    /// Runs the task that `inbound` holds the arguments of: here and now, or in the pool.
    pub fn run(&self, host: &Host, name: TypeHash, inbound: Inbound) {
        let Some(task) = host.registry().task(name) else {
            return inbound.fail(&CallFailure::NotHandled {
                actor: "this executable".to_owned(),
                message: format!("task {}", host.registry().name_of(name)),
            });
        };
        match task.parallel {
            None => (task.run)(inbound),
            Some(width) => self.run_in_pool(host.clone(), name, width, task.run, inbound),
        }
    }

    fn run_in_pool(&self, host: Host, name: TypeHash, width: usize, run: fn(Inbound), inbound: Inbound) {
        let permits = {
            let mut all = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(name).or_insert_with(|| Arc::new(Semaphore::new(width))))
        };
        let pool = self.pool.clone();
        self.pool.spawn(async move {
            // The semaphore is never closed.
            let Ok(permit) = permits.acquire_owned().await else { return };
            pool.spawn_blocking(move || {
                let _scope = scope::enter(&host);
                run(inbound);
                drop(permit);
            });
        });
    }
}

impl fmt::Debug for TaskService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskService").finish_non_exhaustive()
    }
}
