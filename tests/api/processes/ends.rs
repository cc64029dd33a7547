//! No process is left, however the driver ends.

use std::future::IntoFuture;
use std::time::Duration;

use roadshow::Limits;
use roadshow::prelude::*;
use rustix::process::Signal;

use super::cast::{Compute, Worker, compute};
use super::driver::{Driver, await_go, code_or_signal, say};
use super::table::{all_end_within, ignores};

const WORKERS: usize = 2;

/// How long a shutdown waits for tasks that compute for a minute.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(10);

/// The driver: starts a cluster, keeps its workers busy if asked to, and ends.
pub(super) async fn end(how: &str) {
    let (how, load) = how.split_once(' ').unwrap();
    let mut limits = Limits::default();
    limits.drain_timeout = DRAIN_TIMEOUT;
    let cluster = Cluster::builder().workers(WORKERS).limits(limits).start().await.unwrap();
    let pids: Vec<_> = cluster.workers().iter().map(|worker| worker.pid.to_string()).collect();
    say(format_args!("workers {}", pids.join(" ")));
    if load == "busy" {
        for _ in 0..WORKERS {
            let actor = cluster.spawn::<Worker>(()).await.unwrap();
            actor.do_send(Compute);
        }
        // Nobody waits for their results.
        for _ in 0..WORKERS {
            actix_rt::spawn(cluster.run(compute::task()).into_future());
        }
    }
    await_go().await;
    match how {
        "return" => {}
        "panic" => panic!("as asked"),
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        "shutdown" => match cluster.shutdown().await {
            Ok(()) => say("all ended"),
            Err(error) => say(error),
        },
        "leak" => std::mem::forget(cluster),
        _ => panic!("no such end: {how}"),
    }
}

/// A driver whose workers wait, or compute in a handler and a task each.
#[track_caller]
fn driver(how: &str, load: &str) -> Driver {
    let mut driver = Driver::start(Driver::command(&format!("end {how} {load}")));
    driver.hear_workers();
    assert_eq!(driver.workers.len(), WORKERS);
    if load == "busy" {
        driver.wait_for_error_lines(&["a handler computes", "a task computes"], WORKERS);
    }
    driver
}

#[track_caller]
fn check(how: &str, end: impl Fn(&mut Driver), expected: Result<i32, i32>) {
    for load in ["idle", "busy"] {
        let mut driver = driver(how, load);
        end(&mut driver);
        assert_eq!(code_or_signal(driver.ends_with_its_workers()), expected, "{load}");
    }
}

#[test]
fn no_worker_is_left_when_main_returns() {
    check("return", Driver::go, Ok(0));
}

#[test]
fn no_worker_is_left_when_the_cluster_is_never_dropped() {
    check("leak", Driver::go, Ok(0));
}

#[test]
fn no_worker_is_left_when_the_driver_panics() {
    // The code of a test harness whose test failed.
    check("panic", Driver::go, Ok(101));
}

#[test]
fn no_worker_is_left_when_the_driver_exits() {
    check("exit", Driver::go, Ok(7));
}

#[test]
fn no_worker_is_left_when_the_driver_aborts() {
    check("abort", Driver::go, Err(Signal::ABORT.as_raw()));
}

#[test]
fn no_worker_is_left_when_the_driver_is_interrupted() {
    if ignores(Signal::INT) {
        return println!("skipped: these tests run in the background, where SIGINT is ignored");
    }
    check("wait", |driver| driver.signal(Signal::INT), Err(Signal::INT.as_raw()));
}

#[test]
fn no_worker_is_left_when_the_driver_is_terminated() {
    check("wait", |driver| driver.signal(Signal::TERM), Err(Signal::TERM.as_raw()));
}

#[test]
fn no_worker_is_left_when_the_driver_is_killed() {
    check("wait", |driver| driver.signal(Signal::KILL), Err(Signal::KILL.as_raw()));
}

#[test]
fn no_worker_is_left_after_a_shutdown_which_tells_those_that_it_had_to_kill() {
    for load in ["idle", "busy"] {
        let mut driver = driver("shutdown", load);
        driver.go();
        let said = driver.hear();
        all_end_within(Duration::ZERO, &driver.workers);
        match load {
            "idle" => assert_eq!(said, "all ended"),
            _ => assert_eq!(
                said,
                format!("worker processes {:?} did not end within 2s and were killed", driver.workers)
            ),
        }
        assert!(driver.ends_with_its_workers().success());
    }
}
