//! Set-up functions of a program, run by its workers before anything else.

use super::ClusterError;
use crate::registry::panics;

/// A function that each worker process runs first.
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
    /// The function that `line` of `module` registers.
    #[must_use]
    pub const fn new(module: &'static str, line: u32, run: fn()) -> Self {
        Self { module, line, run }
    }
}

/// Runs the functions that this executable has registered, in the order of their modules and lines.
pub(super) fn run_all() -> Result<(), ClusterError> {
    let mut all: Vec<_> = inventory::iter::<WorkerSetup>.into_iter().collect();
    all.sort_by_key(|setup| (setup.module, setup.line));
    for WorkerSetup { module, line, run } in all {
        panics::catch(run).map_err(|text| ClusterError::Setup { module, line: *line, text })?;
    }
    Ok(())
}
