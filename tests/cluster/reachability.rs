//! Silent nodes: unreachable, alive again or dead; and busy machines, whose nodes stay alive.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use roadshow::internals::config::{NODE_LEASE, NODE_UNREACHABLE_AFTER};
use rustix::process::Signal;
use serde_json::Value;

use super::job::{Job, Order, SpawnOptions};
use super::proc::{self, wait_for, wait_within};
use super::test_cluster::{Node, TestCluster, refused};

/// Additional time on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// Attempts at a measurement that other processes can disturb.
const ATTEMPTS: usize = 5;

fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis().try_into().unwrap()
}

fn state(site: &TestCluster, node: &Node) -> String {
    site.row("nodes", "node_id", node.id.clone())["state"].as_str().unwrap().to_owned()
}

fn wait_for_state(site: &TestCluster, node: &Node, expected: &str) {
    wait_within(NODE_LEASE + SLACK, &format!("the node is {expected}"), || {
        (state(site, node) == expected).then_some(())
    });
}

/// Times of the events of a kind about a node in milliseconds, oldest first.
fn events(site: &TestCluster, node: &Node, kind: &str) -> Vec<u64> {
    let is_it = |event: &&Value| event["kind"] == kind && event["node_id"] == node.id.as_str();
    let mut times: Vec<u64> =
        site.list("events").iter().filter(is_it).map(|event| event["time_ms"].as_u64().unwrap()).collect();
    times.sort_unstable();
    times
}

#[test]
fn suspended_agent_is_unreachable_and_its_workers_work_on() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    let node = site.join(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    job.spawn("kept", SpawnOptions::on(&node));
    let worker = job.pid_of("kept");
    let mut sum = 0;
    let unreachable_after: Vec<u64> = (0..ATTEMPTS)
        .map(|attempt| {
            let stopped = now_ms();
            proc::signal(node.agent(), Signal::STOP);
            wait_for_state(&site, &node, "UNREACHABLE");
            sum += 1;
            assert_eq!(job.add("kept", 1), sum, "messages do not pass through the agent");
            let alerts = site.json(&["status"])["alerts"].clone();
            assert_eq!(alerts[0]["kind"], "UNREACHABLE_NODE", "{alerts}");
            let name = format!("new {attempt}");
            job.spawn(&name, SpawnOptions::default());
            assert_ne!(site.node_of(job.pid_of(&name)), node.id, "it was placed on an unreachable node");
            proc::signal(node.agent(), Signal::CONT);
            wait_for_state(&site, &node, "ALIVE");
            events(&site, &node, "NODE_UNREACHABLE").last().unwrap() - stopped
        })
        .take_while({
            let mut is_done = false;
            move |after| !std::mem::replace(&mut is_done, *after < 4000)
        })
        .collect();
    println!("unreachable after {unreachable_after:?} ms");
    assert!(unreachable_after.iter().any(|after| *after < 4000), "{unreachable_after:?}");
    assert_eq!((job.add("kept", 1), job.pid_of("kept")), (sum + 1, worker));
    assert_eq!(events(&site, &node, "NODE_REACHABLE").len(), events(&site, &node, "NODE_UNREACHABLE").len());
    assert_eq!(site.list("nodes").len(), 2, "the node was given up");
    job.finish();
}

#[test]
fn killed_agent_is_unreachable_and_then_dead() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let killed = now_ms();
    proc::kill(node.agent());
    wait_for_state(&site, &node, "DEAD");
    let times = ["NODE_UNREACHABLE", "NODE_DEAD"].map(|kind| events(&site, &node, kind));
    let [unreachable, dead] = times.map(|times| <[u64; 1]>::try_from(times).unwrap()[0]);
    println!("unreachable after {} ms, dead after {} ms", unreachable - killed, dead - killed);
    let between = Duration::from_millis(dead - unreachable);
    // The first of the two may be noticed a tick late, and the second on time.
    assert!(between + Duration::from_secs(1) > NODE_LEASE - NODE_UNREACHABLE_AFTER, "{between:?}");
}

/// Process that computes at the usual priority; killed when it is dropped.
struct BusyLoop(Child);

impl BusyLoop {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for BusyLoop {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nodes_of_a_busy_machine_stay_alive() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let cores = thread::available_parallelism().unwrap().get();
    let loops: Vec<BusyLoop> = (0..2 * cores).map(|_| BusyLoop::start()).collect();
    let (begun, busy_for) = (Instant::now(), Duration::from_secs(8));
    wait_for("the machine was busy for a while", || (begun.elapsed() >= busy_for).then_some(()));
    drop(loops);
    for kind in ["NODE_UNREACHABLE", "NODE_DEAD"] {
        let silent = site.nodes.iter().flat_map(|node| events(&site, node, kind)).count();
        assert_eq!(silent, 0, "{:#?}", site.list("events"));
    }
    assert_eq!(site.list("jobs")[0]["state"], "RUNNING");
    job.numbers(Order::Tasks(4));
    job.finish();
}

#[test]
fn times_of_silence_are_options_of_the_head() {
    let mut site = TestCluster::head(&["--num-cpus=1", "--unreachable-after=2", "--dead-after=4.5"]);
    let node = site.join(&["--num-cpus=1"]);
    proc::kill(node.agent());
    wait_for_state(&site, &node, "DEAD");
    let row = site.row("nodes", "node_id", node.id);
    assert_eq!(row["cause"], "no heartbeat for 4.5 s");
    for (options, why) in [
        (&["--unreachable-after=1"][..], "at least 2 s"),
        (&["--dead-after=3"], "unreachable after 3 s cannot be dead after 3 s"),
        (&["--dead-after=51"], "at most 50 s"),
    ] {
        let (code, line) = refused(site.roadshow(&[&["start", "--head", "--port=0"], options].concat()));
        assert!(code == 2 && line.contains(why), "{code}: {line}");
    }
}
