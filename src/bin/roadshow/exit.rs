//! What the end of a command tells the operating system. Scripts rely on these numbers: they never change.

/// All that was asked for is done.
pub(crate) const OK: u8 = 0;
/// It could not be done, for a reason that none of the others is.
pub(crate) const FAILED: u8 = 1;
/// The arguments make no sense; nothing was begun.
pub(crate) const USAGE: u8 = 2;
/// No cluster is known, or nobody answers at its address.
pub(crate) const UNREACHABLE: u8 = 3;
/// The cluster refuses: there is no token, or it is mistyped, or another cluster's.
pub(crate) const REFUSED: u8 = 4;
/// There is no such node, job, worker, actor, log or session.
pub(crate) const NO_SUCH_THING: u8 = 5;
/// What was asked to end still runs.
pub(crate) const STILL_RUNS: u8 = 6;

/// The same for people.
pub(crate) const HELP: &str = "\
Exit codes:
  0  all that was asked for is done
  1  it could not be done
  2  the arguments make no sense
  3  no cluster is known, or nobody answers at its address
  4  no token, or one that the cluster refuses
  5  there is no such node, job, worker, actor, log or session
  6  the actor was asked to end and still runs
  `job submit` ends with the job's own code when the job has run.

Errors go to the standard error, one line each: what is wrong; what to do next.";
