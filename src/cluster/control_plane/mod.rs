//! Decisions of a cluster: which node runs what, what is alive, and what follows when something ends.
//!
//! [`state`] takes events and returns actions; [`scheduler`] chooses nodes; [`lease`] says when a member
//! counts as dead. Nothing here does input or output, reads a clock or waits: `control_service` is the shell
//! that does, for the head of a cluster of nodes and for a local cluster alike.

mod event;
pub(super) mod lease;
pub(super) mod scheduler;
pub(super) mod state;
