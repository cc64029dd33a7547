//! Failures of processes: head, agent, worker and driver.

use std::fs;
use std::thread;
use std::time::Duration;

use roadshow::internals::config::{HEAD_RPC_TIMEOUT, JOB_LEASE, NODE_LEASE};
use rustix::process::Signal;

use super::job::{Job, Order, Pending, SpawnOptions};
use super::proc::{self, wait_for, wait_within};
use super::test_cluster::{TestCluster, json};

/// Additional time for a lease to expire on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// Begins a call that gets no reply, and waits until its handler has begun.
fn begin_never(job: &mut Job, actor: &str) -> Pending {
    let pending = job.begin(Order::Never(actor.to_owned()));
    // The mailbox is ordered: the reply to a later call shows that the handler has begun.
    job.add(actor, 0);
    pending
}

#[test]
fn job_survives_a_kill_and_restart_of_the_head() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let (one, other) = (site.nodes[0].clone(), site.nodes[1].clone());
    job.spawn("one", SpawnOptions { on: Some(one.id.clone()), ..SpawnOptions::named("one") });
    let kept = SpawnOptions { detached: true, namespace: Some("kept".into()), ..SpawnOptions::on(&other) };
    job.spawn("other", SpawnOptions { name: Some("other".into()), ..kept.clone() });
    assert_eq!((job.add("one", 1), job.add("other", 2)), (1, 2));
    let pids = (job.pid_of("one"), job.pid_of("other"));

    let agent = one.agent();
    proc::kill(one.head());
    // Calls between existing actors do not need the head.
    assert_eq!((job.add("one", 10), job.add("other", 20)), (11, 22));
    let spawned_meanwhile = job.begin(Order::Spawn("meanwhile".into(), Box::default()));
    let again = site.restart_head();
    assert_eq!(again["address"], site.address);
    assert_eq!(one.agent(), agent);

    assert_eq!((job.add("one", 100), job.add("other", 200)), (111, 222));
    assert_eq!((job.pid_of("one"), job.pid_of("other")), pids);
    // The spawn from the time without a head.
    let placed = job.end_of(spawned_meanwhile);
    assert!(placed.is_done(), "{placed:?}\n{}", job.errors());
    assert_eq!(job.add("meanwhile", 1), 1);
    // A new program finds at least the head's own node, for which the restart waits.
    let mut early = Job::join(&site);
    early.spawn("early", SpawnOptions::default());
    early.finish();
    wait_for("both nodes are back", || {
        site.list("nodes").iter().all(|node| node["state"] == "ALIVE").then_some(())
    });
    for name in ["a", "b", "c", "d"] {
        job.spawn(name, SpawnOptions::default());
        assert_eq!(job.add(name, 7), 7);
    }
    // Names are still taken.
    let taken = job.fails(Order::Spawn("again".into(), Box::new(SpawnOptions::named("one"))));
    assert!(taken.contains("one"), "{taken}");
    job.does(Order::Find("found".into(), "one".into(), None));
    assert_eq!(job.add("found", 0), 111);
    job.finish();

    let mut next = Job::join(&site);
    next.does(Order::Find("other".into(), "other".into(), Some("kept".into())));
    assert_eq!(next.add("other", 0), 222);
    next.finish();
    let jobs = site.list("jobs");
    assert!(jobs.iter().all(|job| job["state"] == "SUCCEEDED") && jobs.len() == 3, "{jobs:#?}");
}

#[test]
fn members_rejoin_a_restarted_head_with_their_certificates() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    job.spawn("one", SpawnOptions::default());
    proc::kill(site.nodes[0].head());
    let mut again = site.restart_head_command();
    again.env("ROADSHOW_LOG", "roadshow=info");
    json(again);
    let back = wait_for("both nodes and the driver are back", || {
        let log = fs::read_to_string(site.nodes[0].session.join("logs/head.log")).unwrap_or_default();
        (log.matches("a member has rejoined with its certificate").count() == 3).then_some(log)
    });
    assert!(!back.contains("a certificate was issued"), "{back}");
    wait_for("both nodes are back", || {
        site.list("nodes").iter().all(|node| node["state"] == "ALIVE").then_some(())
    });
    // Only a new program needs a new certificate.
    job.spawn("other", SpawnOptions::default());
    assert_eq!((job.add("one", 1), job.add("other", 2)), (1, 2));
    Job::join(&site).finish();
    let log = fs::read_to_string(site.nodes[0].session.join("logs/head.log")).unwrap();
    assert_eq!(log.matches("a certificate was issued").count(), 1, "{log}");
    job.finish();
}

#[test]
fn workers_of_a_killed_agent_end_and_callers_get_the_cause() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let mut job = Job::join(&site);
    job.spawn("doomed", SpawnOptions { on: Some(node.id.clone()), ..SpawnOptions::named("doomed") });
    job.spawn("spared", SpawnOptions::on(&site.nodes[0]));
    let worker = job.pid_of("doomed");
    let pending = begin_never(&mut job, "doomed");
    proc::kill(node.agent());
    proc::ended(worker.try_into().unwrap());
    assert_eq!(job.add("spared", 1), 1);

    let row = wait_within(NODE_LEASE + SLACK, "the node is dead", || {
        let row = site.row("nodes", "node_id", node.id.clone());
        (row["state"] == "DEAD").then_some(row)
    });
    let lost = job.end_of(pending);
    println!("the node: {}; the call: {}", row["cause"], lost.failure());
    assert!(lost.failure().starts_with("outcome unknown"), "{lost:?}");
    assert!(lost.failure().contains(&node.id), "it does not name the node: {lost:?}");
    let refused = job.fails(Order::Add("doomed".into(), 1));
    assert!(refused.starts_with("not delivered"), "{refused}");
    assert!(row["cause"].is_string(), "{row}");
    assert_eq!(site.row("actors", "name", "doomed")["state"], "DEAD");
    // The name is free, and new work is placed on the remaining node.
    job.spawn("new", SpawnOptions::named("doomed"));
    for name in ["a", "b"] {
        job.spawn(name, SpawnOptions::default());
        assert_eq!(site.node_of(job.pid_of(name)), site.nodes[0].id);
    }
    job.numbers(Order::Tasks(8));
    job.finish();
}

#[test]
fn cause_of_a_killed_worker_names_the_signal() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    job.spawn("doomed", SpawnOptions { on: Some(site.nodes[1].id.clone()), ..SpawnOptions::named("doomed") });
    job.spawn("spared", SpawnOptions::on(&site.nodes[0]));
    let pending = begin_never(&mut job, "doomed");
    let pid = job.pid_of("doomed");
    proc::kill(pid.try_into().unwrap());
    let lost = job.end_of(pending);
    let lost = lost.failure();
    assert!(lost.starts_with("outcome unknown") && lost.contains("SIGKILL"), "{lost}");
    assert!(lost.contains(&pid.to_string()), "{lost}");
    let refused = job.fails(Order::Add("doomed".into(), 1));
    assert!(refused.starts_with("not delivered") && refused.contains("SIGKILL"), "{refused}");
    for (of, field, value) in [("workers", "pid", pid.into()), ("actors", "name", "doomed".into())] {
        let row = wait_for("it is known to be dead", || {
            let row = site.row(of, field, serde_json::Value::clone(&value));
            (row["state"] == "DEAD").then_some(row)
        });
        assert!(row["cause"].as_str().unwrap().contains("SIGKILL"), "{row}");
    }
    assert_eq!(job.add("spared", 1), 1);
    // The agent has started another worker.
    job.spawn("new", SpawnOptions::on(&site.nodes[1]));
    assert_eq!(site.node_of(job.pid_of("new")), site.nodes[1].id);
    job.finish();
}

#[test]
fn job_of_a_killed_driver_fails_and_its_workers_end() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    // Before the kill: a dead driver cannot list its workers.
    let workers = job.numbers(Order::Workers);
    assert_eq!(workers.len(), 2);
    job.spawn("kept", SpawnOptions { detached: true, ..SpawnOptions::named("kept") });
    let kept = job.pid_of("kept");
    job.kill();
    wait_within(JOB_LEASE + SLACK, "its workers end", || {
        let left = workers.iter().filter(|&&pid| proc::runs(pid.try_into().unwrap()));
        (left.count() == 0).then_some(())
    });
    let row = &site.list("jobs")[0];
    assert!(row["state"] == "FAILED" && row["message"].is_string(), "{row}");
    println!("the job: {}", row["message"]);
    assert!(proc::runs(kept.try_into().unwrap()), "the detached actor has ended");
    let mut next = Job::join(&site);
    next.spawn("a", SpawnOptions::default());
    assert_eq!(next.add("a", 1), 1);
    next.finish();
}

#[test]
fn spawn_that_waits_for_crashing_workers_shows_the_reason_and_succeeds_in_the_end() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    // Back-off: the replacements start immediately, after one second, and after two.
    let mut crashed = 0;
    for _ in 0..3 {
        let pid = wait_for("there is another worker", || {
            job.numbers(Order::Workers).first().copied().filter(|pid| *pid != crashed)
        });
        proc::signal(pid.try_into().unwrap(), Signal::ABORT);
        crashed = pid;
    }
    wait_for("its end is known", || (site.row("workers", "pid", crashed)["state"] == "DEAD").then_some(()));
    let pending = job.begin(Order::Spawn("waits".into(), Box::default()));
    let reason = wait_for("the reason is shown", || {
        let status = site.json(&["status"]);
        let reason = status["waiting"][0]["reason"].as_str()?;
        Some(reason.to_owned())
    });
    assert!(reason.contains("crash at their start") && reason.contains("signal 6"), "{reason}");
    assert!(job.end_of(pending).is_done(), "{}", job.errors());
    assert_eq!(job.add("waits", 1), 1);
    job.finish();
}

#[test]
fn tasks_wait_for_the_worker_that_replaces_the_only_one() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let pid = job.numbers(Order::Workers)[0];
    proc::kill(pid.try_into().unwrap());
    // The driver may not know of the end yet: a task is then lost with the worker, and runs again.
    let ran = job.numbers(Order::Tasks(8));
    assert!(ran.len() == 8 && !ran.contains(&pid), "{pid}: {ran:?}");
    job.finish();
}

#[test]
fn suspended_worker_is_shown_until_it_continues_and_its_tasks_are_counted() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let pid: u32 = job.numbers(Order::Workers)[0].try_into().unwrap();
    job.numbers(Order::Tasks(8));
    let finished = || site.list("tasks").iter().map(|task| task["finished"].as_u64().unwrap()).sum::<u64>();
    let counted = wait_for("its tasks are counted", || Some(finished()).filter(|finished| *finished > 0));
    let is_shown = |state: &str, alerts: usize| {
        wait_for(&format!("it is shown as {state}"), || {
            let shown = site.json(&["status"])["alerts"].as_array()?.len();
            let is_it = |row: &serde_json::Value| row["pid"] == pid && row["state"] == state;
            (site.list("workers").iter().any(is_it) && shown == alerts).then_some(())
        });
    };
    proc::signal(pid, Signal::STOP);
    is_shown("SUSPENDED", 1);
    // A restarted head learns both from the reports of the agent.
    proc::kill(site.nodes[0].head());
    site.restart_head();
    is_shown("SUSPENDED", 1);
    assert_eq!(finished(), counted);
    proc::signal(pid, Signal::CONT);
    is_shown("ALIVE", 0);
    job.numbers(Order::Tasks(8));
    job.finish();
    let tasks = site.list("tasks");
    assert!(tasks.iter().all(|task| task["running"] == 0 && task["queued"] == 0), "{tasks:#?}");
    wait_for("all are counted", || (finished() == 2 * counted).then_some(()));
}

#[test]
fn agent_that_was_suspended_gets_the_commands_it_missed() {
    let site = TestCluster::pair();
    let (node, mut job) = (site.nodes[1].clone(), Job::join(&site));
    job.spawn("kept", SpawnOptions { detached: true, name: Some("kept".into()), ..SpawnOptions::on(&node) });
    let pid = job.pid_of("kept").try_into().unwrap();
    proc::signal(node.agent(), Signal::STOP);
    let killed = site.roadshow(&["kill", "kept"]).spawn();
    // Longer than the head's attempts to send the command, and shorter than the node's lease.
    thread::park_timeout(2 * HEAD_RPC_TIMEOUT);
    proc::signal(node.agent(), Signal::CONT);
    assert!(killed.unwrap().wait().unwrap().success());
    proc::ended(pid);
    wait_for("it is known to be dead", || {
        (site.row("actors", "name", "kept")["state"] == "DEAD").then_some(())
    });
    assert_eq!(site.row("nodes", "node_id", node.id)["state"], "ALIVE");
    job.finish();
}
