//! Commands of operators that end something, and the protection of sessions.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::fixtures::CONSTRUCTS_FOR_EVER;
use super::job::{Job, Order, SpawnOptions};
use super::proc::{self, wait_for};
use super::test_cluster::{TestCluster, output, refused, roadshow, skipped, text};

/// Exit code of `kill` for an actor that still runs.
const STILL_RUNS: i32 = 6;

/// Spawns an actor whose handler does not return.
fn computes(job: &mut Job, name: &str, options: SpawnOptions) -> u32 {
    job.spawn(
        name,
        SpawnOptions { name: Some(name.to_owned()), namespace: Some("app".to_owned()), ..options },
    );
    let pid = job.pid_of(name);
    // A pending order must be bound; its reply never arrives.
    let _ = job.begin(Order::Compute(name.to_owned()));
    wait_for("it computes", || job.errors().contains("it computes").then_some(()));
    pid.try_into().unwrap()
}

fn state(site: &TestCluster, name: &str) -> Value {
    site.row("actors", "name", name)["state"].clone()
}

#[test]
fn kill_reports_a_busy_actor_and_kills_it_with_its_worker_by_force() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    job.spawn("neighbour", SpawnOptions { name: Some("neighbour".to_owned()), ..SpawnOptions::default() });
    job.spawn("idle", SpawnOptions { name: Some("idle".to_owned()), ..SpawnOptions::default() });
    let killed = output(site.roadshow(&["kill", "idle"]));
    assert!(killed.status.success() && text(&killed.stdout).contains("has ended."), "{killed:?}");
    assert_eq!(state(&site, "idle"), "DEAD");

    let pid = computes(&mut job, "busy", SpawnOptions::default());
    let (code, said) = refused(site.roadshow(&["kill", "busy", "--timeout=0.5"]));
    assert_eq!(code, STILL_RUNS, "{said}");
    assert!(said.contains("was asked to end, and still runs after 0.5 s"), "{said}");
    assert!(said.contains("with 1 other actor there"), "{said}");
    assert_eq!(state(&site, "busy"), "ALIVE");

    let killed = output(site.roadshow(&["kill", "busy", "--force"]));
    assert!(killed.status.success() && text(&killed.stdout).contains("1 other actor"), "{killed:?}");
    proc::ended(pid);
    assert_eq!(["busy", "neighbour"].map(|name| state(&site, name)), ["DEAD", "DEAD"]);
    // The agent has started another worker.
    job.spawn("next", SpawnOptions::default());
    assert_ne!(job.pid_of("next"), u64::from(pid));
    job.kill();
}

#[test]
fn actor_with_a_busy_constructor_is_not_dead_before_its_worker_ends() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    job.spawn("neighbour", SpawnOptions::default());
    let pid = job.pid_of("neighbour");
    let options = SpawnOptions { start: CONSTRUCTS_FOR_EVER, ..SpawnOptions::named("busy") };
    let spawning = job.begin(Order::Spawn("busy".to_owned(), Box::new(options)));
    wait_for("it computes", || job.errors().contains("its constructor computes").then_some(()));
    let (code, said) = refused(site.roadshow(&["kill", "busy", "--timeout=0.5"]));
    assert_eq!(code, STILL_RUNS, "{said}");
    assert!(said.contains("was killed, and its constructor may still run after 0.5 s"), "{said}");
    assert!(said.contains("--force kills its worker") && said.contains("with 1 other actor there"), "{said}");
    let row = site.row("actors", "name", "busy");
    let cause = row["cause"].as_str().unwrap();
    assert!(row["state"] == "PENDING_CREATION" && cause.starts_with("it was killed"), "{row}");

    let killed = output(site.roadshow(&["kill", "busy", "--force"]));
    assert!(
        killed.status.success() && text(&killed.stdout).contains("has ended with its worker"),
        "{killed:?}"
    );
    proc::ended(pid.try_into().unwrap());
    assert_eq!(state(&site, "busy"), "DEAD");
    let lost = job.end_of(spawning);
    assert!(lost.failure().starts_with("cannot tell whether"), "{lost:?}");
    job.kill();
}

#[test]
fn busy_detached_actor_is_killed_with_only_its_own_worker() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    job.spawn("neighbour", SpawnOptions { name: Some("neighbour".to_owned()), ..SpawnOptions::default() });
    let pid = computes(&mut job, "busy", SpawnOptions { detached: true, ..SpawnOptions::default() });
    let killed = output(site.roadshow(&["kill", "busy", "--force", "--json"]));
    assert!(killed.status.success(), "{killed:?}");
    let said: Value = serde_json::from_slice(&killed.stdout).unwrap();
    assert!(said["ended"] == true && said["worker_killed"].is_string(), "{said}");
    proc::ended(pid);
    assert_eq!(["busy", "neighbour"].map(|name| state(&site, name)), ["DEAD", "ALIVE"]);
    job.kill();
}

#[test]
fn variable_without_a_value_is_taken_from_the_command_and_is_in_no_command_line() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let given = ["job", "submit", "--env", "ROADSHOW_TEST_SECRET", "--", "sh", "-c"];
    let mut command = site.roadshow(&[&given[..], &["echo $ROADSHOW_TEST_SECRET"]].concat());
    command.env("ROADSHOW_TEST_SECRET", "sesame");
    let submitted = output(command);
    assert!(submitted.status.success(), "{submitted:?}");
    assert_eq!(text(&submitted.stdout), "sesame\n");
    let (code, said) = refused(site.roadshow(&[&given[..], &["true"]].concat()));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("is not set in this command's environment"), "{said}");
}

#[test]
fn example_of_health_check_works_in_a_container() {
    // As in a container, the node's address is not 127.0.0.1.
    let site = TestCluster::head_under(Vec::new(), "127.0.0.2", &["--num-cpus=1"]);
    let help = output(site.roadshow(&["health-check", "--help"]));
    let help = text(&help.stdout);
    let example = help.lines().find_map(|line| line.strip_prefix("  roadshow health-check")).unwrap();
    let arguments: Vec<&str> = std::iter::once("health-check").chain(example.split_whitespace()).collect();
    let checked = output(roadshow(site.home(), &[], &arguments));
    assert!(checked.status.success(), "{checked:?}");
}

/// Directory with the sessions of this user.
fn sessions(site: &TestCluster) -> PathBuf {
    site.home().join(format!("roadshow-{}", rustix::process::geteuid().as_raw()))
}

#[test]
fn daemons_lock_their_session_against_cleaners_of_temporary_files() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let home = &sessions(&site);
    let session = &site.nodes[0].session;
    let is_free =
        |path| flock(fs::File::open(path).unwrap(), FlockOperation::NonBlockingLockExclusive).is_ok();
    assert!(!is_free(home) && !is_free(session));
    // Each of the two daemons holds the locks.
    proc::kill(site.nodes[0].head());
    assert!(!is_free(home) && !is_free(session));
    proc::kill(site.nodes[0].agent());
    wait_for("no process holds them", || (is_free(home) && is_free(session)).then_some(()));
}

#[test]
fn stop_refuses_a_directory_of_sessions_that_others_can_write_to() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let home = sessions(&site);
    assert!(Command::new("chmod").arg("0777").arg(&home).status().unwrap().success());
    let (code, said) = refused(site.roadshow(&["stop"]));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("it is not closed to other users"), "{said}");
    assert!(proc::runs(site.nodes[0].agent()));
    assert!(Command::new("chmod").arg("0700").arg(&home).status().unwrap().success());
}

/// Command prefix that runs a shell command first.
fn after(line: &str) -> Vec<String> {
    ["sh", "-c", &format!("{line} && exec \"$@\""), "sh"].map(str::to_owned).into()
}

#[test]
fn stop_removes_files_of_jobs_at_any_depth() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let session = &site.nodes[0].session;
    // More levels than the command can open files: removal cannot hold a descriptor for each level.
    fs::create_dir_all(session.join("jobs").join("d/".repeat(200))).unwrap();
    let stopped = output(roadshow(site.home(), &after("ulimit -n 64"), &["stop"]));
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    assert!(!session.exists());
}

#[test]
fn stop_leaves_mounted_directories_alone_and_reports_them() {
    let is_allowed =
        Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !is_allowed {
        return skipped("only root may mount, in a namespace of its own");
    }
    let site = TestCluster::head(&["--num-cpus=1"]);
    let (data, mounted) = (site.home().join("data"), site.nodes[0].session.join("jobs/mounted"));
    for dir in [&data, &mounted] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(data.join("file"), "kept").unwrap();
    let line = format!("mount --bind {} {}", data.display(), mounted.display());
    let under = [vec!["unshare".to_owned(), "-m".to_owned()], after(&line)].concat();
    let (code, said) = refused(roadshow(site.home(), &under, &["stop"]));
    println!("{said}");
    let expected = format!("something is mounted at {}, and is left alone", mounted.display());
    assert!(code == 1 && said.contains(&expected), "{said}");
    assert_eq!(fs::read(data.join("file")).unwrap(), b"kept");
}
