//! Decisions of a cluster: placement, membership, and the consequences of every failure.
//!
//! [`state`] takes events and returns actions; [`scheduler`] chooses nodes; [`lease`] decides when a member
//! counts as dead. All of it is pure: no input or output, no clock, no waiting. `control_service` drives it,
//! for the head of a cluster and for a local cluster alike.

mod event;
pub(super) mod lease;
pub(super) mod scheduler;
pub(super) mod state;
