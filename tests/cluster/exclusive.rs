//! Exclusive actors on a cluster of nodes: no incarnation runs once the next one has begun.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::job::{Job, Order, Reply, SpawnOptions};
use super::proc::{self, wait_for, wait_within};
use super::restarts::{pid_after, spawn_one_on};
use super::test_cluster::{Node, TestCluster};

/// Time in which an actor of a silent node replies from elsewhere, on a busy machine.
const MOVES_WITHIN: Duration = Duration::from_secs(14);

/// Exclusive actor on a node that is not the head's, which writes its incarnation to a file all the time.
struct Marking {
    site: TestCluster,
    job: Job,
    node: Node,
    name: String,
    pid: u64,
    file: Marks,
}

/// File with marks, which is removed with the test.
struct Marks(PathBuf);

impl Drop for Marks {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Marking {
    fn start(test: &str) -> Self {
        let site = TestCluster::pair();
        let mut job = Job::join(&site);
        let node = site.nodes[1].clone();
        let name = spawn_one_on(&site, &mut job, &node, "r", SpawnOptions::exclusive());
        let file = std::env::temp_dir().join(format!("roadshow-{test}-{}", std::process::id()));
        let mut this = Self { pid: job.pid_of(&name), site, job, node, name, file: Marks(file) };
        this.mark();
        this
    }

    fn mark(&mut self) {
        self.job.does(Order::Mark(self.name.clone(), self.file.0.display().to_string()));
    }

    /// Incarnations in the order of their marks.
    fn marks(&self) -> Vec<u32> {
        let text = fs::read_to_string(&self.file.0).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Waits until the actor replies from another process, and lets that one mark the file, too.
    fn moves(&mut self) -> u64 {
        let begun = Instant::now();
        let next = pid_after(&mut self.job, &self.name, self.pid);
        println!("it replied from elsewhere after {:?}", begun.elapsed());
        assert!(begun.elapsed() < MOVES_WITHIN);
        self.mark();
        next
    }

    /// Checks the marks, some time after all processes run again.
    fn expect_exclusive(self) {
        let site = &self.site;
        wait_for("the node is back", || {
            (site.row("nodes", "node_id", self.node.id.as_str())["state"] == "ALIVE").then_some(())
        });
        let before = self.marks().len();
        wait_for("the later incarnation marks on", || (self.marks().len() > before + 50).then_some(()));
        let marks = self.marks();
        assert!(marks.contains(&0) && marks.contains(&1), "{marks:?}");
        assert!(marks.is_sorted(), "{marks:?}");
        let row = site.row("actors", "name", self.name.as_str());
        assert_eq!((&row["state"], &row["restarts"]), (&"ALIVE".into(), &1.into()), "{row}");
        self.job.finish();
    }
}

fn stop(pids: &[u32]) {
    pids.iter().for_each(|pid| drop(proc::signal(*pid, Signal::STOP)));
}

fn go_on(pids: &[u32]) {
    pids.iter().for_each(|pid| drop(proc::signal(*pid, Signal::CONT)));
}

#[test]
fn incarnation_of_a_stopped_node_runs_nothing_when_the_node_continues() {
    let mut marking = Marking::start("stopped-node");
    let mut all = proc::children(marking.node.agent());
    all.push(marking.node.agent());
    stop(&all);
    marking.moves();
    // The workers first: their agent has not told them of anything.
    go_on(&all);
    marking.expect_exclusive();
}

#[test]
fn incarnation_ends_by_itself_while_its_agent_is_stopped() {
    let mut marking = Marking::start("stopped-agent");
    let agent = [marking.node.agent()];
    stop(&agent);
    marking.moves();
    // Its worker has run all the time.
    assert!(proc::runs(u32::try_from(marking.pid).unwrap()));
    go_on(&agent);
    marking.expect_exclusive();
}

#[test]
fn worker_whose_handler_overruns_the_lease_is_killed_before_the_next_incarnation() {
    let mut marking = Marking::start("overrun");
    let (worker, agent) = (u32::try_from(marking.pid).unwrap(), [marking.node.agent()]);
    let computing = marking.job.begin(Order::Compute(marking.name.clone()));
    let mut last = (0, Instant::now());
    wait_for("the handler computes, and no mark is made", || {
        let marks = marking.marks().len();
        if marks != last.0 {
            last = (marks, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(500)).then_some(())
    });
    stop(&agent);
    wait_within(MOVES_WITHIN, "the worker ends", || (!proc::runs(worker)).then_some(()));
    marking.moves();
    assert!(matches!(marking.job.end_of(computing), Reply::Failed(_)));
    go_on(&agent);
    marking.expect_exclusive();
}

#[test]
fn drained_node_ends_the_incarnation_before_the_next_one_begins() {
    let mut marking = Marking::start("drained");
    super::test_cluster::output(marking.site.roadshow(&["drain", &marking.node.id]));
    let next = marking.moves();
    assert_ne!(marking.site.node_of(next), marking.node.id);
    let marks = marking.marks();
    assert!(marks.contains(&0) && marks.contains(&1) && marks.is_sorted(), "{marks:?}");
    marking.job.kill();
}
