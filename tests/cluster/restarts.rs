//! Restarts of actors on a cluster of nodes: their address works again after each failure that they can survive.

use std::time::Instant;

use rustix::process::Signal;

use super::job::{Job, Order, Reply, SpawnOptions};
use super::proc::{self, wait_for};
use super::test_cluster::{Node, TestCluster};

/// Spawns restartable actors until one lives on the node; returns its name, which begins with `prefix`.
pub(super) fn spawn_on(site: &TestCluster, job: &mut Job, node: &Node, prefix: &str) -> String {
    spawn_one_on(site, job, node, prefix, SpawnOptions::restarting())
}

/// Spawns actors with these options until one lives on the node; returns its name.
pub(super) fn spawn_one_on(
    site: &TestCluster,
    job: &mut Job,
    node: &Node,
    prefix: &str,
    options: SpawnOptions,
) -> String {
    for number in 0..8 {
        let name = format!("{prefix}{number}");
        job.spawn(&name, SpawnOptions { name: Some(name.clone()), ..options.clone() });
        let pid = job.pid_of(&name);
        if site.node_of(pid) == node.id {
            return name;
        }
    }
    panic!("no actor was placed on {}", node.id)
}

/// Calls an actor until another process than `pid` replies, which it returns.
pub(super) fn pid_after(job: &mut Job, name: &str, pid: u64) -> u64 {
    wait_for("the next incarnation replies", || match job.reply(Order::Pid(name.to_owned())) {
        Reply::Number(now) => (now != pid).then_some(now),
        Reply::Failed(text) => {
            assert!(text.contains("outcome unknown"), "{text}");
            None
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn restartable_actor_survives_its_worker_and_the_head() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let (head_node, other) = (site.nodes[0].clone(), site.nodes[1].clone());
    let name = spawn_on(&site, &mut job, &other, "r");
    let pid = job.pid_of(&name);
    assert_eq!(job.add(&name, 5), 5);
    let start = Instant::now();
    proc::kill(u32::try_from(pid).unwrap());
    let next = pid_after(&mut job, &name, pid);
    println!("the next incarnation replied after {:?}", start.elapsed());
    // It has the arguments of its spawn, and not the state of the one before.
    assert_eq!(job.add(&name, 1), 1);
    let row = site.row("actors", "name", name.as_str());
    assert_eq!((&row["state"], &row["restarts"]), (&"ALIVE".into(), &1.into()), "{row}");
    let events = site.list("events");
    let restarted = events.iter().find(|event| event["kind"] == "ACTOR_RESTARTED");
    let text = restarted.expect("the restart is an event")["text"].as_str().unwrap().to_owned();
    assert!(text.contains("SIGKILL"), "{text}");

    proc::kill(head_node.head());
    assert_eq!(job.add(&name, 1), 2);
    site.restart_head();
    wait_for("both nodes are back", || {
        site.list("nodes").iter().all(|node| node["state"] == "ALIVE").then_some(())
    });
    // The restarted head has the recipe.
    proc::kill(u32::try_from(next).unwrap());
    let third = pid_after(&mut job, &name, next);
    assert_eq!(job.add(&name, 7), 7);
    assert_eq!(site.row("actors", "name", name.as_str())["restarts"], 2);

    // While the head is away nothing restarts, and calls wait for it.
    proc::kill(head_node.head());
    proc::kill(u32::try_from(third).unwrap());
    let waiting = job.begin(Order::Add(name.clone(), 9));
    site.restart_head();
    match job.end_of(waiting) {
        Reply::Number(sum) => assert_eq!(sum, 9),
        Reply::Failed(text) => {
            assert!(text.contains("outcome unknown"), "{text}");
            pid_after(&mut job, &name, third);
        }
        other => panic!("{other:?}"),
    }
    job.finish();
    assert_eq!(site.list("actors").iter().filter(|actor| actor["state"] != "DEAD").count(), 0);
}

#[test]
fn drained_node_hands_its_restartable_actors_over() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let other = site.nodes[1].clone();
    let name = spawn_on(&site, &mut job, &other, "r");
    let pid = job.pid_of(&name);
    super::test_cluster::output(site.roadshow(&["drain", &other.id]));
    let next = pid_after(&mut job, &name, pid);
    assert_ne!(site.node_of(next), other.id);
    job.finish();
}

#[test]
fn restartable_actor_moves_from_a_node_that_is_silent_and_its_earlier_incarnation_ends() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let other = site.nodes[1].clone();
    let name = spawn_on(&site, &mut job, &other, "r");
    let pid = job.pid_of(&name);
    let workers = proc::children(other.agent());
    // The whole node stops: its agent and its workers.
    let stopped: Vec<u32> = workers.iter().copied().chain([other.agent()]).collect();
    let start = Instant::now();
    stopped.iter().for_each(|pid| drop(proc::signal(*pid, Signal::STOP)));
    let lost = job.reply(Order::Pid(name.clone()));
    println!("the call to the silent node ended after {:?}: {lost:?}", start.elapsed());
    let next = match lost {
        Reply::Number(next) => next,
        _ => pid_after(&mut job, &name, pid),
    };
    println!("the actor replied from elsewhere after {:?}", start.elapsed());
    assert_ne!(next, pid);
    assert_eq!(job.add(&name, 3), 3);
    stopped.iter().rev().for_each(|pid| drop(proc::signal(*pid, Signal::CONT)));
    wait_for("the node is back", || {
        (site.row("nodes", "node_id", other.id.as_str())["state"] == "ALIVE").then_some(())
    });
    // The address stays with the later incarnation, which is the only one that is listed.
    assert_eq!(job.add(&name, 4), 7);
    assert_eq!(job.pid_of(&name), next);
    let row = site.row("actors", "name", name.as_str());
    assert_eq!((&row["state"], &row["restarts"]), (&"ALIVE".into(), &1.into()), "{row}");
    job.finish();
}
