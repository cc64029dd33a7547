//! Limit of open files of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::observe::log;

/// Raises the soft limit of this process to the hard one.
///
/// The soft limit is 1,024 on most machines, for the sake of programs that use `select(2)`. Each worker takes about
/// ten descriptors of its parent, and one for each worker it talks to. Child processes inherit the limit.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::debug!(%error, "the soft limit of open files cannot be raised to the hard limit");
    }
}
