//! Clusters of nodes as an operator runs them: the real command, real daemons, and programs that join.
//!
//! Each test has its own cluster, in its own directories, on free ports. The programs are this executable, which
//! re-executes itself in the role of a driver (see [`job`]).

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

mod addresses;
#[cfg(feature = "dashboard")]
mod dashboard;
mod descendants;
mod durable;
mod endings;
mod exclusive;
mod failures;
mod faults;
mod fixtures;
mod intruders;
mod job;
mod lists;
mod logs;
mod machines;
mod names;
mod netns;
mod nodes;
mod other_jobs;
mod outages;
mod placement;
mod proc;
mod provisioning;
mod reachability;
mod restarts;
mod secrets;
mod statistics;
mod submit;
mod test_cluster;
mod tokens;
mod top;
mod users;
mod watching;

roadshow::worker_test!();
