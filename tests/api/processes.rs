//! Clusters as processes: what is started, what is left at the end, and what a worker's death costs.
//!
//! Some tests start this executable again as a driver of its own (see [`driver`]), because they end
//! it, or need an environment that other tests must not have.

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
