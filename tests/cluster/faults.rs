//! Faults of machines, with restartable actors on the cluster: one-way cuts, a full disk, exhausted file descriptors,
//! clocks that differ, and suspended processes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::Value;

use super::fixtures::ENDED;
use super::job::{Job, Order, Reply, SpawnOptions, program_under};
use super::netns::Network;
use super::proc::{self, wait_for};
use super::restarts::{pid_after, spawn_on};
use super::test_cluster::{Node, Scratch, TestCluster, output, refused, skipped, text};

/// Lease that no node loses on a busy machine while the tests make it unreachable.
const LONG_LEASE: &str = "--dead-after=45";

fn state(site: &TestCluster, node: &Node) -> String {
    site.row("nodes", "node_id", node.id.clone())["state"].as_str().unwrap().to_owned()
}

fn wait_for_state(site: &TestCluster, node: &Node, expected: &str) {
    wait_for(&format!("the node is {expected}"), || (state(site, node) == expected).then_some(()));
}

/// Waits until this number of announced ends has been printed.
fn wait_for_ends(job: &Job, count: usize) {
    wait_for("the earlier incarnation ends", || (job.errors().matches(ENDED).count() == count).then_some(()));
}

/// Waits until tasks run in a worker, or until none does.
fn wait_for_tasks(job: &mut Job, worker: u64, run_there: bool) {
    wait_for(&format!("tasks in the worker: {run_there}"), || {
        (job.numbers(Order::Tasks(8)).contains(&worker) == run_there).then_some(())
    });
}

fn alerts(site: &TestCluster) -> Vec<Value> {
    site.json(&["status"])["alerts"].as_array().unwrap().clone()
}

/// Tries whether this machine permits commands with a prefix; skips the test otherwise.
fn is_permitted(under: &[String], what: &str) -> bool {
    let scratch = Scratch::new();
    let tried = Command::new(&under[0]).args(&under[1..]).arg("true").env("TMPDIR", scratch.path()).output();
    let why = match tried {
        Ok(tried) if tried.status.success() => return true,
        Ok(tried) => text(&tried.stderr),
        Err(error) => error.to_string(),
    };
    skipped(format_args!("{what}: {}", why.trim()));
    false
}

#[test]
fn one_way_cut_makes_a_node_unreachable_and_its_actor_and_tasks_go_elsewhere_until_it_heals() {
    let network = match Network::routed(3) {
        Ok(network) => network,
        Err(why) => return skipped(why),
    };
    let mut site =
        TestCluster::head_under(network.under(0), &network.address(0), &["--num-cpus=1", LONG_LEASE]);
    let far = site.join_under(&network.under(1), &network.address(1), &["--num-cpus=1"]);
    let mut job = Job::join_with(program_under(&site, &network.under(2), "obey"));
    // What the node sends to the head, and what the head sends to the node. The driver reaches both.
    for (round, (from, to)) in [(1, 0), (0, 1)].into_iter().enumerate() {
        let name = spawn_on(&site, &mut job, &far, &format!("round {round} "));
        let pid = job.pid_of(&name);
        job.does(Order::Announce(name.clone()));
        wait_for_tasks(&mut job, pid, true);
        let cut = Instant::now();
        network.drop_packets(from, to, true);
        let next = pid_after(&mut job, &name, pid);
        println!("cut from {from} to {to}: the actor replied from elsewhere after {:?}", cut.elapsed());
        assert_eq!(site.node_of(next), site.nodes[0].id);
        assert_eq!(state(&site, &far), "UNREACHABLE");
        wait_for_tasks(&mut job, pid, false);
        network.drop_packets(from, to, false);
        wait_for_state(&site, &far, "ALIVE");
        wait_for_ends(&job, round + 1);
        wait_for_tasks(&mut job, pid, true);
        assert_eq!(job.pid_of(&name), next);
    }
    job.finish();
}

/// Command prefix that gives the cluster's state directory a disk of eight mebibytes.
fn with_small_disk() -> Vec<String> {
    // `TMPDIR` is the test's own directory, in which the state directory is.
    let script = "mkdir -p \"$TMPDIR/state\" && mount -t tmpfs -o size=8m,mode=700 tmpfs \"$TMPDIR/state\" && \
                  exec \"$0\" \"$@\"";
    ["unshare", "--mount", "sh", "-c", script].map(str::to_owned).to_vec()
}

/// Fills the disk of a directory with a file.
fn fill(path: &Path) {
    let mut ballast = File::create(path).unwrap();
    for bytes in [1 << 16, 1 << 12, 1] {
        while ballast.write(&vec![7; bytes]).is_ok_and(|written| written > 0) {}
    }
}

#[test]
fn restartable_actor_is_refused_while_the_disk_of_the_head_is_full() {
    let under = with_small_disk();
    if !is_permitted(&under, "no small disk for one command") {
        return;
    }
    let site = TestCluster::head_under(under, "127.0.0.1", &["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let options = || Box::new(SpawnOptions::restarting());
    job.spawn("kept", SpawnOptions::restarting());
    // The mount is in the namespace of the head.
    let state = site.state();
    let ballast = PathBuf::from(format!("/proc/{}/root{}/ballast", site.nodes[0].head(), state.display()));
    fill(&ballast);
    // The database may have pages left that it has written before.
    let refused =
        (0..200).find_map(|number| match job.reply(Order::Spawn(format!("r{number}"), options())) {
            Reply::Failed(error) => Some(error),
            _ => None,
        });
    let refused = refused.expect("an actor was refused");
    assert!(refused.contains("the head cannot keep its state"), "{refused}");
    let alerts_now = alerts(&site);
    assert_eq!(alerts_now[0]["kind"], "HEAD_STATE", "{alerts_now:?}");
    // What runs goes on. A restart waits: its incarnation must be on disk before it is created.
    job.spawn("plain", SpawnOptions::default());
    let pid = job.pid_of("kept");
    proc::kill(pid.try_into().unwrap());
    wait_for("the restart waits", || {
        site.list("actors").iter().any(|actor| actor["state"] == "RESTARTING").then_some(())
    });
    std::fs::remove_file(ballast).unwrap();
    pid_after(&mut job, "kept", pid);
    wait_for("the head stores actors again", || {
        job.reply(Order::Spawn("late".to_owned(), options())).is_done().then_some(())
    });
    assert_eq!(job.add("late", 3), 3);
    wait_for("the alert is gone", || alerts(&site).is_empty().then_some(()));
    job.finish();
    // No refused actor is left, such as one that was created before the write failed.
    assert_eq!(site.list("actors").iter().filter(|actor| actor["state"] != "DEAD").count(), 0);
}

/// Limit of file descriptors of a process, which is restored on drop.
struct NoMoreFiles(Pid, Rlimit);

impl NoMoreFiles {
    /// Takes from a process the right to open further files. Those that it has stay open.
    fn of(pid: u32) -> Self {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        let before = rustix::process::getrlimit(Resource::Nofile);
        let none = Rlimit { current: Some(8), maximum: before.maximum };
        Self(pid, prlimit(Some(pid), Resource::Nofile, none).unwrap())
    }
}

impl Drop for NoMoreFiles {
    fn drop(&mut self) {
        // Fails only if the process has ended.
        let _ = prlimit(Some(self.0), Resource::Nofile, self.1);
    }
}

/// Checks that a process does not compute for two seconds.
#[track_caller]
fn is_idle(pid: u32) {
    let before = proc::cpu_time(pid);
    thread::park_timeout(Duration::from_secs(2));
    let used = proc::cpu_time(pid) - before;
    assert!(used < Duration::from_millis(400), "it used {used:?} in two seconds");
}

#[test]
fn agent_without_file_descriptors_reports_it_and_starts_workers_once_it_has_some() {
    let site = TestCluster::pair();
    let (mut job, other) = (Job::join(&site), site.nodes[1].clone());
    let name = spawn_on(&site, &mut job, &other, "r");
    let pid = job.pid_of(&name);
    let exhausted = NoMoreFiles::of(other.agent());
    proc::kill(pid.try_into().unwrap());
    let next = pid_after(&mut job, &name, pid);
    assert_eq!(site.node_of(next), site.nodes[0].id);
    wait_for("the reason is an alert", || {
        let alerts = alerts(&site);
        alerts
            .iter()
            .any(|alert| alert["text"].as_str().unwrap().contains("Too many open files"))
            .then_some(())
    });
    is_idle(other.agent());
    assert_eq!(state(&site, &other), "ALIVE");
    drop(exhausted);
    wait_for("the node has a worker again", || {
        let is_there = |worker: &Value| worker["node_id"] == other.id.as_str() && worker["state"] == "ALIVE";
        site.list("workers").iter().any(is_there).then_some(())
    });
    job.spawn("there", SpawnOptions::on(&other));
    assert_eq!(job.add("there", 1), 1);
    job.finish();
}

#[test]
fn head_without_file_descriptors_serves_its_members_and_takes_connections_once_it_has_some() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let head = site.nodes[0].head();
    // With this spawn the driver connects to the head.
    job.spawn("first", SpawnOptions::default());
    let exhausted = NoMoreFiles::of(head);
    let (code, line) = refused(site.roadshow(&["status"]));
    assert!(code != 0 && line.contains("overloaded"), "{code}: {line}");
    let log = site.nodes[0].session.join("logs/head.log");
    wait_for("the log has the reason", || {
        std::fs::read_to_string(&log).unwrap().contains("too many open files").then_some(())
    });
    is_idle(head);
    job.spawn("meanwhile", SpawnOptions::restarting());
    let pid = job.pid_of("meanwhile");
    proc::kill(pid.try_into().unwrap());
    pid_after(&mut job, "meanwhile", pid);
    drop(exhausted);
    assert_eq!(site.list("jobs")[0]["state"], "RUNNING");
    Job::join(&site).finish();
    job.finish();
}

/// Command prefix that shifts the monotonic clock and that of the time since boot.
fn with_clocks_ahead(seconds: u64) -> Vec<String> {
    let seconds = seconds.to_string();
    ["unshare", "--time", "--monotonic", &seconds, "--boottime", &seconds].map(str::to_owned).to_vec()
}

#[test]
fn head_and_nodes_whose_clocks_differ_by_weeks_work_together() {
    let ahead = [2_000_000, 5_000_000].map(with_clocks_ahead);
    if !is_permitted(&ahead[0], "no clock for one command") {
        return;
    }
    let [of_head, of_node] = ahead;
    let mut site = TestCluster::head_under(of_head, "127.0.0.1", &["--num-cpus=1"]);
    let node = site.join_under(&of_node, "127.0.0.1", &["--num-cpus=1"]);
    let joined = Instant::now();
    // The driver has the clocks of this process.
    let mut job = Job::join_with(program_under(&site, &[], "obey"));
    let name = spawn_on(&site, &mut job, &node, "r");
    let pid = job.pid_of(&name);
    proc::kill(pid.try_into().unwrap());
    pid_after(&mut job, &name, pid);
    job.numbers(Order::Tasks(8));
    wait_for("a silent node would be unreachable", || {
        (joined.elapsed() > Duration::from_secs(4)).then_some(())
    });
    let silent = |event: &&Value| event["kind"] == "NODE_UNREACHABLE";
    assert_eq!(site.list("events").iter().filter(silent).count(), 0);
    assert_eq!(site.list("jobs")[0]["state"], "RUNNING");
    job.finish();
}

#[test]
fn restartable_actor_stays_with_a_suspended_worker_or_head_and_moves_from_a_suspended_agent() {
    let mut site = TestCluster::head(&["--num-cpus=1", LONG_LEASE]);
    let other = site.join(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let name = spawn_on(&site, &mut job, &other, "r");
    let pid = job.pid_of(&name);
    let worker = pid.try_into().unwrap();

    proc::signal(worker, Signal::STOP);
    let waits = job.begin(Order::Add(name.clone(), 2));
    wait_for("the worker is shown as suspended", || {
        (site.row("workers", "pid", pid)["state"] == "SUSPENDED").then_some(())
    });
    assert!(job.look(&waits).is_none(), "a suspended worker has replied");
    proc::signal(worker, Signal::CONT);
    assert!(matches!(job.end_of(waits), Reply::Number(2)));

    let head = site.nodes[0].head();
    proc::signal(head, Signal::STOP);
    assert_eq!(job.add(&name, 3), 5, "messages do not pass through the head");
    proc::kill(worker);
    let waits = job.begin(Order::Pid(name.clone()));
    thread::park_timeout(Duration::from_secs(1));
    assert!(!matches!(job.look(&waits), Some(Reply::Number(_))), "it was restarted without the head");
    proc::signal(head, Signal::CONT);
    let next = pid_after(&mut job, &name, pid);
    assert_eq!(site.row("actors", "name", name.as_str())["restarts"], 1);
    assert!(site.list("nodes").iter().all(|node| node["state"] == "ALIVE"));

    let name = if site.node_of(next) == other.id { name } else { spawn_on(&site, &mut job, &other, "s") };
    let pid = job.pid_of(&name);
    job.does(Order::Announce(name.clone()));
    proc::signal(other.agent(), Signal::STOP);
    let next = pid_after(&mut job, &name, pid);
    assert_eq!(site.node_of(next), site.nodes[0].id);
    wait_for_tasks(&mut job, pid, false);
    proc::signal(other.agent(), Signal::CONT);
    wait_for_state(&site, &other, "ALIVE");
    wait_for_ends(&job, 1);
    wait_for_tasks(&mut job, pid, true);
    assert_eq!(job.pid_of(&name), next);
    job.finish();
}

#[test]
fn job_of_a_suspended_driver_fails_with_its_restartable_actors() {
    let site = TestCluster::head(&["--num-cpus=1", "--unreachable-after=2", "--dead-after=5"]);
    let mut job = Job::join(&site);
    job.spawn("r", SpawnOptions::restarting());
    let worker = job.pid_of("r").try_into().unwrap();
    proc::signal(job.driver(), Signal::STOP);
    let failed = wait_for("the job has failed", || {
        Some(site.list("jobs")[0].clone()).filter(|job| job["state"] == "FAILED")
    });
    let why = failed["message"].as_str().unwrap();
    assert!(why.contains("the driver was lost"), "{why}");
    proc::ended(worker);
    assert_eq!(site.list("actors")[0]["state"], "DEAD");
    proc::signal(job.driver(), Signal::CONT);
    let error = job.fails(Order::Add("r".to_owned(), 1));
    assert!(error.contains("job"), "{error}");
    assert!(output(site.roadshow(&["health-check"])).status.success());
}
