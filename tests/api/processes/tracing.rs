//! Subscriber of `tracing` in each process: the program's, wherever it sets one.

use std::process::id;

use roadshow::prelude::*;
use tracing_subscriber::fmt;

use super::driver::{Driver, report};
use super::fixtures::pid;

/// Environment variable with the setup of the workers.
pub(super) const SETUP: &str = "ROADSHOW_TEST_SETUP";

roadshow::worker_setup!(|| match std::env::var(SETUP).as_deref() {
    Ok("subscribe") => subscribe("the worker's"),
    Ok(super::traces::SPANS) => super::traces::subscribe(),
    Ok("panic") => panic!("as asked"),
    Ok("exit") => std::process::exit(2),
    // A file by which a test ends the workers that start from then on.
    Ok(file) if std::path::Path::new(file).exists() => std::process::exit(2),
    _ => {}
});

/// Sets a subscriber whose lines start with a name.
fn subscribe(name: &'static str) {
    let format = fmt::format().without_time().with_target(false);
    let named = fmt().event_format(format).with_ansi(false).with_writer(move || {
        eprint!("{name} ");
        std::io::stderr()
    });
    named.init();
}

#[roadshow::task]
fn emit() {
    tracing::info!("of a task");
}

#[roadshow::task]
fn end() {
    std::process::exit(3);
}

/// Driver: sets its subscriber, and lets a worker emit an event and end.
pub(super) async fn drive(when: &str) {
    if when == "before" {
        subscribe("the driver's");
    }
    let cluster = match Cluster::local(2).await {
        Ok(cluster) => cluster,
        Err(error) => return report(error),
    };
    if when == "after" {
        subscribe("the driver's");
    }
    cluster.run(emit::task()).await.unwrap();
    let _ = cluster.run(end::task()).retries(0).await.unwrap_err();
    // The cluster may not have detected the end yet; the task then runs on the remaining worker.
    while cluster.workers().iter().all(|worker| worker.ended.is_none()) {
        let _ = cluster.run(pid::task()).await;
    }
    cluster.shutdown().await.unwrap();
    report(id());
    std::process::exit(0);
}

/// Returns the driver's report and the lines of its standard error.
#[track_caller]
fn drive_with(when: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
    let mut command = Driver::command(&format!("trace {when}"));
    command.envs(variables.iter().copied());
    let mut driver = Driver::start(command);
    let report = driver.next_report();
    driver.wait();
    (report, driver.output().1)
}

#[track_caller]
fn has(shown: &[String], beginning: &str, text: &str) -> bool {
    shown.iter().any(|line| line.starts_with(beginning) && line.contains(text))
}

#[test]
fn the_program_s_subscriber_receives_the_library_s_events() {
    for when in ["before", "after"] {
        let (_, shown) = drive_with(when, &[]);
        assert!(has(&shown, "the driver's  WARN a worker has ended", "code 3"), "{when}: {shown:?}");
        assert!(!has(&shown, "[", ""), "{when}: {shown:?}");
    }
}

#[test]
fn the_library_prints_its_events_if_the_program_has_no_subscriber() {
    let (driver, shown) = drive_with("never", &[]);
    assert!(has(&shown, &format!("[{driver}] "), "a worker has ended"), "{shown:?}");
    assert!(!has(&shown, "(worker", "of a task"), "{shown:?}");
    let (driver, shown) = drive_with("never", &[("ROADSHOW_LOG", "debug")]);
    assert!(has(&shown, &format!("[{driver}] "), "link is up"), "{shown:?}");
    assert!(has(&shown, "(worker pid=", "of a task"), "{shown:?}");
}

#[test]
fn workers_use_the_subscriber_of_their_setup() {
    let (_, shown) = drive_with("after", &[(SETUP, "subscribe")]);
    assert!(has(&shown, "(worker pid=", "the worker's  INFO of a task"), "{shown:?}");
    assert!(has(&shown, "the driver's  WARN", "a worker has ended"), "{shown:?}");
}

#[test]
fn a_panicking_setup_fails_the_start_and_its_output_is_shown() {
    let (report, shown) = drive_with("never", &[(SETUP, "panic")]);
    assert!(report.contains("did not get ready") && report.contains("as asked"), "{report}");
    assert!(report.contains("worker_setup! in line"), "{report}");
    assert!(has(&shown, "(worker pid=", "as asked"), "{shown:?}");
}

#[test]
fn a_setup_that_exits_is_named_as_the_cause() {
    let (report, _) = drive_with("never", &[(SETUP, "exit")]);
    assert!(report.contains("exited with code 2 before it was ready: a worker_setup! may"), "{report}");
    assert!(!report.contains("run_if_worker()"), "{report}");
}
