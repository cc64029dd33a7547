//! What a worker has started ends with it, however it was started and whatever ends the worker.

use std::process::{Child, Command};
use std::time::Duration;

use actix::System;
use roadshow::prelude::*;
use rustix::process::Signal;

use super::cast::{Starts, start_a_sleep};
use super::driver::{Driver, PATIENCE, WORKERS_END_WITHIN, await_go, say};
use super::table::{all_end_within, runs, signal};

const ALL: [Starts; 6] =
    [Starts::Child, Starts::Grandchild, Starts::Session, Starts::Daemon, Starts::Bare, Starts::BareDaemon];

/// Those that are found by their marks when their worker was killed.
const MARKED: [Starts; 4] = [Starts::Child, Starts::Grandchild, Starts::Session, Starts::Daemon];

/// Processes that are killed when a test fails.
pub(super) struct Sleeps(pub(super) Vec<u32>);

impl Sleeps {
    async fn start(cluster: &Cluster, ways: &[Starts]) -> Self {
        let mut sleeps = Self(Vec::new());
        for &how in ways {
            let sleep = cluster.run(start_a_sleep::task(how)).await.unwrap();
            assert!(runs(sleep), "{how:?}");
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
            // It may end meanwhile.
            let _ = signal(pid, Signal::KILL);
        }
    }
}

/// A process of the test's own.
struct Own(Child);

impl Own {
    fn start() -> Self {
        Self(Command::new("sleep").arg("98765").spawn().unwrap())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The driver: says which processes its workers have started, and waits.
pub(super) async fn stay(how: &str) {
    let cluster = Cluster::local(1).await.unwrap();
    say(format_args!("workers {}", cluster.workers()[0].pid));
    let sleeps = Sleeps::start(&cluster, &MARKED).await;
    let pids: Vec<_> = sleeps.0.iter().map(ToString::to_string).collect();
    say(pids.join(" "));
    await_go().await;
    if how == "exit" {
        std::process::exit(0);
    }
}

#[test]
fn nothing_that_a_worker_has_started_is_left_after_a_shutdown_and_what_the_driver_has_started_is() {
    System::new().block_on(async {
        let own = Own::start();
        let cluster = Cluster::local(2).await.unwrap();
        let sleeps = Sleeps::start(&cluster, &ALL[..5]).await;
        cluster.shutdown().await.unwrap();
        sleeps.end_within(Duration::ZERO);
        assert!(runs(own.0.id()));
        assert_eq!(rustix::process::child_subreaper().unwrap(), None, "a driver adopts nothing");
    });
}

#[test]
fn nothing_that_a_worker_has_started_is_left_when_its_cluster_is_dropped() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let sleeps = Sleeps::start(&cluster, &ALL[..5]).await;
        drop(cluster);
        sleeps.end_within(Duration::ZERO);
    });
}

#[test]
fn what_a_worker_has_started_ends_when_it_is_killed_and_what_others_have_started_does_not() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let sleeps = Sleeps::start(&cluster, &MARKED).await;
        let other = Cluster::local(1).await.unwrap();
        let spared = Sleeps::start(&other, &MARKED).await;
        signal(cluster.workers()[0].pid, Signal::KILL).unwrap();
        sleeps.end_within(PATIENCE);
        assert!(spared.0.iter().all(|&pid| runs(pid)));
        other.shutdown().await.unwrap();
        spared.end_within(Duration::ZERO);
    });
}

#[test]
fn what_workers_have_started_ends_with_the_driver() {
    for (how, signal) in [("wait", Some(Signal::KILL)), ("wait", Some(Signal::TERM)), ("exit", None)] {
        let mut driver = Driver::start(Driver::command(&format!("offspring {how}")));
        driver.hear_workers();
        let sleeps = Sleeps(driver.hear().split(' ').map(|pid| pid.parse().unwrap()).collect());
        match signal {
            Some(signal) => driver.signal(signal),
            None => driver.go(),
        }
        driver.ends_with_its_workers();
        sleeps.end_within(WORKERS_END_WITHIN);
    }
}
