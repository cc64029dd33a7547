//! Clusters of nodes as an operator runs them: the real command, real daemons, and programs that join.
//!
//! Each test has its own cluster, in its own directories, on free ports. The programs are this executable, which
//! re-executes itself in the role of a driver (see [`job`]).

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

mod addresses;
mod cast;
mod endings;
mod intruders;
mod job;
mod lists;
mod logs;
mod losses;
mod machines;
mod names;
mod neighbours;
mod netns;
mod nodes;
mod offspring;
mod outages;
mod placing;
mod proc;
mod secrets;
mod site;
mod spreading;
mod submit;
mod tokens;
mod users;

roadshow::worker_test!();
