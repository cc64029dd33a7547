//! The lecture's first demonstration: four calls of a second each, in sequence and as tasks.
//!
//! ```text
//! cargo run --release --example sleep
//! ```
//!
//! Four workers sleep during the same second, however many cores there are.

use std::thread;
use std::time::{Duration, Instant};

use roadshow::prelude::*;

#[roadshow::task]
#[expect(clippy::disallowed_methods, reason = "a task has a thread to itself while it runs")]
fn f(i: u32) -> u32 {
    thread::sleep(Duration::from_secs(1));
    i
}

#[roadshow::main]
async fn main() -> Result<(), roadshow::Error> {
    let start = Instant::now();
    let results: Vec<u32> = (0..4).map(f).collect();
    println!("sequential: {results:?} in {:.2} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let cluster = Cluster::builder().workers(4).start().await?;
    println!("the cluster started in {:.2} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let results = cluster.run_all((0..4).map(f::task)).await?;
    println!("tasks:      {results:?} in {:.2} s", start.elapsed().as_secs_f64());

    cluster.shutdown().await?;
    Ok(())
}
