//! Exit codes. Scripts rely on these numbers, so they never change.

/// Success.
pub(crate) const OK: u8 = 0;
/// Failure without a code of its own.
pub(crate) const FAILED: u8 = 1;
/// Invalid arguments; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// No cluster is known, or it does not answer at its address.
pub(crate) const UNREACHABLE: u8 = 3;
/// The token is missing, mistyped, or of another cluster.
pub(crate) const REFUSED: u8 = 4;
/// No such node, job, worker, actor, log or session.
pub(crate) const NO_SUCH_THING: u8 = 5;
/// The actor still runs after the timeout of `kill`.
pub(crate) const STILL_RUNS: u8 = 6;

/// Help text about exit codes.
pub(crate) const HELP: &str = "\
Exit codes:
  0  success
  1  failure without a code of its own
  2  invalid arguments
  3  no cluster is known, or it does not answer at its address
  4  the token is missing, or the cluster rejects it
  5  no such node, job, worker, actor, log or session
  6  the actor still runs after the timeout of `kill`
  `job submit` ends with the exit code of the job, if the job has run.

Errors are written to standard error, one line each: the cause; the next step.";
