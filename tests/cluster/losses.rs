//! Processes that are killed: the head, an agent, a worker, a driver.

use std::fs;
use std::thread;
use std::time::Duration;

use roadshow::config::{HEAD_RPC_TIMEOUT, JOB_LEASE, NODE_LEASE};
use rustix::process::Signal;

use super::job::{Job, Order, Pending, Wish};
use super::proc::{self, wait_for, wait_within};
use super::site::{TestCluster, json};

/// What a lease may take longer on a machine that has much else to do.
const AND_A_BIT: Duration = Duration::from_secs(10);

/// Has a program begin a call without an answer, and waits until its handler has begun.
fn begin_never(job: &mut Job, actor: &str) -> Pending {
    let pending = job.begin(Order::Never(actor.to_owned()));
    // What the actor answers now, it answers after it.
    job.add(actor, 0);
    pending
}

#[test]
fn a_head_that_is_killed_and_started_again_goes_on_with_the_job() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let (one, other) = (site.nodes[0].clone(), site.nodes[1].clone());
    job.spawn("one", Wish { on: Some(one.id.clone()), ..Wish::named("one") });
    let kept = Wish { detached: true, namespace: Some("kept".into()), ..Wish::on(&other) };
    job.spawn("other", Wish { name: Some("other".into()), ..kept.clone() });
    assert_eq!((job.add("one", 1), job.add("other", 2)), (1, 2));
    let pids = (job.pid_of("one"), job.pid_of("other"));

    let agent = one.agent();
    proc::kill(one.head());
    // Nobody needs it for what there is.
    assert_eq!((job.add("one", 10), job.add("other", 20)), (11, 22));
    let asked_meanwhile = job.begin(Order::Spawn("meanwhile".into(), Box::default()));
    let again = site.head_again();
    assert_eq!(again["address"], site.address);
    assert_eq!(one.agent(), agent);

    assert_eq!((job.add("one", 100), job.add("other", 200)), (111, 222));
    assert_eq!((job.pid_of("one"), job.pid_of("other")), pids);
    // What was asked for while there was no head.
    let placed = job.end_of(asked_meanwhile);
    assert!(placed.is_done(), "{placed:?}\n{}", job.errors());
    assert_eq!(job.add("meanwhile", 1), 1);
    // A program that comes now finds the head's node at least.
    let mut early = Job::join(&site);
    early.spawn("early", Wish::default());
    early.finish();
    wait_for("both nodes are back", || {
        site.list("nodes").iter().all(|node| node["state"] == "ALIVE").then_some(())
    });
    for name in ["a", "b", "c", "d"] {
        job.spawn(name, Wish::default());
        assert_eq!(job.add(name, 7), 7);
    }
    // Names are still owned.
    let taken = job.fails(Order::Spawn("again".into(), Box::new(Wish::named("one"))));
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
fn members_come_back_to_a_head_with_the_certificates_that_they_have() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    job.spawn("one", Wish::default());
    proc::kill(site.nodes[0].head());
    let mut again = site.head_again_command();
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
    // A program that comes now has none.
    job.spawn("other", Wish::default());
    assert_eq!((job.add("one", 1), job.add("other", 2)), (1, 2));
    Job::join(&site).finish();
    let log = fs::read_to_string(site.nodes[0].session.join("logs/head.log")).unwrap();
    assert_eq!(log.matches("a certificate was issued").count(), 1, "{log}");
    job.finish();
}

#[test]
fn an_agent_that_is_killed_takes_its_workers_along_and_its_callers_hear_why() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let mut job = Job::join(&site);
    job.spawn("doomed", Wish { on: Some(node.id.clone()), ..Wish::named("doomed") });
    job.spawn("spared", Wish::on(&site.nodes[0]));
    let worker = job.pid_of("doomed");
    let pending = begin_never(&mut job, "doomed");
    proc::kill(node.agent());
    proc::ended(worker.try_into().unwrap());
    assert_eq!(job.add("spared", 1), 1);

    let row = wait_within(NODE_LEASE + AND_A_BIT, "the node is dead", || {
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
    // Its name is free, and all goes to the node that is left.
    job.spawn("new", Wish::named("doomed"));
    for name in ["a", "b"] {
        job.spawn(name, Wish::default());
        assert_eq!(site.node_of(job.pid_of(name)), site.nodes[0].id);
    }
    job.numbers(Order::Tasks(8));
    job.finish();
}

#[test]
fn the_cause_of_a_killed_worker_s_end_names_the_signal() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    job.spawn("doomed", Wish { on: Some(site.nodes[1].id.clone()), ..Wish::named("doomed") });
    job.spawn("spared", Wish::on(&site.nodes[0]));
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
    // Another takes its place.
    job.spawn("new", Wish::on(&site.nodes[1]));
    assert_eq!(site.node_of(job.pid_of("new")), site.nodes[1].id);
    job.finish();
}

#[test]
fn a_killed_driver_s_job_fails_and_its_workers_end() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let workers = job.numbers(Order::Workers);
    assert_eq!(workers.len(), 2);
    job.spawn("kept", Wish { detached: true, ..Wish::named("kept") });
    let kept = job.pid_of("kept");
    job.kill();
    wait_within(JOB_LEASE + AND_A_BIT, "its workers end", || {
        let left = workers.iter().filter(|&&pid| proc::runs(pid.try_into().unwrap()));
        (left.count() == 0).then_some(())
    });
    let row = &site.list("jobs")[0];
    assert!(row["state"] == "FAILED" && row["message"].is_string(), "{row}");
    println!("the job: {}", row["message"]);
    assert!(proc::runs(kept.try_into().unwrap()), "the detached actor has ended");
    let mut next = Job::join(&site);
    next.spawn("a", Wish::default());
    assert_eq!(next.add("a", 1), 1);
    next.finish();
}

#[test]
fn who_waits_for_workers_that_crash_again_and_again_is_told_so_and_gets_one_in_the_end() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    // Another is started at once, then after a second, and then after two.
    let mut killed = 0;
    for _ in 0..3 {
        let pid = wait_for("there is another worker", || {
            job.numbers(Order::Workers).first().copied().filter(|pid| *pid != killed)
        });
        proc::kill(pid.try_into().unwrap());
        killed = pid;
    }
    wait_for("its end is known", || (site.row("workers", "pid", killed)["state"] == "DEAD").then_some(()));
    let pending = job.begin(Order::Spawn("waits".into(), Box::default()));
    let told = wait_for("it is told why it waits", || {
        let status = site.json(&["status"]);
        let reason = status["waiting"][0]["reason"].as_str()?;
        Some(reason.to_owned())
    });
    assert!(told.contains("crash at their start") && told.contains("SIGKILL"), "{told}");
    assert!(job.end_of(pending).is_done(), "{}", job.errors());
    assert_eq!(job.add("waits", 1), 1);
    job.finish();
}

#[test]
fn a_worker_that_a_signal_has_stopped_is_shown_until_it_goes_on_and_its_tasks_are_counted() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let pid: u32 = job.numbers(Order::Workers)[0].try_into().unwrap();
    job.numbers(Order::Tasks(8));
    let finished = || site.list("tasks").iter().map(|task| task["finished"].as_u64().unwrap()).sum::<u64>();
    let counted = wait_for("its tasks are counted", || Some(finished()).filter(|finished| *finished > 0));
    let is_shown = |state: &str, alerts: usize| {
        wait_for(&format!("it is shown as {state}"), || {
            let told = site.json(&["status"])["alerts"].as_array()?.len();
            let is_it = |row: &serde_json::Value| row["pid"] == pid && row["state"] == state;
            (site.list("workers").iter().any(is_it) && told == alerts).then_some(())
        });
    };
    proc::signal(pid, Signal::STOP);
    is_shown("SUSPENDED", 1);
    // Another life of the head hears of both again.
    proc::kill(site.nodes[0].head());
    site.head_again();
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
fn what_an_agent_misses_while_it_is_stopped_for_a_moment_it_is_told_again() {
    let site = TestCluster::pair();
    let (node, mut job) = (site.nodes[1].clone(), Job::join(&site));
    job.spawn("kept", Wish { detached: true, name: Some("kept".into()), ..Wish::on(&node) });
    let pid = job.pid_of("kept").try_into().unwrap();
    proc::signal(node.agent(), Signal::STOP);
    let killed = site.roadshow(&["kill", "kept"]).spawn();
    // So long that the head has given up telling it, and not so long that the node is given up.
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
