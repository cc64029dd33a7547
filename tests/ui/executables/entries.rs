//! Program with several entries; an environment variable selects one.
//!
//! It starts a local cluster and prints the outcome.

use std::env;

use roadshow::prelude::*;

// The call blocks, which panics on a thread within a runtime, such as the first one of `tokio_entry`.
roadshow::worker_setup!(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("there are files left");
    runtime.block_on(async {});
});

#[roadshow::task]
fn pid() -> u32 {
    std::process::id()
}

fn main() {
    match env::var("ENTRY").as_deref() {
        Ok("actix") => actix_entry(),
        Ok("tokio") => tokio_entry(),
        Ok("undiverted") => actix::System::new().block_on(run()),
        Ok("late") => {
            // Its workers have no arguments to find the entry by.
            let _ = env::args().nth(1).expect("there is an argument");
            roadshow::run_if_worker();
            actix::System::new().block_on(run());
        }
        _ => println!("no such entry"),
    }
}

#[actix::main]
async fn actix_entry() {
    roadshow::run_if_worker();
    run().await;
}

#[tokio::main(flavor = "current_thread")]
async fn tokio_entry() {
    roadshow::run_if_worker();
    run().await;
}

async fn run() {
    match Cluster::local(2).await {
        Ok(cluster) => {
            let ran = cluster.run(pid::task()).await;
            // A worker whose entry was not detected would run this program again.
            let elsewhere = ran.is_ok_and(|pid| cluster.workers().iter().any(|worker| worker.pid == pid));
            let ended = cluster.shutdown().await;
            println!("answered by a worker: {elsewhere}, ended: {ended:?}");
        }
        Err(error) => println!("{error}"),
    }
}
