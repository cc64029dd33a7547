//! Calls to an actor of another job, and their errors when it ends.

use std::time::{Duration, Instant};

use roadshow::internals::config::NODE_LEASE;

use super::fixtures::Friend;
use super::job::{Job, Order, SpawnOptions};
use super::proc::{self, wait_for};
use super::test_cluster::{Node, TestCluster};

/// Maximum time until a caller gets the error while the head runs, on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Job with a detached actor, and another job that calls it from its driver and from an actor.
struct Neighbours {
    site: TestCluster,
    owner: Job,
    other: Job,
    pid: u32,
}

const KEPT: &str = "kept";

impl Neighbours {
    fn on(site: TestCluster, node: &Node) -> Self {
        let mut owner = Job::join(&site);
        let options =
            SpawnOptions { detached: true, namespace: Some(KEPT.to_owned()), ..SpawnOptions::on(node) };
        owner.spawn(KEPT, SpawnOptions { name: Some(KEPT.to_owned()), ..options });
        let mut other = Job::join(&site);
        other.does(Order::Find(KEPT.to_owned(), KEPT.to_owned(), Some(KEPT.to_owned())));
        other.spawn("finder", SpawnOptions::on(&site.nodes[0]));
        assert_eq!(other.number(friend(Friend::Find(KEPT.to_owned(), KEPT.to_owned()))), 0);
        assert_eq!((other.add(KEPT, 1), other.number(friend(Friend::Add(1)))), (1, 2));
        let pid = owner.pid_of(KEPT).try_into().unwrap();
        Self { site, owner, other, pid }
    }

    /// Checks that calls in flight and later calls fail within `limit` after `kill` has ended the actor's worker.
    fn hear_of(&mut self, kill: impl FnOnce(&TestCluster), limit: Duration, cause: &str) {
        let pending =
            [self.other.begin(Order::Never(KEPT.to_owned())), self.other.begin(friend(Friend::Never))];
        // The mailbox is ordered: the reply to a later call shows that both handlers have begun.
        wait_for("both have begun", || (self.other.number(friend(Friend::Add(0))) == 2).then_some(()));
        self.other.add(KEPT, 0);
        kill(&self.site);
        let begun = Instant::now();
        for pending in pending {
            let lost = self.other.end_of(pending);
            let lost = lost.failure();
            println!("after {:?}: {lost}", begun.elapsed());
            assert!(lost.starts_with("outcome unknown") && lost.contains(cause), "{lost}");
            assert!(lost.contains("spawn its actors again"), "{lost}");
        }
        assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
        self.is_refused(cause);
    }

    /// Checks that calls to the dead actor's address fail immediately.
    fn is_refused(&mut self, cause: &str) {
        let begun = Instant::now();
        for order in [Order::Add(KEPT.to_owned(), 1), friend(Friend::Add(1))] {
            let refused = self.other.fails(order);
            assert!(refused.starts_with("not delivered") && refused.contains(cause), "{refused}");
        }
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }

    fn finish(self) {
        self.other.finish();
        self.owner.finish();
    }
}

fn friend(what: Friend) -> Order {
    Order::Friend("finder".to_owned(), what)
}

#[test]
fn calls_to_another_job_s_actor_fail_when_its_worker_is_killed() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let mut all = Neighbours::on(site, &node);
    let pid = all.pid;
    all.hear_of(|_| proc::kill(pid), SOON, "SIGKILL");
    all.finish();
}

#[test]
fn calls_to_another_job_s_actor_fail_when_its_node_is_lost() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let mut all = Neighbours::on(site, &node);
    // The head declares the node dead only when its lease has expired.
    all.hear_of(|_| proc::kill(node.agent()), NODE_LEASE + 2 * SOON, "node lost");
    all.finish();
}

#[test]
fn calls_fail_after_the_head_restarts_if_the_worker_ended_meanwhile() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let mut all = Neighbours::on(site, &node);
    let pid = all.pid;
    let kill = |site: &TestCluster| {
        proc::kill(site.nodes[0].head());
        proc::kill(pid);
        site.restart_head();
    };
    all.hear_of(kill, NODE_LEASE + SOON, "its worker ended");
    all.finish();
}

#[test]
fn address_that_was_unused_since_the_actor_ended_fails_immediately() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let node = site.nodes[0].clone();
    let mut all = Neighbours::on(site, &node);
    proc::kill(all.pid);
    wait_for("the head knows", || (all.site.row("actors", "name", KEPT)["state"] == "DEAD").then_some(()));
    all.is_refused("SIGKILL");
    all.finish();
}
