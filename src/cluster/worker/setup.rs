//! Set-up functions of a program, which its workers run before anything else.

use std::thread;

use crate::cluster::error::ClusterError;
use crate::registry::panics;

/// Function that each worker process runs first.
///
/// Registered by `worker_setup!`.
#[derive(Debug)]
pub struct WorkerSetup {
    module: &'static str,
    line: u32,
    run: fn(),
}

inventory::collect!(WorkerSetup);

impl WorkerSetup {
    /// Function that `line` of `module` registers.
    #[must_use]
    pub const fn new(module: &'static str, line: u32, run: fn()) -> Self {
        Self { module, line, run }
    }
}

/// Runs the functions that this executable has registered, in the order of their modules and lines.
///
/// They run on a thread of their own. The calling thread may be inside a runtime of the program, where tokio panics
/// if a function starts a runtime or blocks on one.
pub(crate) fn run_all(stack_bytes: usize) -> Result<(), ClusterError> {
    if inventory::iter::<WorkerSetup>.into_iter().next().is_none() {
        return Ok(());
    }
    let running =
        thread::Builder::new().name("roadshow-setup".to_owned()).stack_size(stack_bytes).spawn(run)?;
    running.join().expect("panics of the functions are caught")
}

fn run() -> Result<(), ClusterError> {
    let mut all: Vec<_> = inventory::iter::<WorkerSetup>.into_iter().collect();
    // The linker decides the order of registration; sorting makes it the same in every build.
    all.sort_by_key(|setup| (setup.module, setup.line));
    for WorkerSetup { module, line, run } in all {
        panics::catch(run).map_err(|text| ClusterError::Setup { module, line: *line, text })?;
    }
    Ok(())
}
