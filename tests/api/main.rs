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
mod calls;
mod cancellation;
mod capacity;
mod chunks;
mod constraints;
mod crossed_dials;
mod deadlines;
mod durable;
mod errors;
mod examples;
mod exclusive;
mod fixtures;
mod flow_control;
mod forgotten;
mod hosts;
mod in_process;
mod intruders;
mod limits;
mod link_breaks;
mod links;
mod liveness;
mod memory;
mod most_frequent_word;
mod panics;
mod processes;
mod proxy;
mod raw;
mod recorder;
mod response_types;
mod restarts;
mod retry;
mod shutdown;
mod stopping;
mod stress;
mod subscriber;
mod supervision;
mod tasks;
mod threads;
mod timeouts;
mod transports;
mod values;
mod watching;
mod words;

roadshow::worker_test!();
