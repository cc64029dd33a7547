//! Worker processes, seen from the process that starts them.
//!
//! [`process`] forks and executes a worker, holds its control socket and reports its end. [`fd_passing`] hands
//! accepted connections to it, [`descendants`] finds and ends what it has started, [`user_ids`] runs it as
//! another user, [`oom`] tells kills for want of memory from others. `worker` implements the other end of the control socket.

pub(super) mod children;
pub(super) mod contract;
pub(super) mod control_socket;
pub(super) mod descendants;
pub(super) mod fd_passing;
pub(super) mod oom;
pub(super) mod process;
pub(super) mod user_ids;
