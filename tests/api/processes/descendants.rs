//! Descendants of a worker end with it, however they were started and whatever ends the worker.

use std::process::{Child, Command};
use std::time::Duration;

use actix::System;
use roadshow::prelude::*;
use rustix::process::Signal;

use super::driver::{Driver, PATIENCE, WORKERS_END_WITHIN, await_go, report};
use super::fixtures::{Starts, start_a_sleep};
use super::process_table::{all_end_within, runs, signal};

const ALL: [Starts; 6] =
    [Starts::Child, Starts::Grandchild, Starts::Session, Starts::Daemon, Starts::Bare, Starts::BareDaemon];

/// Kinds of descendants that are found by their mark after their worker was killed.
const MARKED: [Starts; 4] = [Starts::Child, Starts::Grandchild, Starts::Session, Starts::Daemon];

/// Processes that are killed when a test fails.
pub(super) struct Sleeps(pub(super) Vec<u32>);

impl Sleeps {
    async fn start(cluster: &Cluster, kinds: &[Starts]) -> Self {
        let mut sleeps = Self(Vec::new());
        for &kind in kinds {
            let sleep = cluster.run(start_a_sleep::task(kind)).await.unwrap();
            assert!(runs(sleep), "{kind:?}");
            sleeps.0.push(sleep);
        }
        sleeps
    }

    #[track_caller]
    fn end_within(&self, limit: Duration) {
        all_end_within(limit, &self.0);
    }
}

impl Drop for Sleeps {
    fn drop(&mut self) {
        for &pid in self.0.iter().filter(|&&pid| runs(pid)) {
            // The process may end between the check and the signal.
            let _ = signal(pid, Signal::KILL);
        }
    }
}

/// Process started by the test itself.
struct OwnChild(Child);

impl OwnChild {
    fn start() -> Self {
        Self(Command::new("sleep").arg("98765").spawn().unwrap())
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Driver: reports the processes that its workers have started, and waits.
pub(super) async fn stay(how: &str) {
    let cluster = Cluster::local(1).await.unwrap();
    report(format_args!("workers {}", cluster.workers()[0].pid));
    let sleeps = Sleeps::start(&cluster, &MARKED).await;
    let pids: Vec<_> = sleeps.0.iter().map(ToString::to_string).collect();
    report(pids.join(" "));
    await_go().await;
    if how == "exit" {
        std::process::exit(0);
    }
}

#[test]
fn a_shutdown_ends_all_descendants_of_workers_and_no_child_of_the_driver() {
    System::new().block_on(async {
        let own = OwnChild::start();
        let cluster = Cluster::local(2).await.unwrap();
        let sleeps = Sleeps::start(&cluster, &ALL[..5]).await;
        cluster.shutdown().await.unwrap();
        sleeps.end_within(Duration::ZERO);
        assert!(runs(own.0.id()));
        assert_eq!(rustix::process::child_subreaper().unwrap(), None, "a driver is no subreaper");
    });
}

#[test]
fn dropping_a_cluster_ends_all_descendants_of_its_workers() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let sleeps = Sleeps::start(&cluster, &ALL[..5]).await;
        drop(cluster);
        sleeps.end_within(Duration::ZERO);
    });
}

#[test]
fn killing_a_worker_ends_its_descendants_and_no_other_worker_s() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let sleeps = Sleeps::start(&cluster, &MARKED).await;
        let other = Cluster::local(1).await.unwrap();
        let others = Sleeps::start(&other, &MARKED).await;
        signal(cluster.workers()[0].pid, Signal::KILL).unwrap();
        sleeps.end_within(PATIENCE);
        assert!(others.0.iter().all(|&pid| runs(pid)));
        other.shutdown().await.unwrap();
        others.end_within(Duration::ZERO);
    });
}

#[test]
fn descendants_of_workers_end_with_the_driver() {
    for (how, signal) in [("wait", Some(Signal::KILL)), ("wait", Some(Signal::TERM)), ("exit", None)] {
        let mut driver = Driver::start(Driver::command(&format!("offspring {how}")));
        driver.receive_workers();
        let sleeps = Sleeps(driver.next_report().split(' ').map(|pid| pid.parse().unwrap()).collect());
        match signal {
            Some(signal) => driver.signal(signal),
            None => driver.go(),
        }
        driver.ends_with_its_workers();
        sleeps.end_within(WORKERS_END_WITHIN);
    }
}
