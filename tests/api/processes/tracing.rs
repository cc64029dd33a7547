//! Whose subscriber of `tracing` a process has: the program's wherever it sets one.

use std::process::id;

use roadshow::prelude::*;
use tracing_subscriber::fmt;

use super::cast::pid;
use super::driver::{Driver, say};

/// What workers are to do first.
const SETUP: &str = "ROADSHOW_TEST_SETUP";

roadshow::worker_setup!(|| match std::env::var(SETUP).as_deref() {
    Ok("subscribe") => subscribe("the worker's"),
    Ok("panic") => panic!("as asked"),
    Ok("exit") => std::process::exit(2),
    _ => {}
});

/// Sets a subscriber whose lines begin with a name.
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

/// The driver: sets its subscriber, and has a worker emit something and end.
pub(super) async fn drive(when: &str) {
    if when == "before" {
        subscribe("the driver's");
    }
    let cluster = match Cluster::local(2).await {
        Ok(cluster) => cluster,
        Err(error) => return say(error),
    };
    if when == "after" {
        subscribe("the driver's");
    }
    cluster.run(emit::task()).await.unwrap();
    let _ = cluster.run(end::task()).await.unwrap_err();
    // The one that is left.
    while cluster.workers().iter().all(|worker| worker.ended.is_none()) {
        let _ = cluster.run(pid::task()).await;
    }
    cluster.shutdown().await.unwrap();
    say(id());
    std::process::exit(0);
}

/// What the driver says, and what is at its standard error.
#[track_caller]
fn drive_with(when: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
    let mut command = Driver::command(&format!("trace {when}"));
    command.envs(variables.iter().copied());
    let mut driver = Driver::start(command);
    let said = driver.hear();
    driver.wait();
    (said, driver.output().1)
}

#[track_caller]
fn has(shown: &[String], beginning: &str, text: &str) -> bool {
    shown.iter().any(|line| line.starts_with(beginning) && line.contains(text))
}

#[test]
fn the_program_s_subscriber_gets_the_library_s_events_whenever_it_is_set() {
    for when in ["before", "after"] {
        let (_, shown) = drive_with(when, &[]);
        assert!(has(&shown, "the driver's  WARN a worker has ended", "code 3"), "{when}: {shown:?}");
        assert!(!has(&shown, "[", ""), "{when}: {shown:?}");
    }
}

#[test]
fn the_library_prints_its_own_events_where_a_program_has_no_subscriber() {
    let (driver, shown) = drive_with("never", &[]);
    assert!(has(&shown, &format!("[{driver}] "), "a worker has ended"), "{shown:?}");
    assert!(!has(&shown, "(worker", "of a task"), "{shown:?}");
    let (driver, shown) = drive_with("never", &[("ROADSHOW_LOG", "debug")]);
    assert!(has(&shown, &format!("[{driver}] "), "link is up"), "{shown:?}");
    assert!(has(&shown, "(worker pid=", "of a task"), "{shown:?}");
}

#[test]
fn workers_have_the_subscriber_that_their_setup_has_set() {
    let (_, shown) = drive_with("after", &[(SETUP, "subscribe")]);
    assert!(has(&shown, "(worker pid=", "the worker's  INFO of a task"), "{shown:?}");
    assert!(has(&shown, "the driver's  WARN", "a worker has ended"), "{shown:?}");
}

#[test]
fn a_setup_that_panics_is_the_error_of_the_start_and_its_words_are_shown() {
    let (said, shown) = drive_with("never", &[(SETUP, "panic")]);
    assert!(said.contains("did not get ready") && said.contains("as asked"), "{said}");
    assert!(said.contains("worker_setup! in line"), "{said}");
    assert!(has(&shown, "(worker pid=", "as asked"), "{shown:?}");
}

#[test]
fn a_setup_that_ends_its_process_is_named_as_the_cause() {
    let (said, _) = drive_with("never", &[(SETUP, "exit")]);
    assert!(said.contains("exited with code 2 before it was ready: a worker_setup! may"), "{said}");
    assert!(!said.contains("run_if_worker()"), "{said}");
}
