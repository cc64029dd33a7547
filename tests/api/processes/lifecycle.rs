//! The environment of a worker, and the lifecycle of a cluster within its driver.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use actix::System;
use roadshow::prelude::*;

use super::driver::{Driver, await_go, report};
use super::fixtures::{Pid, Worker, pid, print_a_line, start_a_program};
use super::process_table::{all_end_within, listens_at, loopback, runs, strings};

/// Maximum time of a shutdown that waits for nothing.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.workers().iter().map(|worker| worker.pid).collect()
}

/// Driver: lets a task print, and reports the start and the end of the cluster.
pub(super) async fn print() {
    report("starts");
    let cluster = Cluster::local(1).await.unwrap();
    cluster.run(print_a_line::task()).await.unwrap();
    cluster.spawn::<Worker>(()).await.unwrap().send(Pid).await.unwrap();
    await_go().await;
    cluster.shutdown().await.unwrap();
    report("has ended");
    std::process::exit(0);
}

#[test]
fn standard_output_belongs_to_the_driver_alone() {
    let mut command = Driver::command("print");
    command.env("ROADSHOW_LOG", "trace");
    let mut driver = Driver::start(command);
    driver.wait_for_error_lines(&["a task prints"], 1);
    driver.go();
    assert!(driver.wait().success());
    let (printed, _) = driver.output();
    let from = printed.iter().position(|line| line == "driver: starts").unwrap();
    assert_eq!(printed[from..], ["driver: starts", "", "driver: has ended"]);
}

#[test]
fn worker_has_no_secret_in_its_arguments_and_environment() {
    let system = System::new();
    let cluster = system.block_on(Cluster::local(1)).unwrap();
    let ours: HashSet<_> = strings(std::process::id(), "environ").into_iter().collect();
    for worker in pids(&cluster) {
        let arguments = ["roadshow-worker", "roadshow_worker", "--exact", "--nocapture", "--test-threads=1"];
        assert_eq!(strings(worker, "cmdline"), arguments);
        let mut added = strings(worker, "environ");
        // Inherited variables may be secrets of the user, so a failure must not print them.
        added.retain(|variable| !ours.contains(variable));
        added.sort_unstable();
        let [mark, variable] = &added[..] else { panic!("{} variables were added", added.len()) };
        let value = variable.strip_prefix("ROADSHOW_WORKER=").unwrap();
        // Pids and start times only; a secret of 32 bytes would not fit.
        assert!(
            value.len() < 32 && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b':'),
            "{value}"
        );
        // The mark by which the worker's descendants are found; half as long as a secret.
        let mark = mark.strip_prefix("ROADSHOW_STARTED_BY=").unwrap();
        assert_eq!(mark.len(), 32, "{mark}");
    }
}

#[test]
fn worker_reads_nothing_and_listens_on_loopback_only() {
    let system = System::new();
    let cluster = system.block_on(Cluster::local(2)).unwrap();
    for worker in cluster.workers() {
        assert_eq!(fs::read_link(format!("/proc/{}/fd/0", worker.pid)).unwrap().to_str(), Some("/dev/null"));
        let listening = listens_at(worker.pid);
        assert_eq!(listening.len(), 2, "one for actors, one for tasks: {listening:?}");
        assert!(listening.iter().all(|address| address.starts_with(&loopback())), "{listening:?}");
        let port = format!(":{:04X}", worker.address.port());
        assert!(listening.iter().any(|address| address.ends_with(&port)), "{listening:?}");
    }
}

#[test]
fn driver_listens_nowhere() {
    let mut driver = Driver::start(Driver::command("end wait idle"));
    driver.receive_workers();
    assert_eq!(listens_at(driver.pid()), [""; 0]);
    assert_eq!(listens_at(driver.workers[0]).len(), 2);
}

#[test]
fn program_that_a_task_starts_is_no_worker() {
    let system = System::new();
    let cluster = system.block_on(Cluster::local(1)).unwrap();
    let printed = system.block_on(cluster.run(start_a_program::task()).into_future()).unwrap().unwrap();
    assert!(printed.contains("1 passed"), "{printed}");
}

#[test]
fn shutdown_waits_for_open_calls_and_ends_every_worker() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        let open = actor.try_send(Pid).unwrap();
        let workers = pids(&cluster);
        let start = Instant::now();
        cluster.shutdown().await.unwrap();
        assert!(start.elapsed() < ENDS_WITHIN, "{:?}", start.elapsed());
        assert!(!workers.iter().any(|&worker| runs(worker)));
        assert!(workers.contains(&open.await.unwrap()));
        assert!(actor.send(Pid).await.unwrap_err().is_not_delivered());
    });
}

#[test]
fn dropping_a_cluster_ends_every_worker() {
    let system = System::new();
    let cluster = system.block_on(Cluster::local(2)).unwrap();
    let workers = pids(&cluster);
    let start = Instant::now();
    drop(cluster);
    all_end_within(Duration::ZERO, &workers);
    assert!(start.elapsed() < ENDS_WITHIN, "{:?}", start.elapsed());
}

#[test]
fn two_clusters_live_side_by_side() {
    System::new().block_on(async {
        let (one, another) = (Cluster::local(1).await.unwrap(), Cluster::local(1).await.unwrap());
        let (first, second) = (pids(&one), pids(&another));
        assert_ne!(first, second);
        assert_eq!(one.run(pid::task()).await.unwrap(), first[0]);
        one.shutdown().await.unwrap();
        assert_eq!(another.run(pid::task()).await.unwrap(), second[0]);
        assert_eq!(another.spawn::<Worker>(()).await.unwrap().send(Pid).await.unwrap(), second[0]);
    });
}

#[test]
fn cluster_works_without_an_actix_system() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let workers = pids(&cluster);
        assert!(workers.contains(&cluster.spawn::<Worker>(()).await.unwrap().send(Pid).await.unwrap()));
        assert!(workers.contains(&cluster.run(pid::task()).await.unwrap()));
        cluster.shutdown().await.unwrap();
    });
}
