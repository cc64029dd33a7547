//! Clusters of processes: what is started, what remains at the end, and the cost of a worker's death.
//!
//! Some tests start this executable again as a separate driver (see [`driver`]), because they kill it or
//! need an environment that other tests must not have.

mod cast;
mod driver;
mod ends;
mod lives;
mod loss;
mod offspring;
mod output;
mod pauses;
mod settings;
mod starts;
mod stops;
mod table;
mod tracing;
