//! The library as programs use it: through its public interface, over real sockets.
//!
//! Most tests run several hosts in this process ([`hosts`]); those about processes start a cluster of
//! this very executable.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

mod addresses;
mod calls;
mod cancellation;
mod cast;
mod deadlines;
mod examples;
mod forms;
mod hosts;
mod in_process;
mod intruders;
mod limits;
mod links;
mod most_frequent_word;
mod panics;
mod processes;
mod raw;
mod tasks;
mod transports;
mod words;

roadshow::worker_test!();
