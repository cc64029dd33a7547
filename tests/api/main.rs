//! Tests of the public interface, over real sockets.
//!
//! Most tests run several hosts in this process ([`hosts`]). Those about processes start a cluster whose
//! workers run this test executable.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

mod addresses;
mod blocking;
mod breaks;
mod calls;
mod cancellation;
mod cast;
mod chunks;
mod crossed;
mod deadlines;
mod errors;
mod examples;
mod flow;
mod forgotten;
mod forms;
mod hosts;
mod in_process;
mod intruders;
mod leaving;
mod ledger;
mod limits;
mod links;
mod liveness;
mod most_frequent_word;
mod panics;
mod processes;
mod proxy;
mod raw;
mod retry;
mod room;
mod stopping;
mod stress;
mod subscriber;
mod tasks;
mod threads;
mod transports;
mod values;
mod waiting;
mod wishes;
mod words;

roadshow::worker_test!();
