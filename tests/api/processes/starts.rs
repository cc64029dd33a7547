//! Starting a cluster: settings, refusals, and executables that are gone.

use std::path::PathBuf;
use std::{env, fs};

use actix::System;
use roadshow::ClusterError;
use roadshow::prelude::*;

use super::cast::pid;
use super::driver::{Driver, say};

/// The driver: starts the cluster that its environment asks for, and says what came of it.
pub(super) async fn start(how: &str) {
    if how == "gone" {
        fs::remove_file(env::current_exe().unwrap()).unwrap();
    }
    match Cluster::init().await {
        Ok(cluster) => {
            let workers = cluster.workers();
            let ran = cluster.run(pid::task()).await.unwrap();
            let answered = workers.iter().any(|worker| worker.pid == ran);
            say(format_args!("{} workers, answered: {answered}", workers.len()));
        }
        Err(error) => say(error),
    }
}

/// What a driver says in an environment with these variables.
#[track_caller]
fn said_with(variables: &[(&str, &str)]) -> String {
    let mut command = Driver::command("start");
    command.envs(variables.iter().copied());
    let mut driver = Driver::start(command);
    let said = driver.hear();
    assert!(driver.wait().success());
    said
}

#[test]
fn workers_are_as_many_as_the_environment_asks_for() {
    assert_eq!(said_with(&[("ROADSHOW_WORKERS", "3")]), "3 workers, answered: true");
}

#[test]
fn number_of_workers_that_is_none_is_refused() {
    for value in ["0", "1025", "many", "-1", "1.5"] {
        let said = said_with(&[("ROADSHOW_WORKERS", value)]);
        assert!(said.starts_with(&format!("ROADSHOW_WORKERS is {value:?}; set it to")), "{said}");
    }
}

#[test]
fn cluster_is_not_joined_without_its_token_or_at_no_address() {
    let said = said_with(&[("ROADSHOW_ADDRESS", "192.0.2.1:7000"), ("ROADSHOW_WORKERS", "2")]);
    assert!(said.starts_with("no token for the cluster at 192.0.2.1:7000"), "{said}");
    let said = said_with(&[("ROADSHOW_ADDRESS", "192.0.2.1:7000"), ("ROADSHOW_TOKEN", "rs1_aaaa")]);
    assert!(said.contains("the token is mistyped"), "{said}");
    let said = said_with(&[("ROADSHOW_ADDRESS", "nowhere"), ("ROADSHOW_TOKEN", "rs1_aaaa")]);
    assert!(said.starts_with("\"nowhere\" is no address of a cluster: it has no port"), "{said}");
}

#[test]
fn cluster_of_no_workers_is_refused() {
    let refused = System::new().block_on(Cluster::local(0)).unwrap_err();
    assert!(matches!(refused, ClusterError::NoWorkers), "{refused}");
}

/// A copy of this executable that is gone at the end of its test.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // Fails where the driver has removed it, as it should have.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn workers_start_when_the_executables_file_is_gone() {
    let copy = Copy(env::temp_dir().join(format!("roadshow-{}-gone", std::process::id())));
    fs::copy("/proc/self/exe", &copy.0).unwrap();
    let mut command = Driver::command_of(&copy.0, "start gone");
    command.env("ROADSHOW_WORKERS", "2");
    let mut driver = Driver::start(command);
    assert_eq!(driver.hear(), "2 workers, answered: true");
    assert!(driver.wait().success());
    assert!(!copy.0.exists());
}
