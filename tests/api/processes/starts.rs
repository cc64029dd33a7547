//! Starting a cluster: settings, errors, and executables whose file is gone.

use std::path::PathBuf;
use std::{env, fs};

use actix::System;
use roadshow::ClusterError;
use roadshow::prelude::*;

use super::driver::{Driver, report};
use super::fixtures::pid;

/// Driver: starts the cluster that its environment asks for, and reports the outcome.
pub(super) async fn start(how: &str) {
    if how == "gone" {
        fs::remove_file(env::current_exe().unwrap()).unwrap();
    }
    match Cluster::init().await {
        Ok(cluster) => {
            let workers = cluster.workers();
            let ran = cluster.run(pid::task()).await.unwrap();
            let answered = workers.iter().any(|worker| worker.pid == ran);
            report(format_args!("{} workers, answered: {answered}", workers.len()));
        }
        Err(error) => report(error),
    }
}

/// Returns the report of a driver in an environment with these variables.
#[track_caller]
fn report_with(variables: &[(&str, &str)]) -> String {
    let mut command = Driver::command("start");
    command.envs(variables.iter().copied());
    let mut driver = Driver::start(command);
    let report = driver.next_report();
    assert!(driver.wait().success());
    report
}

#[test]
fn environment_sets_the_number_of_workers() {
    assert_eq!(report_with(&[("ROADSHOW_WORKERS", "3")]), "3 workers, answered: true");
}

#[test]
fn invalid_number_of_workers_is_rejected() {
    for value in ["0", "1025", "many", "-1", "1.5"] {
        let report = report_with(&[("ROADSHOW_WORKERS", value)]);
        assert!(report.starts_with(&format!("ROADSHOW_WORKERS is {value:?}; set it to")), "{report}");
    }
}

#[test]
fn cluster_is_not_joined_without_a_valid_token_and_address() {
    let report = report_with(&[("ROADSHOW_ADDRESS", "192.0.2.1:7000"), ("ROADSHOW_WORKERS", "2")]);
    assert!(report.starts_with("no token for the cluster at 192.0.2.1:7000"), "{report}");
    let report = report_with(&[("ROADSHOW_ADDRESS", "192.0.2.1:7000"), ("ROADSHOW_TOKEN", "rs1_aaaa")]);
    assert!(report.contains("the token is mistyped"), "{report}");
    let report = report_with(&[("ROADSHOW_ADDRESS", "nowhere"), ("ROADSHOW_TOKEN", "rs1_aaaa")]);
    assert!(report.starts_with("\"nowhere\" is no address of a cluster: it has no port"), "{report}");
}

#[test]
fn cluster_without_workers_is_rejected() {
    let rejected = System::new().block_on(Cluster::local(0)).unwrap_err();
    assert!(matches!(rejected, ClusterError::NoWorkers), "{rejected}");
}

/// Copy of this executable that is removed at the end of its test.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // An error means that the driver has removed the file, as expected.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn workers_start_after_the_executable_file_is_deleted() {
    let copy = Copy(env::temp_dir().join(format!("roadshow-{}-gone", std::process::id())));
    fs::copy("/proc/self/exe", &copy.0).unwrap();
    let mut command = Driver::command_of(&copy.0, "start gone");
    command.env("ROADSHOW_WORKERS", "2");
    let mut driver = Driver::start(command);
    assert_eq!(driver.next_report(), "2 workers, answered: true");
    assert!(driver.wait().success());
    assert!(!copy.0.exists());
}
