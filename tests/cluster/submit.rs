//! Programs that are submitted to the cluster.

use std::collections::BTreeSet;
use std::process::Command;

use roadshow::internals::config;

use super::job::{ARGUMENTS, ROLE, counted, said};
use super::proc::{self, wait_for};
use super::test_cluster::{TestCluster, output, refused, skipped, text};

/// Command that submits this executable in a role.
pub(super) fn submit(site: &TestCluster, role: &str, options: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let env = format!("{ROLE}={role}");
    let given = ["job", "submit", "--env", &env];
    let program = ["--", program.to_str().unwrap()];
    site.roadshow(&[&given[..], options, &program, &ARGUMENTS].concat())
}

#[test]
fn new_program_runs_on_all_nodes_and_its_output_is_printed() {
    let site = TestCluster::pair();
    let output = output(submit(&site, "count 0", &[]));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let pids = counted(&said(&out));
    let nodes: BTreeSet<_> = pids.iter().map(|&pid| site.node_of(pid)).collect();
    assert_eq!(nodes.len(), 2, "{pids:?}");
    assert!(err.lines().any(|line| line == "that was all"), "{err}");
    let job = &site.list("jobs")[0];
    assert_eq!((&job["state"], &job["exit_code"]), (&"SUCCEEDED".into(), &0.into()), "{job}");
    assert_eq!(job["runs_on"], site.nodes[0].id);
    // The output is still in the log.
    let id = job["job_id"].as_str().unwrap();
    let again = super::test_cluster::output(site.roadshow(&["job", "logs", id]));
    assert!(text(&again.stdout).contains("the sum is 499500"), "{again:?}");
}

#[test]
fn exit_code_of_a_submitted_program_is_that_of_the_command() {
    let site = TestCluster::pair();
    let ended = output(submit(&site, "count 3", &[]));
    assert_eq!(ended.status.code(), Some(3), "{}", text(&ended.stderr));
    counted(&said(&text(&ended.stdout)));
    let job = &site.list("jobs")[0];
    assert_eq!((&job["state"], &job["exit_code"]), (&"FAILED".into(), &3.into()), "{job}");
    let status = site.json(&["job", "status", job["job_id"].as_str().unwrap()]);
    assert_eq!((&status["state"], &status["exit_code"]), (&"FAILED".into(), &3.into()));
}

#[test]
fn submitted_program_may_run_on_after_shutdown_and_its_exit_code_is_that_of_the_job() {
    let site = TestCluster::head(&["--num-cpus=2"]);
    // Longer than a lease, which the job no longer needs after its shutdown.
    let seconds = config::JOB_LEASE.as_secs() + 2;
    std::thread::scope(|scope| {
        let submitted = scope.spawn(|| output(submit(&site, &format!("linger {seconds} 7"), &[])));
        let works_on = |row: &serde_json::Value| {
            let has_left = row["message"].as_str()?.contains("shut its cluster down");
            (has_left && row["runs_on"].is_string()).then(|| row["job_id"].clone())
        };
        let job = wait_for("it has left the cluster", || site.list("jobs").iter().find_map(works_on));
        // Its workers are gone while it works on. Its second cluster, another job, may exist by now.
        let workers = site.list("workers").into_iter().filter(|worker| worker["job_id"] == job);
        assert!(workers.map(|worker| worker["state"].clone()).all(|state| state == "DEAD"));
        assert_eq!(site.row("jobs", "job_id", job)["state"], "RUNNING");
        let ended = submitted.join().unwrap();
        let out = text(&ended.stdout);
        assert_eq!(ended.status.code(), Some(7), "{out}{}", text(&ended.stderr));
        assert!(out.contains("it is done"), "{out}");
    });
    let mut jobs = site.list("jobs");
    jobs.sort_by_key(|job| job["job_id"].as_str().unwrap().to_owned());
    let states: Vec<_> = jobs.iter().map(|job| (&job["state"], &job["exit_code"], &job["runs_on"])).collect();
    let (null, own) = (serde_json::Value::Null, serde_json::Value::from(site.nodes[0].id.clone()));
    // The submitted job, the program that it started, and its second cluster.
    let [seven, failed, succeeded] = [7.into(), "FAILED".into(), "SUCCEEDED".into()];
    assert_eq!(states, [(&failed, &seven, &own), (&succeeded, &null, &null), (&succeeded, &null, &null)]);
}

/// Number of rounds of tests with timing-dependent faults; soak tests set more.
fn rounds() -> usize {
    std::env::var("ROADSHOW_TEST_ROUNDS").ok().map_or(3, |rounds| rounds.parse().unwrap())
}

#[test]
fn program_submitted_right_after_a_restart_runs_and_its_result_is_right() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    for round in 0..rounds() {
        site.stop_and_start(&["--num-cpus=1"]);
        let there: Vec<_> = site.list("nodes").into_iter().filter(|node| node["state"] != "DEAD").collect();
        assert_eq!(there.len(), 1, "round {round}: {there:#?}");
        let ended = output(submit(&site, "count 0", &[]));
        assert_eq!(ended.status.code(), Some(0), "round {round}: {}", text(&ended.stderr));
        let ended = output(submit(&site, "count 4", &[]));
        assert_eq!(ended.status.code(), Some(4), "round {round}: {}", text(&ended.stderr));
    }
}

#[test]
fn submitted_job_runs_without_its_command_until_it_is_stopped() {
    let site = TestCluster::pair();
    let submitted = output(submit(&site, "stay", &["--no-wait"]));
    assert!(submitted.status.success(), "{submitted:?}");
    let id = text(&submitted.stdout).trim().to_owned();
    let id = id.as_str();
    let worker = wait_for("it says that it stays", || {
        let logs = output(site.roadshow(&["job", "logs", id]));
        let stays = said(&text(&logs.stdout));
        stays.iter().find_map(|line| line.strip_prefix("it stays, with ")?.parse::<u64>().ok())
    });
    let status = site.json(&["job", "status", id]);
    assert_eq!(status["state"], "RUNNING", "{status}");
    let driver = status["pid"].as_u64().unwrap();
    site.node_of(worker);
    let stopped = output(site.roadshow(&["job", "stop", id]));
    assert!(stopped.status.success(), "{stopped:?}");
    for pid in [driver, worker] {
        proc::ended(pid.try_into().unwrap());
    }
    let status = site.json(&["job", "status", id]);
    assert_eq!(status["state"], "STOPPED", "{status}");
    let (code, said) = refused(site.roadshow(&["job", "status", "ffff"]));
    assert_eq!(code, 5, "{said}");
}

#[test]
fn submitted_program_that_is_killed_by_a_signal_has_the_exit_code_of_a_shell() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    std::thread::scope(|scope| {
        let submitted = scope.spawn(|| output(submit(&site, "stay", &[])));
        let driver = wait_for("its driver has joined", || {
            let pid = site.list("jobs").first()?["pid"].as_u64()?;
            (pid > 0).then_some(pid)
        });
        proc::kill(driver.try_into().unwrap());
        let ended = submitted.join().unwrap();
        assert_eq!(ended.status.code(), Some(128 + 9), "{}", text(&ended.stderr));
    });
    let job = &site.list("jobs")[0];
    assert_eq!((&job["state"], &job["exit_code"]), (&"FAILED".into(), &137.into()), "{job}");
}

#[test]
fn file_that_is_no_program_is_not_submitted() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let (_, said) = refused(site.roadshow(&["job", "submit", "--", "/etc/hostname"]));
    assert!(said.contains("/etc/hostname"), "{said}");
    assert_eq!(site.list("jobs"), Vec::<serde_json::Value>::new());
}

#[test]
fn program_for_a_later_glibc_is_refused_before_it_is_started() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_roadshow")).unwrap();
    // Raises every glibc version that the executable needs, in place.
    let (needs, later) = (b"GLIBC_2.", b"GLIBC_9.");
    let at: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(needs)).collect();
    if at.is_empty() {
        return skipped("the command is not linked with glibc");
    }
    at.into_iter().for_each(|at| bytes[at..at + needs.len()].copy_from_slice(later));
    let program = site.home().join("of-a-later-system");
    std::fs::write(&program, bytes).unwrap();
    let (code, said) = refused(site.roadshow(&["job", "submit", "--", program.to_str().unwrap()]));
    println!("{said}");
    assert_eq!(code, 1);
    for part in ["-linux-gnu9.", "the node runs", "-linux-gnu2.", "-unknown-linux-musl", "no later than"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
