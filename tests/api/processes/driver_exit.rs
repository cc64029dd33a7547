//! No process remains, however the driver ends.

use std::future::IntoFuture;
use std::time::Duration;

use roadshow::Limits;
use roadshow::prelude::*;
use rustix::process::Signal;

use super::driver::{Driver, await_go, code_or_signal, report};
use super::fixtures::{Compute, Worker, compute};
use super::process_table::{all_end_within, ignores};

const WORKERS: usize = 2;

/// Drain timeout of a shutdown with tasks that compute for a minute.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(10);

/// Driver: starts a cluster, keeps its workers busy if asked to, and ends.
pub(super) async fn end(how: &str) {
    let (how, load) = how.split_once(' ').unwrap();
    let mut limits = Limits::default();
    limits.drain_timeout = DRAIN_TIMEOUT;
    let cluster = Cluster::builder().workers(WORKERS).limits(limits).start().await.unwrap();
    let pids: Vec<_> = cluster.workers().iter().map(|worker| worker.pid.to_string()).collect();
    report(format_args!("workers {}", pids.join(" ")));
    if load == "busy" {
        for _ in 0..WORKERS {
            let actor = cluster.spawn::<Worker>(()).await.unwrap();
            actor.do_send(Compute);
        }
        // The results are not awaited: the driver ends while the tasks run.
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
            Ok(()) => report("all ended"),
            Err(error) => report(error),
        },
        "leak" => std::mem::forget(cluster),
        _ => panic!("no such end: {how}"),
    }
}

/// Starts a driver whose workers are idle, or compute in a handler and in a task each.
#[track_caller]
fn driver(how: &str, load: &str) -> Driver {
    let mut driver = Driver::start(Driver::command(&format!("end {how} {load}")));
    driver.receive_workers();
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
    // Exit code of a test harness with a failed test.
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
fn no_worker_is_left_after_a_shutdown_which_reports_the_workers_it_killed() {
    for load in ["idle", "busy"] {
        let mut driver = driver("shutdown", load);
        driver.go();
        let report = driver.next_report();
        all_end_within(Duration::ZERO, &driver.workers);
        match load {
            "idle" => assert_eq!(report, "all ended"),
            _ => assert_eq!(
                report,
                format!("worker processes {:?} did not end within 2s and were killed", driver.workers)
            ),
        }
        assert!(driver.ends_with_its_workers().success());
    }
}
