//! The limit of open files: raised once, and named where it is reached.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::observe::log;

/// Raises the soft limit of this process to the hard one.
///
/// The soft limit is 1,024 on most machines, for programs that use `select(2)`. Each worker takes some ten
/// files of its parent, and one for each other worker that it talks to. Processes that this one starts have the
/// same limit.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::debug!(%error, "the soft limit of open files cannot be raised to the hard limit");
    }
}
