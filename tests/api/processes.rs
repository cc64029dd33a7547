//! Clusters of processes: what is started, what remains at the end, and the cost of a worker's death.
//!
//! Some tests start this executable again as a separate driver (see [`driver`]), because they kill it or
//! need an environment that other tests must not have.

mod descendants;
mod driver;
mod driver_exit;
mod fixtures;
mod lifecycle;
mod output;
mod pauses;
pub(crate) mod process_table;
mod settings;
mod starts;
mod stops;
mod traces;
mod tracing;
mod watching;
mod worker_loss;
